"""Reviews with an order to a model before or behind them, whose labels stay as they are.

The patterns of `tasks.instructions` find orders in words that they know. This teaches a model to
answer the review where an order is worded otherwise.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Final

from reviewmesh_kit.yamltext import load_yaml
from reviewmesh_models.evaluation.rows import Row
from reviewmesh_worker.tasks import SENTIMENT, TOPIC
from reviewmesh_worker.tasks.definition import Task

_SHARE: Final = 0.12
"""Of the reviews, how many are learned from with an order as well."""


def orders() -> list[str]:
    """The sentences, with `{label}` and `{topic}` in them."""
    file = resources.files("reviewmesh_models.training") / "orders.yaml"
    found: list[str] = load_yaml(file.read_text(encoding="utf-8"))
    return found


def with_orders(rows: Sequence[Row], tasks: Mapping[str, Task]) -> list[Row]:
    """Copies of some of the rows, each with an order; the same ones for the same rows."""
    chance = random.Random(len(rows))
    sentences = orders()
    made: list[Row] = []
    for row in rows:
        if chance.random() >= _SHARE:
            continue
        order = chance.choice(sentences).format(
            label=chance.choice(tasks[SENTIMENT].label_ids),
            topic=chance.choice(tasks[TOPIC].label_ids),
        )
        parts = [row["text"], order] if chance.random() < 0.7 else [order, row["text"]]
        made.append({**row, "text": chance.choice((" ", "\n", " ")).join(parts)})
    return made
