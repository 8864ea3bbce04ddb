"""Bounds the requests that are held in memory: a few are received at a time, one is parsed.

gRPC reads the message of a unary call before its handler runs, however many calls there are, and a
message of a few MB can hold millions of empty items. On the wire a unary request is a stream of one
message, so each call is handled as a stream here: its message is read when fewer than MAX_RECEIVING
are being received, and stays at the client until then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, NoReturn

import grpc

from reviewmesh_worker.serving.servicer import MAX_ITEMS_PER_CALL, refuse

MAX_RECEIVING: Final = 32
RECEIVE_WITHIN_S: Final = 10.0
# For calls without a deadline, and for clients that do not read their answers.
ANSWER_WITHIN_S: Final = 600.0
# The items, and room for other fields, also of later versions of the contract.
MAX_FIELDS: Final = MAX_ITEMS_PER_CALL + 64
# How protobuf writes a field.
_VARINT: Final = 0
_LENGTH: Final = 2
_FIXED: Final = {1: 8, 5: 4}
_GROUP: Final = (3, 4)
_GUARDED: Final = ("/inference.v1.InferenceService/Infer",)


class Receiving(grpc.aio.ServerInterceptor):
    """Guards Infer and InferStream; the requests of other calls are small."""

    def __init__(self, answer_within_s: float = ANSWER_WITHIN_S) -> None:
        self._places = asyncio.Semaphore(MAX_RECEIVING)
        self._answer_within_s = answer_within_s

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
                try:
                    async with asyncio.timeout(self._answer_within_s):
                        async for response in handler.unary_stream(request, context):
                            yield response
                except TimeoutError:
                    await self._refuse_late(context)

            return grpc.stream_stream_rpc_method_handler(
                answer_in_parts, None, handler.response_serializer
            )

        async def answer(messages: AsyncIterator[bytes], context: Any) -> Any:
            request = await self._receive(messages, context, handler.request_deserializer)
            try:
                async with asyncio.timeout(self._answer_within_s):
                    return await handler.unary_unary(request, context)
            except TimeoutError:
                await self._refuse_late(context)

        return grpc.stream_unary_rpc_method_handler(answer, None, handler.response_serializer)

    async def _receive(
        self, messages: AsyncIterator[bytes], context: Any, parse: Callable[[bytes], Any]
    ) -> Any:
        async with self._places:
            try:
                async with asyncio.timeout(RECEIVE_WITHIN_S):
                    message = await anext(aiter(messages))
            except (TimeoutError, StopAsyncIteration):
                problem = f"expected one request within {RECEIVE_WITHIN_S:g} s"
            else:
                request, problem = _parsed(message, parse)
                if not problem:
                    return request
        await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, problem)

    async def _refuse_late(self, context: Any) -> NoReturn:
        problem = f"no answer within {self._answer_within_s:g} s; send fewer items"
        await refuse(context, grpc.StatusCode.DEADLINE_EXCEEDED, problem)


def _parsed(message: bytes, parse: Callable[[bytes], Any]) -> tuple[Any, str]:
    """The request and an empty string, or None and what is wrong with it."""
    if not _has_at_most(message, MAX_FIELDS):
        return None, f"expected 1 to {MAX_ITEMS_PER_CALL} items, got more"
    try:
        return parse(message), ""
    except Exception:  # noqa: BLE001 - protobuf raises various errors for invalid bytes
        return None, "expected a request of inference.v1; its bytes cannot be read as one"


def _has_at_most(message: bytes, fields: int) -> bool:
    """Whether the message has at most so many fields, of which each item is one.

    True for bytes that are no message: the parser rejects those. Skips from length to length,
    since parsing 2 million empty items blocks the event loop for a quarter of a second. Encoding:
    https://protobuf.dev/programming-guides/encoding/
    """
    at = 0
    for _ in range(fields):
        if at >= len(message):
            return True
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == _LENGTH:
            length, at = _varint(message, at)
            at += length
        elif kind == _VARINT:
            _, at = _varint(message, at)
        elif kind in _FIXED:
            at += _FIXED[kind]
        elif kind not in _GROUP:
            return True
    return at >= len(message)


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and the position after it."""
    number = 0
    for position, byte in enumerate(message[at : at + 10]):
        number |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            return number, at + position + 1
    return 0, len(message)
