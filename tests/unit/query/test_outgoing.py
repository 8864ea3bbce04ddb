"""Which enriched reviews leave for teachers, and what of them."""

from __future__ import annotations

from typing import Any, cast

import pytest

from reviewmesh.avro.codec import Codec
from reviewmesh.leaving.policy import parse_policy
from reviewmesh.loop.erasures import REMEMBERED_ERASURES, Erasures
from reviewmesh.query.outgoing import ERASED, FORBIDDEN, NO_NAMES, Outgoing

POLICY = parse_policy(
    "all:\n  regions: [eu]\n  mask: [patterns]\n"
    "businesses:\n  acme: nothing\n"
    "  globex:\n    regions: [eu, us]\n    mask: [patterns, names]\n"
)
TEXT = "Anna Berg, anna@mail.example, was kind. Thank you, Anna!"


ACCEPTED_AT = 1_790_000_000_000


def erasures(review_id: str = "r-2", at_ms: int = ACCEPTED_AT + 1) -> Erasures:
    found = Erasures(cast(Codec, None))
    found.take(review_id, at_ms)
    return found


def enriched(business_id: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "review_id": "r-1",
        "business_id": business_id,
        "text": TEXT,
        "title": "From Anna",
        "language": "en",
        "accepted_at": ACCEPTED_AT,
        "erased_at": None,
        "entities": [
            {"start": 0, "end": 9, "label": "person", "text": "Anna Berg"},
            {"start": 40, "end": 45, "label": "organization", "text": "Thank"},
        ],
        "tasks": {"ner": {"status": "OK", "lineage": {"route": "primary"}}},
        **more,
    }


def test_only_masked_text_and_its_language_leave() -> None:
    assert Outgoing(POLICY, ["eu"], erasures()).masked(enriched()) == {
        "text": "Anna Berg, [EMAIL], was kind. Thank you, Anna!",
        "language": "en",
        "leaves_for": ["eu"],
    }


def test_names_are_those_that_the_mesh_found_wherever_they_occur() -> None:
    masked = Outgoing(POLICY, ["us", "eu"], erasures()).masked(enriched("globex"))
    assert masked is not None
    assert masked["text"] == "[NAME], [EMAIL], was kind. Thank you, [NAME]!"
    assert masked["leaves_for"] == ["us", "eu"]


@pytest.mark.parametrize(
    ("review", "regions", "why"),
    [
        (enriched("acme"), ["eu"], FORBIDDEN),
        (enriched(), ["us"], FORBIDDEN),
        (enriched(), ["eu", "us"], FORBIDDEN),
        (enriched("globex", erased_at=17), ["eu"], ERASED),
        (
            enriched("globex", tasks={"ner": {"status": "TIMEOUT", "lineage": None}}),
            ["eu"],
            NO_NAMES,
        ),
        (
            enriched("globex", tasks={"ner": {"status": "FALLBACK", "lineage": None}}),
            ["eu"],
            NO_NAMES,
        ),
    ],
)
def test_what_stays_is_counted_by_its_reason(
    review: dict[str, Any], regions: list[str], why: str
) -> None:
    outgoing = Outgoing(POLICY, regions, erasures())
    assert outgoing.masked(review) is None
    assert outgoing.stay == {why: 1}


def test_what_was_published_before_its_review_was_erased_stays() -> None:
    """The topic holds it for as long as ever; only a later record says that it was erased."""
    outgoing = Outgoing(POLICY, ["eu"], erasures("r-1", ACCEPTED_AT))
    assert outgoing.masked(enriched()) is None
    assert outgoing.stay == {ERASED: 1}
    assert outgoing.masked(enriched(accepted_at=ACCEPTED_AT + 1)) is not None


def test_every_erasure_of_all_partitions_may_be_remembered() -> None:
    found = Erasures(cast(Codec, None), at_most=2 * REMEMBERED_ERASURES)
    for number in range(2 * REMEMBERED_ERASURES):
        found.take(f"r-{number}", 1)
    assert found.covers("r-0", 1)
