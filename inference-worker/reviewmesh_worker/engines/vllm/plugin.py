"""What vLLM calls in each of its processes, by the entry point `vllm.general_plugins`."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time

from reviewmesh_worker.engines.vllm import ARCHITECTURE, causes

_WATCH_S = 1.0


def register() -> None:
    """Register the bundled encoder's model class; in a process of vLLM, report exceptions to the
    worker, and exit when the worker does.
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
    """A killed worker cannot stop its engine process, which would keep the GPU's memory."""
    while os.getppid() == parent:
        time.sleep(_WATCH_S)
    os._exit(1)
