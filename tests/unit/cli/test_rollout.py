"""What `reviewmesh rollout status` prints."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reviewmesh.cli.rollout import told
from reviewmesh.cli.sequence import LINES, WIDTH, drawn
from reviewmesh.enrich.rollouts import CANARY, READY, ROLLED_BACK, SHADOW
from reviewmesh.judge.rollout import Look, RolloutRecord

RECORD = RolloutRecord(
    task="topic",
    rollout="topic-1",
    epoch=4,
    state=SHADOW,
    share=1.0,
    reason="started by a command",
    verdict="412 pairs compared, 500 are wanted",
    bounds='{"disagreement": 0.25}',
    model="encoder@2",
    stage_at=0,
    answered=10_020,
    compared=412,
    slices=("da",),
)

WIDE = 200


def look(number: int, low: float, high: float, name: str = "all", metric: str = "labels") -> Look:
    middle = (low + high) / 2
    return Look(number * 1000, SHADOW, metric, name, number, middle, low, high)


def lines(record: RolloutRecord) -> str:
    return "\n".join(told(record, WIDE))


def test_the_share_that_was_compared_and_what_is_waited_for_are_said() -> None:
    said = lines(RECORD)
    assert "topic: shadow at 100 % of the reviews, epoch 4, rollout topic-1" in said
    assert "now: 412 pairs compared, 500 are wanted" in said
    assert "412 of 10,020 answers were compared in shadow: 4.1%" in said
    assert "reprocess" not in said


def test_what_the_canary_answered_is_done_again_by_the_command_that_is_printed() -> None:
    for state in (CANARY, READY, ROLLED_BACK):
        said = lines(replace(RECORD, state=state, canaries=50))
        assert (
            "reviewmesh reprocess --task topic --where "
            '\'rollout = "topic-1" and route = "candidate"\''
        ) in said
        assert ("reviewmesh-models promote encoder@2 --task topic" in said) == (state == READY)


def test_each_metric_is_drawn_with_its_bound_and_its_slices() -> None:
    looks = (
        look(9, 0.1, 0.4, metric="disagreement"),
        look(8, 0.0, 0.5, "da", metric="disagreement"),
    )
    said = lines(replace(RECORD, looks=looks))
    assert "disagreement: other answers than the task's own workers; ends if it is shown" in said
    assert "above 0.25 (┊)" in said
    assert "da: 0.250 [0.000, 0.500] over 8" in said


def test_whether_cost_is_judged_is_said() -> None:
    looks = (look(9, 0.1, 0.4, metric="cost"),)
    known = replace(RECORD, state=CANARY, canaries=50, looks=looks)
    assert "cost: answers that cost more than allowed; ends if it is shown to be" in lines(known)
    said = lines(replace(known, unpriced=1_234))
    assert "cost is not judged: it is not known of both answers of 1,234 pairs" in said
    assert "cost more than allowed" not in said


def test_bounds_of_another_version_do_not_hide_the_rest() -> None:
    said = lines(replace(RECORD, bounds='{"unheard_of": 1}'))
    assert "its bounds cannot be read: unheard_of: there is no such bound" in said
    assert "412 of 10,020 answers" in said


def test_a_task_without_a_rollout() -> None:
    assert lines(RolloutRecord("ner")) == "ner: no rollout"


def test_a_sequence_is_drawn_over_time_to_one_scale() -> None:
    found = list(drawn([look(n, 0.0, 1.0 - n / 200) for n in range(100)], bound=0.75, room=WIDE))
    assert len(found) == LINES
    pictures = [line[26 : 26 + WIDTH] for line in found]
    assert all(picture[round(0.75 * (WIDTH - 1))] == "┊" for picture in pictures)
    ends = [picture.rindex("┤") for picture in pictures[:6]]
    assert ends == sorted(ends, reverse=True)
    assert found[0].startswith("01-01 00:00:00") and found[-1].startswith("01-01 00:01:39")
    assert found[-1].endswith("0.253 [0.000, 0.505]")


@pytest.mark.parametrize("room", [120, 76, 60, 36])
def test_a_drawing_fits_the_room_that_there_is(room: int) -> None:
    looks = [look(n, 0.0, 1.0 - n / 200) for n in range(3)]
    found = list(drawn(looks, bound=0.75, room=room))
    assert max(map(len, found)) <= room
    assert sum("●" in line for line in found) == 3
    assert "0.500 [0.000, 1.000]" in found[0] + found[1]


def test_one_point_at_its_bound_is_drawn() -> None:
    [line] = drawn([look(1, 0.5, 0.5)], bound=0.5, room=WIDE)
    assert "●" in line
