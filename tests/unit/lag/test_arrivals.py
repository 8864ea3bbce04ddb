"""When a record arrived: its timestamp, unless the ends of its partition tell that it is wrong."""

from __future__ import annotations

import pytest

from reviewmesh.lag.arrivals import MOST_LOOKS, Arrivals

MINUTES = 60.0


def looked(*ends: int, topic_id: int = 1) -> Arrivals:
    """One look a second from 1,000 s on; an answer takes 0.1 s."""
    arrivals = Arrivals()
    for second, end in enumerate(ends):
        arrivals.saw(end, topic_id, 1_000.0 + second, 1_000.1 + second)
    return arrivals


@pytest.mark.parametrize("off_s", [-7 * MINUTES, 7 * MINUTES])
def test_a_clock_that_is_minutes_off_does_not_change_the_age(off_s: float) -> None:
    # Offset 10 was not there at 1,001 and was at 1,002.1.
    found = looked(10, 10, 11, 11).arrived_at(10, 1_001.5 + off_s)
    assert found == pytest.approx(1_001.5, abs=0.7)


def test_a_timestamp_that_can_be_is_taken_as_it_is() -> None:
    assert looked(10, 10, 11).arrived_at(10, 1_001.5) == 1_001.5


def test_what_was_there_at_the_first_look_may_be_of_any_age() -> None:
    arrivals = looked(10, 11)
    assert arrivals.arrived_at(3, 17.0) == 17.0
    # But it has been there since.
    assert arrivals.arrived_at(3, 1_000.0 + 7 * MINUTES) == 1_000.1


def test_a_record_that_was_not_seen_yet_arrived_after_the_last_look() -> None:
    assert looked(10, 10).arrived_at(10, 500.0) == 1_001.0


def test_a_topic_that_was_created_again_has_other_records() -> None:
    arrivals = looked(10, 20)
    arrivals.saw(30, 2, 1_002.0, 1_002.1)
    assert arrivals.arrived_at(5, 900.0) == 900.0
    # By its end alone, where its id is not known.
    arrivals = looked(10, 20)
    arrivals.saw(3, 1, 1_002.0, 1_002.1)
    assert arrivals.arrived_at(2, 900.0) == 900.0


def test_many_looks_are_thinned_and_stay_true() -> None:
    arrivals = Arrivals()
    for second in range(5 * MOST_LOOKS):
        arrivals.saw(second, 1, float(second), second + 0.1)
    assert len(arrivals._looks) <= MOST_LOOKS
    for offset in (0, 77, 2_500, 5 * MOST_LOOKS - 3):
        # It arrived between the looks at its own end and at the next.
        true_s = offset + 0.5
        assert arrivals.arrived_at(offset, true_s) == true_s
        assert arrivals.arrived_at(offset, true_s - 1e6) <= true_s
        assert arrivals.arrived_at(offset, true_s + 1e6) >= true_s
