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
from reviewmesh_worker.engines.openai.failures import encodable
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
        # What is no JSON, or nested too deep, comes as it is.
        except (openai.APIError, ValueError, RecursionError) as error:
            raise TeacherFailed(
                f"teacher {self._teacher.name}: its batches do not answer, {encodable(str(error))}"
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
        for name in ("output_file_id", "error_file_id"):
            if file := _text(ended, name):
                content = await self._looking.files.content(file)
                answers |= dict(self._read(task, content.text, texts))
        answers = {key: answers[key] for key in keys if key in answers}
        bounds = {key: bound_of(self._teacher, task, texts[key]) for key in keys}
        # A batch that was worked on to its end, and does not say what became of these: what they
        # cost is not known.
        silent = [key for key in keys if key not in answers and ended.status == "completed"]
        unknown: dict[str, Collected] = {key: (None, bounds[key]) for key in silent}
        self._store.collected(asked, batch, answers | unknown)
        answered(len(answers))
        for key, (_, cost) in answers.items():
            check_bound(self._teacher, cost, bounds[key])
        if ended.status != "completed":
            raise TeacherFailed(
                f"teacher {self._teacher.name}: the batch {number} ended as {ended.status} "
                f"{_errors(ended)}"
            )
        if silent:
            raise TeacherFailed(
                f"teacher {self._teacher.name}: the batch {number} has no readable answer for "
                f"{len(silent):,} of {len(keys):,} reviews, which count with the most that they "
                "can cost"
            )

    async def _found(self, batch: ProviderBatch) -> str | None:
        """The provider's number of a batch that was submitted just before a kill."""
        if batch.state == "open":
            return None
        seen = 0
        async for one in self._looking.batches.list(limit=100):
            metadata = getattr(one, "metadata", None)
            if isinstance(metadata, Mapping) and metadata.get(MARK) == batch.mark:
                return self._named(one, "batch")
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
            made_file = await self._client.files.create(file=(name, lines), purpose="batch")
            file = self._named(made_file, "file")
            self._store.uploaded(batch, file)
        made = await self._client.batches.create(
            input_file_id=file,
            endpoint=ENDPOINT,
            completion_window=_WINDOW,
            metadata={MARK: batch.mark},
        )
        return self._named(made, "batch")

    def _named(self, made: Any, what: str) -> str:
        """The provider's number of what it made. Raises TeacherFailed."""
        if number := _text(made, "id"):
            return number
        raise TeacherFailed(f"teacher {self._teacher.name}: it made a {what} and gives no id of it")

    def _lines(self, task: Task, asked: Sequence[tuple[str, str]]) -> Iterator[str]:
        for key, text in asked:
            body = request_of(self._teacher, task, text)
            yield json.dumps({"custom_id": key, "method": "POST", "url": ENDPOINT, "body": body})

    async def _ended(self, number: str) -> Any:
        pause, until = _FIRST_PAUSE_S, time.monotonic() + _LONGEST_S
        while True:
            found = await self._looking.batches.retrieve(number)
            status = _text(found, "status")
            if status in _ENDED:
                return found
            if time.monotonic() > until:
                raise TeacherFailed(
                    f"teacher {self._teacher.name}: the batch {number} is {status} after "
                    "more than a day; cancel it there, then run the same command again"
                )
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)

    def _read(
        self, task: Task, lines: str, texts: Mapping[str, str]
    ) -> Iterator[tuple[str, Collected]]:
        for line in lines.split("\n"):
            said = _object(line)
            key, response = said.get("custom_id"), said.get("response") or {}
            if not isinstance(key, str) or key not in texts or not isinstance(response, Mapping):
                continue
            body = _mapping(response.get("body"))
            if response.get("status_code") == 200:
                try:
                    answer, cost = read_teacher_completion(self._teacher, task, texts[key], body)
                except RecursionError:
                    continue
                yield key, (answer, cost or bound_of(self._teacher, task, texts[key]))
            elif _mapping(body.get("error")).get("code") == "content_filter":
                refused = TeacherFailure(REFUSED, "the provider's filter refused the text")
                yield key, (refused, Spent())
            else:
                yield key, (None, Spent())


def _object(line: str) -> Mapping[str, Any]:
    """Empty where the line is no JSON object."""
    try:
        return _mapping(json.loads(line))
    except (ValueError, RecursionError):
        return {}


def _mapping(said: Any) -> Mapping[str, Any]:
    return said if isinstance(said, Mapping) else {}


def _text(said: Any, name: str) -> str | None:
    """The client hands on what came, whatever its type."""
    value = getattr(said, name, None)
    return encodable(value) if isinstance(value, str) and value else None


def _errors(ended: Any) -> str:
    errors = getattr(getattr(ended, "errors", None), "data", None)
    told = errors if isinstance(errors, list) else []
    return "; ".join(filter(None, (_text(one, "message") for one in told)))


def _size(waiting: Sequence[tuple[str, Spent]]) -> int:
    """How many requests fit into one file; a request has fewer bytes than its bound has tokens."""
    size = bytes_ = 0
    for _, bound in waiting[:_MOST_REQUESTS]:
        bytes_ += bound.prompt_tokens * 2
        if size and bytes_ > _MOST_BYTES:
            break
        size += 1
    return size
