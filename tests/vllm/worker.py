"""A worker on real vLLM, as a process."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil

from reviewmesh_protos.inference.v1 import inference_pb2, inference_pb2_grpc
from tests.inference import infer, soon
from tests.mesh import Process, free_port

LOADING_S = 400.0
ANSWER_S = 60.0


@dataclass
class VllmWorker:
    """The worker with the vllm engine on the package in a folder."""

    folder: Path
    model: Path
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        http_port = free_port()
        environment = os.environ | {
            "REVIEWMESH_WORKER__PORT": str(self.port),
            "REVIEWMESH_WORKER__MODEL": str(self.model),
            "REVIEWMESH_WORKER__ENGINE": "vllm",
            "REVIEWMESH_HTTP__PORT": str(http_port),
        }
        command = [sys.executable, "-m", "reviewmesh_worker"]
        self.log = self.folder / "worker.log"
        self.process = Process("worker", command, environment, self.log, http_port)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        self.stub = inference_pb2_grpc.InferenceServiceStub(self.channel)

    def start(self) -> None:
        self.process.start()
        soon(self.process.is_ready, f"the worker serves; see {self.log}", LOADING_S)

    def stop(self) -> None:
        self.channel.close()
        if self.process.popen is not None and self.process.popen.poll() is None:
            self.process.terminate()

    def ask(self, task: str, texts: Sequence[str]) -> list[inference_pb2.Result]:
        answer = self.stub.Infer(infer(texts, task), timeout=ANSWER_S)
        return list(answer.results)

    def engine_processes(self) -> list[psutil.Process]:
        return vllm_processes(self.process)

    def metric(self, sample: str) -> float:
        # vLLM's gauges and counters are there from the start: a name that is not would count as 0.
        page = self.process.get("/metrics")[1]
        assert f"\n{sample}" in page, f"expected {sample} on /metrics"
        return self.process.metric(sample)


def vllm_processes(worker: Process) -> list[psutil.Process]:
    """vLLM's own processes, which are children of the worker's."""
    assert worker.popen is not None
    children = psutil.Process(worker.popen.pid).children(recursive=True)
    return [child for child in children if "resource_tracker" not in " ".join(cmdline(child))]


def cmdline(process: psutil.Process) -> list[str]:
    try:
        found: list[str] = process.cmdline()
    except psutil.NoSuchProcess:
        return []
    return found
