"""The screen of insights: plots, and the table that says the same."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from reviewmesh.console.insights import plots_of, row_of
from reviewmesh.console.places import Batch, PlaceIndex
from tests.unit.console.page import page, text_of

HOUR = 3_600_000
HOSTILE = "</div><script>window.owned=1</script>'\""


def window(start: int, reviews: int = 4, business: str = "acme", **more: Any) -> dict[str, Any]:
    return {
        "business_id": business,
        "window_start": start * HOUR,
        "window_end": (start + 1) * HOUR,
        "reviews": reviews,
        "rated_reviews": 1,
        "mean_stars": 4.5,
        "sentiment": {"positive": 3, "negative": 1},
        "topics": [{"id": "food", "reviews": 2, "sentiment": {}, "polarity": {}}],
        "updated_at": start * HOUR + 5,
    } | more


def series(plots: dict[str, Any], title: str) -> dict[str, list[Any]]:
    [plot] = [plot for plot in plots["plots"] if plot["title"] == title]
    return {one["name"]: one["values"] for one in plot["series"]}


def test_each_window_is_a_point_of_every_plot() -> None:
    plots = plots_of([window(1), window(2, reviews=9)])
    assert plots["at"] == [3_600, 7_200]
    assert series(plots, "Reviews") == {"reviews": [4, 9]}
    assert series(plots, "Mood, in percent") == {"negative": [25, 25], "positive": [75, 75]}
    assert series(plots, "Mean stars") == {"stars": [4.5, 4.5]}
    assert series(plots, "Reviews by topic") == {"food": [2, 2]}


def test_hours_without_reviews_are_no_reviews_and_no_mood() -> None:
    plots = plots_of([window(1), window(5), window(7)])
    assert plots["at"] == [hour * 3_600 for hour in (1, 2, 4, 5, 6, 7)]
    assert series(plots, "Reviews")["reviews"] == [4, 0, 0, 4, 0, 4]
    assert series(plots, "Mood, in percent")["positive"] == [75, None, None, 75, None, 75]
    assert [bool(link) for link in plots["links"]] == [True, False, False, True, False, True]


def test_what_no_window_has_is_no_plot() -> None:
    plots = plots_of([window(1, mean_stars=None, sentiment={}, topics=[])])
    assert [plot["title"] for plot in plots["plots"]] == ["Reviews"]


def test_the_most_frequent_topics_are_plotted() -> None:
    topics = [
        {"id": f"t-{number}", "reviews": number, "sentiment": {}, "polarity": {}}
        for number in range(1, 9)
    ]
    assert list(series(plots_of([window(1, topics=topics)]), "Reviews by topic")) == [
        f"t-{number}" for number in (8, 7, 6, 5, 4)
    ]


def test_a_point_leads_to_its_reviews() -> None:
    row = row_of(window(2))
    asked = parse_qs(urlsplit(row.link).query)
    assert asked == {
        "business": ["acme"],
        "since_ms": [str(2 * HOUR)],
        "until_ms": [str(3 * HOUR)],
    }
    [(name, count, link)] = row.topics
    assert (name, count) == ("food", 2)
    assert parse_qs(urlsplit(link).query)["topic"] == ["food"]


@pytest.fixture
def index_folder(tmp_path: Path) -> Path:
    index = PlaceIndex(tmp_path)
    batch = Batch()
    hostile = [{"id": HOSTILE, "reviews": 2, "sentiment": {}, "polarity": {}}]
    for shown in (
        window(1),
        window(2, reviews=9),
        window(1, business=HOSTILE, topics=hostile, sentiment={HOSTILE: 4}),
    ):
        key = (shown["business_id"], shown["window_start"])
        batch.insights.append((*key, json.dumps(shown)))
    index.take(batch)
    index.close()
    return tmp_path


def test_the_table_says_what_the_plots_show(index_folder: Path) -> None:
    answer = page(index_folder).get("/insights", params={"business": "acme"})
    drawn = re.search(r"data-plots='([^']*)' aria-hidden=\"true\"", answer.text)
    assert drawn is not None
    plots = json.loads(html.unescape(drawn[1]))
    assert series(plots, "Reviews")["reviews"] == [4, 9]
    said = text_of(answer.text)
    assert "1970-01-01T02:00:00.000Z 9 positive 3 , negative 1 4.5 food 2" in said.replace(
        "positive 3,", "positive 3 ,"
    )
    assert said.index("T02:00") < said.index("T01:00")


def test_names_in_records_are_text_in_the_table_and_in_the_plots(index_folder: Path) -> None:
    answer = page(index_folder).get("/insights", params={"business": HOSTILE})
    assert answer.status_code == 200
    assert "<script>window" not in answer.text
    drawn = re.search(r"data-plots='([^']*)' aria-hidden", answer.text)
    assert drawn is not None
    plots = json.loads(html.unescape(drawn[1]))
    [(name, values)] = series(plots, "Mood, in percent").items()
    assert "script" in name and values == [100]


def test_without_windows_it_says_where_they_come_from(tmp_path: Path) -> None:
    said = text_of(page(tmp_path).get("/insights").text)
    assert "There are no windows of this business." in said
    assert "The index does not go on" in said, "it has not begun"


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("uPlot.iife.min.js", "/*! https://github.com/leeoniya/uPlot (v1.6.32) */"),
        ("uPlot.min.css", ".uplot"),
        ("LICENSE", "The MIT License (MIT)"),
    ],
)
def test_the_library_is_served_with_its_licence(tmp_path: Path, name: str, begins: str) -> None:
    assert page(tmp_path).get(f"/static/uplot/{name}").text.startswith(begins)
