"""The jobs of a client, and the queues of those that wait for a call."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from reviewmesh.enrich.items import Answer, Job, TaskOutput, WorkItem
from reviewmesh.enrich.oldest_first import OldestFirst


class Jobs:
    """Used from the event loop; `find` and `waiting` from the polling thread too."""

    def __init__(
        self, batch_items: int, batch_bytes: int, on_finished: Callable[[WorkItem, Answer], None]
    ) -> None:
        self._batch_items = batch_items
        self._batch_bytes = batch_bytes
        self._on_finished = on_finished
        self._queue: OldestFirst[Job] = OldestFirst()
        self._suspects: OldestFirst[Job] = OldestFirst()
        self._held: dict[tuple[int, int], Job] = {}

    @property
    def waiting(self) -> int:
        return len(self._queue) + len(self._suspects)

    @property
    def has_suspects(self) -> bool:
        return bool(self._suspects)

    @property
    def has_others(self) -> bool:
        return bool(self._queue)

    @property
    def has_any(self) -> bool:
        """Whether any item is unanswered, waiting or in a call."""
        return bool(self._held)

    def find(self, partition: int, offset: int) -> Job | None:
        return self._held.get((partition, offset))

    def holds(self, job: Job) -> bool:
        """Whether the job is neither answered nor withdrawn."""
        return self.find(job.item.partition, job.item.offset) is job

    def add(self, items: Iterable[WorkItem]) -> None:
        for item in items:
            job = Job(item, self._batch_items)
            self._held[item.partition, item.offset] = job
            self.wait(job)

    def put_back(self, job: Job) -> None:
        """Take a removed job back, and queue it."""
        self._held[job.item.partition, job.item.offset] = job
        self.wait(job)

    def oldest(self) -> list[Job]:
        """The oldest waiting jobs of each partition: of normal ones, and of suspects."""
        return [*self._queue.firsts(), *self._suspects.firsts()]

    def waiting_jobs(self) -> list[Job]:
        return [*self._queue, *self._suspects]

    def remove(self, jobs: Collection[Job]) -> None:
        """Remove waiting jobs: their items are answered elsewhere."""
        taken = set(map(id, jobs))
        for job in jobs:
            del self._held[job.item.partition, job.item.offset]
        for queue in (self._queue, self._suspects):
            queue.keep(lambda job: id(job) not in taken)

    def wait(self, job: Job) -> None:
        """Queue the job for a call, in the order of offsets."""
        job.worker = ""
        if not job.withdrawn:
            queue = self._suspects if job.suspect else self._queue
            queue.add(job.item.partition, job.item.offset, job)

    def withdraw(self, withdrawn: Callable[[object], bool]) -> None:
        """Drop the items whose token `withdrawn` accepts."""
        for key, job in list(self._held.items()):
            if withdrawn(job.item.token):
                job.withdrawn = True
                del self._held[key]
        # Also from the queues: without a worker they would stay there.
        for queue in (self._queue, self._suspects):
            queue.keep(lambda job: not job.withdrawn)

    def next_suspect(self) -> Job:
        return self._suspects.take()

    def next_batch(self, room: int) -> list[Job]:
        """The oldest jobs, at most `room` items and as many as fit in a call."""
        batch: list[Job] = []
        size, limit = 0, min(self._batch_items, room)
        while self._queue:
            job = self._queue.first()
            limit = min(limit, job.max_batch)
            if batch and (len(batch) >= limit or size + job.size > self._batch_bytes):
                break
            batch.append(self._queue.take())
            size += job.size
        return batch

    def answer(self, job: Job, output: TaskOutput | None) -> None:
        self._finish(job, output, error=None)

    def give_up(self, job: Job, reason: str, code: str = "", retryable: bool = False) -> None:
        """Finish the item with an error; `retryable`: another attempt may succeed."""
        self._finish(job, None, error=reason, code=code, retryable=retryable)

    def _finish(
        self,
        job: Job,
        output: TaskOutput | None,
        error: str | None,
        code: str = "",
        retryable: bool = False,
    ) -> None:
        if not self.holds(job):
            return
        del self._held[job.item.partition, job.item.offset]
        attempts = max(1, job.attempts + job.broken_calls)
        answer = Answer(
            output=output,
            error=error,
            attempts=attempts,
            lineage=job.lineage,
            usage=job.usage,
            code=code,
            retryable=retryable,
            call=job.call,
        )
        self._on_finished(job.item, answer)
