"""`budgets.yaml`: how much the fallback may spend, in requests, tokens and money.

Without it nothing leaves. A budget is divided equally over the tasks that it names and the
partitions of each: whoever has a partition decides alone, so that no two spend the same money.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from reviewmesh.leaving.amounts import MICROS, Amount
from reviewmesh.leaving.yamlfile import Document, FileProblem, read_file
from reviewmesh_schemas.names import TASKS

Unit = Literal["requests", "tokens", "usd"]
UNITS: Final[tuple[Unit, ...]] = ("requests", "tokens", "usd")
PeriodName = Literal["day", "month"]
PERIODS: Final[tuple[PeriodName, ...]] = ("day", "month")
ALL: Final = ""
"""Stands for all businesses."""
UNLIMITED: Final = "unlimited"
LARGEST_CALL: Final = 1_000_000_000
"""Tokens, or millionths of a US dollar: what many calls take together stays a number that every
reader knows."""
LARGEST: Final = 10**15
EXPECTED_ALL: Final = f"expected {UNLIMITED}, or day and month"


@dataclass(frozen=True, slots=True)
class Limit:
    """The most of each unit; None: no limit."""

    requests: int | None = None
    tokens: int | None = None
    micros: int | None = None

    def exceeded_by(self, amount: Amount) -> Unit | None:
        """The first unit that the amount has too much of."""
        for unit, most, much in zip(UNITS, self.each(), amount, strict=True):
            if most is not None and much > most:
                return unit
        return None

    def divided(self, by: int) -> Limit:
        return Limit(*(None if most is None else most // by for most in self.each()))

    def each(self) -> tuple[int | None, int | None, int | None]:
        return self.requests, self.tokens, self.micros


NO_LIMIT: Final = Limit()


@dataclass(frozen=True, slots=True)
class Budgets:
    """`limits`: by business, ALL among them, and period, of the whole mesh."""

    tasks: tuple[str, ...]
    call: Amount
    """What one call may take at most; 0 of a unit that nothing limits."""
    limits: Mapping[tuple[str, PeriodName], Limit]
    shares: int
    """Into how many equal parts each budget is divided."""

    def share(self, business_id: str, period: PeriodName) -> Limit:
        """What one partition of one task may spend."""
        return self.limits.get((business_id, period), NO_LIMIT).divided(self.shares)

    def own(self) -> list[str]:
        """The businesses with a budget of their own."""
        return sorted({business_id for business_id, _ in self.limits} - {ALL})


def _known_task(task: str) -> str:
    if task not in TASKS:
        raise ValueError(f"expected one of {', '.join(TASKS)}, got {task}")
    return task


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Call(_Form):
    tokens: int | None = Field(default=None, gt=0, le=LARGEST_CALL)
    usd: float | None = Field(default=None, ge=1 / MICROS, le=LARGEST_CALL / MICROS)


class _Limit(_Form):
    requests: int | None = Field(default=None, ge=0, le=LARGEST)
    tokens: int | None = Field(default=None, ge=0, le=LARGEST)
    usd: float | None = Field(default=None, ge=0, le=LARGEST / MICROS)


class _Periods(_Form):
    day: _Limit | None = None
    month: _Limit | None = None


class _File(_Form):
    tasks: list[Annotated[str, AfterValidator(_known_task)]] = Field(
        default_factory=lambda: list(TASKS), min_length=1
    )
    call: _Call = _Call()
    all: _Periods | Literal["unlimited"]
    """Required, so that nobody forgets it: it bounds what all businesses spend together."""
    businesses: dict[Annotated[str, Field(min_length=1)], _Periods] = {}


def read_budgets(path: Path, partitions: int) -> Budgets:
    """`partitions`: of the topic of accepted reviews. Raises FileProblem."""
    return read_file(path, lambda text: parse_budgets(text, partitions))


def parse_budgets(text: str, partitions: int) -> Budgets:
    """Raises FileProblem; each of its lines begins with the line of the file."""
    document = Document(text, expected="`all`")
    file = document.as_form(_File, union="_Periods", expected_union=EXPECTED_ALL)
    of = {name: periods for name, periods in file.businesses.items()}
    if isinstance(file.all, _Periods):
        of[ALL] = file.all
    shares = len(set(file.tasks)) * partitions
    call = Amount(1, file.call.tokens or 0, _micros(file.call.usd) or 0)
    limits: dict[tuple[str, PeriodName], Limit] = {}
    problems: list[tuple[int, str]] = []
    for business_id, periods in of.items():
        path = ("businesses", business_id) if business_id != ALL else ("all",)
        problems += [
            (document.line(*at), f"{'.'.join(at)}: {problem}")
            for at, problem in _limits_nothing(path, periods)
        ]
        for period in PERIODS:
            given: _Limit | None = getattr(periods, period)
            if given is None:
                continue
            limit = Limit(given.requests, given.tokens, _micros(given.usd))
            limits[business_id, period] = limit
            for unit in UNITS:
                if getattr(given, unit) is not None:
                    at = (*path, period, unit)
                    problems += [
                        (document.line(*at), f"{'.'.join(at)}: {problem}")
                        for problem in _problem(unit, limit, call, shares)
                    ]
    if problems:
        raise FileProblem("\n".join(f"{line}: {told}" for line, told in sorted(problems)))
    return Budgets(tuple(dict.fromkeys(file.tasks)), call, limits, shares)


def _limits_nothing(
    path: tuple[str, ...], periods: _Periods
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Entries that are empty, perhaps by mistake: everything would leave."""
    given: dict[PeriodName, _Limit] = {
        period: limit for period in PERIODS if (limit := getattr(periods, period)) is not None
    }
    if not given:
        yield path, "expected day or month"
    for period, limit in given.items():
        if all(getattr(limit, unit) is None for unit in UNITS):
            yield (*path, period), "expected requests, tokens or usd"


def _problem(unit: Unit, limit: Limit, call: Amount, shares: int) -> list[str]:
    """Why a limit is of no use; empty when it is. 0 is of use: nothing may leave."""
    place = UNITS.index(unit)
    one, most = call[place], limit.each()[place]
    if not one:
        return [f"expected call.{unit} beside it: the most that one call may take"]
    if not most or most // shares >= one:
        return []
    smallest = _shown(unit, one * shares)
    return [
        f"expected 0, or at least {smallest}: each of {shares} parts (tasks times partitions) "
        f"has to be enough for a call of {_shown(unit, one)}"
    ]


def _shown(unit: Unit, amount: int) -> str:
    return f"{Decimal(amount) / MICROS:f}" if unit == "usd" else str(amount)


def _micros(usd: float | None) -> int | None:
    if usd is None:
        return None
    return int((Decimal(repr(usd)) * MICROS).to_integral_value(ROUND_FLOOR))
