"""Asks an endpoint in the provider's batches: a file of requests, answered within a day.

A batch passes through four states, each written down before the next: open (reserved), uploaded,
submitted, collected. After a kill between a submission and its record, the batch is found by its
mark in the provider's list, so no batch is submitted twice.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import openai
from openai import AsyncOpenAI

from reviewmesh_models.evaluation.predictions import OnAnswered
from reviewmesh_models.labelling.answers import Labels, Spent, TeacherFailure
from reviewmesh_models.labelling.asking import (
    REFUSED,
    bound_of,
    read_teacher_completion,
    request_of,
)
from reviewmesh_models.labelling.live import BudgetSpent, TeacherFailed, check_bound
from reviewmesh_models.labelling.reviews import Review
from reviewmesh_models.labelling.store import Asked, ProviderBatch, Store
from reviewmesh_models.labelling.teachers import Budget, Teacher
from reviewmesh_worker.tasks.definition import Task

ENDPOINT: Final = "/v1/chat/completions"
MARK: Final = "reviewmesh"
_MOST_REQUESTS: Final = 10_000
_MOST_BYTES: Final = 100 * 1024 * 1024
"""Below OpenAI's limits: 50,000 requests and 200 MB."""
_WINDOW: Final = "24h"
_LONGEST_S: Final = 25 * 3600
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 60.0
_ENDED: Final = frozenset({"completed", "failed", "expired", "cancelled"})
_RETRIES: Final = 5
"""Attempts to read the state of batches; requests that cost money are not repeated."""
_LISTED: Final = 1000

Collected = tuple[Labels | TeacherFailure | None, Spent]


class BatchTeacher:
    """One endpoint, asked for one task after the other."""

    def __init__(
        self, teacher: Teacher, client: AsyncOpenAI, store: Store, budget: Budget | None
    ) -> None:
        self._teacher = teacher
        self._client = client
        self._looking = client.with_options(max_retries=_RETRIES)
        self._store = store
        self._budget = budget

    async def label(self, task: Task, reviews: list[Review], answered: OnAnswered) -> None:
        """Every review that has no answer yet. Raises TeacherFailed, BudgetSpent."""
        asked = Asked(self._teacher.identity, task.name, task.digest)
        known = self._store.answers(asked).keys() | self._store.under_way(asked)
        missing = {review.key: review.text for review in reviews if review.key not in known}
        answered(len(reviews) - len(missing))
        left = self._open(asked, task, missing)
        await self.finish(task, reviews, answered)
        if left:
            raise BudgetSpent(
                f"the budget has no room for {left} more calls of the teacher {self._teacher.name}"
            )

    async def finish(self, task: Task, reviews: list[Review], answered: OnAnswered) -> None:
        """Every batch that was opened, now or before. Raises TeacherFailed."""
        asked = Asked(self._teacher.identity, task.name, task.digest)
        texts = {review.key: review.text for review in reviews}
        try:
            for batch in self._store.open_batches(asked):
                await self._finish(asked, task, batch, texts, answered)
        except openai.APIError as error:
            raise TeacherFailed(
                f"teacher {self._teacher.name}: its batches do not answer, {error}"
            ) from error

    def _open(self, asked: Asked, task: Task, missing: Mapping[str, str]) -> int:
        """Reserve batches of all that is missing; returns for how many there was no room."""
        waiting = [(key, bound_of(self._teacher, task, text)) for key, text in missing.items()]
        while waiting:
            size = _size(waiting)
            reserved = self._store.open_batch(asked, uuid.uuid4().hex, waiting[:size], self._budget)
            waiting = waiting[reserved:]
            if reserved < size:
                break
        return len(waiting)

    async def _finish(
        self,
        asked: Asked,
        task: Task,
        batch: ProviderBatch,
        texts: Mapping[str, str],
        answered: OnAnswered,
    ) -> None:
        keys = self._store.batch_keys(batch)
        number = batch.provider_id or await self._found(batch)
        if number is None:
            number = await self._submit(task, batch, [(key, texts[key]) for key in keys])
        if batch.provider_id is None:
            self._store.submitted(batch, number)
        ended = await self._ended(number)
        answers: dict[str, Collected] = {}
        for file in (ended.output_file_id, ended.error_file_id):
            if file:
                content = await self._looking.files.content(file)
                answers |= dict(self._read(task, content.text, texts))
        self._store.collected(asked, batch, {key: answers[key] for key in keys if key in answers})
        answered(len(answers.keys() & set(keys)))
        for key in answers.keys() & set(keys):
            check_bound(self._teacher, answers[key][1], bound_of(self._teacher, task, texts[key]))
        if ended.status != "completed":
            said = "; ".join(str(one.message) for one in (ended.errors and ended.errors.data) or [])
            raise TeacherFailed(
                f"teacher {self._teacher.name}: the batch {number} ended as {ended.status} {said}"
            )

    async def _found(self, batch: ProviderBatch) -> str | None:
        """The provider's number of a batch that was submitted just before a kill."""
        if batch.state == "open":
            return None
        seen = 0
        async for one in self._looking.batches.list(limit=100):
            if (one.metadata or {}).get(MARK) == batch.mark:
                return one.id
            seen += 1
            if seen >= _LISTED:
                break
        return None

    async def _submit(
        self, task: Task, batch: ProviderBatch, asked: Sequence[tuple[str, str]]
    ) -> str:
        file = batch.file
        if file is None:
            lines = "".join(f"{line}\n" for line in self._lines(task, asked)).encode()
            name = f"{batch.mark}.jsonl"
            file = (await self._client.files.create(file=(name, lines), purpose="batch")).id
            self._store.uploaded(batch, file)
        made = await self._client.batches.create(
            input_file_id=file,
            endpoint=ENDPOINT,
            completion_window=_WINDOW,
            metadata={MARK: batch.mark},
        )
        return made.id

    def _lines(self, task: Task, asked: Sequence[tuple[str, str]]) -> Iterator[str]:
        for key, text in asked:
            body = request_of(self._teacher, task, text)
            yield json.dumps({"custom_id": key, "method": "POST", "url": ENDPOINT, "body": body})

    async def _ended(self, number: str) -> Any:
        pause, until = _FIRST_PAUSE_S, time.monotonic() + _LONGEST_S
        while True:
            found = await self._looking.batches.retrieve(number)
            if found.status in _ENDED:
                return found
            if time.monotonic() > until:
                raise TeacherFailed(
                    f"teacher {self._teacher.name}: the batch {number} is {found.status} after "
                    "more than a day; cancel it there, then run the same command again"
                )
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)

    def _read(
        self, task: Task, lines: str, texts: Mapping[str, str]
    ) -> Iterator[tuple[str, Collected]]:
        for line in lines.split("\n"):
            if not line.strip():
                continue
            said = json.loads(line)
            key, response = said["custom_id"], said.get("response") or {}
            if key not in texts:
                continue
            body = response.get("body") or {}
            if response.get("status_code") == 200:
                answer, cost = read_teacher_completion(self._teacher, task, texts[key], body)
                yield key, (answer, cost or bound_of(self._teacher, task, texts[key]))
            elif (body.get("error") or {}).get("code") == "content_filter":
                refused = TeacherFailure(REFUSED, "the provider's filter refused the text")
                yield key, (refused, Spent())
            else:
                yield key, (None, Spent())


def _size(waiting: Sequence[tuple[str, Spent]]) -> int:
    """How many requests fit into one file; a request has fewer bytes than its bound has tokens."""
    size = bytes_ = 0
    for _, bound in waiting[:_MOST_REQUESTS]:
        bytes_ += bound.prompt_tokens * 2
        if size and bytes_ > _MOST_BYTES:
            break
        size += 1
    return size
