"""docs/reference is what the code says."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path

import pytest

from reviewmesh.metrics import DEAD_LETTER_CAUSES
from tests.contract import reference

PAGES = reference.pages()


@pytest.mark.parametrize("name", sorted(PAGES))
def test_the_reference_is_up_to_date(name: str) -> None:
    path = reference.FOLDER / name
    written = path.read_text() if path.exists() else ""
    assert written == PAGES[name], (
        f"docs/reference/{name} differs from the code: run `make reference`"
    )


def test_every_page_of_the_reference_is_made() -> None:
    assert {path.name for path in reference.FOLDER.glob("*.md")} == set(PAGES)


def test_the_readme_gives_the_defaults_of_the_code() -> None:
    rows = re.findall(r"^\| `(REVIEWMESH_\w+)` \| .*? \| (.*?) \|", PAGES["settings.md"], re.M)
    defaults = {name: default.strip("`") for name, default in rows}
    compared = 0
    text = Path("README.md").read_text()
    for names, given in re.findall(r"^\| (`REVIEWMESH_\w+`.*?) \| (.*?) \|$", text, re.M):
        [first, *others] = re.findall(r"`(\w+)`", names)
        section = first.rpartition("__")[0]
        values = [value for value in re.split(r", |; .*", given) if value]
        full = [first, *(f"{section}{name}" for name in others)]
        if len(full) == len(values) and all(name in defaults for name in full):
            for name, value in zip(full, values, strict=True):
                # Others are described in words.
                if re.fullmatch(r"`\S+`|\d+", value):
                    assert value.strip("`") == defaults[name], name
                    compared += 1
    assert compared >= 9, compared


def test_the_schema_of_dead_letters_names_every_cause() -> None:
    schema = resources.files("reviewmesh_schemas").joinpath("dead_letter.avsc").read_text()
    [doc] = [field["doc"] for field in json.loads(schema)["fields"] if field["name"] == "cause"]
    assert re.findall(r"[A-Z_]{3,}", doc) == list(DEAD_LETTER_CAUSES)
