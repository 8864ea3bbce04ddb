"""The names in the environment that some part of the project reads: another one is a mistake.

One environment may serve all processes (compose, a pod's config map), so each of them must know
what is meant for the others.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

PREFIX = "REVIEWMESH_"
# Each with names of its own behind `__`.
SECTIONS = frozenset(
    {
        "HTTP",
        "INSIGHTS",
        "INTAKE",
        "JOIN",
        "KAFKA",
        "LAG",
        "LOG",
        "REGISTRY",
        "VLLM",
        "WORKER",
        "WORKERS",
    }
)
NAMES = frozenset(
    {
        "BENCH_REVIEWS",
        "CACHE_DIR",
        "FAULT_SEEDS",
        "FUZZ_RECORDS",
        "GRACE_S",
        "LOCAL_STACK",
        "PREFIX",
        "SLOT",
        "STATE_DIR",
        "TEST_STACK",
        "VLLM_CAUSES",
    }
)
# Kubernetes tells every container of a namespace where its services are: one that is named
# reviewmesh-intake gives REVIEWMESH_INTAKE_SERVICE_HOST and so on.
OF_KUBERNETES = re.compile(r".*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)\w*)?)")


def unknown_settings(names: Iterable[str]) -> list[str]:
    """A line for each name of ours that nothing reads, with the one that may have been meant."""
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
