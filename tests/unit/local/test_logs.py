"""Logs that supervisord rotates: read whole, followed without a gap."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from reviewmesh.local.logs import LONGEST_LINE, Follower, last_lines


def rotate(log: Path) -> None:
    log.rename(log.with_name(f"{log.name}.1"))
    log.touch()


@given(
    st.lists(
        st.one_of(st.text("ab\n", max_size=6), st.sampled_from(["rotate", "look"])), max_size=12
    )
)
def test_a_follower_misses_nothing_and_repeats_nothing(steps: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "x.log"
        log.write_text("before\n")
        seen: list[str] = []
        written, looked = "", True
        with Follower(log) as follower:
            for step in steps:
                if step == "look":
                    seen += follower.lines()
                    looked = True
                # More than one rotation between two looks would be 20 MB in a fifth of a second.
                elif step == "rotate" and looked:
                    rotate(log)
                    looked = False
                elif step != "rotate":
                    with log.open("a") as file:
                        file.write(step)
                    written += step
            seen += follower.lines()
        whole = written.split("\n")[:-1]
        assert seen == whole


def test_the_last_lines_go_back_over_a_rotation(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("1\n2\n3\n")
    rotate(log)
    log.write_bytes(b"4\n\xff broken\nno end")
    assert last_lines(log, 4) == ["3", "4", "� broken", "no end"]
    assert last_lines(log, 0) == []
    assert last_lines(tmp_path / "none.log", 3) == []


def test_a_line_without_an_end_takes_bounded_memory(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.touch()
    with Follower(log) as follower:
        with log.open("a") as file:
            file.write("x" * (3 * LONGEST_LINE))
        lines = list(follower.lines())
    assert [len(line) for line in lines] == [LONGEST_LINE] * 3


def test_a_log_that_is_not_there_yet_is_followed(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    with Follower(log) as follower:
        assert list(follower.lines()) == []
        log.write_text("first\n")
        assert list(follower.lines()) == ["first"]
