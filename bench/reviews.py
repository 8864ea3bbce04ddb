"""The reviews that load is made of: a file of real ones, or made up with the same lengths."""

from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reviewmesh.avro.codec import HEADER, Codec

FILE_SETTING = "REVIEWMESH_BENCH_REVIEWS"
REVIEWS = 50_000
LONGEST_ID = 63
BUSINESSES = ("phone", "laptop", "food", "restaurant", "hotel")
# Letters to make words of, one entry per script that reviews are written in.
ALPHABETS = {
    "en": "abcdefghijklmnoprstuvwy",
    "de": "abcdefghiklmnoprstuvwzäöüß",
    "fr": "abcdefghijlmnopqrstuvéèàç",
    "vi": "abcdeghiklmnopqrstuvxyăâđêôơư",
    "ru": "абвгдежзиклмнопрстуфхцчшыья",
    "ar": "ابتثجحدرزسشصطعغفقكلمنهوي",
    "hi": "अआइईउकखगचजटडतदनपबमयरलवसह",
    "th": "กขคงจชดตถทนบปพมยรลวสหอ",
    "ja": "あいうえおかきくけこさしたなはまやらわん日本語料理",
    "ko": "가나다라마바사아자차카타파하고노도로모",
    "zh": "我你他好不是的很在有人这家店菜服务房间手机",
}
MEDIAN_CHARACTERS = 67
SPREAD = 0.7
CHARACTERS = (15, 1_000)
LETTERS_A_WORD = (2, 9)


def load(count: int = REVIEWS) -> list[dict[str, Any]]:
    """Reviews without ids, from the file that the environment names or made up.

    Raises ValueError when the file holds none.
    """
    name = os.environ.get(FILE_SETTING)
    found = list(_read(Path(name), count)) if name else [_made_up(seed) for seed in range(count)]
    if not found:
        raise ValueError(f"{FILE_SETTING}: expected reviews in {name}, one JSON object a line")
    return found


def source() -> str:
    """What the report says of where the reviews come from."""
    return "file" if os.environ.get(FILE_SETTING) else "made up"


def _read(path: Path, count: int) -> Iterator[dict[str, Any]]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as lines:
        for _, line in zip(range(count), lines, strict=False):
            row = json.loads(line)
            yield _review(row["text"], row.get("language"), row.get("domain"))


def _made_up(seed: int) -> dict[str, Any]:
    """Length and script vary as in reviews that people write; the words mean nothing."""
    dice = random.Random(seed)
    language = dice.choice(list(ALPHABETS))
    wanted = MEDIAN_CHARACTERS * dice.lognormvariate(0, SPREAD)
    length = int(min(max(wanted, CHARACTERS[0]), CHARACTERS[1]))
    words: list[str] = []
    while sum(map(len, words)) + len(words) < length:
        letters = dice.choices(ALPHABETS[language], k=dice.randint(*LETTERS_A_WORD))
        words.append("".join(letters))
    text = " ".join(words)[:length].strip()
    return _review(text[0].upper() + text[1:] + ".", language, dice.choice(BUSINESSES))


def _review(text: str, language: str | None, business: str | None) -> dict[str, Any]:
    return {
        "text": text,
        "language": language,
        "business_id": business,
        "source": "bench",
        "attributes": {},
    }


class Payloads:
    """The reviews encoded once; a record of any id is then two joins of bytes.

    Every record has an id of its own, so that however often the reviews are gone through none is
    dropped as a duplicate.
    """

    def __init__(self, codec: Codec, reviews: list[dict[str, Any]]) -> None:
        encoded = [codec.encode({"review_id": "", **review}) for review in reviews]
        # The id is the record's first field: behind the header, a length and then its bytes.
        self._header = encoded[0][: HEADER.size]
        self._rests = [value[HEADER.size + 1 :] for value in encoded]

    def record(self, tag: str, sequence: int, text: int) -> tuple[bytes, bytes]:
        """Key and value; `text` counts through the reviews, over and over."""
        key = b"%s%09d" % (tag.encode(), sequence)
        assert len(key) <= LONGEST_ID
        rest = self._rests[text % len(self._rests)]
        # Avro writes a short length as one byte, twice the number.
        return key, b"%s%c%s%s" % (self._header, len(key) * 2, key, rest)
