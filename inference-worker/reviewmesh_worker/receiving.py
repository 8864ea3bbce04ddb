"""Calls are read into memory a few at a time, and parsed one at a time.

gRPC reads a call's message before its handler runs, however many calls there are, and a message of
a few MB may hold millions of empty items. On the wire a single request is a stream of one message,
so here each call is a stream until it has its place: what is not read yet waits at its client.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc

from reviewmesh_worker.servicer import MAX_ITEMS_PER_CALL, refuse

AT_ONCE: Final = 32
WITHIN_S: Final = 10.0
_GUARDED: Final = ("/inference.v1.InferenceService/Infer",)


class Receiving(grpc.aio.ServerInterceptor):
    """For Infer and InferStream; other calls have small requests."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(AT_ONCE)

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> Any:
        handler = await continuation(details)
        if handler is None or not details.method.startswith(_GUARDED):
            return handler
        if handler.response_streaming:

            async def answer_in_parts(
                messages: AsyncIterator[bytes], context: Any
            ) -> AsyncIterator[Any]:
                request = await self._receive(messages, context, handler.request_deserializer)
                async for response in handler.unary_stream(request, context):
                    yield response

            return grpc.stream_stream_rpc_method_handler(
                answer_in_parts, None, handler.response_serializer
            )

        async def answer(messages: AsyncIterator[bytes], context: Any) -> Any:
            request = await self._receive(messages, context, handler.request_deserializer)
            return await handler.unary_unary(request, context)

        return grpc.stream_unary_rpc_method_handler(answer, None, handler.response_serializer)

    async def _receive(
        self, messages: AsyncIterator[bytes], context: Any, parse: Callable[[bytes], Any]
    ) -> Any:
        async with self._places:
            try:
                async with asyncio.timeout(WITHIN_S):
                    message = await anext(aiter(messages))
            except (TimeoutError, StopAsyncIteration):
                problem = f"expected one request within {WITHIN_S:g} s"
            else:
                request, problem = _parsed(message, parse)
                if not problem:
                    return request
        await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, problem)


def _parsed(message: bytes, parse: Callable[[bytes], Any]) -> tuple[Any, str]:
    """The request, or what is wrong with it: then nothing of it is kept."""
    try:
        request = parse(message)
    except Exception:  # noqa: BLE001 - whatever protobuf raises for bytes that are none of its own
        return None, "expected a request of inference.v1; its bytes cannot be read as one"
    if (count := len(request.items)) > MAX_ITEMS_PER_CALL:
        return None, f"expected 1 to {MAX_ITEMS_PER_CALL} items, got {count}"
    return request, ""
