"""`reviewmesh publish` as a user runs it, but in the process of the test."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from reviewmesh.cli.app import main


class Said(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


Publish = Callable[..., Said]


def publish_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Publish:
    """Runs the command with these words; a test's fixture returns it."""

    def run(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["reviewmesh", "publish", *words])
        capsys.readouterr()
        code: object = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        said = capsys.readouterr()
        return Said(code if isinstance(code, int) else 0, said.out, said.err)

    return run
