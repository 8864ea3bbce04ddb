"""A teacher that is a package of a model, asked through the engine that serves it."""

from __future__ import annotations

from dataclasses import dataclass

from reviewmesh_worker.engines.interface import Engine


@dataclass(frozen=True, slots=True)
class LocalTeacher:
    """A package, opened; `identity` is over its digest and its engine."""

    engine: Engine
    identity: str
