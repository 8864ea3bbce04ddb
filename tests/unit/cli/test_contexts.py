"""Named contexts: which mesh a command goes to, and that no secret is kept in clear."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from reviewmesh.cli.app import app as program
from reviewmesh.cli.app import mesh_first
from reviewmesh.cli.contexts import BOOTSTRAP, PREFIX, REGISTRY, Contexts, app, apply
from reviewmesh.local.monitoring import targets_of

PASSWORD_FILE = "REVIEWMESH_KAFKA__SASL_PASSWORD_FILE"


@pytest.fixture(autouse=True)
def own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in (BOOTSTRAP, REGISTRY, PREFIX, PASSWORD_FILE):
        # Set first: what the code under test sets is taken back then.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return Contexts.file()


def run(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_context_is_used_where_nothing_else_names_a_mesh(own_file: Path) -> None:
    run("set", "prod", "--bootstrap-server", "prod:9092", "--prefix", "eu.", f"{PASSWORD_FILE}=/p")
    run("set", "test", "--bootstrap-server", "test:9092", "--registry", "http://test:8081")
    assert stat.S_IMODE(own_file.stat().st_mode) == 0o600
    apply(None, None, None)
    assert BOOTSTRAP not in os.environ, "the local mesh is current"
    run("use", "prod")
    apply(None, None, None)
    assert (os.environ[BOOTSTRAP], os.environ[PREFIX]) == ("prod:9092", "eu.")
    apply("test", None, None)
    assert (os.environ[BOOTSTRAP], os.environ[REGISTRY]) == ("test:9092", "http://test:8081")
    assert PREFIX not in os.environ, "nothing of another mesh is left"
    apply(None, "here:1", None)
    assert os.environ[BOOTSTRAP] == "here:1"
    apply("local", None, None)
    assert BOOTSTRAP not in os.environ
    run("delete", "prod")
    assert Contexts.read().current == "local"
    assert '"context": "test"' in run("list", "--json")


@pytest.mark.parametrize(
    "words",
    [
        ["REVIEWMESH_KAFKA__SASL_PASSWORD=hunter2"],
        ["REVIEWMESH_REGISTRY__PASSWORD=hunter2"],
        ["REVIEWMESH_KAFKA__SSL_KEY_PEM=hunter2"],
        ["--registry", "https://user:hunter2@registry"],
        ["REVIEWMESH_KAFKAS__X=hunter2"],
        ["REVIEWMESH_INTAKE__FORWARDING_SECRET=hunter2"],
    ],
)
def test_secrets_and_misspelt_settings_are_refused_without_being_shown(
    words: list[str], own_file: Path
) -> None:
    done = CliRunner().invoke(app, ["set", "prod", "--bootstrap-server", "b:1", *words])
    assert done.exit_code == 2
    assert "hunter2" not in done.output
    assert not own_file.exists()


def test_a_registry_alone_and_an_unknown_name_are_refused() -> None:
    with pytest.raises(typer.BadParameter, match="--bootstrap-server as well"):
        apply(None, None, "http://r")
    with pytest.raises(typer.BadParameter, match="expected one of local"):
        apply("prod", None, None)


@pytest.mark.parametrize(
    ("words", "read"),
    [
        ("find r-1 --context prod", "--context prod find r-1"),
        ("lag --json --bootstrap-server=b:1", "--bootstrap-server=b:1 lag --json"),
        ("dlq list --registry u --json --context c", "--registry u --context c dlq list --json"),
        ("find --context", "find --context"),
        ("publish -- --context x", "publish -- --context x"),
        ("context set p --bootstrap-server b:1", "context set p --bootstrap-server b:1"),
    ],
)
def test_a_mesh_is_named_before_the_command_or_behind_it(words: str, read: str) -> None:
    assert mesh_first(words.split()) == read.split()


def test_a_command_of_the_state_folder_takes_no_other_mesh() -> None:
    done = CliRunner().invoke(program, ["ps", "--context", "local"])
    assert done.exit_code == 2
    assert "is of the mesh of the state folder" in done.output


def test_prometheus_targets_have_the_jobs_of_the_rules() -> None:
    names = ("broker", "broker.controller", "registry", "intake", "enricher-ner", "worker", "lag")
    found = targets_of({name: port for port, name in enumerate(names, start=1)})
    jobs = {item["labels"]["component"]: item["labels"]["job"] for item in found}
    assert jobs == {
        "intake": "service",
        "enricher-ner": "service",
        "worker": "worker",
        "lag": "lag",
    }
    assert found[0]["targets"] == ["127.0.0.1:4"]
