"""What a file of budgets says, and each way to get it wrong with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from reviewmesh.leaving.amounts import Amount
from reviewmesh.leaving.budgets import ALL, Limit, parse_budgets, read_budgets
from reviewmesh.leaving.yamlfile import FileProblem

BUDGETS = """\
# Both tasks share it.
tasks: [topic, sentiment]
call:
  tokens: 6000
  usd: 0.004
all:
  day: {requests: 24000, usd: 19.99}
  month: {usd: 300}
businesses:
  acme:
    day: {tokens: 1_200_000}
  never:
    month: {requests: 0}
"""
PARTITIONS = 6


def test_a_budget_is_divided_over_tasks_and_partitions() -> None:
    budgets = parse_budgets(BUDGETS, PARTITIONS)
    assert budgets.tasks == ("topic", "sentiment")
    assert budgets.call == Amount(1, 6000, 4000)
    assert budgets.share(ALL, "day") == Limit(2000, None, 1_665_833)
    assert budgets.share(ALL, "month") == Limit(None, None, 25_000_000)
    assert budgets.share("acme", "day") == Limit(None, 100_000, None)
    assert budgets.share("acme", "month") == budgets.share("other", "day") == Limit()
    assert budgets.share("never", "month") == Limit(0, None, None)
    assert budgets.own() == ["acme", "never"]


def test_all_may_be_unlimited_but_has_to_be_said() -> None:
    budgets = parse_budgets("all: unlimited\n", PARTITIONS)
    assert budgets.tasks == ("ner", "topic", "sentiment")
    assert budgets.share(ALL, "day") == Limit()


def test_what_is_over_a_limit() -> None:
    limit = Limit(2, 10, None)
    assert limit.exceeded_by(Amount(2, 10, 1_000)) is None
    assert limit.exceeded_by(Amount(3, 10, 0)) == "requests"
    assert limit.exceeded_by(Amount(2, 11, 0)) == "tokens"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "1: expected `all`"),
        ("call: {tokens: 1}\n", "1: all: expected it, got nothing"),
        ("all: nothing\n", "1: all: expected unlimited, or day and month"),
        ("all:\n  week: {requests: 1}\n", "2: all.week: there is no such setting"),
        ("all:\n  day: {requests: -1}\n", "2: all.day.requests: Input should be greater"),
        ("all:\n  day: {usd: .nan}\n", "2: all.day.usd: "),
        ("all:\n  day: {requests: 1.5}\n", "2: all.day.requests: "),
        ("all: unlimited\ntasks: [topic, mood]\n", "2: tasks.1: expected one of ner, topic"),
        ("all: unlimited\ntasks: []\n", "2: tasks: expected at least one"),
        ("all: unlimited\nall: unlimited\n", "2: all is given twice"),
        ("all:\n  month: {usd: 5}\n", "2: all.month.usd: expected call.usd beside it"),
        ("all:\n  day: {tokens: 5}\n", "2: all.day.tokens: expected call.tokens beside it"),
        # An entry that limits nothing would let everything leave.
        ("all: {}\n", "1: all: expected day or month"),
        ("all:\n  day:\n", "1: all: expected day or month"),
        ("all:\n  day: {}\n", "2: all.day: expected requests, tokens or usd"),
        ("all:\n  day:\n    usd:\n", "2: all.day: expected requests, tokens or usd"),
        (
            "all: unlimited\nbusinesses:\n  acme: {}\n",
            "3: businesses.acme: expected day or month",
        ),
        ("all: unlimited\ncall: {usd: 0.0000001}\n", "2: call.usd: Input should be greater"),
        # No worker and no reader could be told of it.
        ("all: unlimited\ncall: {tokens: 10000000000}\n", "2: call.tokens: Input should be less"),
        ("all: unlimited\ncall: {usd: 1000000000.0}\n", "2: call.usd: Input should be less"),
        ("all:\n  day: {requests: 1e30}\n", "2: all.day.requests: "),
        (f"all:\n  day: {{requests: {10**30}}}\n", "2: all.day.requests: Input should be less"),
        ("all:\n  day: {requests: 17}\n", "2: all.day.requests: expected 0, or at least 18: "),
        (
            "call: {usd: 0.01}\nall: unlimited\nbusinesses:\n  acme:\n    month: {usd: 0.17}\n",
            "5: businesses.acme.month.usd: expected 0, or at least 0.18: ",
        ),
    ],
)
def test_each_mistake_is_told_with_its_line(text: str, told: str) -> None:
    with pytest.raises(FileProblem) as caught:
        parse_budgets(text, PARTITIONS)
    assert str(caught.value).startswith(told)


def test_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "budgets.yaml"
    with pytest.raises(FileProblem, match=r"budgets\.yaml"):
        read_budgets(path, PARTITIONS)
    path.write_text("all:\n  day: {requests: 1}\n")
    with pytest.raises(FileProblem) as caught:
        read_budgets(path, PARTITIONS)
    assert str(caught.value).startswith(f"{path}:2: all.day.requests: ")
    path.write_text(BUDGETS)
    assert read_budgets(path, PARTITIONS).call == Amount(1, 6000, 4000)
