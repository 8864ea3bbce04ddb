"""The demo's summary: counts, and the latency of each stage."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from rich.console import Group
from rich.text import Text

from reviewmesh.cli.tables import FittingTable, right
from reviewmesh.query.reconciliation import Reconciliation

PERCENTILES = (50, 95, 99)
RESULTS = ("ner_at", "topic_at", "sentiment_at")

Timings = dict[str, Any]

STAGES: dict[str, Callable[[Timings], int | None]] = {
    "end to end": lambda at: _between(at["origin_at"], at["enriched_at"]),
    "intake: published to accepted": lambda at: _between(at["origin_at"], at["accepted_at"]),
    "ner: accepted to result": lambda at: _between(at["accepted_at"], at["ner_at"]),
    "topic: accepted to result": lambda at: _between(at["accepted_at"], at["topic_at"]),
    "sentiment: accepted to result": lambda at: _between(at["accepted_at"], at["sentiment_at"]),
    "join: last result to enriched": lambda at: _between(_last_result(at), at["enriched_at"]),
}


def closing_table(reconciliation: Reconciliation) -> Group:
    """The number of reviews by outcome, and latencies per stage."""
    ours = reconciliation.ours()
    counts = FittingTable("", *right("reviews"))
    for name, number in (
        ("in", len(reconciliation.published)),
        ("enriched", len(ours)),
        ("duplicates dropped", len(reconciliation.duplicates)),
        ("dead letters", len(reconciliation.dead_letters)),
    ):
        counts.add_row(name, str(number))
    timings = [record["timings"] for record in ours if record["timings"] is not None]
    latencies = FittingTable("", *right(*(f"p{percent}" for percent in PERCENTILES)))
    for name, measure in STAGES.items():
        values = sorted(value for at in timings if (value := measure(at)) is not None)
        latencies.add_row(name, *(_shown(percentile(values, p)) for p in PERCENTILES))
    titles = [Text(words, style="italic") for words in ("what became of them", "\nmilliseconds")]
    return Group(titles[0], counts, titles[1], latencies)


def percentile(ordered: list[int], percent: int) -> int | None:
    """The nearest rank; None of nothing."""
    if not ordered:
        return None
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _last_result(at: Timings) -> int | None:
    return max((at[name] for name in RESULTS if at[name] is not None), default=None)


def _between(start: int | None, end: int | None) -> int | None:
    # Two machines' clocks may differ by more than a stage takes.
    return None if start is None or end is None else max(0, end - start)


def _shown(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
