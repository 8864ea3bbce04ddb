"""Finds personal data by patterns: e-mail and web addresses, numbers of persons and accounts.

Recall matters most: a price that is masked by mistake costs the model little. So check digits
decide the kind of a number, never whether it may stay.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass

import phonenumbers
import validators
from linkify_it import LinkifyIt

# The placeholders, each named after what it replaces.
KINDS = (
    "EMAIL",
    "PHONE",
    "CARD",
    "IBAN",
    "URL",
    "IP",
    "MAC",
    "HANDLE",
    "NUMBER",
    "LOCATION",
    "NAME",
)
# A national phone number is read as those of the countries of the language.
COUNTRIES = {
    "cs": ("CZ",),
    "da": ("DK",),
    "de": ("DE", "AT", "CH"),
    "en": ("US", "GB"),
    "es": ("ES", "MX"),
    "fi": ("FI",),
    "fr": ("FR", "BE", "CH"),
    "it": ("IT",),
    "nb": ("NO",),
    "nl": ("NL", "BE"),
    "no": ("NO",),
    "pl": ("PL",),
    "pt": ("PT", "BR"),
    "sv": ("SE",),
}
# False candidates in one text before the search ends: so many digits are masked anyway.
PHONE_TRIES = 500
LINKS = LinkifyIt(options={"fuzzy_link": True, "fuzzy_email": True, "fuzzy_ip": False})
# Also addresses whose top-level domain LinkifyIt does not know.
EMAIL = re.compile(r"[\w.+%'-]{1,64}@[\w-]+(?:\.[\w-]+)+")
IBAN = re.compile(
    r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?(?![A-Za-z0-9])",
    re.IGNORECASE,
)
IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)")
IPV6 = re.compile(r"(?<![\w:])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])")
MAC = re.compile(r"(?<![\w:-])[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}(?![\w:-])")
HANDLE = re.compile(r"(?<![\w.@])@\w(?:[\w.-]{0,62}\w)?")
LOCATION = re.compile(r"-?\b\d{1,3}[.]\d{4,}°?\s{0,2}[,;/]?\s{0,2}-?\d{1,3}[.]\d{4,}°?")
# Seven digits or more with at most two signs between them, or six in a row.
DIGITS = re.compile(r"(?<!\w)[+(]?\d(?:[ .\-/()]{0,2}\d){6,}(?!\w)|\d{6,}")
# Letters and digits, five of them digits: a booking, a passport, a tax number.
CODE = re.compile(
    r"(?<!\w)(?=[\d/-]{0,40}[A-Z])(?=(?:[A-Z/-]{0,20}\d){5})[A-Z\d]+(?:[-/][A-Z\d]+)*(?!\w)",
    re.IGNORECASE,
)
INSURANCE_NUMBER = re.compile(r"\b[A-Z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-D]\b", re.IGNORECASE)
# Digits that identify no person: a date, a range of years, an amount.
NO_PERSON = re.compile(
    r"\d{1,2}([./-])\d{1,2}\1(\d{4}|\d{2})|\d{4}([./-])\d{1,2}\3\d{1,2}"
    r"|(19|20)\d\d[-/](19|20)\d\d|[1-9]\d?\.\d{3}\.\d{3}"
)


@dataclass(frozen=True, order=True, slots=True)
class Found:
    """Code points of the text: `text[start:end]` is personal data of this kind."""

    start: int
    end: int
    kind: str


def find_patterns(text: str, language: str) -> list[Found]:
    """In order, without overlaps. `language`: BCP 47, empty when unknown."""
    return merged([*_links(text), *_addresses(text), *_numbers(text, language)])


def merged(found: list[Found]) -> list[Found]:
    """Overlapping ones become one of the longest one's kind; NUMBER yields to every other kind."""
    whole: list[Found] = []
    best = (False, 0)
    for each in sorted(found):
        tells = (each.kind != "NUMBER", each.end - each.start)
        if whole and each.start < whole[-1].end:
            last = whole[-1]
            kind = each.kind if tells > best else last.kind
            whole[-1] = Found(last.start, max(last.end, each.end), kind)
            best = max(best, tells)
        else:
            whole.append(each)
            best = tells
    return whole


def _links(text: str) -> Iterator[Found]:
    for match in LINKS.match(text) or ():
        address = text[match.index : match.last_index]
        if match.schema == "mailto:":
            yield Found(match.index, match.last_index, "EMAIL")
        # A host alone names a company; what follows it may name a person.
        elif _has_more_than_a_host(address):
            yield Found(match.index, match.last_index, "URL")
    yield from _matches(EMAIL, text, "EMAIL")


def _has_more_than_a_host(address: str) -> bool:
    _, _, rest = address.rpartition("://")
    return bool(re.search(r"[/?#]\S", rest)) or "@" in rest


def _addresses(text: str) -> Iterator[Found]:
    yield from _matches(MAC, text, "MAC")
    yield from _matches(HANDLE, text, "HANDLE")
    yield from _matches(LOCATION, text, "LOCATION")
    for pattern in (IPV4, IPV6):
        for match in pattern.finditer(text):
            if _is_address(match.group()):
                yield Found(match.start(), match.end(), "IP")


def _is_address(candidate: str) -> bool:
    try:
        ipaddress.ip_address(candidate)
    except ValueError:
        return False
    return any(sign.isdigit() for sign in candidate)


def _numbers(text: str, language: str) -> Iterator[Found]:
    for match in IBAN.finditer(text):
        yield Found(match.start(), match.start() + _length_of_iban(match.group()), "IBAN")
    yield from _matches(INSURANCE_NUMBER, text, "NUMBER")
    yield from _matches(CODE, text, "NUMBER")
    many_digits = False
    for match in DIGITS.finditer(text):
        digits = match.group()
        many_digits = True
        if not NO_PERSON.fullmatch(digits):
            bare = re.sub(r"\D", "", digits)
            card = 13 <= len(bare) <= 19 and validators.card_number(bare) is True
            yield Found(match.start(), match.end(), "CARD" if card else "NUMBER")
    if many_digits or "+" in text:
        yield from _phones(text, language)


def _length_of_iban(candidate: str) -> int:
    """The longest prefix with valid check digits; the whole length if there is none."""
    for length in range(len(candidate), 14, -1):
        if validators.iban(re.sub(r"[ -]", "", candidate[:length]).upper()) is True:
            return length
    return len(candidate)


def _phones(text: str, language: str) -> Iterator[Found]:
    name, *subtags = language.split("-")
    own = tuple(tag.upper() for tag in subtags if len(tag) == 2 and tag.isalpha())
    for country in (*own, *COUNTRIES.get(name.lower(), ())) or (None,):
        for match in phonenumbers.PhoneNumberMatcher(text, country, max_tries=PHONE_TRIES):
            if not NO_PERSON.fullmatch(match.raw_string):
                yield Found(match.start, match.end, "PHONE")


def _matches(pattern: re.Pattern[str], text: str, kind: str) -> Iterator[Found]:
    for match in pattern.finditer(text):
        yield Found(match.start(), match.end(), kind)
