"""The audit of the locks, by pip-audit itself, against a service in OSV's form."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from reviewmesh_kit.exit_codes import DONE, FAILED, UNREACHABLE
from tests.mesh import free_port
from tests.supply import audit
from tests.supply.locks import Pin, every_lock, pins

FINE, WEAK = Pin("fine-package", "1.0"), Pin("weak-package", "2.0")
WEAKNESS = {
    "id": "PYSEC-2026-1",
    "summary": "It runs what it is sent.",
    "affected": [
        {
            "package": {"name": WEAK.name, "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.1"}]}],
        }
    ],
}


@dataclass
class OsvService:
    """Knows of one weakness."""

    status: int = 200
    asked: list[Mapping[str, Any]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def service() -> Iterator[OsvService]:
    osv = OsvService()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            osv.asked.append(query)
            weak = query["package"]["name"] == WEAK.name and query["version"] == WEAK.version
            answer = json.dumps({"vulns": [WEAKNESS]} if weak else {}).encode()
            self.send_response(osv.status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    osv.url = f"http://127.0.0.1:{server.server_port}/v1/query"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield osv
    server.shutdown()
    thread.join()
    server.server_close()


def only(monkeypatch: pytest.MonkeyPatch, **locks: set[Pin]) -> None:
    monkeypatch.setattr(audit, "every_lock", lambda: [*locks])
    monkeypatch.setattr(audit, "pins", lambda lock: dict.fromkeys(locks[lock]))


def test_a_weakness_fails_the_audit_and_names_the_locks_that_have_it(
    service: OsvService, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Two versions of one package are two pins.
    newer = Pin(WEAK.name, "2.1")
    only(monkeypatch, worker={FINE, WEAK}, mesh={WEAK}, service={FINE, newer})
    assert audit.audit(service.url) == FAILED
    told = capsys.readouterr().out.splitlines()
    assert told == [
        "weak-package==2.0 in worker, mesh: PYSEC-2026-1, fixed in 2.1",
        "3 pins of 3 locks, known weaknesses: 1",
    ]
    asked = {(query["package"]["name"], query["version"]) for query in service.asked}
    assert asked == {(pin.name, pin.version) for pin in (FINE, WEAK, newer)}


def test_without_a_weakness_it_passes(service: OsvService, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, worker={FINE})
    assert audit.audit(service.url) == DONE


@pytest.mark.parametrize("answers", [True, False])
def test_what_could_not_be_asked_is_not_called_safe(
    answers: bool,
    service: OsvService,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    only(monkeypatch, worker={FINE})
    service.status = 404
    url = service.url if answers else f"http://127.0.0.1:{free_port()}/v1/query"
    assert audit.audit(url) == UNREACHABLE
    said = capsys.readouterr()
    assert not said.out and said.err.startswith(f"NOT AUDITED: no answer from {url}: ")


def test_a_pin_that_pip_audit_leaves_out_fails_the_audit(
    service: OsvService, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    only(monkeypatch, worker={FINE, Pin("odd-package", "of-no-version")})
    assert audit.audit(service.url) == UNREACHABLE
    assert capsys.readouterr().err.startswith("NOT AUDITED: ")


def test_every_lock_is_audited() -> None:
    locks = every_lock()
    assert {"service", "worker", "worker-vllm", "insights", "export", "mesh", "dev"} <= {*locks}
    assert "vllm-overrides" not in locks
    assert all(pins(lock) for lock in locks)
