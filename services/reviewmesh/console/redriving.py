"""Sends dead letters again: first a plan, then what it says, each letter once.

A second press, another person or the command line may send the same letter meanwhile: the service
that takes it drops the second. So nothing is remembered here, and a kill half-way costs nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from reviewmesh.console.acting import WrongChoice
from reviewmesh.console.mesh import Mesh
from reviewmesh.query.deadletters import DeadLetter, all_letters, letter_placed
from reviewmesh.query.redrive import Plan, Redriven, plan, redrive


@dataclass(frozen=True, slots=True)
class Chosen:
    """One letter by its place, or all of a stage and cause that came until then."""

    place: str
    stage: str
    cause: str
    until_ms: int | None
    """Letters that come after the plan was shown are not part of it."""


def chosen(fields: Mapping[str, str]) -> Chosen:
    """Raises WrongChoice."""
    place, stage, cause = (fields.get(name, "") for name in ("place", "stage", "cause"))
    until = fields.get("until_ms", "")
    if not place and not (stage and cause):
        raise WrongChoice("expected the place of a letter, or a stage and a cause, got neither")
    if until and not (until.isascii() and until.isdigit() and len(until) < 16):
        raise WrongChoice("expected until_ms in milliseconds since 1970")
    return Chosen(place, stage, cause, int(until) if until else None)


class Redriving:
    """One at a time: each reads all letters."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._lock = threading.Lock()

    def plan(self, wanted: Chosen) -> Plan:
        """What would be sent. Raises CannotReach, KafkaException, NotFound and WrongChoice."""
        with self._lock:
            return plan(self._mesh.connection(), self._letters(wanted))

    def redrive(self, wanted: Chosen) -> Redriven:
        """Raises as `plan`."""
        with self._lock:
            connection = self._mesh.connection()
            return redrive(connection, plan(connection, self._letters(wanted)))

    def _letters(self, wanted: Chosen) -> list[DeadLetter]:
        connection = self._mesh.connection()
        if wanted.place:
            try:
                return [letter_placed(connection, wanted.place)]
            except ValueError as error:
                raise WrongChoice(str(error)) from error
        return [
            item
            for item in all_letters(connection, lambda words: None)
            if (item.content["stage"], item.content["cause"]) == (wanted.stage, wanted.cause)
            and (wanted.until_ms is None or item.timestamp_ms <= wanted.until_ms)
        ]
