"""`python -m tests.scripted_worker CONTROL_FILE`: the worker's server, a scripted engine."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from reviewmesh_worker import logs
from reviewmesh_worker.server import serve
from reviewmesh_worker.settings import Settings
from tests.scripted_engine import ScriptedEngine

if __name__ == "__main__":
    settings = Settings()
    engine = ScriptedEngine(Path(sys.argv[1]))
    asyncio.run(serve(engine, settings, logs.configure(settings.log)))
