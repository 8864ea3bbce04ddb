"""The search, the steady state and the payloads, without a broker."""

from __future__ import annotations

import math
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load import Schedule
from bench.reader import MISSING, Seen, percentile, take
from bench.reviews import Payloads, load
from bench.search import PRECISION, highest_rate
from bench.steady import FLAT, Sample, trend, window
from reviewmesh.avro.codec import Codec
from reviewmesh.intake.normalise import normalise

TRIALS = 60


class FakeRegistry:
    """Knows one schema, whatever it is."""

    def id_of(self, subject: str, schema: dict[str, Any]) -> int:
        self._schema = schema
        return 7

    def schema(self, schema_id: int) -> dict[str, Any]:
        return self._schema


@given(capacity=st.floats(1, 10_000), error=st.floats(0.2, 5))
def test_the_search_ends_just_below_what_the_system_can_do(capacity: float, error: float) -> None:
    tried: deque[float] = deque()

    def holds(rate: float) -> bool:
        tried.append(rate)
        return rate <= capacity

    held, failed = highest_rate(capacity * error, holds, lambda: len(tried) < TRIALS)
    assert held <= capacity
    assert failed is not None and failed > capacity
    assert failed / held < PRECISION
    assert len(tried) < TRIALS


def test_a_search_without_a_rate_that_holds_finds_none() -> None:
    tried: list[float] = []

    def fails(rate: float) -> bool:
        tried.append(rate)
        return False

    held, failed = highest_rate(100, fails, lambda: len(tried) < 5)
    assert held == 0
    assert failed == tried[-1] == min(tried)


@given(
    rate=st.floats(10, 3_000),
    share=st.floats(0.5, 1.5),
    behind_s=st.floats(0, 3),
)
def test_lag_is_flat_only_where_as_much_comes_out_as_is_due(
    rate: float, share: float, behind_s: float
) -> None:
    samples = [
        Sample(at, round(max(0.0, at * share - behind_s) * rate))
        for at in (10 + step / 4 for step in range(40))
    ]
    found = trend(samples, rate)
    assert found.slope == pytest.approx(1 - share, abs=3 / rate / 5)
    if abs(1 - share) > 2 * FLAT and rate > 100:
        assert not found.is_flat
    if share == 1:
        assert found.mean_s == pytest.approx(behind_s, abs=1 / rate)


def test_there_is_no_window_before_the_run_is_as_old_as_it() -> None:
    samples = [Sample(step / 4, 0) for step in range(40)]
    assert window(samples, 9.76) is None
    found = window(samples, 5)
    assert found is not None
    assert found[-1].at - found[0].at == 5


def test_a_percentile_is_a_value_that_occurred() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0
    assert percentile([float(number) for number in range(1, 101)], 0.99) == 99.0
    assert percentile([5.0], 0.01) == percentile([5.0], 1.0) == 5.0


def test_a_record_of_any_place_reads_as_the_review_with_that_id(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("REVIEWMESH_BENCH_REVIEWS", raising=False)
    codec = Codec(FakeRegistry(), "s", "review")  # type: ignore[arg-type]
    reviews = load(50)
    payloads = Payloads(codec, reviews)
    for sequence in (0, 1, 49, 50, 99_999_999):
        key, value = payloads.record("r001-", sequence, sequence)
        read = codec.decode(value)
        assert read["review_id"] == key.decode() == f"r001-{sequence:09d}"
        assert read["text"] == reviews[sequence % 50]["text"]
        # What intake would refuse makes no load.
        assert normalise(read, ())["text"]


def test_the_reader_ticks_off_each_review_once_and_counts_what_comes_again() -> None:
    seen = Seen(Schedule("r001-", 100.0, 10.0, 30))
    codec = SimpleNamespace(decode=lambda value: value)
    timings = dict.fromkeys(
        ("origin_at", "accepted_at", "ner_at", "topic_at", "sentiment_at", "enriched_at")
    )

    def message(key: bytes) -> Any:
        record = {"complete": True, "timings": timings}
        return SimpleNamespace(key=lambda: key, error=lambda: None, value=lambda: record)

    take(seen, [message(b"r001-000000010"), message(b"r000-000000011")], codec, 103.0)  # type: ignore[arg-type]
    take(seen, [message(b"r001-000000010")], codec, 104.0)  # type: ignore[arg-type]
    assert (seen.out, seen.twice) == (1, 1)
    # Due at 101, out at 103.
    assert math.isclose(seen.latencies[10], 2.0, rel_tol=1e-6)
    assert sum(value == MISSING for value in seen.latencies) == 29
