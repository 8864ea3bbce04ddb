"""Exports of review sites become reviews by the name of the site alone."""

from __future__ import annotations

import gzip
import io
from typing import Any

import pytest

from reviewmesh.cli.sources.columns import Columns
from reviewmesh.cli.sources.errors import FileRefused, NoReview
from reviewmesh.cli.sources.reading import Options, Source
from reviewmesh.cli.sources.review import review_of
from reviewmesh.cli.sources.sites import SITES, Site
from tests.site_exports import EXPORTS, SiteExport


def read(content: bytes, options: Options) -> tuple[list[dict[str, Any]], list[str]]:
    """The reviews, and why the other rows are none."""
    reviews, refused = [], []
    for row in Source(io.BytesIO(content), options).rows():
        try:
            if row.problem:
                raise row.problem
            reviews.append(review_of(row.fields or {}, 0, ()))
        except NoReview as problem:
            refused.append(str(problem))
    return reviews, refused


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: export.name)
def test_an_export_becomes_reviews(export: SiteExport) -> None:
    reviews, refused = read(export.content, Options(site=Site.named(export.site)))
    assert (len(reviews), len(refused)) == (export.reviews, export.refused), refused
    assert {name: reviews[0][name] for name in export.first} == export.first
    assert {review["source"] for review in reviews} == {export.site}
    assert all(review["review_id"] for review in reviews)


def test_every_site_has_a_file() -> None:
    assert {export.site for export in EXPORTS} == set(SITES)


def test_what_the_command_says_goes_before_the_site() -> None:
    columns = Columns.of(["helpful_vote=attributes.votes"], constants=["business_id=shop"])
    [amazon] = [export for export in EXPORTS if export.name == "Amazon 2023"]
    site = Site.named("amazon")
    [review], _none = read(gzip.compress(amazon.content), Options(columns, site))
    assert review["business_id"] == "shop"
    assert review["attributes"]["votes"] == "2"


def test_another_file_is_none_of_the_site() -> None:
    with pytest.raises(FileRefused, match=r"--site yelp: expected 'review_id' and .*got 'text'"):
        read(b"text,stars\nfine,3\n", Options(site=Site.named("yelp")))
    _none, [why] = read(b'{"text": "fine"}\n', Options(site=Site.named("trustpilot")))
    assert why.startswith("--site trustpilot: expected 'Review Id' and 'Review Content', got")
    with pytest.raises(FileRefused, match="expected one of trustpilot, google-play"):
        Site.named("made-up")
