"""`python -m tests.scripted_worker CONTROL_FILE`: the worker's server, a scripted engine."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from reviewmesh_kit import logs
from reviewmesh_worker.engines.interface import Engine
from reviewmesh_worker.serving.deployment import Deployment
from reviewmesh_worker.serving.package_selection import selection_of
from reviewmesh_worker.serving.server import serve
from reviewmesh_worker.serving.settings import Settings
from tests.scripted_engine import ScriptedEngine


def serve_engine(engine: Engine, settings: Settings) -> None:
    """The bundled package names the tasks; what answers them is the engine."""
    log = logs.configure(settings.log, "worker")
    deployment = Deployment(selection_of(settings), lambda package, tasks: engine, log)
    asyncio.run(serve(deployment, settings, log))


if __name__ == "__main__":
    serve_engine(ScriptedEngine(Path(sys.argv[1])), Settings())
