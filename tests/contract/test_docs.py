"""The documentation's links and commands exist, and its index names every page."""

from __future__ import annotations

import re
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from reviewmesh.cli.app import app
from reviewmesh_models.cli.__main__ import app as models_app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```", re.M | re.S)

TARGETS = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.M))
COMMANDS: dict[str, Any] = {
    "reviewmesh": get_command(app),
    "reviewmesh-models": get_command(models_app),
}


def links(page: Path) -> list[str]:
    return LINK.findall(CODE.sub("", page.read_text()))


def anchors(page: Path) -> set[str]:
    """The headings as GitHub names them in links."""
    headings = re.findall(r"^#+ (.+)$", CODE.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_a_file_and_a_heading_of_it(page: Path) -> None:
    for link in links(page):
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{link}: there is no such file"
        assert not anchor or anchor in anchors(path), f"{link}: there is no such heading"


def test_the_index_names_every_page() -> None:
    index = DOCS / "README.md"
    named = {(DOCS / link.partition("#")[0]).resolve() for link in links(index)}
    assert {page for page in PAGES if page.parts[-1] != "README.md"} <= named


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist_with_their_options(page: Path) -> None:
    for line in code_lines(page):
        if target := re.match(r"make ([a-z][\w-]*)", line):
            assert target[1] in TARGETS, f"{line}: the Makefile has no such target"
        if module := re.search(r"python -m ([\w.]+)", line):
            assert find_spec(module[1]) is not None, f"{line}: there is no such module"
        if command := re.match(r"(?:\S+/)?(reviewmesh(?:-models)?) (.*)", line):
            check_options(line, COMMANDS[command[1]], command[2].split())


def code_lines(page: Path) -> list[str]:
    """Lines of code blocks, and code in sentences; without comments."""
    text = page.read_text()
    blocks = [block.replace("\\\n", " ").splitlines() for block in CODE.findall(text)]
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", CODE.sub("", text))]
    return [line.partition(" #")[0].strip() for line in [*chain(*blocks), *spans]]


def check_options(line: str, command: Any, words: list[str]) -> None:
    while hasattr(command, "commands") and words and words[0].isalpha():
        assert words[0] in command.commands, f"{line}: there is no command {words[0]}"
        command = command.commands[words.pop(0)]
    known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    for word in words:
        if re.match(r"--?[a-z]", word):
            assert word.partition("=")[0] in {*known, "--help"}, f"{line}: no option {word}"
