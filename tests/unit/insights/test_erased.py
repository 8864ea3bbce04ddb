"""An erased review leaves the counts of its business, and comes into no others."""

from __future__ import annotations

from typing import Any

from reviewmesh.insights.contribution import Bucket, review_counts
from reviewmesh.insights.contributions import Contributions

HERE, NOWHERE = Bucket("acme", 0, 1000), Bucket("", 0, 1000)
REVIEW: dict[str, Any] = {
    "stars": 5.0,
    "sentiment": {"label": "positive"},
    "topics": [],
    "erased_at": None,
}


def test_an_erased_review_is_counted_nowhere() -> None:
    contributions = Contributions({})
    contributions.apply("r", 0, offset=1, bucket=HERE, counts=review_counts(REVIEW))
    assert contributions.partial(0, HERE).counts[("reviews",)] == 1
    erased = {**REVIEW, "stars": None, "erased_at": 17}
    entry, buckets = contributions.apply(
        "r", 0, offset=2, bucket=NOWHERE, counts=review_counts(erased)
    )
    assert entry is not None and buckets == {HERE, NOWHERE}
    assert contributions.partial(0, HERE).counts == {}
    assert contributions.partial(0, NOWHERE).counts == {}
    contributions.recovered()
    assert contributions.partial(0, HERE).counts == {}
