"""What the pages tell a reader to paste works as it stands, in a fresh clone with its own mesh.

Pasted are the blocks of commands that need nothing but a clone and a mesh, and the README's program
in Python. One page is one shell: what a block exports holds in the next one.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.broker import wait_until
from tests.docs.pages import DOCS, PAGES, ROOT, RUNS_UNTIL_STOPPED, Block, blocks_of, name_of

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(3000)]

README = ROOT / "README.md"
QUICK_START = DOCS / "quickstart.md"
BLOCK_TIMEOUT_S = 900
COMES_WITHIN_S = 300
ENDS_WITHIN_S = 120
STARTS_A_MESH = re.compile(r"^make demo|reviewmesh up\b", re.M)


def pasted(page: Path) -> list[Block]:
    return [
        block
        for block in blocks_of(page)
        if (block.language == "sh" and set(block.marks) <= {RUNS_UNTIL_STOPPED})
        or (block.language == "python" and page == README)
    ]


class Shell:
    """Of somebody who pastes block after block."""

    def __init__(self, clone: Path, output: Path) -> None:
        self.clone = clone
        self.output = output
        self.environment = {
            name: value
            for name, value in os.environ.items()
            # What this machine has downloaded once is not downloaded again.
            if name == "REVIEWMESH_CACHE_DIR" or not name.startswith(("REVIEWMESH_", "PYTHON"))
        }
        if active := self.environment.pop("VIRTUAL_ENV", None):
            paths = self.environment["PATH"].split(":")
            self.environment["PATH"] = ":".join(path for path in paths if active not in path)

    def paste(self, block: Block) -> None:
        if RUNS_UNTIL_STOPPED in block.marks:
            self._paste_and_stop(block)
        elif block.language == "python":
            self.run(f"python - <<'END'\n{block.text}END", block)
        else:
            self.run(block.text, block)

    def run(self, commands: str, block: Block | None = None) -> None:
        """All must succeed; what they leave in the environment holds for later ones."""
        kept = self.output.with_suffix(".environment")
        process = self._start(f"{commands}\nenv -0 > '{kept}'")
        try:
            code = process.wait(BLOCK_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise AssertionError(f"{block}: still runs:\n{self.said()}") from None
        assert code == 0, f"{block}: exit code {code}:\n{self.said()}"
        pairs = kept.read_text(encoding="utf-8").rstrip("\0").split("\0")
        self.environment = dict(pair.split("=", 1) for pair in pairs)

    def _paste_and_stop(self, block: Block) -> None:
        """Ctrl-C once its last command does what it is for."""
        last = block.commands()[-1].partition(" #")[0]
        process = self._start(block.text)
        try:
            is_at_work = self._at_work(last)
            wait_until(
                lambda: process.poll() is not None or is_at_work(), COMES_WITHIN_S, f"{block}"
            )
            assert process.poll() is None, f"{block} ended by itself:\n{self.said()}"
            os.killpg(process.pid, signal.SIGINT)
            code = process.wait(ENDS_WITHIN_S)
            assert code in (0, 130, -signal.SIGINT), (
                f"{block}: exit code {code} after Ctrl-C:\n{self.said()}"
            )
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _at_work(self, command: str) -> Callable[[], bool]:
        if command.startswith("make demo"):
            return lambda: "Ctrl-C" in self.said()
        if re.search(r"reviewmesh up$", command.strip()):
            return self._is_mesh_ready
        assert "reviewmesh tail" in command and "--json" in command, (
            f"how does one see that this is at work? {command}"
        )
        return self._is_tail_showing_records

    def _is_mesh_ready(self) -> bool:
        return self._quietly(".venv/bin/reviewmesh ps") == 0

    def _is_tail_showing_records(self) -> bool:
        # Published again and again: a tail shows what comes after it has begun.
        review = f'{{"review_id": "shown-{time.time_ns()}", "text": "Anna was kind."}}'
        self._quietly(f"echo '{review}' | .venv/bin/reviewmesh publish -")
        return any(line.startswith("{") for line in self.said().splitlines())

    def _quietly(self, command: str) -> int:
        return subprocess.run(
            ["bash", "-c", command], cwd=self.clone, env=self.environment, capture_output=True
        ).returncode

    def _start(self, commands: str) -> subprocess.Popen[bytes]:
        # A block ends with the first of its commands that fails.
        with self.output.open("wb") as output:
            return subprocess.Popen(
                ["bash", "-e", "-c", commands],
                cwd=self.clone,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # A group of its own, which Ctrl-C reaches as a whole.
                start_new_session=True,
            )

    def said(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of what is committed."""
    folder = tmp_path_factory.mktemp("fresh") / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    return folder


@pytest.fixture
def shell(clone: Path, tmp_path: Path) -> Iterator[Shell]:
    """Its mesh goes with the test, and with its data: the next page finds a fresh one."""
    yield Shell(clone, tmp_path / "output")
    if (clone / ".venv/bin/reviewmesh").exists():
        Shell(clone, tmp_path / "down").run(".venv/bin/reviewmesh down --purge")


@pytest.mark.parametrize("page", [page for page in PAGES if pasted(page)], ids=name_of)
def test_a_page_can_be_pasted(page: Path, shell: Shell) -> None:
    blocks = pasted(page)
    if page not in (README, QUICK_START):
        shell.run("make setup\n. .venv/bin/activate")
        if not any(STARTS_A_MESH.search(block.text) for block in blocks):
            shell.paste(pasted(QUICK_START)[0])
    for block in blocks:
        shell.paste(block)
