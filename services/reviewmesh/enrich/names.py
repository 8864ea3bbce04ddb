"""Finds names in texts that leave, with the mesh's own workers of the task ner."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from reviewmesh.enrich.calls import Calls
from reviewmesh.enrich.items import Answer, WorkItem
from reviewmesh.enrich.jobs import Jobs
from reviewmesh.enrich.pool import PoolConfig
from reviewmesh.leaving.masking import PERSON
from reviewmesh_protos.inference.v1 import inference_pb2

BATCH_ITEMS = 32
BATCH_BYTES = 1024 * 1024
CALL_TIMEOUT_S = 30.0
MAX_ATTEMPTS = 3

Span = tuple[int, int]


@dataclass(eq=False)
class _NameRequest:
    answer: asyncio.Future[Answer] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class NameFinder:
    """Belongs to the event loop of the calls."""

    def __init__(self, config: PoolConfig) -> None:
        self._calls = Calls(
            config, Jobs(BATCH_ITEMS, BATCH_BYTES, self._finished), CALL_TIMEOUT_S, MAX_ATTEMPTS
        )

    def serving(self) -> bool:
        return self._calls.pool.any_serving()

    async def close(self) -> None:
        await self._calls.close()

    async def find(self, item: WorkItem) -> tuple[Span, ...] | None:
        """The names of persons, as spans of code points; None if no worker could find them."""
        request = _NameRequest()
        self._calls.submit([replace(item, token=request)])
        try:
            answer = await asyncio.wait_for(request.answer, CALL_TIMEOUT_S)
        except TimeoutError:
            self._calls.withdraw(lambda token: token is request)
            return None
        return _persons(answer, item.text)

    def _finished(self, item: WorkItem, answer: Answer) -> None:
        request = item.token
        assert isinstance(request, _NameRequest)
        if not request.answer.done():
            request.answer.set_result(answer)


def _persons(answer: Answer, text: str) -> tuple[Span, ...] | None:
    if not isinstance(answer.output, inference_pb2.NerOutput):
        return None
    spans = []
    for entity in answer.output.entities:
        holds = 0 <= entity.start < entity.end <= len(text)
        if not holds or text[entity.start : entity.end] != entity.text:
            return None
        if entity.label == PERSON:
            spans.append((entity.start, entity.end))
    return tuple(spans)
