"""Commands are imported when they are called, and their lines in the help say what they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from reviewmesh.cli.app import LOCAL, OF_ANY_MESH, app
from tests.command_line import COMMAND_TIMEOUT_S

HEAVY = {"confluent_kafka", "pydantic", "httpx", "fastavro", "structlog", "rich", "grpc", "jgo"}
NOT_OF_FIND = {"grpc", "jgo", "requests", "lark", "phonenumbers", "opentelemetry", "cryptography"}
CALLED_BY_NAME = "\n".join(
    (
        "import sys",
        "from reviewmesh.cli.__main__ import main",
        "sys.argv[0] = 'reviewmesh'",
        "main()",
    )
)
COMMANDS = {**LOCAL, **OF_ANY_MESH}


def imported(code: str) -> set[str]:
    """The packages that a process has imported after this code."""
    told = f"{code}\nimport json, sys; print(json.dumps([*sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", told],
        capture_output=True,
        text=True,
        check=True,
        timeout=COMMAND_TIMEOUT_S,
    )
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_the_help_of_the_program_imports_no_command() -> None:
    code = "from reviewmesh.cli.app import app; app(['--help'], standalone_mode=False)"
    assert not imported(code) & HEAVY


def test_find_imports_what_it_needs() -> None:
    assert not imported("import reviewmesh.cli.find, reviewmesh.local.state") & NOT_OF_FIND


@pytest.mark.parametrize("columns", ["80", "40"])
def test_the_help_names_every_command_and_fits(
    columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    # Click leaves the last two columns free; the terminal of the runner has none of its own.
    shown = CliRunner().invoke(app, ["--help"], terminal_width=int(columns) - 2).stdout
    assert all(len(line) <= int(columns) for line in shown.splitlines()), shown
    assert all(f"\n  {name}" in shown for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_has_help_of_its_own(name: str) -> None:
    found = COMMANDS[name].load(name)
    assert found.name == name
    assert found.help or found.params
    assert len(COMMANDS[name].help) < 60 and COMMANDS[name].help.endswith(".")


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("reviewmesh f", "find\nforget"),
        ("reviewmesh dlq l", "list"),
        ("reviewmesh --context l", "local"),
        ("reviewmesh tail --topic en", "enriched"),
        ("reviewmesh rollout abort --task to", "topic"),
        ("reviewmesh publish --site y", "yelp"),
    ],
)
def test_a_shell_completes_commands(words: str, completed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CALLED_BY_NAME],
        env=os.environ
        | {
            "_REVIEWMESH_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        },
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
    )
    assert done.stdout.strip() == completed, done.stderr
