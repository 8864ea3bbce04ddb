"""What the locks of `requirements/` pin."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "requirements"
# What images install, what `reviewmesh up` runs on one machine, and what exports need.
ROLES = ("service", "worker", "worker-vllm", "insights", "export", "mesh")
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True, order=True)
class Pin:
    """One version of one distribution."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


def plain(name: str) -> str:
    """As the package registry compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lock: str) -> dict[Pin, set[str]]:
    """What the lock `requirements/LOCK.txt` pins, and the digests that it allows."""
    text = (REQUIREMENTS / f"{lock}.txt").read_text("utf-8")
    found = list(PIN.finditer(text))
    ends = [*(match.start() for match in found[1:]), len(text)]
    return {
        Pin(plain(match[1]), match[2]): set(HASH.findall(text[match.end() : end]))
        for match, end in zip(found, ends, strict=True)
    }


def every_lock() -> list[str]:
    """The locks, without the overrides that are given to one of them."""
    files = sorted(REQUIREMENTS.glob("*.txt"))
    return [file.stem for file in files if HASH.search(file.read_text("utf-8"))]
