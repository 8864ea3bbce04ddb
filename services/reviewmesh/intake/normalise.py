"""From a review as it was published to one that the mesh accepts, or the reason why not.

Pure: no clock, no network, no environment.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Collection
from typing import Any

MAX_TEXT = 100_000
MAX_REVIEW_ID = 512
KEPT_CONTROLS = "\t\n\r"


class Refused(ValueError):
    """The review becomes a dead letter with this cause."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


def clean(text: str) -> str:
    """NFC without control characters but tab and line breaks; format characters stay."""
    if not text.isprintable():
        text = "".join(
            character
            for character in text
            if character in KEPT_CONTROLS or unicodedata.category(character) != "Cc"
        )
    return unicodedata.normalize("NFC", text)


def content_hash(title: str | None, text: str, language: str | None, stars: float | None) -> str:
    """SHA-256 in hex of what an edit can change. Lengths keep the fields apart."""
    digest = hashlib.sha256()
    for part in (title, text, language, None if stars is None else repr(float(stars))):
        encoded = b"" if part is None else part.encode()
        mark = b"-" if part is None else str(len(encoded)).encode()
        digest.update(mark + b":" + encoded)
    return digest.hexdigest()


def review_id_of(review: dict[str, Any]) -> str:
    """Raises Refused when it cannot be a key."""
    review_id = review["review_id"]
    if not review_id.strip():
        raise Refused("INVALID", "expected a review_id, got an empty one; give every review an id")
    if len(review_id) > MAX_REVIEW_ID:
        raise Refused(
            "INVALID",
            f"expected a review_id of at most {MAX_REVIEW_ID} characters, got {len(review_id)}",
        )
    return str(review_id)


def normalise(review: dict[str, Any], drop_attributes: Collection[str]) -> dict[str, Any]:
    """The fields of AcceptedReview that come from the review itself.

    Raises Refused with INVALID, EMPTY or OVERSIZE.
    """
    review_id = review_id_of(review)
    stars = review["stars"]
    if stars is not None and not 1 <= stars <= 5:
        raise Refused("INVALID", f"expected stars from 1 to 5 or none, got {stars:g}")
    raw_text = review["text"]
    # Normalising can both shrink and grow a text, so the limit holds before and after.
    check_size(raw_text or "")
    text = clean(raw_text or "")
    check_size(text)
    if not any(character.isprintable() and not character.isspace() for character in text):
        raise Refused("EMPTY", "expected a text with something to read, got none or only blanks")
    title = review["title"]
    title = clean(title) if title is not None else None
    language = review["language"]
    return {
        "review_id": review_id,
        "content_hash": content_hash(title, text, language, stars),
        "business_id": review["business_id"],
        "text": text,
        "title": title,
        "language": language,
        "stars": stars,
        "created_at": review["created_at"],
        "source": review["source"],
        "attributes": {
            name: value
            for name, value in review["attributes"].items()
            if name not in drop_attributes
        },
    }


def check_size(text: str) -> None:
    if len(text) > MAX_TEXT:
        raise Refused(
            "OVERSIZE",
            f"expected a text of at most {MAX_TEXT:,} code points, got {len(text):,}; "
            "split or shorten it before publishing",
        )
