"""What a chat model is shown: the task's fixed words first, the review last.

A review is data. Whatever in it a tokenizer would take for the turn of a conversation is taken out,
so that a customer can never speak as the system or as the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from reviewmesh_worker.tasks.definition import Task


def prefix_of(task: Task) -> str:
    """The text before the review: the same for every review of the task."""
    labels = "\n".join(f"- {label.id}: {label.means}" for label in task.labels)
    return task.template.removesuffix("{review}").replace("{labels}", labels)


def without_turn_tokens(text: str, turn_tokens: Iterable[str]) -> str:
    """The text without the strings that the model's tokenizer holds special.

    Removing one must not join what stood around it into another.
    """
    marks = sorted((mark for mark in turn_tokens if mark.strip()), key=len, reverse=True)
    if not marks:
        return text
    pattern = re.compile("|".join(re.escape(mark) for mark in marks), re.IGNORECASE)
    # A space in its place: what stood on both sides never becomes a token of its own.
    return pattern.sub(" ", text)
