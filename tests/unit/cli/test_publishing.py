"""What became of each row, in whatever order the broker acknowledges."""

from __future__ import annotations

import gzip
import json
import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reviewmesh.cli import publish
from reviewmesh.cli.publishing import Settled

# Not `ru_maxrss`: a process inherits that from the one that started it, here the test runner's.
MEASURED = """
from pathlib import Path
from reviewmesh.cli.__main__ import main
try:
    main()
finally:
    lines = Path("/proc/self/status").read_text().splitlines()
    print("peak", next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024)
"""
MOST_MB = 300


@given(st.permutations(range(1, 30)), st.integers(0, 29), st.integers(1, 3))
def test_up_to_a_row_means_every_row(order: list[int], acknowledged: int, step: int) -> None:
    settled = Settled(5)
    for number in range(1, 30):
        settled.opened(5 + number * step)
    for number in order[:acknowledged]:
        settled.settled(5 + number * step)
    done = set(order[:acknowledged])
    first_missing = next(number for number in range(1, 31) if number not in done)
    assert settled.up_to == (5 if first_missing == 1 else 5 + (first_missing - 1) * step)
    assert settled.pending == 29 - acknowledged


def test_the_command_to_go_on_is_this_one_from_a_later_row(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["reviewmesh", "publish", "my reviews.csv", "--skip", "3", "--map", "id=review_id"]
    monkeypatch.setattr(sys, "argv", [*words, "--skip=4"])
    wanted = "reviewmesh publish 'my reviews.csv' --map id=review_id --skip 7"
    assert publish._command(7) == wanted


def test_on_a_terminal_progress_is_shown_and_the_output_is_still_the_output(tmp_path: Path) -> None:
    path = tmp_path / "reviews.jsonl"
    path.write_text('{"text": "fine", "stars": "4"}\n' * 1000)
    terminal, side = pty.openpty()
    with (tmp_path / "out").open("w+") as out:
        running = subprocess.Popen(
            [sys.executable, "-m", "reviewmesh.cli", "publish", str(path), "--dry-run"],
            stdout=out,
            stderr=side,
            env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
        )
        os.close(side)
        shown = b""
        # Reading a terminal whose other end is closed is an error.
        with suppress(OSError):
            while part := os.read(terminal, 4096):
                shown += part
        assert running.wait(60) == 0, shown
        out.seek(0)
        assert json.load(out)["stars"] == 4.0
    os.close(terminal)
    assert b"would be published, 0 refused" in shown
    assert "━" in shown.decode("utf-8", "replace")


@pytest.mark.parametrize("form", ["json", "csv", "array"])
def test_a_row_of_any_length_costs_bounded_memory(form: str, tmp_path: Path) -> None:
    """Half a gigabyte that lies in a file of half a megabyte."""
    start = {"json": b'{"text": "', "csv": b'text\n"', "array": b'[{"text": "'}[form]
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(start)
        for _ in range(512):
            file.write(b"a" * 1024 * 1024)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, "publish", str(path), "--dry-run"],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 1, done.stderr
    assert "expected a row of at most 8,388,608 bytes" in done.stderr
    assert int(done.stdout.split()[-1]) < MOST_MB
