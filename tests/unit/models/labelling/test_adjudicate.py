"""Decisions of people: the keys, the journal that survives, and what comes of them."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from typer.testing import CliRunner

from reviewmesh_models.cli.__main__ import app
from reviewmesh_models.labelling.adjudication import (
    CONFIRM,
    KEYS,
    Dispute,
    JudgeSession,
    disputes_of,
    screen,
)
from reviewmesh_models.labelling.decisions import (
    DecidedUnit,
    Decision,
    DecisionsError,
    Journal,
    agreed,
    read_judges,
)
from reviewmesh_models.labelling.results import labelled, write_results
from reviewmesh_models.labelling.reviews import Review
from reviewmesh_models.labelling.store import Store
from tests.unit.models.labelling.made import TASKS, make, moods

LABELS = ("positive", "negative", "neutral", "mixed")
MOODS = TASKS["sentiment"]


def unit(number: int) -> DecidedUnit:
    return DecidedUnit("sentiment", MOODS.digest, f"key {number}", None)


def disputes(number: int) -> list[Dispute]:
    return [Dispute(unit(at), f"review {at}", LABELS) for at in range(number)]


class Judging(RuleBasedStateMachine):
    """A session against a list of decisions, with kills between any two keys."""

    folder: Path

    def __init__(self) -> None:
        super().__init__()
        for file in self.folder.glob("*.jsonl"):
            file.unlink()
        self.disputes = disputes(4)
        self.decided: list[tuple[DecidedUnit, str]] = []
        self.chosen: str | None = None
        self.open()

    def open(self) -> None:
        self.journal = Journal(self.folder, "one")
        self.session = JudgeSession(self.disputes, self.journal, 0.0)
        self.chosen = None

    @rule(key=st.sampled_from(KEYS[:6]))
    def choose(self, key: str) -> None:
        self.session.press(key, 1.0)
        if self.session.dispute is not None and KEYS.index(key) < len(LABELS):
            self.chosen = LABELS[KEYS.index(key)]

    @rule(key=st.sampled_from(CONFIRM))
    def confirm(self, key: str) -> None:
        dispute = self.session.dispute
        if self.session.press(key, 2.0) == "decided":
            assert dispute is not None and self.chosen is not None
            self.decided.append((dispute.unit, self.chosen))
            self.chosen = None

    @rule()
    def undo(self) -> None:
        self.session.press("u", 3.0)
        if self.chosen is not None:
            self.chosen = None
        elif self.decided:
            taken, _ = self.decided.pop()
            assert self.session.dispute is not None and self.session.dispute.unit == taken

    @rule()
    def skip(self) -> None:
        self.session.press("s", 4.0)
        if self.session.dispute is not None:
            self.chosen = None

    @rule(torn=st.sampled_from([b"", b'{"unit": {"tas']))
    def killed(self, torn: bytes) -> None:
        self.journal.close()
        with (self.folder / "decisions-one.jsonl").open("ab") as file:
            file.write(torn)
        self.open()

    @invariant()
    def holds_what_was_decided(self) -> None:
        kept = [(one.unit, one.label) for one in self.journal.decisions]
        assert kept == self.decided
        assert self.session.left == len(self.disputes) - len(self.decided)
        assert self.session.chosen == self.chosen
        on_disk = read_judges(self.folder)["one"]
        assert [(one.unit, one.label) for one in on_disk] == self.decided

    def teardown(self) -> None:
        self.journal.close()


def test_no_order_of_keys_and_kills_loses_a_decision(tmp_path: Path) -> None:
    class JudgingHere(Judging):
        folder = tmp_path

    run_state_machine_as_test(
        JudgingHere, settings=settings(max_examples=40, stateful_step_count=20, deadline=None)
    )


def test_a_decision_takes_two_keys(tmp_path: Path) -> None:
    session = JudgeSession(disputes(1), Journal(tmp_path, "one"), 10.0)
    assert [session.press("2", 11.0), session.press("\r", 12.5)] == ["chosen", "decided"]
    assert read_judges(tmp_path)["one"] == [Decision(unit(0), "negative", 2.5)]


def test_a_text_cannot_steer_the_terminal_or_pose_as_the_screen(tmp_path: Path) -> None:
    text = "good\x1b[2J\u202e txet\r\nWhich label\x07"
    session = JudgeSession([Dispute(unit(0), text, LABELS)], Journal(tmp_path, "one"), 0.0)
    shown = screen(session)
    assert all(mark not in shown for mark in "\x1b\u202e\r\x07")
    assert "  | Which label\\x07" in shown


def test_a_judge_is_named_plainly(tmp_path: Path) -> None:
    with pytest.raises(DecisionsError, match="judge's name"):
        Journal(tmp_path, "../other")


def reviews(number: int) -> list[Review]:
    return [Review(f"review {at}") for at in range(number)]


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "reviews_train.jsonl").read_text().splitlines()]


def test_a_decision_is_what_the_row_has_and_a_quarrel_leaves_it_out(tmp_path: Path) -> None:
    make(
        tmp_path,
        reviews(10),
        {
            "sentiment": {
                "first": moods(*["positive"] * 8, "negative", "negative"),
                "second": moods(*["positive"] * 8, "positive", "mixed"),
            }
        },
    )
    with Store(tmp_path) as store:
        found = labelled(store, TASKS, {})
        listed = disputes_of(found)
        assert {one.text for one in listed} == {"review 8", "review 9"}
        for judge, words in {"a": ("neutral", "mixed"), "b": ("neutral", "positive")}.items():
            journal = Journal(tmp_path, judge)
            for one in listed:
                journal.add(Decision(one.unit, words[one.text == "review 9"], 1.0))
            journal.close()
        decided = agreed(read_judges(tmp_path))
        again = labelled(store, TASKS, decided)
        assert [one.unit for one in disputes_of(again)] != []
        write_results(again, tmp_path)
    moods_of = {row["text"]: row["sentiment"] for row in rows(tmp_path)}
    assert moods_of["review 8"] == "neutral" and "review 9" not in moods_of
    assert len(moods_of) == 9


def test_at_a_real_terminal(tmp_path: Path) -> None:
    make(
        tmp_path,
        [Review("fine"), Review("so \x1b[31mlala")],
        {
            "sentiment": {
                "first": moods("positive", "mixed"),
                "second": moods("negative", "neutral"),
            }
        },
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*command("adjudicate", str(tmp_path), "--judge", "one")],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(theirs)
    shown = read_until(ours, b"2 left")
    # As fast as keys can come: none is lost.
    os.write(ours, b"1\r2")
    shown += read_until(ours, b"1 left", b"2 >")
    os.write(ours, b"q")
    shown += read_until(ours, b"written to")
    while drained := drain(ours):
        shown += drained
    os.close(ours)
    assert process.wait(60) == 0
    assert b"\x1b[31m" not in shown and b"\\x1b[31mlala" in shown
    [decision] = read_judges(tmp_path)["one"]
    assert decision.label == "positive"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "reviewmesh_models.cli", *arguments]


def drain(terminal: int) -> bytes:
    """Empty when the other side has closed it."""
    try:
        ready, _, _ = select.select([terminal], [], [], 60)
        return os.read(terminal, 4096) if ready else b""
    except OSError:
        return b""


def read_until(terminal: int, *words: bytes) -> bytes:
    seen, until = b"", time.monotonic() + 60
    while not all(one in seen for one in words):
        assert time.monotonic() < until, seen
        part = drain(terminal)
        assert part, seen
        seen += part
    return seen


def test_without_a_terminal_it_says_so(tmp_path: Path) -> None:
    make(
        tmp_path,
        [Review("a")],
        {"sentiment": {"first": moods("positive"), "second": moods("mixed")}},
    )
    result = CliRunner().invoke(app, ["adjudicate", str(tmp_path), "--judge", "one"])
    assert result.exit_code == 1 and "expected a terminal" in result.stderr


def test_agreement_is_written_and_told(tmp_path: Path) -> None:
    make(
        tmp_path,
        [Review("a"), Review("b")],
        {"sentiment": {"first": moods("positive", "mixed"), "second": moods("mixed", "mixed")}},
    )
    result = CliRunner().invoke(app, ["agreement", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "sentiment, all: alpha" in result.stdout
    assert (tmp_path / "agreement.html").read_text().startswith("<!doctype html>")


def test_without_a_labelling_there_is_nothing_to_decide(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["adjudicate", str(tmp_path), "--judge", "one"])
    assert result.exit_code == 1 and "expected a labelling" in result.stderr
