"""A whole mesh per test module, and the command line on the run's broker."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker import TestStack
from tests.command_line import Run, reviewmesh
from tests.mesh import Mesh


@pytest.fixture(scope="module")
def mesh(stack: TestStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    folder: Path = tmp_path_factory.mktemp("mesh")
    with Mesh(stack, f"e{folder.parent.name[-3:]}{folder.name[-1]}.", folder) as mesh:
        mesh.start()
        yield mesh


@pytest.fixture
def run(stack: TestStack, prefix: str, tmp_path: Path) -> Run:
    """Run a command on the topics of one test."""
    stack.grant(prefix)
    environment = os.environ | stack.environment() | {"REVIEWMESH_PREFIX": prefix}
    return lambda *words, stdin="": reviewmesh(environment, tmp_path, *words, stdin=stdin)
