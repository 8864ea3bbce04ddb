"""What vLLM calls in each of its processes, by the entry point `vllm.general_plugins`."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time

from reviewmesh_worker.engines.vllm import ARCHITECTURE, causes

_WATCH_S = 1.0


def register() -> None:
    """Make the bundled encoder's model class known; in a process of vLLM, tell the worker what goes
    wrong, and end with it.
    """
    from vllm import ModelRegistry

    ModelRegistry.register_model(
        ARCHITECTURE, "reviewmesh_worker.engines.vllm.review_encoder:ReviewEncoder"
    )
    parent = multiprocessing.parent_process()
    if parent is not None:
        causes.tell()
        threading.Thread(target=_end_with, args=(parent.pid,), daemon=True).start()


def _end_with(parent: int | None) -> None:
    """A worker that is killed cannot tell its engine, which would keep the memory of the GPU."""
    while os.getppid() == parent:
        time.sleep(_WATCH_S)
    os._exit(1)
