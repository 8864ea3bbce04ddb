"""Sends the labelled texts of a rollout to both models, a few at a time, on the backfill lane."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reviewmesh.enrich.client import InferenceClient
from reviewmesh.enrich.items import Answer, WorkItem
from reviewmesh.enrich.pool import PoolConfig
from reviewmesh.enrich.results import payload
from reviewmesh.enrich.routes import CANDIDATE, PRIMARY
from reviewmesh.judge.answers import language_of, outcome_of
from reviewmesh_protos.inference.v1 import inference_pb2

MAX_IN_FLIGHT = 16
CALL_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class LabelledResult:
    """Whether each model was right about a text."""

    language: str
    own_right: bool
    candidate_right: bool


class LabelledTexts:
    """The labelled texts of one rollout. Used by the judge's thread.

    Nothing is stored: a restarted judge sends all texts again.
    """

    def __init__(
        self,
        task: str,
        rollout: str,
        rows: Sequence[Mapping[str, Any]],
        workers: Mapping[str, PoolConfig],
    ) -> None:
        """`workers`: the pools by route."""
        self._task = task
        self._rows = list(rows)
        # Shuffled, because the rows of a file may be sorted.
        random.Random(rollout).shuffle(self._rows)
        self._next = 0
        self._right: dict[int, dict[str, bool]] = {}
        self._clients = {
            route: InferenceClient(
                task,
                pool.addresses,
                batch_items=MAX_IN_FLIGHT,
                call_timeout_s=CALL_TIMEOUT_S,
                lane=inference_pb2.LANE_BACKFILL,
                pool=pool,
            )
            for route, pool in workers.items()
        }
        for client in self._clients.values():
            client.start()

    @property
    def remaining(self) -> int:
        return len(self._rows) - self._next + len(self._right)

    def poll(self) -> list[LabelledResult]:
        """The results of texts that both models have answered since the last call; never blocks."""
        found = []
        for route, client in self._clients.items():
            for item, answer in client.completed():
                right = self._right[item.offset]
                right[route] = self._is_right(item, answer)
                if len(right) == len(self._clients):
                    del self._right[item.offset]
                    language = language_of(item.language)
                    found.append(LabelledResult(language, right[PRIMARY], right[CANDIDATE]))
        while self._next < len(self._rows) and len(self._right) < MAX_IN_FLIGHT:
            self._ask(self._next)
            self._next += 1
        return found

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def _ask(self, number: int) -> None:
        row = self._rows[number]
        self._right[number] = {}
        item = WorkItem(
            token=self,
            partition=0,
            offset=number,
            text=row["text"],
            language=row["language"] or "",
            traceparent=None,
            business_id=None,
            accepted_s=time.time(),
        )
        for client in self._clients.values():
            client.submit([item])

    def _is_right(self, item: WorkItem, answer: Answer) -> bool:
        """Whether the answer matches the label. A failed or invalid answer is wrong."""
        try:
            fields = payload(self._task, answer.output, item.text)
        except Exception:  # noqa: BLE001 - a worker may answer anything
            return False
        return outcome_of(self._task, fields) == frozenset(self._rows[item.offset]["right"])
