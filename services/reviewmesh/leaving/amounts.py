"""Amounts of what a provider is paid for, and sums of them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import Final, NamedTuple

MICROS: Final = 1_000_000
"""Money is counted in millionths of a US dollar."""


class Amount(NamedTuple):
    requests: int = 0
    tokens: int = 0
    """Of prompts and answers."""
    micros: int = 0

    def plus(self, other: Amount) -> Amount:
        return Amount(*(a + b for a, b in zip(self, other, strict=True)))

    def minus(self, other: Amount) -> Amount:
        return Amount(*(a - b for a, b in zip(self, other, strict=True)))


NOTHING: Final = Amount()


def sum_of(amounts: Iterable[Amount]) -> Amount:
    return reduce(Amount.plus, amounts, NOTHING)


class Spent(NamedTuple):
    """What became of the calls of a period."""

    reserved: Amount = NOTHING
    """Of calls that are not finished: the most that they may take."""
    settled: Amount = NOTHING
    """Of calls whose results are committed."""
    orphaned: Amount = NOTHING
    """Of calls without a result: they failed, or their process ended. The most that they may have
    taken, where nobody told how much it was."""

    def plus(self, other: Spent) -> Spent:
        return Spent(*(a.plus(b) for a, b in zip(self, other, strict=True)))

    def total(self) -> Amount:
        return self.reserved.plus(self.settled).plus(self.orphaned)
