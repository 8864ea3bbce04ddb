"""The commands of the documentation exist, with their subcommands, options and arguments."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer._click.exceptions import UsageError
from typer.main import get_command

from reviewmesh.cli.app import app
from reviewmesh_models.cli.__main__ import app as models_app
from tests.docs.pages import PAGES, ROOT, blocks_of, code_in_sentences, name_of

COMMANDS: dict[str, Any] = {
    "reviewmesh": get_command(app),
    "reviewmesh-models": get_command(models_app),
}
# What a reader has of the system, or installs because the page says so.
OF_THE_SYSTEM = {
    *(".", "apt-get", "curl", "docker", "echo", "eval", "export", "helm", "kubectl"),
    *("cp", "kafka-transactions.sh", "pip", "printf", "sed"),
}
SETTINGS = (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_commands_of_a_page_exist(page: Path) -> None:
    for block in blocks_of(page):
        for line in block.commands():
            check_line(line, f"{block}: {line}", complete=True)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_in_sentences_exist(page: Path) -> None:
    for code in code_in_sentences(page):
        if re.match(r"(?:\S+/)?reviewmesh(?:-models)? [a-z-]|make [a-z.]|\S*python -m [a-z]", code):
            check_line(code, code, complete=False)


def check_line(line: str, where: str, complete: bool) -> None:
    """`check` of each of its commands."""
    for words in simple_commands(line):
        try:
            check(words, complete)
        except AssertionError as error:
            raise AssertionError(f"{where}: {error}") from None


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_settings_of_a_block_exist(page: Path) -> None:
    for block in blocks_of(page):
        for name in re.findall(r"^\s*(?:export )?(REVIEWMESH_\w+)=", block.text, re.M):
            # A secret's file stands for the secret.
            setting = name.removesuffix("_FILE")
            known = f"`{setting}`" in SETTINGS or name.startswith("REVIEWMESH_KAFKA__")
            assert known, f"{block}: docs/reference/settings.md has no {name}"


@pytest.mark.parametrize(
    "wrong",
    [
        "reviewmseh ps",
        "reviewmesh tial",
        "reviewmesh tail --frm-beginning",
        "reviewmesh find",
        "reviewmesh up --brokers many",
        "reviewmesh dlq list too many",
        'eval "$(reviewmesh enw)"',
        "reviewmesh tail | reviewmesh-models lable -",
        "docker compose run --rm cli lagg",
        "REVIEWMESH_SLOT=a kubectl exec pod -- reviewmesh lagg",
        "make tset",
        "make test TETS=tests/unit",
        "python -m reviewmesh.enricher",
        "python -m reviewmesh.avro",
        "python -m reviewmesh.enrich --tsk topic",
    ],
)
def test_a_wrong_command_is_found(wrong: str) -> None:
    with pytest.raises(AssertionError):
        for words in simple_commands(wrong):
            check(words, complete=True)


def simple_commands(line: str) -> Iterator[list[str]]:
    """The words of each command of a line, without settings before it and redirections.

    Also those within `$(…)` and those that a container or a pod is told to run.
    """
    for inner in re.findall(r"\$\(([^()]+)\)", line):
        yield from simple_commands(inner)
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if re.fullmatch(r"[|&;]+", word):
            while words and re.match(r"\w+=", words[0]):
                del words[0]
            if words:
                yield words
                yield from _told_to_others(words)
            words = []
        else:
            words.append(word)


def _told_to_others(words: list[str]) -> Iterator[list[str]]:
    if words[0] == "kubectl" and "--" in words:
        yield words[words.index("--") + 1 :]
    if words[:3] == ["docker", "compose", "run"] and "cli" in words:
        yield ["reviewmesh", *words[words.index("cli") + 1 :]]


def check(words: list[str], complete: bool) -> None:
    """Incomplete ones may lack arguments, as in a sentence."""
    words = [word for at, word in enumerate(words) if "<" not in (word, words[at - 1])]
    program, rest = words[0].rpartition("/")[2], words[1:]
    if program == "make":
        check_targets(rest)
    elif program in ("python", "python3") and rest[:1] == ["-m"]:
        check_module(rest[1], rest[2:])
    elif program in COMMANDS:
        check_command(COMMANDS[program], rest, complete)
    else:
        assert program in OF_THE_SYSTEM, f"expected a program that is known here, got {program}"


def check_command(command: Any, words: list[str], complete: bool) -> None:
    """With the parser of the command line itself, without running it."""
    if words == ["…"] or "--help" in words:
        return
    context = command.context_class(command, info_name=command.name)
    with refusals():
        _, rest, _ = command.make_parser(context).parse_args(list(words))
    if hasattr(command, "commands") and rest:
        assert rest[0] in command.commands, f"there is no command {rest[0]}"
        check_command(command.commands[rest[0]], rest[1:], complete)
    elif complete:
        # Also that no argument is missing and that values are of those that are allowed.
        with refusals():
            command.make_context(command.name, list(words))


@contextmanager
def refusals() -> Iterator[None]:
    """Refused words fail the test; a file that the reader has may be missing here."""
    try:
        yield
    except UsageError as error:
        if "does not exist" not in error.message:
            raise AssertionError(error.format_message()) from None


def check_module(module: str, words: list[str]) -> None:
    found = find_spec(module)
    assert found is not None, f"there is no module {module}"
    if found.submodule_search_locations:
        found = find_spec(f"{module}.__main__")
        assert found is not None, f"{module} cannot be run"
    assert found.origin is not None
    source = Path(found.origin).read_text(encoding="utf-8")
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        assert f'"{option}"' in source, f"{module} has no option {option}"


def check_targets(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        name, given, _ = word.partition("=")
        if given:
            assert re.search(rf"\$\({name}\)|\$\(if \$\({name}\)|^{name} \?=", makefile, re.M), (
                f"the Makefile reads no {name}"
            )
        else:
            assert name in targets(), f"the Makefile has no target {name}"


@cache
def targets() -> set[str]:
    """As make understands them, with the names that variables give."""
    database = subprocess.run(
        ["make", "-pRrq", ":"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout
    return set(re.findall(r"^([^\s#:=.][^\s:=]*|\.venv[^\s:=]*):(?!=)", database, re.M))
