"""Finds the names in texts that leave, by calls to the mesh's own workers of the task ner."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from reviewmesh.enrich.calls import Calls
from reviewmesh.enrich.items import Answer, WorkItem
from reviewmesh.enrich.jobs import Jobs
from reviewmesh.enrich.pool import PoolOf
from reviewmesh.leaving.masking import PERSON
from reviewmesh_protos.inference.v1 import inference_pb2

BATCH_ITEMS = 32
BATCH_BYTES = 1024 * 1024
CALL_TIMEOUT_S = 30.0
MAX_ATTEMPTS = 3

Span = tuple[int, int]


@dataclass(eq=False)
class _Asked:
    answer: asyncio.Future[Answer] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Names:
    """Lives in the event loop of the calls."""

    def __init__(self, of: PoolOf) -> None:
        self._calls = Calls(
            of, Jobs(BATCH_ITEMS, BATCH_BYTES, self._finished), CALL_TIMEOUT_S, MAX_ATTEMPTS
        )

    def serving(self) -> bool:
        return self._calls.pool.any_serving()

    async def close(self) -> None:
        await self._calls.close()

    async def find(self, item: WorkItem) -> tuple[Span, ...] | None:
        """Persons in the text, as spans of its code points; None when nobody could tell."""
        asked = _Asked()
        self._calls.submit([replace(item, token=asked)])
        try:
            answer = await asyncio.wait_for(asked.answer, CALL_TIMEOUT_S)
        except TimeoutError:
            self._calls.withdraw(lambda token: token is asked)
            return None
        return _persons(answer, item.text)

    def _finished(self, item: WorkItem, answer: Answer) -> None:
        asked = item.token
        assert isinstance(asked, _Asked)
        if not asked.answer.done():
            asked.answer.set_result(answer)


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
