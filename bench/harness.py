"""Puts load on one system and measures it: bursts, trials at a rate, the search for what holds."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from typing import Any

from bench import load, reader
from bench.load import Schedule
from bench.meter import Meter, Usage, cpu_between
from bench.reader import Count, Latencies
from bench.search import highest_rate
from bench.steady import Sample, Trend, trend, window
from bench.system import System
from tests.broker import TestStack

SAMPLE_S = 0.25
USAGE_EVERY = 4
LEAD_S = 0.3
HOPELESS_LAG_S = 4.0
ANSWER_S = 120.0
DRAIN_S = 45.0
# While rates are searched, what is left is only in the way of the next.
DRAINED_ENOUGH = 0.98
STALLED_S = 20.0
FIRST_BURST = 200
BURST_AT_LEAST_S = 6.0
BURST_LIMIT_S = 25.0
BURST_GROWTH = (2, 5)
STILL_GROWING = 1.15
# The ends of a burst are spent on filling and emptying the pipeline.
MIDDLE = (0.1, 0.9)
BURST_RATE = 1e6
HARNESS = ("generator", "reader", "harness")


class Failed(RuntimeError):
    """What was to be measured did not work at all."""


@dataclass
class Trial:
    """One run at a rate. CPU and latency are those of the window in which the lag was flat."""

    rate: float
    window_s: float
    holds: bool
    trend: Trend
    samples: list[Sample]
    cpu_s_per_1000: dict[str, float]
    cores: float
    """CPUs that the system, the broker and the harness kept busy."""
    others_cores: float
    """CPUs that anything else kept busy: the more, the less the figures are worth."""
    latencies: Latencies

    def describe(self) -> str:
        """One line for the terminal."""
        return (
            f"{self.rate:.0f} reviews/s {'holds' if self.holds else 'does not hold'}: lag "
            f"{self.trend.mean_s:.2f} s {self.trend.slope:+.3f} s/s, p50 "
            f"{self.latencies.percentile_ms(0.5):.0f} p99 {self.latencies.percentile_ms(0.99):.0f}"
            f" ms, {self.cores:.2f} CPUs busy, others {self.others_cores:.2f}, not out "
            f"{self.latencies.missing}, twice {self.latencies.twice}"
        )


@dataclass(frozen=True)
class Burst:
    """How a backlog came out, in reviews a second."""

    whole: float
    """From its publication on: the pipeline had to fill first."""
    middle: float
    """While the pipeline was full. It flatters where earlier stages are done by then and leave
    their CPU to the last, so it is no less than what could be held."""
    seconds: float


class Child:
    """One of the harness's own processes, asked and answered over a pipe."""

    def __init__(self, target: Any, *arguments: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(
            target=target, args=(theirs, *arguments), daemon=True
        )
        self.process.start()
        theirs.close()

    def send(self, word: object) -> None:
        self._connection.send(word)

    def answer(self) -> Any:
        """Raises Failed when none comes."""
        try:
            if self._connection.poll(ANSWER_S):
                return self._connection.recv()
        except EOFError:
            pass
        raise Failed(f"{self.process.name} of the harness ended or does not answer; see above")

    def ask(self, word: object) -> Any:
        self.send(word)
        return self.answer()

    def end(self) -> None:
        self._connection.close()
        self.process.terminate()
        self.process.join(10)


class Harness:
    """Load generator and reader of one system."""

    def __init__(self, stack: TestStack, system: System) -> None:
        reach = stack.bootstrap_servers, stack.registry_url
        self._system = system
        self._runs = 0
        self._reader = Child(reader.read, *reach, f"{system.prefix}reviews.enriched")
        self._generator = Child(load.generate, *reach, f"{system.prefix}reviews.raw")
        try:
            self._reader.answer()
            self._generator.answer()
        except BaseException:
            self.close()
            raise
        self.meter = Meter(
            system.pids()
            | {"broker": stack.pid("broker"), "registry": stack.pid("registry")}
            | {
                "generator": self._pid(self._generator),
                "reader": self._pid(self._reader),
                "harness": os.getpid(),
            }
        )

    @staticmethod
    def _pid(child: Child) -> int:
        assert child.process.pid is not None
        return child.process.pid

    def close(self) -> None:
        self._generator.end()
        self._reader.end()

    # -- bursts ------------------------------------------------------------------------------

    def growing_bursts(self, tell: Callable[[str], None]) -> float:
        """Reviews a second at which a backlog comes out; it also warms every process up.

        Backlogs grow until one takes long enough and a larger one does not come out faster: a
        small one tells how late a system is, not how fast.
        """
        count, before = FIRST_BURST, 0.0
        while True:
            found = self.burst(count)
            tell(f"a backlog of {count} comes out at {found.whole:.0f} reviews/s")
            settled = found.seconds >= BURST_AT_LEAST_S and found.whole < before * STILL_GROWING
            if settled or found.seconds >= BURST_LIMIT_S:
                return max(before, found.whole)
            before = max(found.whole, before)
            enough = found.whole * BURST_AT_LEAST_S * 1.5
            count = int(min(count * BURST_GROWTH[1], max(count * BURST_GROWTH[0], enough)))

    def burst(self, count: int) -> Burst:
        """Publish so many at once and watch them come out, until most of them have."""
        schedule = self._begin(BURST_RATE, count)
        samples = [self._sample(schedule)]
        moved = time.monotonic()
        while samples[-1].out < count * MIDDLE[1] and samples[-1].at < BURST_LIMIT_S:
            time.sleep(SAMPLE_S / 5)
            samples.append(self._sample(schedule))
            if samples[-1].out > samples[-2].out:
                moved = time.monotonic()
            elif time.monotonic() - moved > STALLED_S:
                raise Failed(
                    f"of {count} reviews only {samples[-1].out} came out, none for "
                    f"{STALLED_S:g} s\n{self._system.report()}"
                )
        last = samples[-1]
        self._drain(schedule, self._stop_load(), DRAINED_ENOUGH)
        first = next(s for s in samples if s.out >= min(last.out, count * MIDDLE[0]))
        if last.out == first.out:
            first = Sample(0.0, 0)
        middle = (last.out - first.out) / (last.at - first.at)
        return Burst(last.out / last.at, middle, last.at)

    @property
    def last_tag(self) -> str:
        """How the ids of the last run begin."""
        return _tag(self._runs)

    def publish(self, count: int) -> Callable[[], int]:
        """Publish a backlog; gives a function that tells how many of it are out."""
        schedule = self._begin(BURST_RATE, count)
        self._stop_load("finish")
        return lambda: self._sample(schedule).out

    # -- trials ------------------------------------------------------------------------------

    def trial(self, rate: float, window_s: float, limit_s: float, drained: float = 1.0) -> Trial:
        """Load at this rate until the lag was flat for `window_s`, or it is clear that it will not.

        Ends when so large a share of it is out; only with all of it, `missing` means lost.

        Where steady state begins is found, not assumed: the window moves until it is flat.
        """
        schedule = self._begin(rate, int(rate * limit_s) + 1)
        time.sleep(max(0.0, schedule.start - time.time()))
        samples: list[Sample] = []
        usages: list[tuple[Sample, Usage]] = []
        found, holds = Trend(0.0, 0.0), False
        recent: Any = None
        while True:
            samples.append(self._sample(schedule))
            if len(samples) % USAGE_EVERY == 1:
                usages.append((samples[-1], self.meter.read()))
            recent = window(samples, window_s)
            if recent is not None:
                found = trend(recent, rate)
                holds = found.is_flat
            lag_s, age_s = samples[-1].lag_s(rate), samples[-1].at
            if holds or age_s >= limit_s or (lag_s > HOPELESS_LAG_S and found.slope > 0):
                break
            if lag_s > 2 * HOPELESS_LAG_S:
                break
            time.sleep(SAMPLE_S)
        recent = recent or samples
        share = drained if holds else DRAINED_ENOUGH
        latencies = self._end(schedule, recent[0].at, recent[-1].at, share)
        if recent is samples:
            found = trend(samples, rate)
        return self._trial(rate, window_s, holds, found, samples, recent[0].at, usages, latencies)

    def _trial(
        self,
        rate: float,
        window_s: float,
        holds: bool,
        found: Trend,
        samples: list[Sample],
        since: float,
        usages: list[tuple[Sample, Usage]],
        latencies: Latencies,
    ) -> Trial:
        inside = [usage for usage in usages if usage[0].at >= since]
        cpu: dict[str, float] = {}
        cores = others = 0.0
        if len(inside) > 1:
            (first, before), (last, after) = inside[0], inside[-1]
            used = cpu_between(before, after)
            thousands = max(1, last.out - first.out) / 1000
            seconds = last.at - first.at
            cpu = {name: spent / thousands for name, spent in used.items()}
            cores = sum(used.values()) / seconds
            others = max(0.0, (after.machine_s - before.machine_s) / seconds - cores)
        return Trial(rate, window_s, holds, found, samples, cpu, cores, others, latencies)

    def find_rate(
        self,
        estimate: float,
        window_s: float,
        limit_s: float,
        trials: int,
        until: float,
        tell: Callable[[str], None],
    ) -> list[Trial]:
        """Every trial of the search for the highest rate that holds, in order."""
        done: list[Trial] = []

        def holds(rate: float) -> bool:
            done.append(self.trial(rate, window_s, limit_s, DRAINED_ENOUGH))
            tell(done[-1].describe())
            return done[-1].holds

        highest_rate(estimate, holds, lambda: len(done) < trials and time.monotonic() < until)
        return done

    # -- one run -----------------------------------------------------------------------------

    def _begin(self, rate: float, count: int) -> Schedule:
        self._runs += 1
        schedule = Schedule(_tag(self._runs), time.time() + LEAD_S, rate, count)
        self._reader.ask(schedule)
        self._generator.send(schedule)
        return schedule

    def _sample(self, schedule: Schedule) -> Sample:
        count: Count = self._reader.ask("count")
        return Sample(count.at - schedule.start, count.out)

    def _stop_load(self, word: str = "stop") -> int:
        """How many were sent. "finish" waits until that is all."""
        sent, failure = self._generator.ask(word)
        if failure:
            raise Failed(f"the load generator could not send: {failure}")
        return int(sent)

    def _drain(self, schedule: Schedule, sent: int, share: float) -> None:
        deadline = time.monotonic() + DRAIN_S
        while self._sample(schedule).out < sent * share and time.monotonic() < deadline:
            time.sleep(SAMPLE_S)

    def _end(self, schedule: Schedule, since: float, until: float, share: float) -> Latencies:
        """Stop the load, wait until this share of it is out, tell latencies of a span."""
        sent = self._stop_load()
        self._drain(schedule, sent, share)
        first, last = (min(sent, int(at * schedule.rate)) for at in (since, until))
        latencies: Latencies = self._reader.ask((first, last))
        return latencies


def _tag(run: int) -> str:
    return f"r{run:03d}-"


@contextmanager
def harness(stack: TestStack, system: System) -> Iterator[Harness]:
    measured = Harness(stack, system)
    try:
        yield measured
    finally:
        measured.close()
