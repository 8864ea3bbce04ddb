"""What the reports make of the turns that vLLM alone and the worker took."""

from __future__ import annotations

import pytest

from bench.gpu.__main__ import tokens_of
from bench.vllm.turns import Question, Side, Turn, check, summary
from reviewmesh_protos.inference.v1 import inference_pb2

# Reviews a second: 100 and 50, 50 and 40, 20 and 20.
TURNS = [
    Turn(100, 30_000, Side(1.0, 500), Side(2.0, 500), []),
    Turn(100, 20_000, Side(2.0, 400), Side(2.5, 400), []),
    Turn(100, 10_000, Side(5.0, 300), Side(5.0, 200), []),
]


def test_the_ratio_is_that_of_the_middle_turn_and_not_of_two_different_ones() -> None:
    figures = summary(TURNS)
    assert figures["ratio"] == pytest.approx(0.8)
    assert (figures["offline_reviews_per_s"], figures["worker_reviews_per_s"]) == (50, 40)
    assert figures["turns"][0] == {"offline": 100, "worker": 50}


def test_tokens_are_counted_per_second_of_the_side_that_took_them() -> None:
    figures = tokens_of(TURNS)
    assert figures["prompt_tokens_per_review"] == 200
    assert figures["prompt_tokens_per_s"] == {"offline": 10_000, "worker": 8_000}
    assert figures["generated_tokens_per_s"] == {"offline": 200, "worker": 160}
    assert figures["generated_tokens_per_review"] == {"offline": 4, "worker": 4}


def test_a_failed_review_ends_the_bench_unless_its_tokens_count_all_the_same() -> None:
    cut = inference_pb2.Result(error=inference_pb2.ItemError(code="INVALID_ANSWER", message="cut"))
    good = inference_pb2.Result(ner=inference_pb2.NerOutput())

    def asked(bearable: str) -> Question:
        return Question("ner", "ner", lambda texts: [], None, bearable)

    check(asked("INVALID_ANSWER"), [cut, good])
    with pytest.raises(RuntimeError, match="1 of 2 failed: cut"):
        check(asked(""), [cut, good])
