"""Asks an endpoint text by text, a bounded number at a time, each within the budget.

Every HTTP attempt is reserved and settled by itself. What may pass (429, 5xx, a timeout, a broken
connection) is tried again a few times, with jitter, or when the provider says so; what will not
pass ends this teacher's run with the provider's own words. Nothing that was answered is asked
again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator, Mapping
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
from reviewmesh_models.labelling.reviews import Review, request_key
from reviewmesh_models.labelling.store import Asked, RecordedCall, Store
from reviewmesh_models.labelling.teachers import Budget, Teacher
from reviewmesh_worker.engines.openai.failures import encodable
from reviewmesh_worker.engines.openai.http import StrangersClient
from reviewmesh_worker.tasks.definition import Task

ATTEMPTS: Final = 6
_FIRST_PAUSE_S: Final = 0.5
"""Up to twice as long after each attempt."""
_LONGEST_PAUSE_S: Final = 60.0
"""The longest wait that a provider may ask for; the same command continues later."""
_MAY_PASS: Final = frozenset({408, 409, 425, 429})
_REFUSED_KEY: Final = frozenset({401, 403})
_SPENT: Final = "insufficient_quota"


class TeacherFailed(RuntimeError):
    """An endpoint does not answer or refuses; the message has its own words."""


class BudgetSpent(RuntimeError):
    """The budget has no room for another call; the message says what is left."""


class _MayPass(RuntimeError):
    """The attempt failed; a retry may succeed."""

    def __init__(self, said: str, after_s: float | None = None) -> None:
        super().__init__(said)
        self.after_s = after_s
        """Set if the provider named a time."""


def client_of(teacher: Teacher) -> AsyncOpenAI:
    """Makes one attempt per call, at this address only: attempts are counted here, and so is who
    gets a text. Raises TeachersError."""
    return AsyncOpenAI(
        base_url=teacher.base_url,
        api_key=teacher.key().get_secret_value(),
        max_retries=0,
        timeout=teacher.timeout_s,
        http_client=StrangersClient(),
    )


class LiveTeacher:
    """One endpoint, asked for one task after the other."""

    def __init__(
        self,
        teacher: Teacher,
        client: AsyncOpenAI,
        store: Store,
        budget: Budget | None,
        settled: asyncio.Event,
    ) -> None:
        """`settled` is shared by all teachers of the budget, and set when a call ends."""
        self._teacher = teacher
        self._client = client
        self._store = store
        self._budget = budget
        self._quiet_until = 0.0
        """Until when the provider asked for a pause, on the clock of `time.monotonic`."""
        self._settled = settled

    async def label(self, task: Task, reviews: list[Review], answered: OnAnswered) -> None:
        """Every review that has no answer yet. Raises TeacherFailed, BudgetSpent."""
        asked = Asked(self._teacher.identity, task.name, task.digest)
        there = self._store.answers(asked)
        missing = [review.text for review in reviews if review.key not in there]
        answered(len(reviews) - len(missing))
        texts = iter(missing)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._teacher.concurrency, len(missing))):
                    group.create_task(self._lane(asked, task, texts, answered))
        except* (TeacherFailed, BudgetSpent) as group_error:
            # The first exception is the cause; the other tasks were cancelled because of it.
            raise _first(group_error) from None

    async def _lane(
        self, asked: Asked, task: Task, texts: Iterator[str], answered: OnAnswered
    ) -> None:
        for text in texts:
            await self._label(asked, task, text)
            answered(1)

    async def _label(self, asked: Asked, task: Task, text: str) -> None:
        said = ""
        for attempt in range(ATTEMPTS):
            await self._quiet()
            try:
                return await self._attempt(asked, task, text)
            except _MayPass as again:
                said = str(again)
                pause = again.after_s
                if pause is None:
                    pause = random.uniform(0, _FIRST_PAUSE_S * 2**attempt)
                elif pause > _LONGEST_PAUSE_S:
                    raise TeacherFailed(
                        f"teacher {self._teacher.name} asks to wait {pause:g} s: {said}"
                    ) from None
                else:
                    self._quiet_until = max(self._quiet_until, time.monotonic() + pause)
                if attempt + 1 < ATTEMPTS:
                    await asyncio.sleep(pause)
        raise TeacherFailed(f"teacher {self._teacher.name}: {ATTEMPTS} attempts failed, {said}")

    async def _attempt(self, asked: Asked, task: Task, text: str) -> None:
        bound = bound_of(self._teacher, task, text)
        call = await self._reserve(asked, text, bound)
        try:
            answer, cost = await self._call(task, text)
        except asyncio.CancelledError:
            # It was sent, or may have been.
            self._store.orphan(call)
            raise
        except openai.APIStatusError as error:
            refusal = self._refusal(error)
            self._store.settle(asked, call, Spent(), refusal)
            if refusal is None:
                raise self._meaning(error) from error
        except (openai.APIError, TimeoutError) as error:
            # Timeouts and broken connections among them: the provider may have worked.
            self._store.orphan(call)
            raise _MayPass(f"{type(error).__name__}: {error}") from error
        else:
            if cost is None:
                self._store.orphan(call, (asked, answer))
            else:
                self._store.settle(asked, call, cost, answer)
                check_bound(self._teacher, cost, bound)
        finally:
            self._settled.set()

    async def _reserve(self, asked: Asked, text: str, bound: Spent) -> RecordedCall:
        while True:
            self._settled.clear()
            call = self._store.reserve(asked, request_key(text), bound, self._budget)
            if call is not None:
                return call
            if not self._store.in_flight():
                raise BudgetSpent(
                    f"the budget has no room for another call of the teacher {self._teacher.name}, "
                    f"which may cost {bound.tokens:,} tokens and {bound.money:.6f} of money"
                )
            # A call in flight will cost less than its bound.
            await self._settled.wait()

    async def _call(self, task: Task, text: str) -> tuple[Labels | TeacherFailure, Spent | None]:
        body = request_of(self._teacher, task, text)
        # The client's own timeout starts again with every byte.
        async with asyncio.timeout(self._teacher.timeout_s):
            raw = await self._client.chat.completions.with_raw_response.create(**body)
        try:
            said: Any = raw.http_response.json()
            if isinstance(said, Mapping):
                return read_teacher_completion(self._teacher, task, text, said)
        except (ValueError, RecursionError) as error:
            raise openai.APIResponseValidationError(raw.http_response, body=None) from error
        raise openai.APIResponseValidationError(raw.http_response, body=said)

    def _refusal(self, error: openai.APIStatusError) -> TeacherFailure | None:
        if error.status_code == 400 and error.code == "content_filter":
            return TeacherFailure(REFUSED, "the provider's filter refused the text")
        return None

    def _meaning(self, error: openai.APIStatusError) -> Exception:
        said = f"HTTP {error.status_code}: {_short(error)}"
        if error.status_code in _REFUSED_KEY:
            # The provider's message may contain a part of the key.
            said = f"HTTP {error.status_code}: the key is refused"
        may_pass = error.status_code in _MAY_PASS or error.status_code >= 500
        if may_pass and error.code != _SPENT:
            return _MayPass(said, _seconds(error.response.headers.get("retry-after")))
        return TeacherFailed(f"teacher {self._teacher.name} refuses to answer, {said}")

    async def _quiet(self) -> None:
        if (left := self._quiet_until - time.monotonic()) > 0:
            await asyncio.sleep(left)


def check_bound(teacher: Teacher, cost: Spent, bound: Spent) -> None:
    """Raises TeacherFailed if a call cost more than its bound: no budget would hold."""
    if cost.prompt_tokens > bound.prompt_tokens or cost.completion_tokens > bound.completion_tokens:
        raise TeacherFailed(
            f"teacher {teacher.name} says that a call used {cost.prompt_tokens:,} and "
            f"{cost.completion_tokens:,} tokens, of at most {bound.prompt_tokens:,} and "
            f"{bound.completion_tokens:,}; no budget holds with such counts"
        )


def _short(error: openai.APIStatusError) -> str:
    body = error.body
    message = body.get("message") if isinstance(body, Mapping) else None
    return encodable(str(message or error.response.reason_phrase)[:200])


def _seconds(header: str | None) -> float | None:
    """Seconds of `Retry-After`; a date is ignored."""
    try:
        seconds = float(header or "")
    except ValueError:
        return None
    return seconds if seconds >= 0 else None


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
