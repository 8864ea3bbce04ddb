"""Validates and normalises a published review. Pure: no clock, no network, no environment."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Collection
from typing import Any

from reviewmesh.clock import plausible_ms

# In code points. The size of the accepted record is checked separately, against its topic.
MAX_TEXT = 100_000
MAX_REVIEW_ID = 512
MAX_LENGTHS = {"business_id": 512, "title": 2_000, "language": 100, "source": 512}
MAX_ATTRIBUTES = 256
MAX_ATTRIBUTE_NAME = 256
MAX_ATTRIBUTE_VALUE = 65_536
# All names and values together, in bytes of UTF-8.
MAX_ATTRIBUTES_BYTES = 512 * 1024
KEPT_CONTROLS = "\t\n\r"

# Normalising sorts each run of non-starters, in time that grows with the square of its length. The
# stream-safe format of UAX #15 has at most 30 in a row, which no writing system needs, and puts a
# combining grapheme joiner behind them.
LONGEST_RUN = 30
JOINER = "\u034f"
# The last one in this Python's Unicode is U+1E94A. A few Tibetan vowels are starters that decompose
# to non-starters.
NON_STARTERS = "".join(
    chr(code)
    for code in range(0x300, 0x20000)
    if unicodedata.combining(unicodedata.normalize("NFD", chr(code))[0])
)
NON_STARTER_SET = frozenset(NON_STARTERS)
TOO_LONG_A_RUN = re.compile(f"[{NON_STARTERS}]{{{LONGEST_RUN + 1},}}")

# Invisible, though not of category Cf: Unicode's Default_Ignorable_Code_Point
# (DerivedCoreProperties.txt) without category Cf, and blank characters that are no spaces.
# Characters
# that this Python's Unicode does not know yet, such as new emoji, count as visible.
INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\ufff0-\ufff8\U0001d159\U000e0000-\U000e0fff]"
)


class Refused(ValueError):
    """The review becomes a dead letter with this cause."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


def clean(text: str) -> str:
    """NFC, without control characters except tab and line breaks; format characters stay."""
    if text.isascii() and text.isprintable():
        return text
    if not text.isprintable():
        text = "".join(
            character
            for character in text
            if character in KEPT_CONTROLS or unicodedata.category(character) != "Cc"
        )
    # Again after NFC, since some characters decompose in every normal form.
    return stream_safe(unicodedata.normalize("NFC", stream_safe(text)))


def stream_safe(text: str) -> str:
    """The same text with a joiner after every 30 non-starters in a row."""
    # Every run that is too long covers one of these positions, so most texts end here.
    if NON_STARTER_SET.isdisjoint(text[LONGEST_RUN :: LONGEST_RUN + 1]):
        return text
    return TOO_LONG_A_RUN.sub(_with_joiners, text)


def _with_joiners(run: re.Match[str]) -> str:
    marks = run[0]
    return JOINER.join(
        marks[start : start + LONGEST_RUN] for start in range(0, len(marks), LONGEST_RUN)
    )


def is_visible(character: str) -> bool:
    return not (
        character.isspace()
        or unicodedata.category(character) in ("Cc", "Cf")
        or INVISIBLE.match(character)
    )


def content_hash(title: str | None, text: str, language: str | None, stars: float | None) -> str:
    """SHA-256 in hex of the fields that an edit can change. Lengths separate the fields."""
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
    check_created_at(review["created_at"])
    for name, at_most in MAX_LENGTHS.items():
        check_length(f"a {name}", review[name], at_most)
    attributes = {
        name: value for name, value in review["attributes"].items() if name not in drop_attributes
    }
    check_attributes(attributes)
    text = _text(review["text"])
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
        "attributes": attributes,
    }


def _text(written: str | None) -> str:
    # Normalising can shrink or grow a text, so the limit is checked before and after.
    check_length("a text", written, MAX_TEXT)
    text = clean(written or "")
    check_length("a text", text, MAX_TEXT)
    if not any(is_visible(character) for character in text):
        raise Refused("EMPTY", "expected a text with something to read, got none or only blanks")
    return text


def check_length(what: str, text: str | None, at_most: int) -> None:
    if text is not None and len(text) > at_most:
        raise Refused(
            "OVERSIZE",
            f"expected {what} of at most {at_most:,} code points, got {len(text):,}; "
            "split or shorten it before publishing",
        )


def check_attributes(attributes: dict[str, str]) -> None:
    if len(attributes) > MAX_ATTRIBUTES:
        raise Refused(
            "OVERSIZE", f"expected at most {MAX_ATTRIBUTES} attributes, got {len(attributes):,}"
        )
    for name, value in attributes.items():
        check_length("attributes with a name", name, MAX_ATTRIBUTE_NAME)
        check_length(f"an attribute {name!a}", value, MAX_ATTRIBUTE_VALUE)
    size = sum(len(part.encode()) for pair in attributes.items() for part in pair)
    if size > MAX_ATTRIBUTES_BYTES:
        raise Refused(
            "OVERSIZE",
            f"expected attributes of at most {MAX_ATTRIBUTES_BYTES:,} bytes together, got {size:,}",
        )


def check_created_at(created_at: int | None) -> None:
    """Only times that every reader can represent: Python has no year 10000."""
    if created_at is None or plausible_ms(created_at):
        return
    hint = ""
    for unit, parts in (("microseconds", 1_000), ("nanoseconds", 1_000_000)):
        if created_at > 0 and not hint and plausible_ms(created_at // parts):
            hint = f", which looks like {unit}"
    raise Refused(
        "INVALID",
        "expected created_at in milliseconds since 1970, up to the year 9999, or none, got "
        f"{created_at}{hint}",
    )
