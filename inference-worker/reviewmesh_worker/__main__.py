"""`python -m reviewmesh_worker`: serves the embedded encoder."""

from __future__ import annotations

import asyncio
import sys

from reviewmesh_worker import logs
from reviewmesh_worker.engines.interface import EngineLoadError
from reviewmesh_worker.engines.onnx.engine import OnnxEngine
from reviewmesh_worker.server import serve
from reviewmesh_worker.settings import Settings


def main() -> int:
    """Returns 0 after a drain, 1 when the engine cannot load or the port is taken."""
    settings = Settings()
    log = logs.configure(settings.log)
    try:
        asyncio.run(serve(OnnxEngine(settings.worker.model), settings, log))
    except (EngineLoadError, OSError, RuntimeError) as error:
        log.error("cannot serve", reason=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
