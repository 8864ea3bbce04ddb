"""Bounds the calls that stay open without inferring: the health service's Watch, reflection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc

from reviewmesh_worker.serving.servicer import refuse

MAX_OPEN: Final = 512
# grpc.health.v1 writes while it holds the lock that every change of the status needs.
READ_WITHIN_S: Final = 5.0
_WATCH: Final = "/grpc.health.v1.Health/Watch"
_REFLECTION: Final = "/grpc.reflection."


class OpenStreams(grpc.aio.ServerInterceptor):
    """Refuses calls beyond MAX_OPEN with RESOURCE_EXHAUSTED."""

    def __init__(self) -> None:
        self._open = 0

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> Any:
        handler = await continuation(details)
        if handler is None:
            return handler
        if details.method == _WATCH:

            async def watch(request: Any, context: Any) -> None:
                await self._enter(context)
                try:
                    await handler.unary_stream(request, _Impatient(context))
                except TimeoutError:
                    problem = f"expected a client that reads within {READ_WITHIN_S:g} s"
                    await refuse(context, grpc.StatusCode.DEADLINE_EXCEEDED, problem)
                finally:
                    self._open -= 1

            return grpc.unary_stream_rpc_method_handler(
                watch, handler.request_deserializer, handler.response_serializer
            )
        if details.method.startswith(_REFLECTION):

            async def reflect(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
                await self._enter(context)
                try:
                    async for response in handler.stream_stream(requests, context):
                        yield response
                finally:
                    self._open -= 1

            return grpc.stream_stream_rpc_method_handler(
                reflect, handler.request_deserializer, handler.response_serializer
            )
        return handler

    async def _enter(self, context: Any) -> None:
        if self._open >= MAX_OPEN:
            problem = f"expected at most {MAX_OPEN} calls of health and reflection at once; end one"
            await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, problem)
        self._open += 1


class _Impatient:
    """A call's context whose writes time out when the client does not read. Raises TimeoutError."""

    def __init__(self, context: Any) -> None:
        self._context = context

    async def write(self, message: Any) -> None:
        async with asyncio.timeout(READ_WITHIN_S):
            await self._context.write(message)
