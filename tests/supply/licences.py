"""The licence of everything that a role installs, in the words of its own wheel.

`python -m tests.supply.licences`, or `make licences`, asks the package registry for what the locks
have and the table lacks, and writes `requirements/licences.toml`. Of a wheel that is gigabytes
large only its metadata is read. What may be installed is decided elsewhere, in
`requirements/allowed-licences.toml`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.supply.locks import REQUIREMENTS, ROLES, Pin, pins, plain

TABLE = REQUIREMENTS / "licences.toml"
HEADER = """\
# What each wheel says about its licence: an expression or its words, or a list of classifiers.
# Written by `make licences` from the metadata of the wheels that the locks allow; not by hand.
"""
CLASSIFIER = "License :: "
LONGEST = 100

Said = str | list[str]
"""An SPDX expression or words; or the last parts of the classifiers, all of which hold."""


def said(expression: str | None, classifiers: Sequence[str], words: str | None) -> Said:
    """What metadata says of its licence, the most exact of the three ways; empty for nothing."""
    if expression:
        return expression
    found = [line.split(" :: ")[-1] for line in classifiers if line.startswith(CLASSIFIER)]
    # "OSI Approved" alone names no licence.
    if named := sorted(set(found) - {"OSI Approved"}):
        return named
    return (words or "").strip().split("\n")[0][:LONGEST]


def read_table() -> dict[Pin, Said]:
    if not TABLE.exists():
        return {}
    entries: Mapping[str, Said] = tomllib.loads(TABLE.read_text("utf-8"))
    return {Pin(*key.split("==")): value for key, value in entries.items()}


def ask(wanted: Mapping[Pin, set[str]]) -> dict[Pin, Said]:
    """What the wheels in the registry say. Raises ValueError for a wheel that no lock allows."""
    with tempfile.TemporaryDirectory() as folder:
        asked, report = Path(folder, "asked.txt"), Path(folder, "report.json")
        asked.write_text("".join(f"{pin}\n" for pin in wanted))
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"]
        command += ["--ignore-installed", "--no-deps", "--only-binary", ":all:"]
        # Reads the metadata out of the wheel by its place in it. With hashes pip would fetch the
        # wheel whole, so they are compared below.
        command += ["--use-feature", "fast-deps", "--report", str(report), "-r", str(asked)]
        subprocess.run(command, check=True)
        return _from_report(json.loads(report.read_text("utf-8")), wanted)


def _from_report(report: Mapping[str, Any], wanted: Mapping[Pin, set[str]]) -> dict[Pin, Said]:
    found = {}
    for item in report["install"]:
        metadata = item["metadata"]
        pin = Pin(plain(metadata["name"]), metadata["version"])
        digest = item["download_info"]["archive_info"]["hashes"]["sha256"]
        if digest not in wanted[pin]:
            raise ValueError(
                f"{pin}: expected a wheel that the lock allows, got one with the digest {digest}"
            )
        found[pin] = said(
            metadata.get("license_expression"),
            metadata.get("classifier", ()),
            metadata.get("license"),
        )
    return found


def write_table(table: Mapping[Pin, Said]) -> None:
    # Of these values JSON's text is TOML's, too.
    lines = (
        f'"{pin}" = {json.dumps(value, ensure_ascii=False)}\n'
        for pin, value in sorted(table.items())
    )
    TABLE.write_text(HEADER + "".join(lines), encoding="utf-8")


def renew() -> None:
    """A wheel never changes: what is known of one is kept, what no lock has is left out."""
    known = read_table()
    table: dict[Pin, Said] = {}
    for role in ROLES:
        locked = pins(role)
        table |= {pin: known[pin] for pin in locked if pin in known}
        missing = {pin: digests for pin, digests in locked.items() if pin not in table}
        if missing:
            print(f"{role}: asking for {len(missing)} licences", file=sys.stderr)
            table |= ask(missing)
            # What is known so far, should the registry not answer on.
            write_table(known | table)
    write_table(table)
    print(f"{len(table)} licences in {TABLE.name}", file=sys.stderr)


if __name__ == "__main__":
    renew()
