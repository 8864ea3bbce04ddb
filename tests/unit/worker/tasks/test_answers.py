"""Answers: what training asks for is what serving reads."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reviewmesh_worker.tasks.answers import (
    answer_of,
    read_spans,
    spans_grammar,
    words_in_answer,
    words_of,
)
from reviewmesh_worker.tasks.definition import load_tasks

TASKS = load_tasks()
NER, TOPIC, SENTIMENT = TASKS["ner"], TASKS["topic"], TASKS["sentiment"]


def test_a_label_is_one_word_of_its_own() -> None:
    assert answer_of(SENTIMENT, {"sentiment": "mixed"}) == " mixed"
    assert words_in_answer(SENTIMENT) == 1
    assert "mixed" in words_of(SENTIMENT)


def test_topics_answer_with_one_word_each_in_the_order_of_the_task() -> None:
    topic = {"topic": TOPIC.label_ids[1], "polarity": "negative"}
    words = answer_of(TOPIC, {"topics": [topic]}).split()
    assert words == ["none", "negative"] + ["none"] * (words_in_answer(TOPIC) - 2)
    assert set(words) <= set(words_of(TOPIC))


names = st.lists(
    st.tuples(st.sampled_from(NER.label_ids), st.sampled_from(["Ana", "Rio", "Ana Rio", "é😀"])),
    max_size=8,
)


@given(names, st.text(alphabet="ab .", max_size=5))
def test_the_answer_to_a_labelled_row_reads_back_as_its_entities(
    labelled: list[tuple[str, str]], gap: str
) -> None:
    text, entities = "", []
    for label, name in labelled:
        text += gap + "| "
        start, end = len(text), len(text) + len(name)
        entities.append({"start": start, "end": end, "label": label, "text": name})
        text += name
    answer = answer_of(NER, {"entities": entities})
    spans = read_spans(NER, answer, text)
    assert [(s.start, s.end, s.label) for s in spans] == [
        (e["start"], e["end"], e["label"]) for e in entities
    ]


def test_names_that_the_text_does_not_hold_and_labels_of_no_task_are_left_out() -> None:
    said = [
        {"label": "person", "text": "Adolf"},
        {"label": "deity", "text": "Ana"},
        {"label": "person", "text": " "},
        {"label": "person", "text": "Ana"},
    ]
    spans = read_spans(NER, json.dumps(said), "Ana was kind")
    assert [(span.start, span.end, span.position) for span in spans] == [(0, 3, 3)]


@pytest.mark.parametrize("answer", ["", "positive", "{}", '["Ana"]', '[{"label": "person"}]'])
def test_what_is_no_list_of_names_is_refused(answer: str) -> None:
    with pytest.raises(ValueError):
        read_spans(NER, answer, "Ana")


def test_the_grammar_knows_the_task_s_labels() -> None:
    assert all(f'"{label}"' in spans_grammar(NER) for label in NER.label_ids)
