"""What happens when vLLM's engine process or the worker is killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest

from reviewmesh_worker.bundled import BUNDLED_MODEL
from tests.inference import infer, soon
from tests.vllm.worker import VllmWorker


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[VllmWorker]:
    own = VllmWorker(tmp_path, BUNDLED_MODEL)
    try:
        own.start()
        yield own
    finally:
        own.stop()


def test_a_worker_whose_engine_is_killed_refuses_for_now_and_ends(worker: VllmWorker) -> None:
    texts = [f"Text number {number} which is on its way. " * 40 for number in range(200)]
    call = worker.stub.Infer.future(infer(texts, "ner"), timeout=60)
    soon(lambda: worker.metric("vllm:num_requests_waiting") > 0, "the engine is at work")
    for process in worker.engine_processes():
        process.kill()
    with pytest.raises(grpc.RpcError) as refused:
        call.result()
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert worker.process.wait() == 1


def test_the_engine_of_a_killed_worker_ends(worker: VllmWorker) -> None:
    engines = worker.engine_processes()
    assert engines
    worker.process.kill()
    try:
        soon(lambda: not any(map(_runs, engines)), "no engine process is left")
    finally:
        for engine in filter(_runs, engines):
            engine.kill()


def _runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
