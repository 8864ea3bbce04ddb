"""Parts of a page that loads nothing: sections, tables, cells and the page around them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from typing import Final

from reviewmesh_models.evaluation import plots
from reviewmesh_models.evaluation.report import Score

SCORE: Final = ("value", "95 % interval", "from 0 to 1")
"""Headings of the cells of `score_cells`."""

Cells = Sequence[str]
"""HTML of a row's cells."""


def document(title: str, sections: Iterable[str]) -> str:
    style = (resources.files(__package__) / "page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n" + "\n".join(sections) + "\n</body>\n</html>\n"
    )


def facts(of: dict[str, str]) -> str:
    listed = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in of.items())
    return f"<dl>{listed}</dl>"


def section(title: str, note: str, content: str) -> str:
    said = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{said}{content}</section>"


def figure(caption: str, drawn: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption>{drawn}</figure>"


def table(headings: Iterable[str], rows: Sequence[Cells]) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def score_cells(score: Score, form: str = ".3f") -> list[str]:
    """The cells under `SCORE`."""
    return [
        number(f"{score.value:{form}}"),
        number(f"{score.low:.3f} to {score.high:.3f}"),
        plot(plots.interval(score.low, score.value, high=score.high, start=0, end=1)),
    ]


def words(text: str) -> str:
    return f"<td>{escape(text)}</td>"


def number(text: str) -> str:
    return f'<td class="number">{escape(text)}</td>'


def plot(drawn: str) -> str:
    return f"<td>{drawn}</td>"
