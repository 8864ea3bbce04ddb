"""One mesh for all faults of a module; each scenario publishes reviews of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.broker import TestStack
from tests.faults.scenario import SEEDS, Scenario
from tests.mesh import Mesh


def pytest_generate_tests(metafunc: Any) -> None:
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", SEEDS)


@pytest.fixture(scope="module")
def mesh(breakable_stack: TestStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    folder: Path = tmp_path_factory.mktemp("mesh")
    with Mesh(breakable_stack, f"f{folder.name[-1]}{os.getpid()}.", folder) as mesh:
        mesh.start()
        yield mesh


@pytest.fixture
def scenario(mesh: Mesh, request: pytest.FixtureRequest, seed: int) -> Scenario:
    return Scenario(mesh, request.node.name, seed)
