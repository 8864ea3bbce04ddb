"""A service with secrets in its settings shows them nowhere: log, endpoints, refusals."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.broker import wait_until
from tests.mesh import Process, free_port

SECRETS = {
    "REVIEWMESH_KAFKA__SASL_PASSWORD": "kafka-hunter2",
    "REVIEWMESH_KAFKA__SSL_KEY_PASSWORD": "key-hunter2",
    "REVIEWMESH_REGISTRY__PASSWORD": "registry-hunter2",
    "REVIEWMESH_REGISTRY__SSL_KEY_PASSWORD": "registry-key-hunter2",
    "REVIEWMESH_REGISTRY__URL": "http://someone:url-hunter2@127.0.0.1:1/ccompat",
}
WORD = "hunter2"
CLI = "from reviewmesh.cli.app import main; main()"
SASL = {
    "REVIEWMESH_KAFKA__SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "REVIEWMESH_KAFKA__SASL_MECHANISM": "PLAIN",
    "REVIEWMESH_KAFKA__SASL_USERNAME": "mesh",
}
COMMANDS = {
    "intake": ["reviewmesh.intake"],
    "enricher": ["reviewmesh.enrich", "--task", "ner"],
    "joiner": ["reviewmesh.join"],
}


def environment(**extra: str) -> dict[str, str]:
    closed = {"REVIEWMESH_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"}
    return os.environ | closed | SASL | SECRETS | extra


@pytest.mark.parametrize("name", COMMANDS)
def test_a_waiting_service_shows_none(name: str, tmp_path: Path) -> None:
    """It logs all that it can, against a port where nothing listens."""
    port = free_port()
    everything = {
        "REVIEWMESH_HTTP__PORT": str(port),
        "REVIEWMESH_LOG__LEVEL": "DEBUG",
        "REVIEWMESH_KAFKA__DEBUG": "all",
    }
    log = tmp_path / "log"
    command = [sys.executable, "-m", *COMMANDS[name]]
    process = Process(name, command, environment(**everything), log, port)
    process.start()
    try:
        wait_until(lambda: "waiting" in log.read_text(), 60, "the service waits")
        endpoints = [process.get(path) for path in ("/healthz", "/readyz", "/metrics")]
        assert process.terminate() == 0
    finally:
        assert process.popen is not None
        process.popen.kill()
    assert [status for status, _ in endpoints] == [200, 503, 200]
    assert "127.0.0.1" in log.read_text()
    for text in (log.read_text(), *(body for _, body in endpoints)):
        assert WORD not in text


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("REVIEWMESH_KAFKA__NO_SUCH_OPTION", f"{WORD}"),
        ("REVIEWMESH_KAFKA__SSL_KEY_PEM", f"{WORD}"),
        ("REVIEWMESH_KAFKA__SASL_MECHANISM", "GSSAPI"),
        ("REVIEWMESH_KAFKA__GROUP_ID", f"{WORD}"),
        ("REVIEWMESH_REGISTRY__URL", f"ldap://user:{WORD}@host"),
        ("REVIEWMESH_GRACE_S", "x"),
    ],
)
@pytest.mark.parametrize("command", [["-m", "reviewmesh.intake"], ["-c", CLI, "lag"]])
def test_a_bad_setting_ends_with_2_its_name_and_no_stack_trace(
    command: list[str], variable: str, value: str
) -> None:
    tls = {"REVIEWMESH_KAFKA__SECURITY_PROTOCOL": "SASL_SSL"}
    done = subprocess.run(
        [sys.executable, *command],
        env=environment(**tls, **{variable: value}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    named = "REVIEWMESH_KAFKA__" if variable.endswith("SASL_MECHANISM") else variable
    assert named in done.stderr.replace("\n", "")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert WORD not in done.stderr
