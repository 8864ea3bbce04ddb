"""The worker's own process, asked by gRPC as the mesh asks it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import grpc

from reviewmesh_protos.inference.v1 import inference_pb2, inference_pb2_grpc
from tests.mesh import free_port

_LOADING_S = 180.0
_RUN_S = 300.0
_ITEMS = 64
_CALLS = 4
"""Calls at once: 256 items, which is what a worker admits, keep its engine busy."""

Results = list[inference_pb2.Result]


class Online:
    """A worker process with the vllm engine, which serves the package in a folder."""

    def __init__(self, package: Path, log: Path) -> None:
        port, http_port = free_port(), free_port()
        self._address = f"127.0.0.1:{port}"
        environment = os.environ | {
            "REVIEWMESH_WORKER__PORT": str(port),
            "REVIEWMESH_WORKER__MODEL": str(package),
            "REVIEWMESH_WORKER__ENGINE": "vllm",
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
        self._wait()

    def seconds(self, task: str, texts: Sequence[str]) -> tuple[float, Results]:
        """How long all texts together take, and every result."""
        return asyncio.run(self._ask(task, texts))

    def end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _wait(self) -> None:
        request = inference_pb2.DescribeRequest()
        deadline = time.monotonic() + _LOADING_S
        with grpc.insecure_channel(self._address) as channel:
            stub = inference_pb2_grpc.InferenceServiceStub(channel)
            while True:
                try:
                    described = stub.Describe(request, timeout=5)
                    task = described.tasks[0].task
                    item = inference_pb2.Item(id="0", text="Is it there?")
                    stub.Infer(inference_pb2.InferRequest(task=task, items=[item]), timeout=60)
                    return
                except grpc.RpcError as error:
                    if self._process.poll() is not None or time.monotonic() > deadline:
                        raise RuntimeError(
                            f"the worker does not serve: {error}\n{self._log.read_text()[-2000:]}"
                        ) from error
                    time.sleep(0.2)

    async def _ask(self, task: str, texts: Sequence[str]) -> tuple[float, Results]:
        calls = [texts[at : at + _ITEMS] for at in range(0, len(texts), _ITEMS)]
        room = asyncio.Semaphore(_CALLS)
        async with grpc.aio.insecure_channel(self._address) as channel:
            stub = inference_pb2_grpc.InferenceServiceStub(channel)

            async def call(some: Sequence[str]) -> Results:
                items = [
                    inference_pb2.Item(id=str(number), text=text)
                    for number, text in enumerate(some)
                ]
                request = inference_pb2.InferRequest(task=task, items=items)
                async with room:
                    return list((await stub.Infer(request, timeout=_RUN_S)).results)

            await channel.channel_ready()
            began = time.monotonic()
            answered = await asyncio.gather(*(call(some) for some in calls))
            seconds = time.monotonic() - began
        return seconds, [result for results in answered for result in results]
