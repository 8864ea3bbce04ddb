"""Links lead to files and headings that exist, and the index names every page."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import DOCS, GUIDE, PAGES, anchors_of, links_of, name_of


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_a_file_and_a_heading_of_it(page: Path) -> None:
    for link in links_of(page):
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{link}: there is no such file"
        assert not anchor or anchor in anchors_of(path), f"{link}: there is no such heading"


def test_the_index_names_every_page() -> None:
    named = {(DOCS / link.partition("#")[0]).resolve() for link in links_of(GUIDE)}
    assert {page for page in DOCS.rglob("*.md") if page != GUIDE} <= named
