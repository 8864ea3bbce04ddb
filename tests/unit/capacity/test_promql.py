"""The query gives what the policy gives: promtool evaluates it on series made up here."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from reviewmesh.capacity.policy import ScalingPolicy, whole
from reviewmesh.capacity.promql import work_query

POLICY = ScalingPolicy(50, backlog_s=60, target_utilisation=0.8, rate_window_s=120)
MATCHERS = 'namespace="reviews"'
OURS = 'topic="reviews.accepted", namespace="reviews"'
# Of another mesh, another topic, another group: none of them counts.
FOREIGN = (
    ('reviewmesh_records_written_total{topic="reviews.accepted", namespace="b"}', "0+9000x40"),
    ('reviewmesh_records_written_total{topic="reviews.topic", namespace="reviews"}', "0+9000x40"),
    (
        f'reviewmesh_backlog_records{{group="reviewmesh-joiner", partition="0", {OURS}}}',
        "70000x40",
    ),
    (
        'reviewmesh_backlog_records{group="reviewmesh-enricher-topic", partition="0", '
        'topic="reviews.accepted", namespace="b"}',
        "70000x40",
    ),
)


def series(arrivals_per_s: float, backlog: int, age_s: float | None) -> list[dict[str, str]]:
    """Two replicas of intake write, two partitions wait; a value every 15 seconds."""
    half = arrivals_per_s * 15 / 2
    group = 'group="reviewmesh-enricher-topic"'
    made = [
        *(
            (f'reviewmesh_records_written_total{{{OURS}, instance="{n}"}}', f"0+{half}x40")
            for n in (1, 2)
            if arrivals_per_s
        ),
        (f'reviewmesh_backlog_records{{{group}, partition="0", {OURS}}}', f"{backlog}x40"),
        (f'reviewmesh_backlog_records{{{group}, partition="1", {OURS}}}', "0x40"),
        *FOREIGN,
    ]
    if age_s is not None:
        name = 'reviewmesh_lag_measurement_age_seconds{namespace="reviews"}'
        made.append((name, f"{age_s}x40"))
    return [{"series": name, "values": values} for name, values in made]


def check(
    folder: Path,
    policy: ScalingPolicy,
    made: list[dict[str, str]],
    expected: float | None,
) -> None:
    """Whether promtool finds that value, or none."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is missing: it comes with Debian's package prometheus")
    query = work_query(policy, "topic", MATCHERS)
    samples = [] if expected is None else [{"labels": "{}", "value": expected}]
    test = {
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": made,
                "promql_expr_test": [
                    {
                        # To the thousandth, which is what KEDA hands on.
                        "expr": f"round({query}, 0.001)",
                        "eval_time": "5m",
                        "exp_samples": samples,
                    }
                ],
            }
        ],
    }
    file = folder / "query.yml"
    file.write_text(yaml.safe_dump(test))
    done = subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("policy", "arrivals", "backlog"),
    [
        (POLICY, 0, 0),
        (POLICY, 40, 0),
        (POLICY, 40, 2_400),
        (POLICY, 100, 12_345),
        # Without any series of arrivals, and with figures that are not whole.
        (POLICY, 0, 6_000),
        (replace(POLICY, reviews_per_s=33.333, backlog_s=12.5, rate_window_s=90), 64, 700),
    ],
)
def test_the_query_is_the_policys_work(
    tmp_path: Path, policy: ScalingPolicy, arrivals: float, backlog: int
) -> None:
    work = policy.work(arrivals, backlog)
    check(tmp_path, policy, series(arrivals, backlog, age_s=3), round(work, 3))
    assert policy.bounded(whole(round(work, 3))) == policy.wanted(arrivals, backlog)


def test_a_promise_that_fails_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"(?i)failed"):
        check(tmp_path, POLICY, series(40, 0, age_s=3), 1.1)


@pytest.mark.parametrize("age_s", [None, 61])
def test_without_a_fresh_measurement_there_is_no_value(tmp_path: Path, age_s: float | None) -> None:
    check(tmp_path, POLICY, series(40, 0, age_s), None)


def test_without_a_backlog_measured_there_is_no_value(tmp_path: Path) -> None:
    made = [entry for entry in series(40, 0, 3) if "enricher-topic" not in entry["series"]]
    check(tmp_path, POLICY, made, None)


def test_the_prefix_is_of_groups_and_topics_that_the_lag_service_names() -> None:
    query = work_query(POLICY, "ner", prefix="a.")
    assert 'reviewmesh_records_written_total{topic="reviews.accepted"}' in query
    assert '{group="a.reviewmesh-enricher-ner",topic="a.reviews.accepted"}' in query
    assert "reviewmesh_lag_measurement_age_seconds{}" in query
