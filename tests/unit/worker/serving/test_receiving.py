"""A call that is never answered ends, and leaves its places."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from reviewmesh_protos.inference.v1 import inference_pb2, inference_pb2_grpc
from reviewmesh_worker.serving.receiving import Receiving

SOON_S = 15.0


class Silent(inference_pb2_grpc.InferenceServiceServicer):
    """Answers nothing, for ever."""

    def __init__(self) -> None:
        self.held = 0

    async def Infer(self, request: Any, context: Any) -> Any:
        await self._wait()

    async def InferStream(self, request: Any, context: Any) -> AsyncIterator[Any]:
        yield inference_pb2.InferStreamResponse()
        await self._wait()

    async def Describe(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    async def _wait(self) -> None:
        self.held += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.held -= 1


@pytest.mark.parametrize("method", ["Infer", "InferStream"])
def test_a_call_that_is_never_answered_ends(method: str) -> None:
    asyncio.run(ends(method))


async def ends(method: str) -> None:
    server = grpc.aio.server(interceptors=(Receiving(answer_within_s=0.2),))
    silent = Silent()
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(silent, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = inference_pb2_grpc.InferenceServiceStub(channel)
            request: Any = inference_pb2.InferRequest(task="ner")
            if method == "InferStream":
                request = inference_pb2.InferStreamRequest(task="ner")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                call = getattr(stub, method)(request, timeout=SOON_S)
                await call if method == "Infer" else [answer async for answer in call]
            assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert "send fewer items" in (refused.value.details() or "")
            assert silent.held == 0
    finally:
        await server.stop(0)
