"""From a worker's answer to the fields of a result record."""

from __future__ import annotations

import math

import pytest

from reviewmesh.enrich.results import UnusableAnswer, lineage_of, payload
from reviewmesh_protos.inference.v1 import inference_pb2
from reviewmesh_schemas.names import TASKS

TEXT = "👍 Anna liked it"


def entity(start: int, end: int, text: str) -> inference_pb2.Entity:
    return inference_pb2.Entity(start=start, end=end, text=text, label="person", score=0.5)


def test_spans_are_code_points_and_those_that_do_not_hold_are_left_out() -> None:
    output = inference_pb2.NerOutput(
        entities=[
            entity(7, 12, "liked"),
            entity(2, 6, "Anna"),
            entity(3, 7, "Anna"),
            entity(-4, -1, "d i"),
            entity(6, 6, ""),
            entity(2, 600, TEXT[2:]),
        ]
    )
    spans = [(e["start"], e["end"]) for e in payload("ner", output, TEXT)["entities"]]
    assert spans == [(2, 6), (7, 12)]


def test_topics_come_likeliest_first_and_an_empty_polarity_is_none() -> None:
    output = inference_pb2.TopicOutput(
        topics=[
            inference_pb2.Topic(id="a", score=0.2, polarity="positive"),
            inference_pb2.Topic(id="b", score=0.9),
        ]
    )
    topics = payload("topic", output, TEXT)["topics"]
    assert [(topic["id"], topic["polarity"]) for topic in topics] == [
        ("b", None),
        ("a", "positive"),
    ]


def test_what_the_engine_did_not_measure_is_none_and_zero_is_zero() -> None:
    lineage = inference_pb2.Lineage(task="ner", engine="onnx", model="m", model_version="1")
    usage = inference_pb2.Usage(inference_ms=0)
    fields = lineage_of(lineage, usage, attempts=2)
    assert fields is not None
    assert (fields["inference_ms"], fields["queue_ms"], fields["attempts"]) == (0, None, 2)
    assert fields["prompt_version"] is None
    assert lineage_of(None, None, 1) is None


def test_what_a_provider_took_comes_with_its_name_and_the_route() -> None:
    lineage = inference_pb2.Lineage(task="ner", engine="openai", model="m", provider="openai")
    usage = inference_pb2.Usage(
        prompt_tokens=120,
        cached_tokens=64,
        completion_tokens=9,
        cost_micros=87,
        provider_requests=1,
    )
    fields = lineage_of(lineage, usage, 1, "fallback")
    assert fields is not None
    assert fields["provider"] == "openai"
    assert fields["route"] == "fallback"
    assert [
        fields[name]
        for name in (
            "prompt_tokens",
            "cached_tokens",
            "completion_tokens",
            "cost_micros",
            "provider_requests",
        )
    ] == [120, 64, 9, 87, 1]


def test_a_model_of_ones_own_has_no_provider_and_a_price_that_is_not_known_is_none() -> None:
    fields = lineage_of(inference_pb2.Lineage(task="ner"), inference_pb2.Usage(), 1)
    assert fields is not None
    assert fields["route"] == "primary"
    assert (fields["provider"], fields["provider_requests"], fields["cost_micros"]) == (None,) * 3


OF_TASK = {
    "ner": inference_pb2.NerOutput(),
    "topic": inference_pb2.TopicOutput(),
    "sentiment": inference_pb2.SentimentOutput(),
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("other", TASKS)
def test_only_the_tasks_own_kind_of_answer_is_one(task: str, other: str) -> None:
    if task == other:
        payload(task, OF_TASK[other], TEXT)
        return
    with pytest.raises(UnusableAnswer, match=r"answer with \w+Output, got \w+Output"):
        payload(task, OF_TASK[other], TEXT)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("task", TASKS)
def test_a_score_that_is_no_number_makes_no_result(task: str, score: float) -> None:
    entities = [inference_pb2.Entity(start=2, end=6, text="Anna", label="person", score=score)]
    outputs = {
        "ner": inference_pb2.NerOutput(entities=entities),
        "topic": inference_pb2.TopicOutput(topics=[inference_pb2.Topic(id="a", score=score)]),
        "sentiment": inference_pb2.SentimentOutput(label="mixed", scores={"mixed": score}),
    }
    with pytest.raises(UnusableAnswer, match="expected the worker to give finite scores, got"):
        payload(task, outputs[task], TEXT)


def test_a_language_that_the_model_was_not_made_for_is_said_in_the_lineage() -> None:
    lineage = inference_pb2.Lineage(task="ner", engine="onnx", model="m")
    outside = inference_pb2.Usage(language="eu", language_measured=False)
    fields = lineage_of(lineage, outside, 1)
    assert fields is not None
    assert (fields["language"], fields["language_measured"]) == ("eu", False)
    unknown = lineage_of(lineage, inference_pb2.Usage(), 1)
    assert unknown is not None
    assert (unknown["language"], unknown["language_measured"]) == (None, None)
