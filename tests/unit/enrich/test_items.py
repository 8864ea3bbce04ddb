"""What the calls for an item took together."""

from __future__ import annotations

import pytest

from reviewmesh.avro.bounds import LARGEST
from reviewmesh.enrich.items import accepted_ms, sum_of_usage
from reviewmesh.kafka.record import Record
from reviewmesh_protos.inference.v1.inference_pb2 import Usage

FIRST = Usage(prompt_tokens=5, cost_micros=7, provider_requests=2, inference_ms=100)


def test_tokens_money_and_requests_add_up_and_times_are_those_of_the_last_call() -> None:
    last = Usage(prompt_tokens=6, cost_micros=0, provider_requests=1, inference_ms=3, language="da")
    assert sum_of_usage(FIRST, last) == Usage(
        prompt_tokens=11, cost_micros=7, provider_requests=3, inference_ms=3, language="da"
    )


def test_who_tells_nothing_adds_nothing() -> None:
    assert sum_of_usage(None, None) is None
    assert sum_of_usage(None, FIRST) == sum_of_usage(FIRST, None) == FIRST
    both = sum_of_usage(FIRST, Usage(inference_ms=1))
    assert both is not None
    assert (both.prompt_tokens, both.cost_micros, both.inference_ms) == (5, 7, 1)
    assert not both.HasField("completion_tokens")


@pytest.mark.parametrize("odd", [-1, 2**63 - 1, -(2**63)])
def test_numbers_out_of_range_take_nothing_away(odd: int) -> None:
    for first, last in ((FIRST, Usage(cost_micros=odd)), (Usage(cost_micros=odd), FIRST)):
        total = sum_of_usage(first, last)
        assert total is not None and total.cost_micros == 7
    largest = sum_of_usage(FIRST, Usage(cost_micros=LARGEST))
    assert largest is not None and largest.cost_micros == LARGEST


@pytest.mark.parametrize("off_ms", [-420_000, 0])
def test_a_broker_whose_clock_is_behind_makes_no_review_look_as_if_it_had_waited(
    off_ms: int,
) -> None:
    now_ms = 1_700_000_000_000
    record = Record("reviews.accepted", 0, 7, b"r", b"", timestamp_ms=now_ms + off_ms)
    assert accepted_ms(record, {"accepted_at": now_ms - 3}) == max(now_ms + off_ms, now_ms - 3)


def test_a_review_without_a_time_of_its_own_has_that_of_its_record() -> None:
    record = Record("reviews.accepted", 0, 7, b"r", b"", timestamp_ms=5)
    assert accepted_ms(record, {}) == accepted_ms(record, {"accepted_at": None}) == 5
