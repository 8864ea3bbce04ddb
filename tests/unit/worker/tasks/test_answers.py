"""Answers: what training asks for is what serving reads."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reviewmesh_worker.tasks.answers import (
    answer_form,
    answer_of,
    answer_schema,
    read_json_label,
    read_json_polarities,
    read_json_spans,
    read_spans,
    spans_grammar,
    words_in_answer,
    words_of,
)
from reviewmesh_worker.tasks.definition import Task, load_tasks

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


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_a_schema_allows_nothing_but_the_answer(task: Task) -> None:
    schema = answer_schema(task)
    assert schema["required"] == list(schema["properties"])
    assert schema["additionalProperties"] is False
    # What is asked for in words is what the schema holds the model to.
    if task is not TOPIC:
        assert all(f'"{name}"' in answer_form(task) for name in schema["properties"])


@given(st.dictionaries(st.sampled_from(TOPIC.label_ids), st.sampled_from(words_of(TOPIC))))
def test_topics_are_read_from_an_object_that_names_them_all(said: dict[str, str]) -> None:
    if said.keys() == set(TOPIC.label_ids):
        spoken_of = {topic: word for topic, word in said.items() if word != "none"}
        assert read_json_polarities(TOPIC, json.dumps(said)) == spoken_of
    else:
        with pytest.raises(ValueError, match="expected one of none, positive"):
            read_json_polarities(TOPIC, json.dumps(said))


@given(names)
def test_names_are_read_from_an_object_as_from_a_list(found: list[tuple[str, str]]) -> None:
    text = " and ".join(words for _, words in found)
    listed = [{"label": label, "text": words} for label, words in found]
    spans = read_json_spans(NER, json.dumps({"names": listed}), text)
    assert spans == read_spans(NER, json.dumps(listed), text)


@given(st.text() | st.from_regex(r"[\[{\"]{0,5}(names|label)?.{0,20}"))
def test_whatever_a_model_says_is_an_answer_or_a_value_error(said: str) -> None:
    for read in (
        lambda: read_json_label(SENTIMENT, said),
        lambda: read_json_polarities(TOPIC, said),
        lambda: read_json_spans(NER, said, "Anna"),
    ):
        with pytest.raises(ValueError):
            read()
