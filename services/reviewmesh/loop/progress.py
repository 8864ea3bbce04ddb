"""Tells when an input stands still: something could be done, and nothing is. Pure.

It does not ask why. Whatever keeps records from being read or finished, for a reason that nobody
foresaw too, shows as a position or a head that does not move.
"""

from __future__ import annotations

from dataclasses import dataclass, field

STANDS_STILL_AFTER_S = 25.0


@dataclass(slots=True)
class Timer:
    """How long a value has not changed while it should."""

    seen: object = None
    since: float = 0.0

    def look(self, value: object, should_change: bool, now: float) -> float:
        """Seconds; 0 while it changes, or need not."""
        if not should_change or value != self.seen:
            self.seen, self.since = value, now
        return now - self.since


@dataclass(slots=True)
class Progress:
    """One input: what could be read is read, what is in flight is finished."""

    reading: Timer = field(default_factory=Timer)
    finishing: Timer = field(default_factory=Timer)

    def look(
        self, position: int, head: int, in_flight: int, unread: int, waits_for: str, now: float
    ) -> str:
        """What has not been done for longer than STANDS_STILL_AFTER_S, in words; empty otherwise.

        `unread`: records that could be read and taken now. `waits_for`: what outside keeps those in
        flight from being finished.
        """
        reading_s = self.reading.look(position, unread > 0, now)
        must_finish = in_flight > 0 and not waits_for
        finishing_s = self.finishing.look(head, must_finish, now)
        if reading_s > STANDS_STILL_AFTER_S:
            return f"up to {unread} records wait and none was read for {reading_s:.0f} s"
        if finishing_s > STANDS_STILL_AFTER_S:
            return f"offset {head} is in flight and was not finished for {finishing_s:.0f} s"
        return ""
