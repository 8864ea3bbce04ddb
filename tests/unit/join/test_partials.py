"""Open partial records are folded from their topic, whatever else lies in it."""

from __future__ import annotations

from typing import Any

import structlog

from reviewmesh.avro.codec import Codec
from reviewmesh.join.enriched import build
from reviewmesh.join.partials import OpenPartials
from reviewmesh.kafka.record import Record
from tests.unit.join.test_join import accepted
from tests.unit.loop.test_replays import OneSchema

PARTIAL = Codec(OneSchema(), "reviews.partial-value", "partial_review")
ENRICHED = Codec(OneSchema(), "reviews.enriched-value", "enriched_review")


def incomplete(review_id: str) -> dict[str, Any]:
    return build(accepted(review_id, "text"), 0, 7, {}, 1, 1_000)


def partial(review_id: str, enriched: bytes | None) -> bytes:
    return PARTIAL.encode(
        {
            "review_id": review_id,
            "content_hash": "text",
            "accepted_offset": 7,
            "enriched": enriched,
        }
    )


def open_of(*records: tuple[bytes | None, bytes | None]) -> list[str]:
    partials = OpenPartials(PARTIAL, ENRICHED, structlog.stdlib.get_logger())
    for offset, (key, value) in enumerate(records):
        partials.take(Record("reviews.partial", 0, offset, key, value))
    return [record["review_id"] for record, _ in partials.records()]


def test_the_last_record_of_a_key_counts() -> None:
    a, b = (partial(name, ENRICHED.encode(incomplete(name))) for name in "ab")
    assert open_of((b"a", a), (b"b", b), (b"a", None)) == ["b"]
    assert open_of((b"a", a), (b"a", None), (b"a", a)) == ["a"]


def test_foreign_records_are_left_out() -> None:
    good = partial("a", ENRICHED.encode(incomplete("a")))
    no_task = {**incomplete("b"), "tasks": {}}
    no_time = incomplete("c")
    no_time["timings"]["enriched_at"] = None
    foreign: list[tuple[bytes | None, bytes | None]] = [
        (b"\xff\xfe", None),
        (b"\xff", b"junk"),
        (None, b""),
        (b"x", good[:-3]),
        (b"y", partial("y", None)),
        (b"z", partial("z", b"junk")),
        (b"b", partial("b", ENRICHED.encode(no_task))),
        (b"c", partial("c", ENRICHED.encode(no_time))),
    ]
    assert open_of(*foreign, (b"a", good)) == ["a"]
