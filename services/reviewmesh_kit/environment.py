"""The environment variables that some part of the project reads; any other REVIEWMESH_* is an
error.

Processes may share one environment (compose, a pod's config map), so each has to know the variables
of the others.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

PREFIX = "REVIEWMESH_"
# Each with settings of its own after `__`.
SECTIONS = frozenset(
    {
        "CANDIDATES",
        "CONSOLE",
        "FALLBACKS",
        "HTTP",
        "INSIGHTS",
        "INTAKE",
        "JOIN",
        "KAFKA",
        "LAG",
        "LOG",
        "OPENAI",
        "REGISTRY",
        "REPROCESS",
        "SIGNIN",
        "TLS",
        "TRACES",
        "VLLM",
        "WORKER",
        "WORKERS",
    }
)
NAMES = frozenset(
    {
        "BENCH_REVIEWS",
        "BUDGETS",
        "CACHE_DIR",
        "FAULT_SEEDS",
        "FUZZ_RECORDS",
        "GRACE_S",
        "INSIGHTS_PYTHON",
        "LOCAL_STACK",
        "POLICY",
        "PREFIX",
        "SLOT",
        "STATE_DIR",
        "TEST_SECURE",
        "TEST_STACK",
        "VLLM_CAUSES",
    }
)
# Parts of the names of settings that hold a secret; librdkafka's options included.
SECRET_WORDS = (
    "authorization",
    "password",
    "passphrase",
    "secret",
    "pem",
    "token",
    "oauthbearer_config",
)
LARGEST_SECRET = 64 * 1024
# Kubernetes sets variables for every service of a namespace: for one named reviewmesh-intake,
# REVIEWMESH_INTAKE_SERVICE_HOST and so on.
OF_KUBERNETES = re.compile(r".*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)\w*)?)")


class WrongSecretFile(ValueError):
    """The message names the variable and what was expected, and holds no secret."""


def with_secrets_of_files(variables: Mapping[str, str | None]) -> dict[str, str | None]:
    """The variables, each REVIEWMESH_…__<SECRET>_FILE replaced by what the file holds.

    Containers mount secrets as files. A line break at the end does not count. Raises
    WrongSecretFile.
    """
    found = dict(variables)
    for name, path in variables.items():
        _, nested, own = name.lower().removeprefix(PREFIX.lower()).partition("__")
        if not name.upper().startswith(PREFIX) or not nested or not own.endswith("_file"):
            continue
        if not any(word in own for word in SECRET_WORDS):
            continue
        secret = name[: -len("_file")]
        shown = name.upper()
        if secret in variables:
            raise WrongSecretFile(f"expected {shown} or {secret.upper()}, got both")
        found[secret] = _secret(shown, path or "")
        del found[name]
    return found


def _secret(name: str, path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            secret = file.read(LARGEST_SECRET + 1)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise WrongSecretFile(
            f"{name}: expected a file that holds the secret, got {path}: {why}"
        ) from None
    if len(secret) > LARGEST_SECRET or not secret.strip("\r\n"):
        raise WrongSecretFile(
            f"{name}: expected a secret of 1 to {LARGEST_SECRET} characters in {path}, got "
            f"{'more' if secret.strip() else 'none'}"
        )
    return secret.rstrip("\r\n")


def unknown_settings(names: Iterable[str]) -> list[str]:
    """A message for each REVIEWMESH_* variable that nothing reads, with the closest known one."""
    problems = []
    for name in sorted(names):
        rest = name.upper().removeprefix(PREFIX)
        if not name.upper().startswith(PREFIX) or OF_KUBERNETES.fullmatch(rest):
            continue
        section, nested, _ = rest.partition("__")
        if rest not in NAMES and not (nested and section in SECTIONS):
            problems.append(f"{name}: there is no such setting{_meant(rest)}")
    return problems


def _meant(rest: str) -> str:
    section, nested, own = rest.partition("__")
    if not nested:
        for known in sorted(SECTIONS, key=len, reverse=True):
            if rest.startswith(f"{known}_"):
                return f"; did you mean {PREFIX}{known}__{rest[len(known) + 1 :]}?"
    close = difflib.get_close_matches(section, SECTIONS if nested else NAMES, 1)
    return f"; did you mean {PREFIX}{close[0]}{nested}{own}?" if close else ""
