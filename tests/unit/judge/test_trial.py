"""Answers that are read again from several topics, each at its own speed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

import pytest
import structlog

from reviewmesh.avro.codec import Codec
from reviewmesh.enrich.rollouts import SHADOW
from reviewmesh.judge import trial as module
from reviewmesh.judge.comparison import MAX_UNPAIRED
from reviewmesh.judge.rollout import RolloutRecord
from reviewmesh.judge.trial import Trial
from reviewmesh.kafka.record import Record
from reviewmesh.settings import Settings
from reviewmesh_schemas.names import RESULT_OF, SHADOW_OF

TASK = "sentiment"
ROLLOUT = "sentiment-1"


class Topic:
    """Hands out records of these offsets, a second apart, as fast as they are taken."""

    def __init__(self, name: str, offsets: range, take: Callable[[Record, Any], None]) -> None:
        self.is_current = False
        self._name, self._offsets, self._take = name, offsets, take
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        self.thread.join(10)

    def _run(self) -> None:
        for offset in self._offsets:
            record = Record(
                topic=self._name,
                partition=0,
                offset=offset,
                key=None,
                value=None,
                timestamp_ms=1_000 * offset,
            )
            self._take(record, result(offset, self._name == SHADOW_OF[TASK]))
        self.is_current = True


def result(offset: int, is_copy: bool) -> dict[str, Any]:
    return {
        "accepted_partition": 0,
        "accepted_offset": offset,
        "status": "OK",
        "language": None,
        "sentiment": {"label": "positive", "scores": {}},
        "lineage": {
            "model": "m",
            "model_version": "1",
            "route": "candidate" if is_copy else "primary",
            "rollout": ROLLOUT if is_copy else None,
        },
    }


def made(monkeypatch: pytest.MonkeyPatch, offsets: dict[str, range]) -> Trial:
    def followed(
        settings: Any, topic: str, n: int, codec: Any, take: Any, log: Any, since: Any
    ) -> Any:
        return Topic(topic, offsets[topic], take)

    monkeypatch.setattr(module, "followed", followed)
    record = RolloutRecord(TASK, rollout=ROLLOUT, state=SHADOW)
    return Trial(
        record, Settings(), lambda topic: cast(Codec, None), (), {}, structlog.get_logger()
    )


def test_after_a_restart_no_pair_is_lost_where_half_of_the_reviews_were_copied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_QUEUED", 100)
    monkeypatch.setattr("reviewmesh.judge.comparison.MAX_UNPAIRED", 1_000)
    assert MAX_UNPAIRED > 1_000
    offsets = {RESULT_OF[TASK]: range(20_000), SHADOW_OF[TASK]: range(0, 20_000, 2)}
    trial = made(monkeypatch, offsets)
    while not trial.is_current:
        trial.poll()
    trial.close()
    assert (trial.shown.answered, trial.shown.compared) == (20_000, 10_000)


def test_a_trial_ends_while_its_topics_are_far_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_QUEUED", 10)
    offsets = {RESULT_OF[TASK]: range(1_000), SHADOW_OF[TASK]: range(1_000)}
    trial = made(monkeypatch, offsets)
    trial.close()
    assert not any(cast(Topic, topic.followed).thread.is_alive() for topic in trial._topics)
