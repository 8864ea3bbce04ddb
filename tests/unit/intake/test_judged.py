"""What was judged before a reset, from the outcomes that tell."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reviewmesh.intake.judged import OFFSETS_PER_CHUNK, Judged, Offsets
from reviewmesh.kafka.record import FORWARDED_FROM, Record

PLACES = st.tuples(st.integers(0, 9), st.integers(0, 2**62) | st.integers(0, 200_000))


@given(st.dictionaries(PLACES, st.integers(1, 2**32 - 1), max_size=10), st.sets(PLACES))
def test_offsets_have_what_was_set(
    numbers: dict[tuple[int, int], int], asked: set[tuple[int, int]]
) -> None:
    offsets = Offsets(1_000)
    for place, number in numbers.items():
        offsets.set(*place, number)
    assert all(offsets.get(*place) == number for place, number in numbers.items())
    assert all(offsets.get(*place) == numbers.get(place, 0) for place in asked)


def test_absurd_offsets_take_up_no_memory_without_bound() -> None:
    offsets = Offsets(10)
    offsets.set(0, -1, 1)
    for number in range(11):
        offsets.set(0, number * OFFSETS_PER_CHUNK, 1)
    assert not offsets.get(0, 0)
    assert offsets.get(0, OFFSETS_PER_CHUNK)
    assert not offsets.get(0, -1)


AT_MS = 1_795_000_000_000


def judged(first: int = 0) -> Judged:
    return Judged(partition=1, first=first, until=100)


def raw(
    offset: int, partition: int = 1, came_from: bytes | None = None, value: bytes = b"review"
) -> Record:
    headers = () if came_from is None else ((FORWARDED_FROM, came_from),)
    return Record("reviews.raw", partition, offset, None, value, headers, AT_MS)


def test_accepted_reviews_name_the_record_of_the_producer() -> None:
    known = judged()
    accepted = {"source_topic": "reviews.raw", "source_partition": 4, "source_timestamp": AT_MS}
    accepted |= {"review_id": "r", "content_hash": "A"}
    known.add_accepted({**accepted, "source_offset": 7})
    known.add_accepted({**accepted, "source_offset": 8, "source_topic": "other"})
    known.add_accepted(dict.fromkeys([*accepted, "source_offset"]))
    assert known.was_accepted(raw(7, partition=4), AT_MS)
    assert known.was_accepted(raw(50, came_from=b"reviews.raw/4/7"), AT_MS)
    assert not known.was_accepted(raw(8, partition=4), AT_MS)
    assert not known.was_accepted(raw(50, came_from=b"reviews.raw/4/8"), AT_MS)


def test_the_same_offset_of_a_topic_made_anew_is_another_record() -> None:
    known = judged()
    accepted = {"source_topic": "reviews.raw", "source_partition": 4, "source_timestamp": AT_MS}
    accepted |= {"review_id": "r", "content_hash": "A"}
    known.add_accepted({**accepted, "source_offset": 7})
    refused = {
        "topic": "reviews.raw",
        "partition": 1,
        "offset": 7,
        "stage": "intake",
        "headers": [],
        "key": None,
    }
    known.add_dead_letter({**refused, "read_at": AT_MS - 1, "value": b"junk"})
    assert not known.was_accepted(raw(7, partition=4), AT_MS + 1)
    assert not known.was_settled(raw(7))


def test_dead_letters_of_intake_settle_a_record_and_those_of_others_do_not() -> None:
    known = judged()
    letter = {"topic": "reviews.raw", "partition": 1, "offset": 7, "stage": "intake"} | {
        "read_at": AT_MS,
        "headers": [],
        "key": None,
        "value": b"junk",
    }
    known.add_dead_letter(letter)
    known.add_dead_letter({**letter, "offset": 8, "topic": "reviews.accepted"})
    known.add_dead_letter({**letter, "offset": 9, "stage": "join"})
    assert [offset for offset in range(20) if known.was_settled(raw(offset))] == [7]


def test_a_copy_settles_the_record_that_it_is_of() -> None:
    known = judged()
    for came_from in (
        b"reviews.raw/1/5",
        b"reviews.raw/2/6",
        b"other/1/7",
        b"reviews.raw/1/" + b"9" * 5_000,
        b"reviews.raw/1/-1",
        b"\xff\xfe",
        b"",
    ):
        known.add_forwarded(raw(50, partition=3, came_from=came_from))
    assert [offset for offset in range(20) if known.was_settled(raw(offset))] == [5]


def test_a_header_alone_settles_no_record_of_somebody_else() -> None:
    known = judged()
    known.add_forwarded(raw(50, partition=3, came_from=b"reviews.raw/1/5", value=b"forged"))
    assert not known.was_settled(raw(5))


def test_what_left_no_outcome_and_repeats_the_review_before_it_was_a_duplicate() -> None:
    known = judged()
    known.passed("r", "A", 1)
    assert known.was_dropped("r", "A")
    known.passed("r", "B", 2)
    assert not known.was_dropped("r", "A")
    assert not known.was_dropped("other", "B")


def test_records_behind_the_reset_are_not_covered() -> None:
    assert judged().covers(raw(99))
    assert not judged().covers(raw(100))
