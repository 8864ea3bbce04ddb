"""docs/reference is what the code says."""

from __future__ import annotations

import pytest

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
