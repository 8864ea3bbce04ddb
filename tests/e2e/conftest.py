"""A whole mesh per test module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker import TestStack
from tests.mesh import Mesh


@pytest.fixture(scope="module")
def mesh(stack: TestStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    folder: Path = tmp_path_factory.mktemp("mesh")
    mesh = Mesh(stack, f"e{folder.parent.name[-3:]}{folder.name[-1]}.", folder)
    try:
        mesh.start()
        yield mesh
    finally:
        mesh.stop()
