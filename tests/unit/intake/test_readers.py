"""Whatever intake publishes is decoded by a reader that knows the logical types."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reviewmesh.avro.codec import HEADER, load_schema
from reviewmesh.kafka.record import FORWARDED_FROM, ORIGIN_TIMESTAMP, TRACEPARENT
from reviewmesh_schemas.names import ACCEPTED, DEAD_LETTER, RAW
from tests.unit.intake.test_stage import ELSEWHERE, HOME, Intake

READERS = {
    topic: fastavro.parse_schema(load_schema(name))
    for topic, name in ((ACCEPTED, "accepted_review"), (DEAD_LETTER, "dead_letter"))
}
texts = st.text(st.characters(exclude_categories=["Cs"]))
longs = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 300_000_000_000_000)
headers = st.lists(
    st.tuples(
        st.sampled_from([ORIGIN_TIMESTAMP, TRACEPARENT, FORWARDED_FROM]) | texts,
        st.none() | st.binary() | longs.map(lambda number: str(number).encode()),
    ),
    max_size=4,
)
reviews = st.fixed_dictionaries(
    {
        "review_id": st.just("r") | texts,
        "business_id": st.none() | texts,
        "text": st.none() | texts,
        "title": st.none() | texts,
        "language": st.none() | texts,
        "stars": st.none() | st.floats() | st.floats(1, 5),
        "created_at": st.none() | longs,
        "source": st.none() | texts,
        "author": st.none() | texts,
        "attributes": st.dictionaries(texts, texts, max_size=3),
    }
)


@pytest.fixture(scope="module")
def intake() -> Iterator[Intake]:
    intake = Intake()
    intake.assign(HOME, ELSEWHERE)
    yield intake
    intake.stage.stop()


@given(reviews, headers, longs, st.sampled_from([HOME, ELSEWHERE]), st.none() | st.binary())
def test_every_output_decodes_with_logical_types(
    intake: Intake,
    review: dict[str, Any],
    headers: list[tuple[str, bytes | None]],
    timestamp_ms: int,
    partition: int,
    key: bytes | None,
) -> None:
    value = intake.raw.encode(review)
    record = intake.record(partition, value, tuple(headers), key, timestamp_ms)
    intake.stage.receive(record)
    (unit,) = intake.stage.poll()
    assert unit.finished == ((RAW, record.offset),)
    for output in unit.outputs:
        if output.topic == RAW:
            assert output.value == value
            continue
        written = io.BytesIO((output.value or b"")[HEADER.size :])
        decoded: Any = fastavro.schemaless_reader(written, READERS[output.topic], None)
        assert decoded["review_id"] == review["review_id"] or output.topic == DEAD_LETTER
