"""The exports of review sites: which of their columns is which field.

Each export is told by names that only it has. What a site adds and a review has no field for is
left out, but for a few attributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from reviewmesh.cli.sources.columns import Columns
from reviewmesh.cli.sources.errors import FileRefused

IN_LINK = "reviewId"


@dataclass(frozen=True)
class Export:
    """One form of a site's exports."""

    site: str
    told_by: tuple[str, ...]
    """Names that a row of it has."""
    mapping: Mapping[str, str]
    id_from: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    """Where in a JSON document its reviews are."""
    quoted: bool = True
    """Whether the cells of its tables may be quoted."""
    id_in_link: str | None = None
    """The column of a link that holds the review's id."""

    def columns(self, others: Columns) -> Columns:
        """With what the command said besides, which goes before."""
        return Columns(
            mapping={**self.mapping, **others.mapping},
            rest="drop" if others.rest == "refuse" else others.rest,
            constants={"source": self.site, **others.constants},
            id_from=others.id_from or self.id_from,
        )

    def prepared(self, content: Mapping[str, Any]) -> Mapping[str, Any]:
        """With the id that its link holds."""
        if self.id_in_link is None:
            return content
        query = parse_qs(urlsplit(str(content.get(self.id_in_link) or "")).query)
        found = query.get(IN_LINK) or query.get(IN_LINK.lower())
        return {**content, "review_id": found[0]} if found else content


EXPORTS = (
    Export(
        "trustpilot",
        told_by=("Review Id", "Review Content"),
        mapping={
            "Review Id": "review_id",
            "Review Content": "text",
            "Review Title": "title",
            "Review Stars": "stars",
            "Review Created (UTC)": "created_at",
            "Review Language": "language",
            "Review Username": "author",
            "Business Unit Id": "business_id",
            "Domain Url": "attributes.domain",
            "Location Name": "attributes.location",
            "Source Of Review": "attributes.collected",
        },
    ),
    Export(
        "google-play",
        told_by=("Package Name", "Review Text"),
        mapping={
            "Package Name": "business_id",
            "Review Text": "text",
            "Review Title": "title",
            "Star Rating": "stars",
            "Review Submit Millis Since Epoch": "created_at",
            "Reviewer Language": "language",
            "App Version Name": "attributes.app_version",
            "Device": "attributes.device",
        },
        id_in_link="Review Link",
    ),
    # The Play Developer API: reviews.list.
    Export(
        "google-play",
        told_by=("reviewId", "comments"),
        mapping={
            "reviewId": "review_id",
            "authorName": "author",
            "comments.0.userComment.text": "text",
            "comments.0.userComment.starRating": "stars",
            "comments.0.userComment.reviewerLanguage": "language",
            "comments.0.userComment.lastModified.seconds": "created_at:s",
            "comments.0.userComment.appVersionName": "attributes.app_version",
        },
        path=("reviews",),
    ),
    # The App Store Connect API: customer reviews of an app.
    Export(
        "app-store",
        told_by=("id", "attributes"),
        mapping={
            "id": "review_id",
            "attributes": "",
            "attributes.body": "text",
            "attributes.title": "title",
            "attributes.rating": "stars",
            "attributes.createdDate": "created_at",
            "attributes.reviewerNickname": "author",
            "attributes.territory": "attributes.territory",
        },
        path=("data",),
    ),
    # The public feed, as JSON.
    Export(
        "app-store",
        told_by=("id", "content"),
        mapping={
            "id.label": "review_id",
            "content.label": "text",
            "title.label": "title",
            "im:rating.label": "stars",
            "updated.label": "created_at",
            "author.name.label": "author",
            "im:version.label": "attributes.app_version",
        },
        path=("feed", "entry"),
    ),
    Export(
        "yelp",
        told_by=("review_id", "business_id", "text", "date"),
        mapping={"date": "created_at", "user_id": ""},
    ),
    # Reviews of 2023.
    Export(
        "amazon",
        told_by=("parent_asin", "text"),
        mapping={
            "parent_asin": "business_id",
            "rating": "stars",
            "timestamp": "created_at",
            "user_id": "",
            "verified_purchase": "attributes.verified_purchase",
        },
        id_from=("asin", "user_id", "timestamp"),
    ),
    # Reviews of 2014 and 2018.
    Export(
        "amazon",
        told_by=("asin", "reviewerID"),
        mapping={
            "asin": "business_id",
            "reviewText": "text",
            "summary": "title",
            "overall": "stars",
            "unixReviewTime": "created_at:s",
            "reviewerName": "author",
        },
        id_from=("asin", "reviewerID", "unixReviewTime"),
    ),
    # The customer review tables, whose cells are not quoted.
    Export(
        "amazon",
        told_by=("product_id", "review_body"),
        mapping={
            "review_id": "review_id",
            "product_parent": "business_id",
            "review_body": "text",
            "review_headline": "title",
            "star_rating": "stars",
            "review_date": "created_at",
            "marketplace": "attributes.marketplace",
            "verified_purchase": "attributes.verified_purchase",
        },
        quoted=False,
    ),
)
SITES = tuple(dict.fromkeys(export.site for export in EXPORTS))


@dataclass(frozen=True)
class Site:
    """A site's exports, of which a file is one."""

    name: str
    exports: tuple[Export, ...] = field(default=())

    @classmethod
    def named(cls, name: str) -> Site:
        """Raises FileRefused."""
        exports = tuple(export for export in EXPORTS if export.site == name)
        if not exports:
            raise FileRefused(f"--site: expected one of {', '.join(SITES)}, got {name!r}")
        return cls(name, exports)

    @property
    def paths(self) -> tuple[Sequence[str], ...]:
        return tuple(export.path for export in self.exports if export.path)

    def export_of(self, names: Sequence[str]) -> Export | None:
        """The export whose rows have these names, whatever their case."""
        folded = {name.casefold() for name in names}
        for export in self.exports:
            if all(name.casefold() in folded for name in export.told_by):
                return export
        return None

    def wanted(self) -> str:
        """For a message: what tells its exports."""
        return " or ".join(
            " and ".join(repr(name) for name in export.told_by) for export in self.exports
        )
