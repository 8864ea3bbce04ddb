"""`reviewmesh cost`: its table, its refusals, and what it prints of strangers."""

from __future__ import annotations

import io
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from reviewmesh.cli.app import app
from reviewmesh.cli.cost import dollars, row_of, short, table_of
from reviewmesh.cli.terminal import PlainConsole
from reviewmesh.query.cost import DIMENSIONS, MEASURES, Costs, Total
from tests.unit.cli.test_terminal import NASTY, steers

LARGE = Counter(dict.fromkeys(MEASURES, 1_234_567_890))


def printed(costs: Costs, width: int) -> str:
    console = PlainConsole()
    console.width = width
    console.file = io.StringIO()
    console.print(table_of(costs))
    return console.file.getvalue()


@pytest.mark.parametrize("text", NASTY)
def test_a_stranger_is_text_on_the_terminal(text: str) -> None:
    shown = printed(Costs(("business",), {(text,): Total(1)}), 200)
    for line in shown.splitlines():
        assert not steers(line)


def test_eighty_columns_hold_large_sums() -> None:
    costs = Costs(
        ("task", "model", "route"),
        {
            ("sentiment", "gpt-4.1-mini-2025-04-14", "fallback"): Total(99_999, 5, LARGE),
            ("topic", None, "primary"): Total(3, 0, Counter(), Counter(cost_micros=3)),
        },
    )
    shown = printed(costs, 80)
    assert all(len(line) <= 80 for line in shown.splitlines()), shown
    assert "1,234.567890" in shown


def test_what_is_unknown_is_no_zero() -> None:
    costs = Costs(
        ("task",),
        {
            ("ner",): Total(2, 0, Counter(cost_micros=5), Counter(cost_micros=1)),
            ("topic",): Total(2, 0, Counter(), Counter(dict.fromkeys(MEASURES, 2))),
        },
    )
    _, ner, topic, everything = printed(costs, 200).splitlines()
    assert ner.split()[-2:] == ["0.000005+", "1"]
    assert topic.split() == ["topic", "2", "0", "-", "-", "-", "-", "-", "-", "2"]
    assert everything.split()[-2:] == ["0.000005+", "3"]


def test_in_json_what_no_answer_tells_is_null() -> None:
    told = {name: Counter(dict.fromkeys(MEASURES, 1)) for name in ("sums", "unknown")}
    some = row_of(("task",), ("ner",), Total(2, 0, **told))
    none = row_of(("task",), (None,), Total(1, 0, Counter(), told["unknown"]))
    for name in MEASURES:
        assert (some[name], none[name]) == (1, None)
    assert none["task"] is None


@pytest.mark.parametrize(
    ("micros", "shown"),
    [(0, "0.000000"), (87, "0.000087"), (1_000_000, "1.000000"), (12_345_678_901, "12,345.678901")],
)
def test_money_is_exact(micros: int, shown: str) -> None:
    assert dollars(micros) == shown


@given(st.integers(0, 2**63))
def test_money_reads_back_as_it_was(micros: int) -> None:
    whole, _, rest = dollars(micros).replace(",", "").partition(".")
    assert int(whole + rest) == micros


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0"),
        (99_999, "99,999"),
        (100_000, "100k"),
        (999_999, "999k"),
        (1_239_999, "1.23M"),
        (12_345_678, "12.3M"),
        (1_000_000_000, "1.00G"),
        (999 * 10**12, "999T"),
    ],
)
def test_counts_are_cut_to_six_characters(number: int, shown: str) -> None:
    assert short(number) == shown


@pytest.mark.parametrize(
    "words",
    [
        ["--by", "colour"],
        ["--by", "task,task"],
        ["--by", ""],
        ["--since", "yesterday"],
        ["--until", "99999999w ago"],
        ["--since", "2026-11-30", "--until", "2026-11-29"],
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_read(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVIEWMESH_KAFKA__BOOTSTRAP_SERVERS", "broker.invalid:9092")
    done = CliRunner().invoke(app, ["cost", *words])
    assert done.exit_code == 2, done.output
    assert "expected" in done.output


def test_the_dimensions_are_those_that_the_help_names() -> None:
    done = CliRunner().invoke(app, ["cost", "--help"], env={"COLUMNS": "200"})
    assert ",".join(DIMENSIONS) in done.output
