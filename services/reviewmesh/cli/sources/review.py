"""A review as it is published, from the fields of a row."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from reviewmesh.cli.sources.errors import NoReview, shown
from reviewmesh.intake.normalise import Refused, normalise

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Today in another unit is out of this range: 1973 in milliseconds is the year 5138 in seconds.
LEAST_MS, LEAST_US, LEAST_NS = 10**11, 10**14, 10**17
SOURCE = "cli"
IDS = ("review_id", "business_id", "author")
TEXT_FIELDS = ("business_id", "text", "title", "language", "source", "author")
FIELDS = ("review_id", *TEXT_FIELDS, "stars", "created_at", "attributes")
NUMBER = re.compile(r"[+-]?\d{1,15}(\.\d{1,15})?")
DECIMAL_COMMA = re.compile(r"[+-]?\d{1,15},\d{1,15}")
MILLISECONDS = re.compile(r"\d{12,14}")


class TakenAs:
    """What was taken for something else than it was written as, counted by its kind."""

    def __init__(self) -> None:
        self.of_file: list[str] = []
        self.of_rows: Counter[str] = Counter()
        self.all_is_text = False
        """As in tables, where a number cannot be written otherwise."""

    def add(self, words: str) -> None:
        self.of_rows[words] += 1

    def add_of_text(self, words: str) -> None:
        if not self.all_is_text:
            self.add(words)


def review_of(
    fields: Mapping[str, Any],
    now_ms: int,
    drop_attributes: Collection[str] | None,
    notes: TakenAs | None = None,
) -> dict[str, Any]:
    """The review of a row's fields; its id is None if it has none. Raises NoReview.

    It is refused for what intake would refuse, so that its producer learns of it now; without
    `drop_attributes`, those that intake drops, that is not checked.
    """
    taken = _Fields(fields, TakenAs() if notes is None else notes)
    review: dict[str, Any] = {name: taken.text(name) for name in TEXT_FIELDS}
    if review["text"] is None:
        raise NoReview("text: expected the review's text, got nothing")
    review["review_id"] = taken.review_id()
    review["source"] = review["source"] or SOURCE
    review["stars"] = taken.stars()
    review["created_at"] = taken.created_at(now_ms)
    review["attributes"] = taken.attributes()
    if drop_attributes is None:
        return review
    try:
        normalise(review | {"review_id": review["review_id"] or "new"}, drop_attributes)
    except Refused as refused:
        raise NoReview(str(refused)) from refused
    return review


class _Fields:
    """The fields of one row, each as the type that the schema has for it."""

    def __init__(self, fields: Mapping[str, Any], notes: TakenAs) -> None:
        self._fields = fields
        self._notes = notes

    def text(self, name: str) -> str | None:
        value = self._fields.get(name)
        if name in IDS:
            value = self._without_number(name, value)
        if value is not None and not isinstance(value, str):
            raise NoReview(f"{name}: expected text, got {shown(value)}")
        return in_unicode(value, name)

    def review_id(self) -> str | None:
        value = self._without_number("review_id", self._fields.get("review_id"))
        if value is not None and (not isinstance(value, str) or not value):
            raise NoReview(f"review_id: expected text that is not empty, got {shown(value)}")
        return in_unicode(value, "review_id")

    def _without_number(self, name: str, value: Any) -> Any:
        """A whole number as its digits; a fraction may have lost some of them already."""
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 10**100:
            return value
        self._notes.add(f"{name}: numbers are taken as text")
        return str(value)

    def stars(self) -> float | None:
        value = self._fields.get("stars")
        if isinstance(value, str):
            value = self._number(value)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise NoReview(f"stars: expected a number, got {shown(value)}")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise NoReview(f"stars: expected a number of 1 to 5, got {shown(value)}")
        return number

    def _number(self, text: str) -> float | str:
        digits = text.strip()
        if DECIMAL_COMMA.fullmatch(digits):
            self._notes.add("stars: a comma is taken as the decimal point")
            return float(digits.replace(",", "."))
        if NUMBER.fullmatch(digits):
            self._notes.add_of_text("stars: text is taken as a number")
            return float(digits)
        return text

    def created_at(self, now_ms: int) -> int:
        value = self._fields.get("created_at")
        if value is None:
            return now_ms
        if isinstance(value, str) and MILLISECONDS.fullmatch(value.strip()):
            self._notes.add_of_text("created_at: text is taken as milliseconds since 1970")
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return _milliseconds(value)
        try:
            moment = datetime.fromisoformat(value.strip() if isinstance(value, str) else value)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
                self._notes.add("created_at: a time without a zone is taken as UTC")
            # A date at the end of the calendar may overflow in UTC.
            return (moment.astimezone(UTC) - EPOCH) // timedelta(milliseconds=1)
        except (TypeError, ValueError, OverflowError) as error:
            raise NoReview(
                "created_at: expected ISO 8601 or milliseconds since 1970 as a whole number, got "
                f"{shown(value)}"
            ) from error

    def attributes(self) -> dict[str, str]:
        value = self._fields.get("attributes")
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise NoReview(f"attributes: expected names with text values, got {shown(value)}")
        attributes = {}
        for name, item in value.items():
            if item is None:
                continue
            in_unicode(name, "attributes")
            attributes[name] = self._attribute(name, item)
        return attributes

    def _attribute(self, name: str, value: Any) -> str:
        if isinstance(value, bool | int | float):
            self._notes.add("attributes: numbers, true and false are taken as text")
            value = str(value).lower() if isinstance(value, bool) else shown(value)
        if not isinstance(value, str):
            raise NoReview(
                f"attributes, {name!r:.60}: expected text, got {shown(value)}",
                kind="attributes: expected names with text values",
            )
        in_unicode(value, f"attributes, {name!r:.60}")
        return value


def in_unicode(value: str | None, name: str) -> str | None:
    """Reject lone surrogates, which JSON can escape but UTF-8 cannot encode."""
    try:
        if value is not None:
            value.encode()
    except UnicodeEncodeError as error:
        raise NoReview(
            f"{name}: expected Unicode text, got half of a surrogate pair at character "
            f"{error.start + 1}"
        ) from error
    return value


def _milliseconds(value: int) -> int:
    """Raises NoReview on a number that is probably in another unit."""
    if LEAST_MS <= value < LEAST_US:
        return value
    looks, hint = "" if value < 0 else ", which looks like ", ""
    if 0 <= value < LEAST_MS:
        looks, hint = looks + "seconds", "map them with --map COLUMN=created_at:s, or "
    elif value >= LEAST_US:
        looks += "microseconds" if value < LEAST_NS else "nanoseconds"
    raise NoReview(
        f"created_at: expected milliseconds since 1970, got {shown(value)}{looks}; {hint}write "
        "dates before 1973 and after 5138 in ISO 8601"
    )
