"""Which answers of a candidate a result can be made of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

import pytest

from reviewmesh.avro.codec import Codec
from reviewmesh.enrich.items import Answer, WorkItem
from reviewmesh.enrich.routes import CANDIDATE
from reviewmesh.enrich.shadow import SPARE_BYTES, ShadowTopic
from reviewmesh.settings import Settings
from reviewmesh_protos.inference.v1 import inference_pb2

ITEM = WorkItem(None, 0, 1, "Anna was great.", "en", None, None, 0.0, "r-1", "hash")
LINEAGE = inference_pb2.Lineage(task="ner", engine="scripted", model="m", model_version="2")
MAX_BYTES = SPARE_BYTES + 10_000


class Encoder:
    def encode(self, content: dict[str, Any]) -> bytes:
        return json.dumps(content).encode()


@pytest.fixture(scope="module")
def topic() -> Iterator[ShadowTopic]:
    codec = cast(Codec, Encoder())
    made = ShadowTopic("ner", Settings(), codec, MAX_BYTES, lambda: 0.0)
    yield made
    made.close()


def answer(entities: int, **more: Any) -> Answer:
    anna = inference_pb2.Entity(start=0, end=4, text="Anna", label="person", score=0.5)
    output = inference_pb2.NerOutput(entities=[anna] * entities)
    given = {"output": output, "error": None, "lineage": LINEAGE, **more}
    return Answer(attempts=1, usage=None, route=CANDIDATE, **given)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (answer(1), ""),
        (answer(1_000), "expected an answer of at most 10,000 bytes, got"),
        (answer(1, lineage=None), "got no lineage"),
        (answer(1, output=inference_pb2.TopicOutput()), "expected the worker to answer with Ner"),
        (answer(0, output=None, error="as scripted"), "as scripted"),
        (answer(0, output=None), "the candidate gave no reason"),
    ],
)
def test_a_result_can_be_made_of_it_or_it_is_said_why_not(
    topic: ShadowTopic, given: Answer, why: str
) -> None:
    said = topic.why_unusable(ITEM, given)
    assert why in said and bool(why) == bool(said)
