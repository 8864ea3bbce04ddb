"""What each process of the mesh says of itself at /readyz, /version and /metrics."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import httpx
from prometheus_client.parser import text_string_to_metric_families

from reviewmesh.settings import WrongSetting
from reviewmesh_kit.settings import variable

TIMEOUT_S = 2.0
ASKED_AT_ONCE = 8
LARGEST_ANSWER = 8 * 1024 * 1024
# A worker with vLLM has thousands of series; these are shown.
SHOWN = (
    "reviewmesh_records_read_total",
    "reviewmesh_records_written_total",
    "reviewmesh_assigned_partitions",
    "reviewmesh_paused_partitions",
    "reviewmesh_in_flight_records",
    "reviewmesh_stalled_partitions",
    "reviewmesh_enriched_total",
    "reviewmesh_dead_letters_total",
    "reviewmesh_duplicates_total",
    "reviewmesh_workers_serving",
    "reviewmesh_inference_waiting_items",
    "reviewmesh_open_partial_records",
    "reviewmesh_reprocessed_answers_total",
    "reviewmesh_lag_measurement_age_seconds",
    "reviewmesh_open_transaction_seconds",
    "reviewmesh_reviews_held_back",
    "reviewmesh_budget_used",
    "reviewmesh_budget_limit",
    "reviewmesh_inference_calls_total",
    "reviewmesh_records_set_aside_total",
    "reviewmesh_skipped_offsets_total",
    "reviewmesh_transactions_aborted_total",
    "reviewmesh_rollouts_rolled_back_total",
    "reviewmesh_worker_items_total",
    "reviewmesh_worker_in_flight_items",
    "reviewmesh_worker_waiting_items",
    "reviewmesh_worker_model_info",
    "reviewmesh_worker_refused_total",
    "reviewmesh_build_info",
    "reviewmesh_worker_build_info",
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One series of a metric."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class ProcessState:
    """One process, as it answered at `asked_at`; `samples` are the last that it gave."""

    name: str
    address: str
    ready: bool
    words: str
    """`ready`, what it waits for, or how it does not answer."""
    asked_at: float
    """Seconds since 1970."""
    answers: bool = True
    samples: tuple[Sample, ...] = ()
    sampled_at: float = 0.0
    rates: Mapping[str, float] = field(default_factory=dict)
    """Per second, of each counter that is shown, over all its labels."""

    def total(self, name: str, **labels: str) -> float:
        """The sum over the series that have these labels."""
        return sum(sample.value for sample in self.found(name, **labels))

    def found(self, name: str, **labels: str) -> Iterator[Sample]:
        for sample in self.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                yield sample

    @property
    def version(self) -> str:
        for name in ("reviewmesh_build_info", "reviewmesh_worker_build_info"):
            for sample in self.found(name):
                return sample.labels.get("version", "")
        return ""


def addresses_of(entries: Iterable[str]) -> dict[str, str]:
    """From `NAME=HOST:PORT`. Raises WrongSetting."""
    found: dict[str, str] = {}
    for entry in entries:
        name, equals, address = entry.partition("=")
        host, _, port = address.rpartition(":")
        if not (name and equals and host and port.isdigit()):
            raise WrongSetting(
                f"{variable('console', 'processes')}: expected NAME=HOST:PORT, such as "
                f"intake=127.0.0.1:9464, got {entry!r}"
            )
        found[name] = address
    return found


class Processes:
    """Asks all of them at once."""

    def __init__(self, addresses: Mapping[str, str]) -> None:
        self._addresses = addresses
        self._client = httpx.Client(timeout=TIMEOUT_S, trust_env=False)
        self._pool = ThreadPoolExecutor(ASKED_AT_ONCE, "ask")
        self._last: dict[str, ProcessState] = {}

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._client.close()

    def ask(self) -> tuple[ProcessState, ...]:
        states = tuple(self._pool.map(self._state, *zip(*self._addresses.items(), strict=True)))
        self._last = {state.name: state for state in states}
        return states

    def _state(self, name: str, address: str) -> ProcessState:
        last = self._last.get(name)
        try:
            ready, words = self._readiness(address)
        except (httpx.HTTPError, ValueError) as error:
            words = f"does not answer at {address} ({type(error).__name__})"
            known = last or ProcessState(name, address, False, words, 0.0)
            now = time.time()
            return replace(known, ready=False, answers=False, words=words, asked_at=now, rates={})
        state = ProcessState(name, address, ready, words, time.time())
        try:
            samples = tuple(_samples(self._get(address, "/metrics").text))
        except (httpx.HTTPError, ValueError):
            return state
        return replace(
            state, samples=samples, sampled_at=time.time(), rates=_rates(last, samples, time.time())
        )

    def _readiness(self, address: str) -> tuple[bool, str]:
        """Raises HTTPError, and ValueError for what is no answer of a process of the mesh."""
        answer = self._get(address, "/readyz")
        body = answer.json()
        if not isinstance(body, dict):
            raise ValueError("expected an object")
        ready = answer.status_code == httpx.codes.OK
        words = body.get("waiting_for") or ("" if ready else body.get("reason", body.get("state")))
        return ready, str(words or ("ready" if ready else "not ready"))

    def _get(self, address: str, path: str) -> httpx.Response:
        with self._client.stream("GET", f"http://{address}{path}") as answer:
            body = bytearray()
            for part in answer.iter_bytes():
                body += part
                if len(body) > LARGEST_ANSWER:
                    raise ValueError(f"expected at most {LARGEST_ANSWER:,} bytes")
            return httpx.Response(answer.status_code, content=bytes(body))


def _samples(text: str) -> Iterator[Sample]:
    """Raises ValueError for what is not Prometheus' text format."""
    lines = [line for line in text.splitlines() if line.startswith(SHOWN)]
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            yield Sample(sample.name, dict(sample.labels), sample.value)


def _rates(last: ProcessState | None, samples: Iterable[Sample], now: float) -> dict[str, float]:
    """A counter that fell began again with its process: its rate is unknown until the next time."""
    if last is None or not last.sampled_at or now <= last.sampled_at:
        return {}
    before, after = _totals(last.samples), _totals(samples)
    elapsed = now - last.sampled_at
    return {
        name: (value - before[name]) / elapsed
        for name, value in after.items()
        if before.get(name, math.inf) <= value
    }


def _totals(samples: Iterable[Sample]) -> dict[str, float]:
    totals: dict[str, float] = {}
    for sample in samples:
        if sample.name.endswith("_total"):
            totals[sample.name] = totals.get(sample.name, 0.0) + sample.value
    return totals
