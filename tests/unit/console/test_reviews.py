"""The screen of reviews that match."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reviewmesh.console.mesh import Mesh
from reviewmesh.console.reviews import Searching, excerpt_of, sought_in
from reviewmesh.query.recent import FoundReview, FoundReviews, Sought
from reviewmesh.settings import Settings
from tests.unit.console.page import page, text_of
from tests.unit.query.test_recent import CODEC, record

HOSTILE = "<script>window.owned=1</script>"


class Found(Searching):
    """Finds these, as if they were in the topic."""

    def __init__(self, *reviews: FoundReview, **more: Any) -> None:
        super().__init__(Mesh(Settings()))
        fields: dict[str, Any] = {
            "reviews": reviews,
            "number": len(reviews),
            "read": 500,
            "oldest_ms": 1,
            "newest_ms": 2,
            "is_all": True,
        }
        self._found = FoundReviews(**(fields | more))

    def find(self, sought: Sought) -> FoundReviews:
        return self._found


def review(**changed: Any) -> FoundReview:
    made = record(1, **changed)
    return FoundReview(made, CODEC.decode(made.value or b""))


def text(folder: Path, searching: Searching, **query: str) -> str:
    answer = page(folder, searching=searching).get("/reviews", params=query)
    assert answer.status_code == 200
    return text_of(answer.text)


def test_what_was_found_where_it_stands_and_what_was_read(tmp_path: Path) -> None:
    found = Found(review(text="We met Anna at the desk."), is_all=False)
    said = text(tmp_path, found, text="anna")
    assert "1 found. 500 enriched records were read" in said
    assert "the topic holds more, which were not searched." in said
    answer = page(tmp_path, searching=found).get("/reviews?text=anna").text
    assert "We met <mark>Anna</mark> at the desk." in answer
    assert '<a href="/review?id=r-1">' in answer


def test_what_a_link_asks_for_is_said(tmp_path: Path) -> None:
    said = text(tmp_path, Found(), business="acme", topic="food", since_ms="0", until_ms="1000")
    assert "Of business acme . About food . Accepted from 1970-01-01T00:00:00.000Z" in said
    assert "0 found." in said
    assert "Without a business." in text(tmp_path / "none", Found(), business="", since_ms="0")


def test_a_window_that_is_gone_is_said(tmp_path: Path) -> None:
    found = Found(read=0, oldest_ms=None, newest_ms=None)
    assert "retention may have deleted them" in text(tmp_path, found, since_ms="0")


def test_more_than_a_page_is_said(tmp_path: Path) -> None:
    said = text(tmp_path, Found(review(), number=300), text="a")
    assert "300 found, the newest 1 are shown." in said


def test_without_a_question_it_says_what_to_do(tmp_path: Path) -> None:
    assert "Write a word of a review" in text_of(page(tmp_path).get("/reviews").text)
    assert "Text in recent reviews" in text_of(page(tmp_path).get("/review").text)


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ({"since_ms": "soon"}, "since_ms: expected milliseconds since 1970, got 'soon'"),
        ({"until_ms": "-5"}, "until_ms: expected milliseconds"),
        ({"until_ms": "9" * 30}, "until_ms: expected milliseconds"),
        ({"text": "a" * 501}, "expected a text of at most 500 characters, got 501"),
    ],
)
def test_a_wrong_address_is_refused_in_words(
    tmp_path: Path, query: dict[str, str], problem: str
) -> None:
    assert sought_in(query)[1].startswith(problem)
    assert problem in text(tmp_path, Found(review()), **query)


def test_what_records_and_addresses_say_is_text(tmp_path: Path) -> None:
    hostile = review(review_id=HOSTILE, text=f"Anna {HOSTILE}", business_id=HOSTILE)
    client = page(tmp_path, searching=Found(hostile))
    for query in ({"text": "anna"}, {"text": HOSTILE}, {"business": HOSTILE, "topic": HOSTILE}):
        assert HOSTILE not in client.get("/reviews", params=query).text


def test_an_excerpt_is_short_wherever_the_match_is() -> None:
    long = "x" * 5_000 + " Anna " + "y" * 5_000
    shown = excerpt_of(review(text=long), Sought(text="anna"))
    assert (shown.match, len(shown.before), len(shown.after)) == ("Anna", 121, 121)
    shown = excerpt_of(review(text=None, title="Anna!"), Sought(text="anna"))
    assert (shown.before, shown.match, shown.after) == ("", "Anna", "!")
    assert len(excerpt_of(review(text=long), Sought(topic="food")).before) == 241


def test_an_erased_review_shows_no_text(tmp_path: Path) -> None:
    erased = review(text=None, title=None, erased_at=5)
    assert "erased" in text(tmp_path, Found(erased), business="acme")


def test_a_mesh_that_is_away_is_named(tmp_path: Path) -> None:
    answer = page(tmp_path).get("/reviews?text=anna")
    assert answer.status_code == 503
    assert "did not answer" in text_of(answer.text)
