"""Links lead to files and headings that exist, and the index names every page."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.docs.pages import DOCS, GUIDE, PAGES, ROOT, anchors_of, links_of, name_of


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


def test_the_navigation_of_the_site_names_every_page_once() -> None:
    navigation = yaml.safe_load((DOCS / "site/navigation.yaml").read_text(encoding="utf-8"))
    named = [ROOT / f"{navigation['root']}.md"]
    for part in navigation["subtrees"]:
        for entry in part["entries"]:
            named += ROOT.glob(f"{entry['glob']}.md") if "glob" in entry else []
            named += [ROOT / f"{entry['file']}.md"] if "file" in entry else []
    assert sorted(named) == sorted(PAGES)
