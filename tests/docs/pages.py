"""What stands in the pages: fenced blocks with their marks, code in sentences, links, headings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GUIDE = DOCS / "README.md"
"""Says how commands are written, and counts the marks."""

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted(DOCS.rglob("*.md")),
    ROOT / "deploy/helm/reviewmesh/README.md",
    *ROOT.glob("inference-worker/reviewmesh_worker/bundled/*/MODEL_CARD.md"),
]

RUNS_UNTIL_STOPPED = "Runs until Ctrl-C."
MARKS = (
    "Needs Docker.",
    "Needs a GPU.",
    "Needs a cluster.",
    "Needs a Connect worker.",
    "Needs Prometheus.",
    "Needs your data.",
    "Takes long.",
    RUNS_UNTIL_STOPPED,
)

LANGUAGES = {
    # To be pasted into a shell.
    "sh",
    # A shell session as it was: what was typed begins with `$ `, the rest is output.
    "console",
    "text",
    *("ini", "java", "js", "json", "properties", "python", "sql", "yaml"),
}

_MARKDOWN = MarkdownIt("commonmark").enable("table")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT) if page.is_relative_to(ROOT) else page)


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    marks: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"{name_of(self.page)}:{self.line}"

    def commands(self) -> list[str]:
        """Each with the lines that continue it, as typed."""
        joined = re.sub(r"\\\n\s*", " ", self.text)
        lines = re.sub(r"\|\n\s*", "| ", joined).splitlines()
        if self.language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        elif self.language != "sh":
            lines = []
        return [line for line in lines if line.strip() and not line.startswith("#")]


def blocks_of(page: Path) -> list[Block]:
    tokens = _tokens(page)
    return [
        Block(
            page,
            line=token.map[0] + 1 if token.map else 0,
            language=token.info.strip(),
            marks=_marks(tokens[:at]),
            text=token.content,
        )
        for at, token in enumerate(tokens)
        if token.type in ("fence", "code_block")
    ]


def _marks(before: list[Token]) -> tuple[str, ...]:
    """The sentences of a paragraph in italics right above."""
    if len(before) < 3 or before[-1].type != "paragraph_close":
        return ()
    parts = [part for part in before[-2].children or [] if part.type != "text" or part.content]
    if [part.type for part in parts] != ["em_open", "text", "em_close"]:
        return ()
    return tuple(re.findall(r"[^.]+\.", parts[1].content.replace(". ", ".")))


def code_in_sentences(page: Path) -> list[str]:
    return [" ".join(part.content.split()) for part in _inline(page) if part.type == "code_inline"]


def links_of(page: Path) -> list[str]:
    """Those within the repository."""
    targets = [
        str(part.attrs["href" if part.type == "link_open" else "src"])
        for part in _inline(page)
        if part.type in ("link_open", "image")
    ]
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors_of(page: Path) -> set[str]:
    """The headings as the repository's page and the site name them in links."""
    tokens, seen, anchors = _tokens(page), Counter[str](), set()
    for opened, inline in pairwise(tokens):
        if opened.type == "heading_open":
            text = "".join(part.content for part in inline.children or [])
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            anchors.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
    return anchors


def _inline(page: Path) -> Iterator[Token]:
    for token in _tokens(page):
        yield from token.children or []


def _tokens(page: Path) -> list[Token]:
    return _MARKDOWN.parse(page.read_text(encoding="utf-8"))
