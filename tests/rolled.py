"""The mesh's client with the candidate of a rollout, driven item by item."""

from __future__ import annotations

from reviewmesh import metrics
from reviewmesh.enrich.candidate import CandidatePlan
from reviewmesh.enrich.items import Answer, WorkItem
from reviewmesh.enrich.pool import PoolConfig
from reviewmesh.enrich.rollouts import Rollout, Rollouts
from reviewmesh.enrich.routes import CANDIDATE
from reviewmesh.enrich.shadow import ShadowTopic
from tests.inference import TASK, Driver

PATIENCE_S = 2.0
NAME = "ner-1"


class InForce(Rollouts):
    """The rollout that a test says, in place of the one that a topic holds."""

    def __init__(self) -> None:
        self.rollout: Rollout | None = None

    def start(self) -> None:
        pass

    stop = start

    def current(self) -> Rollout | None:
        return self.rollout

    def begin(self, state: str, share: float = 1.0) -> None:
        self.rollout = Rollout(NAME, TASK, state, share)


class Sent(ShadowTopic):
    """What would go to the shadow topic."""

    def __init__(self) -> None:
        self.answers: dict[int, Answer] = {}
        self.refused = ""

    def why_unusable(self, item: WorkItem, answer: Answer) -> str:
        return self.refused or answer.error or ""

    def send(self, item: WorkItem, answer: Answer) -> bool:
        self.answers[item.offset] = answer
        return True

    def close(self) -> None:
        pass


class Rolled(Driver):
    """A client with a candidate."""

    def __init__(self, primary: str, candidate: str) -> None:
        self.rollouts, self.sent = InForce(), Sent()

        def pool(lane: str) -> PoolConfig:
            serving = metrics.CANDIDATE_WORKERS_SERVING.labels(TASK, lane)
            calls = metrics.CALLS.labels(TASK, CANDIDATE)
            return PoolConfig(TASK, (candidate,), "", serving, calls)

        plan = CandidatePlan(pool("canary"), pool("shadow"), self.rollouts, self.sent, PATIENCE_S)
        super().__init__([primary], candidate=plan)
        assert self.client._candidate is not None
        self.candidate = self.client._candidate

    def is_known(self) -> bool:
        pools = (self.candidate._canary_calls.pool, self.candidate._shadow_calls.pool)
        return all(pool.any_serving() for pool in pools)
