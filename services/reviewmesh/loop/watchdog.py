"""Ends a process whose polling thread hangs, so that a supervisor restarts it.

Container engines restart processes that exited, not unhealthy ones. The watchdog counts its own
intervals instead of reading a clock, so that a suspended process does not count as hanging.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable

import structlog

from reviewmesh_kit.exit_codes import STANDS_STILL

HANGS_AFTER_S = 60.0
NOT_READY_AFTER_S = 30.0
CHECK_EVERY_S = 1.0


class Watchdog:
    """Watches `heartbeat`, which changes with every iteration of the watched thread's loop."""

    def __init__(self, heartbeat: Callable[[], float], log: structlog.stdlib.BoundLogger) -> None:
        self._heartbeat = heartbeat
        self._log = log
        self._watched = threading.get_ident()
        self._ended = threading.Event()
        self._unchanged_s = 0.0
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Watch the calling thread."""
        self._watched = threading.get_ident()
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()

    @property
    def problem(self) -> str:
        """Why the process is not ready; empty while the thread runs."""
        if self._unchanged_s < NOT_READY_AFTER_S:
            return ""
        return (
            f"the polling thread made no iteration for {self._unchanged_s:.0f} s: {self._where()}"
        )

    def _run(self) -> None:
        last = self._heartbeat()
        while not self._ended.wait(CHECK_EVERY_S):
            beat = self._heartbeat()
            self._unchanged_s = 0.0 if beat != last else self._unchanged_s + CHECK_EVERY_S
            last = beat
            if self._unchanged_s >= HANGS_AFTER_S:
                self._end()

    def _end(self) -> None:
        frame = sys._current_frames().get(self._watched)
        self._log.critical(
            "the polling thread hangs: ending this process, a supervisor is expected to restart it",
            seconds=self._unchanged_s,
            stack="".join(traceback.format_stack(frame)) if frame else "",
        )
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(STANDS_STILL)

    def _where(self) -> str:
        frame = sys._current_frames().get(self._watched)
        return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "its thread is gone"
