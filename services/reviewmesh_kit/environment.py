"""The environment variables that some part of the project reads; any other REVIEWMESH_* is an
error.

Processes may share one environment (compose, a pod's config map), so each has to know the variables
of the others.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

PREFIX = "REVIEWMESH_"
# Each with settings of its own after `__`.
SECTIONS = frozenset(
    {
        "CANDIDATES",
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
        "TLS",
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
        "TEST_STACK",
        "VLLM_CAUSES",
    }
)
# Kubernetes sets variables for every service of a namespace: for one named reviewmesh-intake,
# REVIEWMESH_INTAKE_SERVICE_HOST and so on.
OF_KUBERNETES = re.compile(r".*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)\w*)?)")


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
