"""The version that a process says it runs."""

from __future__ import annotations

import json
import os
import tomllib
import urllib.request
from pathlib import Path

from reviewmesh_kit import http_server
from reviewmesh_kit.settings import HttpSettings
from tests.command_line import reviewmesh

ROOT = Path(__file__).parents[3]


def declared() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def test_every_process_serves_its_version() -> None:
    server = http_server.serve(HttpSettings(), {})
    try:
        url = f"http://127.0.0.1:{server.server_port}/version"
        with urllib.request.urlopen(url, timeout=5) as response:
            assert json.load(response) == {"version": declared()}
    finally:
        server.shutdown()


def test_the_command_line_shows_its_version(tmp_path: Path) -> None:
    run = reviewmesh(dict(os.environ), tmp_path, "--version")
    assert (run.returncode, run.stdout.strip()) == (0, declared())
