"""CPU and memory of processes, as the operating system counts them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import psutil

MB = 1024 * 1024


@dataclass(frozen=True)
class Usage:
    """Since each process began: CPU seconds, user and system; and memory that is resident now."""

    cpu_s: dict[str, float]
    rss_mb: dict[str, float]
    machine_s: float
    """CPU seconds of everything on the machine, what others took of it included."""


class Meter:
    """Watches processes by name; one that ended keeps its last reading."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._cpu_s: dict[str, float] = {}
        self._rss_mb: dict[str, float] = {}
        self.max_rss_mb: dict[str, float] = {}

    def read(self) -> Usage:
        for name, process in self._processes.items():
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    rss_mb = process.memory_info().rss / MB
            except psutil.NoSuchProcess:
                continue
            self._cpu_s[name] = times.user + times.system
            self._rss_mb[name] = rss_mb
            self.max_rss_mb[name] = max(rss_mb, self.max_rss_mb.get(name, 0.0))
        whole = psutil.cpu_times()
        machine_s = sum(whole) - whole.idle - whole.iowait - whole.guest - whole.guest_nice
        return Usage(dict(self._cpu_s), dict(self._rss_mb), machine_s)


def cpu_between(first: Usage, last: Usage) -> dict[str, float]:
    """CPU seconds that each process used from one reading to the other."""
    return {name: last.cpu_s[name] - first.cpu_s[name] for name in first.cpu_s}
