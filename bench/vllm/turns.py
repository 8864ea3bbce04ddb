"""Offline and online take turns on the same prompts, both engines loaded throughout.

Every turn has texts of its own, for the worker remembers answers and vLLM keeps prompts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.vllm.offline import Offline
from bench.vllm.online import Online, Results

Prompts = list[list[int]]
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Question:
    """What both are asked."""

    title: str
    task: str
    prompts: Callable[[Sequence[str]], Prompts]
    sampling: Any
    """vLLM's parameters for an answer; None where a model pools."""
    bearable: str = ""
    """The code of a failure that a model's answer may be, with its tokens all the same."""


@dataclass(frozen=True, slots=True)
class Side:
    """What one of both did in a turn."""

    seconds: float
    generated: int
    """Tokens."""


@dataclass(frozen=True, slots=True)
class Turn:
    reviews: int
    prompt_tokens: int
    offline: Side
    worker: Side
    results: Results
    """The worker's."""

    def rates(self) -> dict[str, float]:
        """Reviews a second."""
        return {
            "offline": self.reviews / self.offline.seconds,
            "worker": self.reviews / self.worker.seconds,
        }


def take(
    question: Question,
    texts: Sequence[str],
    rounds: int,
    count: int,
    offline: Offline,
    online: Online,
    tell: Tell,
) -> list[Turn]:
    """The turns after the first, of `count` texts each. Raises RuntimeError on a failed review."""
    turns: list[Turn] = []
    for number in range(rounds):
        some = texts[number * count : (number + 1) * count]
        if len(some) < count:
            raise RuntimeError(f"expected {rounds * count} different reviews, found {len(texts)}")
        # Who asks vLLM itself has prompts to make as well: both begin with the texts.
        began = time.monotonic()
        prompts = question.prompts(some)
        making_s = time.monotonic() - began
        sides: dict[str, Side] = {}
        results: Results = []
        # Whoever is first finds the machine as the other left it: they change places.
        for which in ("alone", "through") if number % 2 else ("through", "alone"):
            if which == "alone":
                seconds, generated = offline.ask(prompts, question.sampling)
                sides[which] = Side(making_s + seconds, generated)
            else:
                seconds, generated, results = online.ask(question.task, some)
                sides[which] = Side(seconds, generated)
        check(question, results)
        turn = Turn(len(some), sum(map(len, prompts)), sides["alone"], sides["through"], results)
        rates = turn.rates()
        tell(
            f"{question.title}: {rates['offline']:.1f} reviews/s alone, {rates['worker']:.1f} "
            f"through the worker{'' if number else ' (warming up)'}"
        )
        if number:
            turns.append(turn)
    return turns


def summary(turns: Sequence[Turn]) -> dict[str, Any]:
    """Medians over the turns, and each of them."""
    rates = [turn.rates() for turn in turns]
    return {
        "offline_reviews_per_s": statistics.median(rate["offline"] for rate in rates),
        "worker_reviews_per_s": statistics.median(rate["worker"] for rate in rates),
        "ratio": statistics.median(rate["worker"] / rate["offline"] for rate in rates),
        "turns": rates,
        "reviews_per_turn": turns[0].reviews,
    }


def check(question: Question, results: Results) -> None:
    """Raises RuntimeError on a failed review."""
    errors = [result.error for result in results if result.WhichOneof("outcome") == "error"]
    failed = [error.message for error in errors if error.code != question.bearable]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(results)} failed: {failed[0]}")
