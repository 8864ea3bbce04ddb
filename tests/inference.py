"""Inference workers as processes, and the mesh's client driven item by item."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from reviewmesh.enrich.candidate import CandidatePlan
from reviewmesh.enrich.client import InferenceClient
from reviewmesh.enrich.departures import Reserve, Step
from reviewmesh.enrich.fallback import FallbackPlan
from reviewmesh.enrich.items import Answer, WorkItem
from reviewmesh_kit.certificates import CertificateFiles
from reviewmesh_protos.inference.v1 import inference_pb2, inference_pb2_grpc
from tests.broker import wait_until
from tests.mesh import Process, free_port

TASK = "ner"
SOON_S = 15.0
STARTED_WITHIN_S = 60.0


@dataclass
class WorkerProcess:
    """A worker as a process of its own, with the settings given."""

    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    max_in_flight: int = 256
    host: str = "127.0.0.1"
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "worker.log"
        http_port = free_port()
        environment = {
            **os.environ,
            "REVIEWMESH_WORKER__HOST": self.host,
            "REVIEWMESH_WORKER__PORT": str(self.port),
            "REVIEWMESH_WORKER__MAX_IN_FLIGHT": str(self.max_in_flight),
            "REVIEWMESH_HTTP__PORT": str(http_port),
            **self.settings,
        }
        command = [sys.executable, "-m", *self.module()]
        self.process = Process("worker", command, environment, self.log, http_port)
        self.channel = grpc.insecure_channel(self.address)
        self.stub = inference_pb2_grpc.InferenceServiceStub(self.channel)

    def module(self) -> list[str]:
        """What `python -m` runs."""
        return ["reviewmesh_worker"]

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def start(self) -> None:
        self.process.start()
        soon(self.process.is_ready, "the worker serves", STARTED_WITHIN_S)

    def stop(self) -> None:
        """End it in whatever state a test left it."""
        self.channel.close()
        if self.process.popen is not None and self.process.popen.poll() is None:
            self.process.kill()

    def health(self, task: str = TASK) -> str:
        request = health_pb2.HealthCheckRequest(service=task)
        answer = health_pb2_grpc.HealthStub(self.channel).Check(request, timeout=5)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    def metric(self, sample: str) -> float:
        return self.process.metric(sample)

    def in_flight(self) -> float:
        return self.metric("reviewmesh_worker_in_flight_items")

    def refused(self, code: str) -> float:
        return self.metric(f'reviewmesh_worker_refused_total{{code="{code}"}}')


@dataclass
class ScriptedWorker(WorkerProcess):
    """The worker's own server with the scripted engine."""

    def module(self) -> list[str]:
        self.control = self.folder / "control.json"
        return ["tests.scripted_worker", str(self.control)]

    def script(self, **script: object) -> None:
        draft = self.control.with_suffix(".new")
        draft.write_text(json.dumps(script))
        draft.replace(self.control)


class Driver:
    """The mesh's client; remembers every answer under the offset of its item."""

    def __init__(
        self,
        addresses: Sequence[str],
        **options: float | FallbackPlan | CandidatePlan | CertificateFiles | None,
    ) -> None:
        self.client = InferenceClient(TASK, addresses, **options)  # type: ignore[arg-type]
        self.answers: dict[int, list[Answer]] = {}
        self.steps: list[Step] = []
        self.lets_leave = True
        self.submitted = 0
        self.client.start()
        threading.Thread(target=self._let_leave, name="stage", daemon=True).start()

    def submit(
        self,
        texts: Sequence[str],
        trace: str | None = None,
        token: object = "t",
        partition: int = 0,
        business_id: str | None = None,
        accepted_s: float | None = None,
    ) -> None:
        first = self.submitted
        self.submitted += len(texts)
        accepted_s = time.time() if accepted_s is None else accepted_s
        self.client.submit(
            [
                WorkItem(
                    token=token,
                    partition=partition,
                    offset=first + index,
                    text=text,
                    language="en",
                    traceparent=trace,
                    business_id=business_id,
                    accepted_s=accepted_s,
                    review_id=f"r-{first + index}",
                )
                for index, text in enumerate(texts)
            ]
        )

    def finished(self) -> int:
        for item, answer in self.client.completed():
            self.answers.setdefault(item.offset, []).append(answer)
        return len(self.answers)

    def _let_leave(self) -> None:
        """In place of the stage: every text may leave, without a transaction."""
        while not self.client.closed:
            for step in self.client.departure_steps():
                self.steps.append(step)
                if isinstance(step, Reserve) and self.lets_leave:
                    self.client.reservation_committed(step.departure)
            time.sleep(0.01)

    def wait(self, within_s: float = SOON_S) -> list[Answer]:
        """One answer for each submitted item, in the order of submission."""
        soon(lambda: self.finished() == self.submitted, "every item has its answer", within_s)
        assert all(len(answers) == 1 for answers in self.answers.values()), "an answer came twice"
        return [self.answers[index][0] for index in range(self.submitted)]


def infer(
    texts: Sequence[str],
    task: str = TASK,
    lane: inference_pb2.Lane.ValueType = inference_pb2.LANE_UNSPECIFIED,
) -> inference_pb2.InferRequest:
    return inference_pb2.InferRequest(
        task=task,
        items=[inference_pb2.Item(id=str(n), text=text) for n, text in enumerate(texts)],
        lane=lane,
    )


def soon(condition: Callable[[], bool], what: str, within_s: float = SOON_S) -> float:
    """Wait for it; returns the seconds that it took."""
    began = time.monotonic()
    wait_until(condition, within_s, what)
    return time.monotonic() - began
