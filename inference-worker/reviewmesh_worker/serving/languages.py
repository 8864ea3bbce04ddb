"""The language of a text, and whether the model that answers was made for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import py3langid

_ENOUGH: Final = 1_000
"""Code points used for detection: more take longer and change nothing."""
_REMEMBERED: Final = 4_096
"""Texts whose language is cached, because each task requests it."""
_UNKNOWN: Final = frozenset({"und", "zxx"})
"""Undetermined, and without language: emoji, numbers."""


def measured_in(language: str, languages: Sequence[str]) -> bool | None:
    """Whether a model that names `languages` was made for this one; None where it is unknown."""
    return language in languages if language and languages else None


def language_of(text: str, given: str = "") -> str:
    """The primary subtag of the BCP 47 tag that is given, or else of the text; empty if unknown."""
    subtag = given.replace("_", "-").split("-")[0].strip().lower()
    if subtag.isascii() and subtag.isalpha() and len(subtag) in (2, 3) and subtag not in _UNKNOWN:
        return subtag
    return _detected(text[:_ENOUGH])


@lru_cache(maxsize=_REMEMBERED)
def _detected(text: str) -> str:
    if not text.strip():
        return ""
    found, _ = py3langid.classify(text)
    return "" if found in _UNKNOWN else str(found)
