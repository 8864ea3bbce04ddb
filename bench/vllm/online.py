"""The worker's own process, asked by gRPC as the mesh asks it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import grpc

from bench.vllm.deadlines import LOADING_S, RUN_S
from reviewmesh_protos.inference.v1 import inference_pb2, inference_pb2_grpc
from reviewmesh_worker.engines.settings import VllmSettings
from tests.mesh import free_port

_ITEMS = 64
ITEMS_AT_ONCE = 256
"""What a worker admits if nothing else is set."""

Results = list[inference_pb2.Result]


class Online:
    """A worker process with the vllm engine, which serves the package in a folder.

    It is asked for `at_once` items in calls of 64, which keep its engine busy.
    """

    def __init__(
        self, package: Path, log: Path, settings: VllmSettings, at_once: int = ITEMS_AT_ONCE
    ) -> None:
        port, http_port = free_port(), free_port()
        self._address = f"127.0.0.1:{port}"
        self._http = f"http://127.0.0.1:{http_port}"
        self._calls = at_once // _ITEMS
        chosen = settings.model_dump(exclude_unset=True)
        environment = os.environ | {
            **{f"REVIEWMESH_VLLM__{name.upper()}": str(value) for name, value in chosen.items()},
            "REVIEWMESH_WORKER__PORT": str(port),
            "REVIEWMESH_WORKER__MODEL": str(package),
            "REVIEWMESH_WORKER__ENGINE": "vllm",
            "REVIEWMESH_WORKER__MAX_IN_FLIGHT": str(at_once),
            "REVIEWMESH_HTTP__PORT": str(http_port),
        }
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "reviewmesh_worker"],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def ask(self, task: str, texts: Sequence[str]) -> tuple[float, int, Results]:
        """Seconds, generated tokens and every result of all texts together."""
        seconds, results = asyncio.run(self._ask(task, texts))
        return seconds, sum(result.usage.completion_tokens for result in results), results

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _wait(self) -> None:
        deadline = time.monotonic() + LOADING_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                last = self._log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"the worker does not serve; its log ends with\n{last}")
            time.sleep(0.2)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._http}/readyz", timeout=5):
                return True
        except OSError:
            return False

    async def _ask(self, task: str, texts: Sequence[str]) -> tuple[float, Results]:
        calls = [texts[at : at + _ITEMS] for at in range(0, len(texts), _ITEMS)]
        room = asyncio.Semaphore(self._calls)
        async with grpc.aio.insecure_channel(self._address) as channel:
            stub = inference_pb2_grpc.InferenceServiceStub(channel)

            async def call(some: Sequence[str]) -> Results:
                items = [
                    inference_pb2.Item(id=str(number), text=text)
                    for number, text in enumerate(some)
                ]
                request = inference_pb2.InferRequest(task=task, items=items)
                async with room:
                    return list((await stub.Infer(request, timeout=RUN_S)).results)

            await channel.channel_ready()
            began = time.monotonic()
            answered = await asyncio.gather(*(call(some) for some in calls))
            seconds = time.monotonic() - began
        return seconds, [result for results in answered for result in results]
