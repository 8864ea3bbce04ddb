"""Known weaknesses of everything that the locks pin, as OSV has them: `make audit`.

pip-audit asks. By itself it lets through what its service knows nothing of; here that is a failure,
as is a service that does not answer: nothing that was not checked is called safe.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from reviewmesh_kit.exit_codes import DONE, FAILED, UNREACHABLE
from tests.supply.locks import Pin, every_lock, pins, plain

SERVICE = "https://api.osv.dev/v1/query"


class NotAsked(Exception):
    """Nothing is known of some pins, and why."""


def weaknesses(wanted: Iterable[Pin], service: str) -> dict[Pin, list[dict[str, Any]]]:
    """What the service knows of each pin; an empty list for nothing. Raises NotAsked."""
    # pip-audit takes one version of a package at a time.
    turns: dict[int, list[Pin]] = defaultdict(list)
    for _, versions in groupby(sorted(set(wanted)), key=lambda pin: pin.name):
        for turn, pin in enumerate(versions):
            turns[turn].append(pin)
    found: dict[Pin, list[dict[str, Any]]] = {}
    for asked in turns.values():
        found |= _ask(asked, service)
    return found


def _ask(asked: list[Pin], service: str) -> dict[Pin, list[dict[str, Any]]]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "pins.txt")
        file.write_text("".join(f"{pin}\n" for pin in asked))
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(file), "--no-deps"]
        command += ["--disable-pip", "--progress-spinner", "off", "--format", "json"]
        command += ["--vulnerability-service", "osv", "--osv-url", service]
        done = subprocess.run(command, capture_output=True, text=True)
    try:
        answered = json.loads(done.stdout)["dependencies"]
    except ValueError:
        lines = done.stderr.strip().splitlines() or [f"pip-audit ended with {done.returncode}"]
        raise NotAsked(f"no answer from {service}: {lines[-1]}") from None
    found = {
        Pin(plain(entry["name"]), entry["version"]): entry["vulns"]
        for entry in answered
        if "skip_reason" not in entry
    }
    if silent := set(asked) - found.keys():
        names = ", ".join(map(str, sorted(silent)[:5]))
        raise NotAsked(f"pip-audit said nothing of {len(silent)} pins: {names}")
    return found


def in_words(
    found: Mapping[Pin, Sequence[Mapping[str, Any]]], locks: Mapping[str, Container[Pin]]
) -> list[str]:
    """A line for each weakness, with the locks that have it."""
    return [
        f"{pin} in {', '.join(lock for lock, pinned in locks.items() if pin in pinned)}: "
        f"{weakness['id']}, fixed in {', '.join(weakness['fix_versions']) or 'no version yet'}"
        for pin, known in sorted(found.items())
        for weakness in known
    ]


def audit(service: str = SERVICE) -> int:
    """Says what is known of every lock; gives the exit code."""
    locks = {lock: pins(lock).keys() for lock in every_lock()}
    try:
        found = weaknesses((pin for pinned in locks.values() for pin in pinned), service)
    except NotAsked as error:
        print(f"NOT AUDITED: {error}", file=sys.stderr)
        return UNREACHABLE
    lines = in_words(found, locks)
    for line in lines:
        print(line)
    print(f"{len(found)} pins of {len(locks)} locks, known weaknesses: {len(lines) or 'none'}")
    return FAILED if lines else DONE


if __name__ == "__main__":
    sys.exit(audit())
