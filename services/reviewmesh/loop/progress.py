"""Detects inputs without progress, though progress is possible. Pure.

The cause does not matter: any defect that keeps records from being read or finished shows as a
position or a head that does not move.
"""

from __future__ import annotations

from dataclasses import dataclass, field

STANDS_STILL_AFTER_S = 25.0


@dataclass(slots=True)
class Timer:
    """Measures for how long a value has not changed although it should."""

    seen: object = None
    since: float = 0.0

    def check(self, value: object, should_change: bool, now: float) -> float:
        """The seconds without the expected change."""
        if not should_change or value != self.seen:
            self.seen, self.since = value, now
        return now - self.since


@dataclass(slots=True)
class Progress:
    """The progress of one input: of reading, and of finishing records in flight."""

    reading: Timer = field(default_factory=Timer)
    finishing: Timer = field(default_factory=Timer)

    def check(
        self, position: int, head: int, in_flight: int, unread: int, waits_for: str, now: float
    ) -> str:
        """Why the input counts as stalled, after STANDS_STILL_AFTER_S; empty when it does not.

        `unread`: the number of records that could be read now. `waits_for`: the outside cause that
        keeps records in flight from being finished, empty without one.
        """
        reading_s = self.reading.check(position, unread > 0, now)
        must_finish = in_flight > 0 and not waits_for
        finishing_s = self.finishing.check(head, must_finish, now)
        if reading_s > STANDS_STILL_AFTER_S:
            return f"up to {unread} records wait and none was read for {reading_s:.0f} s"
        if finishing_s > STANDS_STILL_AFTER_S:
            return f"offset {head} is in flight and was not finished for {finishing_s:.0f} s"
        return ""
