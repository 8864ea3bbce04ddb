"""Prompts: the task first, the review last, and no review that speaks as anybody else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reviewmesh_worker.tasks.definition import load_tasks
from reviewmesh_worker.tasks.prompt import prefix_of, without_turn_tokens

TURNS = ("<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>")
TASKS = load_tasks()


def test_a_prefix_names_every_label_and_leaves_no_placeholder() -> None:
    for task in TASKS.values():
        assert all(label.id in prefix_of(task) for label in task.labels)
        assert "{labels}" not in prefix_of(task) and "{review}" not in prefix_of(task)


def test_what_looks_like_a_placeholder_in_a_review_stays() -> None:
    text = "It {labels} was {review} fine"
    assert without_turn_tokens(text, TURNS) == text


@given(st.text(alphabet="<>/_ostaruefndb x", max_size=60), st.lists(st.sampled_from(TURNS)))
def test_no_turn_token_is_left_however_they_are_nested(noise: str, turns: list[str]) -> None:
    text = noise
    for turn in turns:
        middle = len(text) // 2
        text = text[:middle] + turn + text[middle:]
    left = without_turn_tokens(text, TURNS).lower()
    assert not any(turn in left for turn in TURNS)


@given(st.text())
def test_a_text_without_them_is_left_as_it_is(text: str) -> None:
    if not any(turn in text.lower() for turn in TURNS):
        assert without_turn_tokens(text, TURNS) == text
