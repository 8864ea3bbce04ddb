"""Own GPUs against a provider: cases computed by hand, and laws that hold for any figures."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reviewmesh_models.crossover.comparison import Buying, Crossover, Owning, crossover_volume

# One review a second for 730 hours are 2,628,000; a GPU for a dollar an hour costs 730 a month.
OWN = Owning(Fraction(1), Fraction(1), Fraction(1), Fraction(0))
# A thousand tokens at a dollar for a million: a tenth of a cent for a review.
BUY = Buying(*map(Fraction, (1000, 0, 0, 1, 1, 1)))
NEVER = Crossover(Fraction(10**30), Fraction(10**30))
SMALL = st.fractions(min_value=Fraction(1, 1000), max_value=1000, max_denominator=1000)
AMOUNTS = st.fractions(min_value=0, max_value=10_000, max_denominator=100)
SHARES = st.fractions(min_value=Fraction(1, 100), max_value=1, max_denominator=100)
OWNED = st.builds(Owning, SMALL, SMALL, SHARES, AMOUNTS)
BOUGHT = st.builds(
    lambda prompt, share, completion, *prices: Buying(prompt, prompt * share, completion, *prices),
    *(AMOUNTS, SHARES, AMOUNTS, SMALL, SMALL, SMALL),
)


@pytest.mark.parametrize(
    ("own", "first", "last"),
    [
        # 730 / 0.001
        ({}, 730_000, 730_000),
        # (730 + 1000) / 0.001
        ({"staff": 1_000}, 1_730_000, 1_730_000),
        # One full GPU is worth 2,628: less than 3,730. Two cost 1,460 + 3,000.
        ({"staff": 3_000}, 4_460_000, 4_460_000),
        # A full GPU costs exactly what its reviews do; the second makes the provider cheaper again.
        ({"staff": 1_898}, 2_628_000, 3_358_000),
        # A full GPU answers for 788.40 and costs 730: of the 13th step it is the last crossing.
        ({"utilisation": Fraction(3, 10)}, 730_000, 9_490_000),
        # Twice as dear an hour, twice as fast.
        ({"rate": 2, "gpu_hour": 2}, 1_460_000, 1_460_000),
    ],
)
def test_both_cost_the_same_at(own: dict[str, Any], first: int, last: int) -> None:
    owning = replace(OWN, **{name: Fraction(value) for name, value in own.items()})
    assert crossover_volume(owning, BUY) == Crossover(Fraction(first), Fraction(last))


@pytest.mark.parametrize(
    ("owning", "buying"),
    [
        # 657,000 reviews of a full GPU cost 657 at the provider, and 730 here.
        (replace(OWN, utilisation=Fraction(1, 4)), BUY),
        (OWN, replace(BUY, input_price=Fraction(0))),
        (OWN, replace(BUY, prompt_tokens=Fraction(0))),
        # As dear as a full GPU, and dearer else.
        (replace(OWN, gpu_hour=Fraction(2_628, 730)), BUY),
    ],
)
def test_owning_is_cheaper_at_no_volume(owning: Owning, buying: Buying) -> None:
    assert crossover_volume(owning, buying) is None


def test_a_review_is_paid_by_its_tokens() -> None:
    # (900 - 600) * 0.5 + 600 * 0.05 + 60 * 2 = 300 millionths of a dollar.
    prices = Fraction(1, 2), Fraction(1, 20), Fraction(2)
    assert Buying(Fraction(900), Fraction(600), Fraction(60), *prices).review == Fraction(
        300, 1_000_000
    )


@pytest.mark.parametrize(
    ("reviews", "gpus", "dollars"),
    [(0, 1, 730), (2_628_000, 1, 730), (2_628_001, 2, 1_460), (26_280_000, 10, 7_300)],
)
def test_gpus_are_whole(reviews: int, gpus: int, dollars: int) -> None:
    assert OWN.gpus(Fraction(reviews)) == gpus
    assert OWN.cost(Fraction(reviews)) == dollars


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: replace(OWN, rate=Fraction(0)),
        lambda: replace(OWN, gpu_hour=Fraction(0)),
        lambda: replace(OWN, utilisation=Fraction(0)),
        lambda: replace(OWN, utilisation=Fraction(11, 10)),
        lambda: replace(OWN, staff=Fraction(-1)),
        lambda: replace(BUY, cached_tokens=Fraction(1_001)),
        lambda: replace(BUY, output_price=Fraction(-1)),
        lambda: replace(BUY, completion_tokens=Fraction(-1)),
    ],
)
def test_what_cannot_be_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        wrong()


@given(OWNED, BOUGHT, st.fractions(min_value=0, max_value=5, max_denominator=1000))
def test_the_crossover_parts_what_is_cheaper(
    owning: Owning, buying: Buying, share: Fraction
) -> None:
    found = crossover_volume(owning, buying)
    if found is None:
        volume = share * owning.capacity
        assert buying.cost(volume) <= owning.cost(volume)
        return
    assert 0 < found.first <= found.last
    for volume in (found.first, found.last):
        assert owning.cost(volume) == buying.cost(volume)
    if share < 1:
        below = share * found.first
        assert buying.cost(below) < owning.cost(below)
    above = (1 + share) * found.last
    assert owning.cost(above) <= buying.cost(above)


@given(OWNED, BOUGHT, AMOUNTS, AMOUNTS)
def test_more_reviews_never_cost_less(
    owning: Owning, buying: Buying, volume: Fraction, more: Fraction
) -> None:
    for side in (owning, buying):
        assert side.cost(volume) <= side.cost(volume + more)


@given(OWNED, BOUGHT, st.fractions(min_value=1, max_value=10, max_denominator=10), AMOUNTS)
def test_what_makes_owning_dearer_moves_the_crossover_up(
    owning: Owning, buying: Buying, times: Fraction, more: Fraction
) -> None:
    before = crossover_volume(owning, buying) or NEVER
    for dearer in (
        crossover_volume(replace(owning, gpu_hour=owning.gpu_hour * times), buying),
        crossover_volume(replace(owning, staff=owning.staff + more), buying),
        crossover_volume(replace(owning, utilisation=owning.utilisation / times), buying),
        crossover_volume(replace(owning, rate=owning.rate / times), buying),
        crossover_volume(owning, replace(buying, output_price=buying.output_price / times)),
    ):
        after = dearer or NEVER
        assert before.first <= after.first
        assert before.last <= after.last
