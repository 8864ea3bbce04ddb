"""A rolling upgrade from the last release, and its rollback, while reviews flow."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.broker import TestStack
from tests.mesh import SERVICES, Mesh, Process, assert_exactly_once
from tests.stream import Stream

LAST_RELEASE = "3d7d0ff"
"""Version 0.1.0."""
ROOT = Path(__file__).parents[2]
PACKAGES = ("services", "inference-worker", "protos", "schemas")
APPLY = "from reviewmesh.cli.app import main; main()"

# The repository's history has to be there, and a clean clone of CI may be shallow.
pytestmark = pytest.mark.nightly


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The source of the last release."""
    tree = tmp_path_factory.mktemp("release") / "tree"
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--force", "--detach", str(tree), LAST_RELEASE], check=True)
    try:
        yield tree
    finally:
        subprocess.run([*git, "remove", "--force", str(tree)], check=True)


class RollingMesh(Mesh):
    """Each process runs the last release or this version."""

    release: Path
    kills: bool
    """Whether processes are killed for it, and not stopped in order."""

    def run_release(self, name: str) -> None:
        self.replace(name, self.release)

    def run_this(self, name: str) -> None:
        self.replace(name, None)

    def replace(self, name: str, tree: Path | None) -> None:
        """Stop it in order where it runs, and start the other version of it."""
        if (running := self.processes.get(name)) is not None:
            if self.kills:
                running.kill()
            else:
                assert running.terminate() == 0, f"{name} did not stop in order"
        process = self.add(name)
        if tree is not None:
            self.of(process, tree)
        process.start()
        self.wait_for(process.is_ready, 120, f"{name} is ready")
        # The last release had no such endpoint.
        assert (process.get("/version")[0] == 200) is (tree is None), name

    def of(self, process: Process, tree: Path) -> None:
        process.folder = tree
        process.environment["PYTHONPATH"] = ":".join(str(tree / name) for name in PACKAGES)

    def apply_topics_of_release(self) -> None:
        cli = Process("cli", [sys.executable, "-c", APPLY, "topics", "apply"], {}, Path(), 0)
        cli.environment = dict(self.add("intake").environment)
        del self.processes["intake"]
        self.of(cli, self.release)
        subprocess.run(cli.command, env=cli.environment, cwd=cli.folder, check=True, timeout=120)


@pytest.fixture
def mesh(
    stack: TestStack,
    prefix: str,
    tmp_path: Path,
    release: Path,
    request: pytest.FixtureRequest,
) -> Iterator[RollingMesh]:
    mesh = RollingMesh(stack, prefix, tmp_path)
    mesh.release, mesh.kills = release, request.param == "killed"
    with mesh:
        yield mesh


def goes_on(stream: Stream, wanted: int) -> bool:
    return len(stream.enriched()) >= wanted


@pytest.mark.parametrize("mesh", ["in order", "killed"], indirect=True)
def test_each_service_is_upgraded_and_rolled_back_in_turn(mesh: RollingMesh) -> None:
    mesh.apply_topics_of_release()
    order = ["worker", *SERVICES]
    for name in order:
        mesh.run_release(name)
    with Stream(mesh, every_s=0.02) as stream:
        mesh.wait_for(partial(goes_on, stream, 20), 60, "reviews come out")
        mesh.apply_topics()
        for name in order:
            mesh.run_this(name)
            mesh.wait_for(partial(goes_on, stream, len(stream.enriched()) + 20), 60, "output")
        for name in reversed(order):
            mesh.run_release(name)
            mesh.wait_for(partial(goes_on, stream, len(stream.enriched()) + 20), 60, "output")
    assert_exactly_once(stream.published, stream.wait_enriched())
