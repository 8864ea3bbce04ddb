"""The registry's first start: interrupted at any moment it is begun anew, once ready it is kept."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reviewmesh.local import artifacts, registry
from reviewmesh.local.java import java_command
from reviewmesh.local.ports import find_free
from reviewmesh.settings import RegistrySettings
from tests.broker import wait_until

SCHEMA = {"type": "record", "name": "Probe", "fields": [{"name": "x", "type": "int"}]}
JSON = {"Content-Type": "application/vnd.schemaregistry.v1+json"}
# Enough for its slowest start beside the other tests.
DEADLINE_S = 90


@pytest.fixture(scope="module")
def apicurio() -> Path:
    return artifacts.ensure().apicurio_dir


@contextmanager
def started(apicurio: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The registry as its supervisor starts it; killed afterwards."""
    port = find_free([])
    environment = registry.environment(folder, port, find_free([port]), None)
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            registry.command(apicurio, folder), env=os.environ | environment, stdout=log, stderr=log
        )
    try:
        yield process, registry.url(port, secure=False)
    finally:
        process.kill()
        process.wait()


def _ready(process: subprocess.Popen[bytes], url: str, folder: Path) -> None:
    def is_ready() -> bool:
        assert process.poll() is None, (folder / "log").read_text()[-3000:]
        return registry.is_ready(RegistrySettings(url=url))

    wait_until(is_ready, DEADLINE_S, "the registry ready")


def test_a_first_start_that_was_killed_is_begun_anew(apicurio: Path, tmp_path: Path) -> None:
    """Killed after its first table, before the rows in it: with these it would never start."""
    [jar] = apicurio.glob("lib/main/com.h2database.h2-*.jar")
    shell = java_command(
        64, "-cp", str(jar), "org.h2.tools.Shell", "-user", "sa", "-password", "sa"
    )
    table = "create table apicurio (prop_name varchar(255) primary key, prop_value varchar(255))"
    address = f"jdbc:h2:file:{tmp_path}/registry"
    subprocess.run([*shell, "-url", address, "-sql", table], check=True, capture_output=True)

    with started(apicurio, tmp_path) as (process, url):
        _ready(process, url, tmp_path)

    assert (tmp_path / "registry.mv.unfinished").exists()


def test_a_database_with_schemas_is_kept_though_nobody_saw_it_ready(
    apicurio: Path, tmp_path: Path
) -> None:
    with started(apicurio, tmp_path) as (process, url):
        _ready(process, url, tmp_path)
        body = json.dumps({"schema": json.dumps(SCHEMA)}).encode()
        request = urllib.request.Request(f"{url}/subjects/probe-value/versions", body, JSON)
        with urllib.request.urlopen(request, timeout=30) as answer:
            schema_id = json.load(answer)["id"]

    assert not registry.set_unfinished_aside(apicurio, tmp_path)
    with started(apicurio, tmp_path) as (process, url):
        _ready(process, url, tmp_path)
        with urllib.request.urlopen(f"{url}/schemas/ids/{schema_id}", timeout=30) as answer:
            assert json.loads(json.load(answer)["schema"]) == SCHEMA


def test_a_database_that_was_ready_once_is_never_set_aside(apicurio: Path, tmp_path: Path) -> None:
    (tmp_path / "registry.mv.db").write_bytes(b"whatever came of it later")
    registry.note_ready(tmp_path)

    assert not registry.set_unfinished_aside(apicurio, tmp_path)
    assert (tmp_path / "registry.mv.db").exists()


def test_a_database_that_cannot_be_read_and_was_never_ready_is_set_aside_whole(
    apicurio: Path, tmp_path: Path
) -> None:
    (tmp_path / "registry.mv.db").write_bytes(b"half of a file")

    assert registry.set_unfinished_aside(apicurio, tmp_path)
    assert (tmp_path / "registry.mv.unfinished").read_bytes() == b"half of a file"
