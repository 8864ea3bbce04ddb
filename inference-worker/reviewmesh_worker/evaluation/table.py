"""The scores as tables for a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

Scores = dict[str, Any]


def print_scores(scores: Scores, console: Console) -> None:
    console.print(_summary(scores))
    for title, part in (
        ("sentiment", scores["sentiment"]["labels"]),
        ("topics", scores["topics"]["labels"]),
        ("entities by label", scores["entities"]["labels"]),
        ("entities by source", scores["entities"]["sources"]),
    ):
        console.print(_labels(title, part))
    console.print(_languages(scores["languages"]))


def _summary(scores: Scores) -> Table:
    rows, model = scores["rows"], scores["model"]
    table = Table(title=f"model version {model['version']}, {model['digest'][:19]}…")
    for heading in ("score", "rows", "value"):
        table.add_column(heading)
    reviews, entities = str(rows["reviews"]), str(rows["entities"])
    sentiment, topics = scores["sentiment"], scores["topics"]
    for name, count, value in (
        ("sentiment accuracy", reviews, sentiment["accuracy"]),
        ("sentiment macro F1", reviews, sentiment["macro_f1"]),
        ("sentiment expected calibration error", reviews, sentiment["expected_calibration_error"]),
        ("topics micro F1", reviews, topics["micro_f1"]),
        (
            "polarity accuracy on gold topics",
            reviews,
            scores["polarity"]["accuracy_on_gold_topics"],
        ),
        ("polarity macro F1 on gold topics", reviews, scores["polarity"]["macro_f1"]),
        ("entities span F1", entities, scores["entities"]["span_f1"]),
    ):
        table.add_row(name, count, f"{value:.4f}")
    return table


def _labels(title: str, labels: Scores) -> Table:
    table = Table(title=title)
    for heading in ("label", "precision", "recall", "F1", "gold", "said"):
        table.add_column(heading)
    for label, part in labels.items():
        numbers = (f"{part[name]:.3f}" for name in ("precision", "recall", "f1"))
        table.add_row(label, *numbers, str(part["gold"]), str(part["said"]))
    return table


def _languages(languages: Scores) -> Table:
    table = Table(title="sentiment in other languages (own short reviews)")
    for heading in ("language", "rows", "accuracy"):
        table.add_column(heading)
    for language, part in languages.items():
        table.add_row(language, str(part["rows"]), f"{part['sentiment_accuracy']:.2f}")
    return table
