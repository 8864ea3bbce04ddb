"""Raw to enriched on the real broker, with the scripted engine behind the real worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker import TestStack
from tests.mesh import Mesh, assert_exactly_once, reviews


@pytest.fixture
def mesh(stack: TestStack, prefix: str, tmp_path: Path) -> Iterator[Mesh]:
    mesh = Mesh(stack, prefix, tmp_path)
    try:
        mesh.start()
        yield mesh
    finally:
        mesh.stop()


def test_every_review_comes_out_once_in_order(mesh: Mesh) -> None:
    published = reviews(500, versions=2)
    mesh.publish(published)
    assert_exactly_once(published, mesh.wait_enriched(1000))
    assert mesh.dead_letters() == []
