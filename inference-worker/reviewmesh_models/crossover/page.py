"""The comparison as rows for a terminal and as a page with a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

from reviewmesh_models.crossover.comparison import Buying, Crossover, Owning
from reviewmesh_models.evaluation import plots
from reviewmesh_models.evaluation.elements import document, figure, number, section, table, words

FIGURES: Final = ("figure", "value", "which is")
VOLUMES: Final = ("reviews a month", "GPUs", "own GPUs", "provider")
_POINTS: Final = 600


@dataclass(frozen=True)
class Figure:
    """An input of the comparison."""

    name: str
    value: str
    origin: str
    """`given`, `default`, or `measured` with its report."""


def as_text(crossing: Crossover | None) -> str:
    if crossing is None:
        return (
            "Owning is cheaper at no volume: a GPU that is full costs no less than its reviews do "
            "at the provider."
        )
    first, last = reviews(crossing.first), reviews(crossing.last)
    if crossing.first == crossing.last:
        return f"Both cost the same at {first} reviews a month; above, owning is cheaper."
    return (
        f"Both first cost the same at {first} reviews a month; below, the provider is cheaper. "
        f"Above {last} owning is cheaper for good; between the two a further GPU may turn it."
    )


def volumes(owning: Owning, crossing: Crossover | None) -> list[Fraction]:
    """The volumes to show: around the crossover, or of full GPUs if there is none."""
    if crossing is None:
        return [owning.capacity * gpus for gpus in (1, 2, 4)]
    some = {crossing.first / 2, crossing.first, crossing.last, crossing.last * 2}
    return sorted(some)


def rows(owning: Owning, buying: Buying, crossing: Crossover | None) -> list[list[str]]:
    """The cells under VOLUMES."""
    return [
        [
            reviews(volume),
            f"{owning.gpus(volume):,}",
            in_dollars(owning.cost(volume)),
            in_dollars(buying.cost(volume)),
        ]
        for volume in volumes(owning, crossing)
    ]


def write_page(
    file: Path,
    inputs: Sequence[Figure],
    owning: Owning,
    buying: Buying,
    crossing: Crossover | None,
) -> None:
    """Raises OSError."""
    given = [[words(one.name), number(one.value), words(one.origin)] for one in inputs]
    compared = [list(map(number, row)) for row in rows(owning, buying, crossing)]
    sections = [
        section("When owning beats buying", as_text(crossing), _plot(owning, buying, crossing)),
        section("US dollars a month", "", table(VOLUMES, compared)),
        section(
            "Figures",
            "A month has 730 hours. A figure that was given is only as good as its giver.",
            table(FIGURES, given),
        ),
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(document("Own GPUs against a provider", sections), encoding="utf-8")


def reviews(volume: Fraction) -> str:
    return f"{round(volume):,}"


def in_dollars(amount: Fraction) -> str:
    return f"{float(amount):,.2f}"


def _plot(owning: Owning, buying: Buying, crossing: Crossover | None) -> str:
    furthest = volumes(owning, crossing)[-1]
    at = [furthest * point / _POINTS for point in range(_POINTS + 1)]
    marked = [] if crossing is None else sorted({crossing.first, crossing.last})
    drawn = plots.lines(
        {
            "own GPUs": [(float(volume), float(owning.cost(volume))) for volume in at],
            "provider": [(float(volume), float(buying.cost(volume))) for volume in at],
        },
        [
            (float(volume), float(buying.cost(volume)), f"{reviews(volume)} reviews a month")
            for volume in marked
        ],
        across="reviews a month",
        up="US dollars a month",
    )
    return figure("Cost by volume", drawn)
