"""How a rollout's record changes: commands, epochs, steps; as a state machine, too."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from reviewmesh.enrich.rollouts import (
    ABORTED,
    CANARY,
    DONE,
    NONE,
    READY,
    ROLLED_BACK,
    SHADOW,
    Participation,
    Rollout,
)
from reviewmesh.judge.bounds import Bounds
from reviewmesh.judge.rollout import (
    ABORT,
    ADVANCE,
    MAX_LOOKS_PER_METRIC,
    START,
    Command,
    Look,
    RolloutRecord,
    advanced,
    apply_command,
    record_of,
    rolled_back,
    with_looks,
)

TASK = "topic"
BOUNDS = Bounds(steps=(0.1, 0.5)).model_dump_json()


def given_(
    record: RolloutRecord, action: str, epoch: int | None = None, has_candidate: bool = True
) -> RolloutRecord:
    at = record.epoch if epoch is None else epoch
    command = Command("c", TASK, action, at, BOUNDS, record.commands_read)
    return apply_command(record, command, has_candidate, now_ms=1)


def test_a_rollout_goes_from_shadow_over_each_step_to_being_promoted() -> None:
    record = given_(RolloutRecord(TASK), START)
    found = [(record.state, record.share)]
    while record.is_running:
        record = given_(record, ADVANCE)
        found.append((record.state, record.share))
    assert found == [(SHADOW, 1.0), (CANARY, 0.1), (CANARY, 0.5), (READY, 0.5), (DONE, 0.0)]


def test_a_step_knows_how_many_canaries_came_before_it() -> None:
    record = given_(given_(RolloutRecord(TASK), START), ADVANCE)
    assert record.canaries_before == 0
    assert given_(replace(record, canaries=812), ADVANCE).canaries_before == 812


def test_a_command_for_bounds_that_cannot_be_read_any_more_is_refused() -> None:
    """They may be of another version of the judge: it has to live to end such a rollout."""
    record = replace(given_(RolloutRecord(TASK), START), bounds='{"newer": 1}')
    assert "there is no such bound" in (given_(record, ADVANCE).refusal or "")
    assert given_(record, ABORT).state == ABORTED


@pytest.mark.parametrize(
    ("record", "action", "epoch", "has_candidate", "refusal"),
    [
        (RolloutRecord(TASK), ADVANCE, 0, True, "no rollout of topic goes on; it is none"),
        (
            RolloutRecord(TASK),
            START,
            1,
            True,
            "is at epoch 0 (none), and the command was given for epoch",
        ),
        (RolloutRecord(TASK), START, 0, False, "REVIEWMESH_CANDIDATES__TOPIC"),
        (RolloutRecord(TASK), "stop", 0, True, "no rollout of topic goes on"),
        (given_(RolloutRecord(TASK), START), START, 1, True, "goes on; end it with"),
        (given_(RolloutRecord(TASK), START), "stop", 1, True, "expected start, advance or abort"),
        (given_(RolloutRecord(TASK), START), ABORT, 0, True, "is at epoch 1 (shadow)"),
    ],
)
def test_a_command_that_is_refused_changes_nothing_and_says_why(
    record: RolloutRecord, action: str, epoch: int, has_candidate: bool, refusal: str
) -> None:
    after = given_(record, action, epoch, has_candidate)
    assert refusal in (after.refusal or "")
    assert (after.state, after.epoch, after.share) == (record.state, record.epoch, record.share)
    assert after.commands_read == record.commands_read + 1


def test_a_record_survives_being_written() -> None:
    record = with_looks(given_(RolloutRecord(TASK), START), [look(1)])
    assert record_of(record.content()) == record


def look(observations: int) -> Look:
    return Look(observations, SHADOW, "labels", "all", observations, 0.0, -1.0, 1.0)


def test_looks_are_thinned_out_and_the_first_and_the_last_stay() -> None:
    record = RolloutRecord(TASK)
    for number in range(500):
        record = with_looks(record, [look(number)])
    judged_answer = [one.observations for one in record.looks]
    assert len(judged_answer) <= MAX_LOOKS_PER_METRIC
    assert (judged_answer[0], judged_answer[-1]) == (0, 499)
    assert judged_answer == sorted(judged_answer)


def test_a_larger_share_keeps_the_canaries_of_a_smaller_one() -> None:
    names = [f"r-{number}" for number in range(5_000)]

    def canaries(share: float, rollout: str = "topic-1") -> set[str]:
        one = Rollout(rollout, TASK, CANARY, share)
        return {name for name in names if one.participation(name) is Participation.CANARY}

    small, large = canaries(0.05), canaries(0.25)
    assert small < large
    assert len(small) == pytest.approx(250, abs=60)
    assert canaries(1.0) == set(names)
    assert canaries(0.25, "topic-2") != large


@pytest.mark.parametrize("state", [NONE, DONE, ROLLED_BACK, ABORTED])
def test_nothing_takes_part_in_a_rollout_that_is_over(state: str) -> None:
    assert Rollout("topic-1", TASK, state, 1.0).participation("r-1") is Participation.NO


class Rollouts(RuleBasedStateMachine):
    """Commands, right and stale, among decisions of the judge."""

    def __init__(self) -> None:
        super().__init__()
        self.record = RolloutRecord(TASK)
        self.epochs = [0]

    def change(self, record: RolloutRecord) -> None:
        if record.epoch != self.record.epoch:
            self.epochs.append(record.epoch)
        else:
            kept = (self.record.state, self.record.share, self.record.step)
            assert (record.state, record.share, record.step) == kept
        self.record = record

    @rule(action=st.sampled_from([START, ADVANCE, ABORT]), behind=st.integers(0, 2))
    def command(self, action: str, behind: int) -> None:
        epoch = max(0, self.record.epoch - behind)
        after = given_(self.record, action, epoch)
        if epoch != self.record.epoch:
            assert after.refusal is not None
        self.change(after)

    @rule()
    def the_judge_advances(self) -> None:
        if self.record.state in (SHADOW, CANARY):
            self.change(advanced(self.record, "well", 1))

    @rule()
    def the_judge_rolls_back(self) -> None:
        if self.record.is_running:
            self.change(rolled_back(self.record, "worse", 1))

    @invariant()
    def epochs_rise_and_only_a_rollout_that_goes_on_has_a_share(self) -> None:
        assert self.epochs == sorted(set(self.epochs))
        assert (self.record.share > 0) == self.record.is_running


TestRollouts = Rollouts.TestCase
