"""Orders to a model, beside reviews that they change nothing of."""

from __future__ import annotations

from importlib import resources

import yaml

from reviewmesh_models.training.orders import orders, with_orders
from reviewmesh_models.training.rows import normalised
from reviewmesh_worker.tasks.definition import load_tasks

TASKS = load_tasks()
ROWS = [
    {"text": f"Review {number}.", "topics": [], "sentiment": "neutral"} for number in range(500)
]


def test_some_reviews_get_an_order_and_keep_their_labels() -> None:
    made = with_orders(ROWS, TASKS)
    assert 30 < len(made) < 90
    assert made == with_orders(ROWS, TASKS)
    for row in made:
        assert "Review " in row["text"] and len(row["text"]) > len("Review 499.") + 3
        assert "{" not in row["text"]
        assert (row["topics"], row["sentiment"]) == ([], "neutral")


def test_the_orders_that_packages_are_scored_with_are_not_learned() -> None:
    learned = {normalised(order) for order in orders()}
    file = resources.files("reviewmesh_models.evaluation") / "hostile.yaml"
    for templates in yaml.safe_load(file.read_text(encoding="utf-8")).values():
        for template in templates:
            scored = normalised(template.replace("{review}", " "))
            assert not any(order in scored for order in learned)
    golden = [normalised(row["text"]) for task in TASKS.values() for row in task.golden]
    for order in learned:
        assert not any(order in text for text in golden)
