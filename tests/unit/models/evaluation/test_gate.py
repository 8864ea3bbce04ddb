"""What passes a gate, and that a report of something else does not count."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reviewmesh_models.evaluation.few_rows import said_of_few
from reviewmesh_models.evaluation.gate import Gate, GateError, GateResult, check_gate, read_gate
from reviewmesh_models.evaluation.report import (
    Against,
    Difference,
    Golden,
    PackageName,
    Report,
    Score,
    Speed,
    TaskMade,
    read_report,
)
from reviewmesh_worker.bundled import BUNDLED_MODEL

OURS, THEIRS = "sha256:ours", "sha256:theirs"
MADE = {"sentiment": TaskMade(version="1", digest="sha256:task")}


def _score(value: float) -> Score:
    return Score(value=value, low=value - 0.01, high=value + 0.01, rows=100)


def _package(digest: str) -> PackageName:
    return PackageName(name="small", version="1", digest=digest, engine="onnx")


def _report(scores: dict[str, float], differences: dict[str, Difference] | None = None) -> Report:
    against = (
        []
        if differences is None
        else [Against(package=_package(THEIRS), scores={}, differences=differences)]
    )
    return Report(
        package=_package(OURS),
        tasks=MADE,
        made_at="2026-01-01T00:00:00+00:00",
        command="reviewmesh-models evaluate",
        seconds=1,
        data={},
        scores={name: _score(value) for name, value in scores.items()},
        baselines={},
        labels={},
        confusion=None,
        calibration={},
        slices={},
        hostile={},
        golden={},
        speed=Speed(
            reviews_per_s=_score(1),
            in_flight=1,
            latency_p50_ms=_score(1),
            latency_p95_ms=_score(1),
        ),
        against=against,
    )


def _check(report: Report, gate: Gate, serving: str | None = None) -> GateResult:
    return check_gate(report, OURS, MADE, gate, serving)


NAME = "sentiment.accuracy"


@given(st.floats(0, 1), st.floats(0, 1))
def test_floors_and_ceilings(value: float, limit: float) -> None:
    report = _report({NAME: value})
    assert _check(report, Gate(floors={NAME: limit})).passed == (value >= limit)
    assert _check(report, Gate(ceilings={NAME: limit})).passed == (value <= limit)


@given(st.floats(-0.2, 0.2), st.floats(0, 0.1), st.floats(0, 0.1))
def test_a_margin_holds_where_the_low_end_of_the_difference_does(
    value: float, spread: float, margin: float
) -> None:
    difference = Difference(value=value, low=value - spread, high=value + spread)
    result = _check(_report({NAME: 0.5}, {NAME: difference}), Gate(margins={NAME: margin}), THEIRS)
    assert result.passed == (value - spread >= -margin)


def test_a_margin_needs_a_comparison_with_what_serves() -> None:
    gate = Gate(margins={NAME: 0.1})
    equal = Difference(value=0, low=0, high=0)
    assert _check(_report({NAME: 0.5}, {NAME: equal}), gate, THEIRS).passed
    for report in (_report({NAME: 0.5}), _report({NAME: 0.5}, {})):
        assert not _check(report, gate, THEIRS).passed
    assert not _check(_report({NAME: 0.5}, {NAME: equal}), gate, "sha256:third").passed
    # Nothing serves, or the package itself does.
    assert _check(_report({NAME: 0.5}), gate).passed
    assert _check(_report({NAME: 0.5}), gate, OURS).passed


def test_a_score_that_was_not_measured_does_not_pass() -> None:
    result = _check(_report({}), Gate(floors={NAME: 0.1}))
    assert result.failures == [f"{NAME}: expected at least 0.1, got no such score"]


def test_rules_of_tasks_that_the_package_is_not_up_for_do_not_count() -> None:
    assert _check(_report({NAME: 1}), Gate(floors={NAME: 0.5, "ner.span_f1": 0.9})).passed


def test_a_report_of_another_package_or_task_does_not_count() -> None:
    report = _report({NAME: 1})
    assert not check_gate(report, "sha256:other", MADE, Gate(), None).passed
    for other in (
        TaskMade(version="2", digest="sha256:task"),
        TaskMade(version="1", digest="sha256:edited"),
    ):
        assert not check_gate(report, OURS, {"sentiment": other}, Gate(), None).passed
    assert not check_gate(report, OURS, MADE | {"ner": MADE["sentiment"]}, Gate(), None).passed


def _golden(right: int, rows: int, held: int = 7, injections: int = 7) -> Report:
    golden = Golden(rows=rows, right=right, injections=injections, held=held, missed=[])
    return _report({}).model_copy(update={"golden": {"sentiment": golden}})


RIGHT, HELD = "sentiment.golden_right", "sentiment.golden_held"


@pytest.mark.parametrize(
    ("report", "floor", "passes", "got"),
    [
        (_golden(44, 56), {RIGHT: 0.78}, True, "44 of 56, 0.7857"),
        (_golden(43, 56), {RIGHT: 0.78}, False, "43 of 56, 0.7679"),
        # 0.07 * 100 is more than 7 in floating point.
        (_golden(7, 100), {RIGHT: 0.07}, True, "7 of 100, 0.0700"),
        (_golden(50, 50, held=6), {HELD: 0.85}, True, "6 of 7, 0.8571"),
        (_golden(50, 50, held=5), {HELD: 0.85}, False, "5 of 7, 0.7143"),
        (_golden(0, 0), {RIGHT: 0.1}, False, "no golden rows: write some"),
        (_golden(5, 5, 0, 0), {HELD: 0.1}, False, "no golden rows with an injection: write some"),
        (_report({}), {RIGHT: 0.1}, False, "no such score"),
    ],
)
def test_golden_rows_pass_or_fail_by_a_bound(
    report: Report, floor: dict[str, float], passes: bool, got: str
) -> None:
    result = _check(report, Gate(floors=floor))
    assert (result.passed, result.rules[-1].got) == (passes, got)


def test_the_bundled_model_passes_the_gate_of_the_project() -> None:
    report = read_report(BUNDLED_MODEL)
    result = check_gate(report, report.package.digest, report.tasks, read_gate(), None)
    assert result.passed, result.failures
    asked = {rule.name for rule in result.rules}
    for task in report.tasks:
        assert {f"{task}.golden_right", f"{task}.golden_held"} <= asked
    # Its dev rows are enough for what the gate asks.
    assert not [rule for rule in result.rules if "decides nothing" in rule.got]


def test_a_score_of_few_rows_is_said_to_decide_nothing() -> None:
    few = Score(value=1, low=1, high=1, rows=5)
    many = Score(value=0.9, low=0.887, high=0.923, rows=1000)
    wide = Score(value=0.5, low=0.3, high=0.7, rows=1800)
    assert said_of_few(few) == (
        "of 5 rows, 95 % from 0.566 to 1.000: 0.43 wide, which decides nothing"
    )
    assert said_of_few(many) == ""
    assert "95 % from 0.300 to 0.700: 0.40 wide" in said_of_few(wide)
    report = _report({}).model_copy(update={"scores": {NAME: few}})
    result = _check(report, Gate(floors={NAME: 0.9}))
    assert result.passed and "decides nothing" in result.rules[-1].got


def test_the_gate_of_the_project_asks_for_each_task() -> None:
    gate = read_gate()
    for limits in (gate.floors, gate.margins):
        assert {name.split(".")[0] for name in limits} == {"sentiment", "topic", "ner"}
    assert gate.ceilings["sentiment.flip_rate"] == gate.ceilings["topic.flip_rate"] == 0.05


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("floors: [", "expected YAML"),
        ("floor: {a.b: 1}", "floor"),
        ("floors: {accuracy: 1}", "accuracy"),
        ("margins: {a.b: -1}", "a.b"),
    ],
)
def test_what_is_off_in_a_gate_is_said(tmp_path: Path, written: str, said: str) -> None:
    file = tmp_path / "gate.yaml"
    file.write_text(written)
    with pytest.raises(GateError, match=f"gate.yaml: .*{said}"):
        read_gate(file)
    with pytest.raises(GateError, match="expected a gate at"):
        read_gate(tmp_path / "none.yaml")
