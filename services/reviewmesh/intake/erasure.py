"""A tombstone on `reviews.raw`: a newer version of the review, without its content. Pure."""

from __future__ import annotations

from typing import Any

from reviewmesh.intake.normalise import Refused, content_hash, review_id_of

REPLACEMENT = "(erased)"
"""The text that replaces the review's."""
SOURCE = "forget"


def erasing(key: bytes | None) -> dict[str, Any]:
    """The version that a record with this key and no value asks for.

    Raises Refused if the key is no review_id.
    """
    try:
        review_id = review_id_of({"review_id": (key or b"").decode()})
    except (UnicodeDecodeError, Refused) as error:
        raise Refused(
            "TOMBSTONE",
            "expected the review_id to erase as the key of a record without a value, got "
            f"{(key or b'')[:100]!r}: {error}",
        ) from None
    return {
        "review_id": review_id,
        "content_hash": content_hash(None, REPLACEMENT, None, None),
        "business_id": None,
        "text": REPLACEMENT,
        "title": None,
        "language": None,
        "stars": None,
        "created_at": None,
        "source": SOURCE,
        "attributes": {},
    }
