"""`python -m bench.vllm.worker FOLDER`: the worker's server with a chat model of random weights."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from reviewmesh_worker import logs
from reviewmesh_worker.engines.interface import Engine
from reviewmesh_worker.engines.vllm.chat import ChatModel, VllmChatEngine
from reviewmesh_worker.engines.vllm.encoder import VllmEncoderEngine
from reviewmesh_worker.engines.vllm.settings import VllmSettings
from reviewmesh_worker.models import BUNDLED_MODEL
from reviewmesh_worker.server import serve
from reviewmesh_worker.settings import Settings
from reviewmesh_worker.tasks import SENTIMENT, TOPIC
from reviewmesh_worker.tasks.calibration import neutral_calibration
from reviewmesh_worker.tasks.definition import load_tasks

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    tasks = load_tasks()
    settings = Settings()
    engine: Engine
    if folder == BUNDLED_MODEL:
        engine = VllmEncoderEngine(folder, VllmSettings())
    else:
        neutral = neutral_calibration(tasks[SENTIMENT].label_ids, tasks[TOPIC].label_ids)
        model = ChatModel(folder, "tiny-gemma", "1", "sha256:0", neutral)
        engine = VllmChatEngine(model, tasks, VllmSettings())
    asyncio.run(serve(engine, settings, logs.configure(settings.log)))
