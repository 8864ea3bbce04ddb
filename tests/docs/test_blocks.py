"""Each fenced block has a language; marks are explained and counted for the reader."""

from __future__ import annotations

import re
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest

from tests.docs.pages import GUIDE, LANGUAGES, MARKS, PAGES, blocks_of, name_of

# A word such as PACKAGE, which is neither a setting nor a variable; or what was left out.
STANDS_FOR_SOMETHING = re.compile(r"(?<![\w$.{-])[A-Z]{3,}(?:_[A-Z]+)*(?![\w=(])|…")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_has_a_language_and_known_marks(page: Path) -> None:
    for block in blocks_of(page):
        assert block.language in LANGUAGES, (
            f"{block}: expected one of {sorted(LANGUAGES)} behind ```, got {block.language!r}"
        )
        unknown = set(block.marks) - set(MARKS)
        assert not unknown, f"{block}: expected marks of {MARKS}, got {unknown}"
        assert not block.marks or block.language == "sh", f"{block}: only commands have marks"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_stands_for_something_of_the_readers_is_marked(page: Path) -> None:
    for block in blocks_of(page):
        if block.language == "sh" and "Needs your data." not in block.marks:
            for command in block.commands():
                typed = re.sub("'[^']*'", "", command.partition(" #")[0])
                stands_for = STANDS_FOR_SOMETHING.findall(typed)
                assert not stands_for, f"{block}: {command}: cannot be pasted: {stands_for}"


def test_the_guide_counts_the_blocks_of_each_mark() -> None:
    commands = [block for page in PAGES for block in blocks_of(page) if block.language == "sh"]
    counted = Counter(chain.from_iterable(block.marks for block in commands))
    told = {
        mark: int(number)
        for mark, number in re.findall(
            r"^\| \*(.+\.)\* \|.*\| (\d+) \|$", GUIDE.read_text(encoding="utf-8"), re.M
        )
    }
    assert told == {mark: counted[mark] for mark in MARKS}
    unmarked = sum(not block.marks for block in commands)
    [told_unmarked] = re.findall(
        r"^\| none \|.*\| (\d+) \|$", GUIDE.read_text(encoding="utf-8"), re.M
    )
    assert int(told_unmarked) == unmarked
