"""What a process waits for before it can work, for /readyz.

The schema registry is not a need of its own: while it does not answer, its error is the reason for
`start`, `offsets` (a partition that opens) or `records` (a record that is being read).
"""

from __future__ import annotations

from typing import Literal

Need = Literal[
    "start",
    "broker",
    "topics",
    "assignment",
    "offsets",
    "records",
    "transactions",
    "dead letters",
    "progress",
]


class Readiness:
    """The reasons why the process is not ready, by need.

    Written by the polling thread, read by the HTTP threads.
    """

    def __init__(self) -> None:
        self._reasons: dict[Need, str] = {}
        # An outside cause that delays records. It is reported, but the process stays ready.
        self.held_up = ""

    @property
    def waiting_for(self) -> str:
        """All reasons, oldest first; empty when the process is ready."""
        return "; ".join(list(self._reasons.values()))

    def set_waiting(self, need: Need, reason: str) -> None:
        self._reasons[need] = reason

    def clear(self, need: Need) -> None:
        self._reasons.pop(need, None)

    def is_waiting_for(self, need: Need) -> bool:
        return need in self._reasons
