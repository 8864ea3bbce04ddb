"""What a run of the benchmark ends with."""

from __future__ import annotations

import pytest

from bench.__main__ import OUT_OF_TIME, exit_code

WANTED = ["instant", "onnx"]


@pytest.mark.parametrize(
    ("missing", "code"),
    [
        ({}, 0),
        ({"onnx": OUT_OF_TIME}, 0),
        ({"onnx": "the worker ended"}, 1),
        ({"instant": "the worker ended", "onnx": OUT_OF_TIME}, 1),
        (dict.fromkeys(WANTED, OUT_OF_TIME), 1),
    ],
)
def test_time_that_is_over_is_no_failure_once_something_was_measured(
    missing: dict[str, str], code: int
) -> None:
    assert exit_code(WANTED, missing) == code
