"""How far teachers agree, where they differ, and what that costs: the file `agreement.json`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict

from reviewmesh_models.evaluation.bootstrap import score_of
from reviewmesh_models.evaluation.report import Score
from reviewmesh_models.evaluation.scores import Measure, micro_f1
from reviewmesh_models.labelling.alpha import NOT_SAID, Integers, alpha, interval_of
from reviewmesh_models.labelling.answers import Labels
from reviewmesh_models.labelling.consensus import WHOLE
from reviewmesh_models.labelling.decisions import DecidedUnit, Decision
from reviewmesh_models.labelling.gold import Gold, gold_of
from reviewmesh_models.labelling.results import Labelled, TaskLabels, disagreements, to_decide
from reviewmesh_models.labelling.units import NO_NAME, Units, labels_of_units

REPORT_FILE: Final = "agreement.json"
_WORD: Final = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+?(?=[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\b)|[^\w\s]"
)
"""A word, a mark, or a character of a script that is written without spaces."""
_SHOWN: Final = 50
WHOLE_TASK: Final = "all"
EXACT: Final = "names, exact"
OVERLAPPING: Final = "names, overlapping"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Pair(_Part):
    """Two teachers and the units that both labelled."""

    one: str
    other: str
    counts: list[list[int]]
    """By label of the one, then of the other."""
    same: float
    """Share of units with the same label."""
    names: dict[str, Score]
    """F1 of the names of the one against those of the other; empty but for `ner`."""


class DisagreementCosts(_Part):
    """The cost of disagreement: in reviews, money, mistakes and a person's time."""

    reviews: int
    """With labels from enough teachers, without gold."""
    disputed: int
    """Those of them with at least one disputed unit."""
    left_out: int
    """Those of them with a unit too uncertain for training."""
    money_per_kept_row: float | None
    """All that was paid, divided by the rows; None if no row was kept."""
    wrong_where_agreed: float | None
    """Share of gold units on which the consensus is wrong although all teachers say the same."""
    wrong_where_disputed: float | None
    disputed_units: int
    seconds_a_decision: float | None
    """Median time of a decision; None before the first."""


class Judges(_Part):
    """Two judges and the units that both decided."""

    one: str
    other: str
    units: int
    same: float
    alpha: Score | None


class TaskAgreement(_Part):
    labels: list[str]
    """The labels that a unit may have."""
    units: int
    failures: dict[str, int]
    """By teacher: number of reviews without labels from it."""
    alpha: dict[str, Score | None]
    """By label, and for all; None if all teachers always give the same label."""
    reliability: dict[str, dict[str, float]]
    """By teacher and label: the estimated share of units with that label that it labels so."""
    pairs: list[Pair]
    gold: Gold | None
    costs: DisagreementCosts
    judges: list[Judges]


class Agreement(_Part):
    teachers: list[str]
    reviews: int
    gold: int
    requests: int
    tokens: int
    money: float
    tasks: dict[str, TaskAgreement]
    disagreements: list[dict[str, Any]]
    """The first of `disagreements.jsonl`."""


def agreement_of(
    found: Labelled,
    totals: tuple[int, int, float],
    judges: Mapping[str, Sequence[Decision]],
) -> Agreement:
    """`totals`: requests, tokens and money that were spent or are reserved."""
    gold = gold_of(found)
    requests, tokens, money = totals
    return Agreement(
        teachers=list(found.teachers),
        reviews=len(found.reviews),
        gold=sum(review.gold is not None for review in found.reviews),
        requests=requests,
        tokens=tokens,
        money=money,
        tasks={
            name: _task(found, of_task, gold.get(name), money, judges)
            for name, of_task in found.tasks.items()
        },
        disagreements=[dict(one) for one in disagreements(found)[:_SHOWN]],
    )


def write_agreement(agreement: Agreement, folder: Path) -> Path:
    file = folder / REPORT_FILE
    # In ASCII: a text may contain a lone surrogate.
    content = json.dumps(agreement.model_dump(), indent=2, allow_nan=False)
    file.write_text(content + "\n", encoding="utf-8")
    return file


def _task(
    found: Labelled,
    of_task: TaskLabels,
    gold: Gold | None,
    money: float,
    judges: Mapping[str, Sequence[Decision]],
) -> TaskAgreement:
    units = of_task.consensus.units
    return TaskAgreement(
        labels=list(units.labels),
        units=len(units.keys),
        failures=dict(zip(found.teachers, of_task.failures, strict=True)),
        alpha=_alphas(found, of_task),
        reliability={
            teacher: _reliability(of_task, at) for at, teacher in enumerate(found.teachers)
        },
        pairs=[
            _pair(found, of_task, one, other)
            for one, other in combinations(range(len(found.teachers)), 2)
        ],
        gold=gold,
        costs=_costs(found, of_task, money, judges),
        judges=_judges(of_task, judges),
    )


def _alphas(found: Labelled, of_task: TaskLabels) -> dict[str, Score | None]:
    task, units, reviews = of_task.task, of_task.consensus.units, len(found.reviews)
    if task.answer == "spans":
        return _alphas_of_names(found, of_task)
    measured = {WHOLE_TASK: _alpha(units, reviews)}
    if task.answer == "label":
        for number, label in enumerate(units.labels):
            said = np.where(units.said == NOT_SAID, NOT_SAID, units.said == number)
            measured[label] = interval_of(alpha(said, units.review, reviews, 2))
    else:
        whats = np.array([str(what) for _, what in units.keys])
        for label in task.label_ids:
            chosen = whats == label
            measured[label] = interval_of(
                alpha(units.said[chosen], units.review[chosen], reviews, len(units.labels))
            )
    return measured


def _alpha(units: Units, reviews: int) -> Score | None:
    return interval_of(alpha(units.said, units.review, reviews, len(units.labels)))


def _alphas_of_names(found: Labelled, of_task: TaskLabels) -> dict[str, Score | None]:
    """Of words: of which label's name each is part, and for exact ones, which part."""
    task, reviews = of_task.task, len(found.reviews)
    numbers: dict[Any, int] = {NO_NAME: 0}
    places: dict[Any, int] = {NO_NAME: 0}
    labels: list[list[int]] = []
    parts: list[list[int]] = []
    review_of: list[int] = []
    for at, review in enumerate(found.reviews):
        words = [match.span() for match in _WORD.finditer(review.text)]
        said = [_words_said(words, answers[at]) for answers in of_task.answers]
        for word in range(len(words)):
            review_of.append(at)
            labels.append([_number(numbers, one, word, whole=False) for one in said])
            parts.append([_number(places, one, word, whole=True) for one in said])
    review_at = np.array(review_of, dtype=np.int64)
    teachers = len(found.teachers)
    said_labels = np.array(labels, dtype=np.int64).reshape(-1, teachers)
    said_parts = np.array(parts, dtype=np.int64).reshape(-1, teachers)
    measured = {
        EXACT: interval_of(alpha(said_parts, review_at, reviews, len(places))),
        OVERLAPPING: interval_of(alpha(said_labels, review_at, reviews, len(numbers))),
    }
    for label in task.label_ids:
        number = numbers.get(label, len(numbers))
        said_it: Integers = np.where(
            said_labels == NOT_SAID, NOT_SAID, said_labels == number
        ).astype(np.int64)
        measured[label] = interval_of(alpha(said_it, review_at, reviews, 2))
    return measured


def _words_said(
    words: Sequence[tuple[int, int]], labels: Labels | None
) -> Mapping[int, tuple[str, int, int]] | None:
    """By word that is part of a name: its label, and how many words of it come before and after."""
    if labels is None:
        return None
    said: dict[int, tuple[str, int, int]] = {}
    for name in labels["entities"]:
        inside = [
            at
            for at, (start, end) in enumerate(words)
            if start < name["end"] and name["start"] < end
        ]
        for place, at in enumerate(inside):
            said[at] = (name["label"], place, len(inside) - place - 1)
    return said


def _number(
    numbers: dict[Any, int],
    said: Mapping[int, tuple[str, int, int]] | None,
    word: int,
    *,
    whole: bool,
) -> int:
    if said is None:
        return NOT_SAID
    part = said.get(word)
    value: Any = NO_NAME if part is None else part if whole else part[0]
    return numbers.setdefault(value, len(numbers))


def _reliability(of_task: TaskLabels, teacher: int) -> dict[str, float]:
    labels = of_task.consensus.units.labels
    whole = of_task.consensus.reliability[WHOLE]
    return {
        label: float(whole.errors[teacher, number, number]) for number, label in enumerate(labels)
    }


def _pair(found: Labelled, of_task: TaskLabels, one: int, other: int) -> Pair:
    units = of_task.consensus.units
    counts = np.zeros((len(units.labels), len(units.labels)), dtype=int)
    both = units.said[(units.said[:, one] != NOT_SAID) & (units.said[:, other] != NOT_SAID)]
    np.add.at(counts, (both[:, one], both[:, other]), 1)
    names = {}
    if of_task.task.answer == "spans":
        pairs = [
            (mine["entities"], theirs["entities"])
            for mine, theirs in zip(of_task.answers[one], of_task.answers[other], strict=True)
            if mine is not None and theirs is not None
        ]
        names = {EXACT: _f1(pairs, exact=True), OVERLAPPING: _f1(pairs, exact=False)}
    return Pair(
        one=found.teachers[one],
        other=found.teachers[other],
        counts=counts.tolist(),
        same=float(np.trace(counts) / max(counts.sum(), 1)),
        names=names,
    )


def _f1(pairs: Sequence[tuple[Sequence[Any], Sequence[Any]]], *, exact: bool) -> Score:
    """Each name is matched with at most one of the other teacher, of the same label."""
    parts = np.zeros((max(len(pairs), 1), 1, 3))
    for at, (mine, theirs) in enumerate(pairs):
        left = list(theirs)
        met = 0
        for name in mine:
            match = next((one for one in left if _meet(name, one, exact=exact)), None)
            if match is not None:
                left.remove(match)
                met += 1
        parts[at, 0] = met, len(mine) - met, len(theirs) - met
    measure: Measure = micro_f1(parts)
    return score_of(measure)


def _meet(one: Mapping[str, Any], other: Mapping[str, Any], *, exact: bool) -> bool:
    if one["label"] != other["label"]:
        return False
    if exact:
        return bool(one["start"] == other["start"] and one["end"] == other["end"])
    return bool(one["start"] < other["end"] and other["start"] < one["end"])


def _costs(
    found: Labelled,
    of_task: TaskLabels,
    money: float,
    judges: Mapping[str, Sequence[Decision]],
) -> DisagreementCosts:
    consensus = of_task.consensus
    disputed = set(consensus.disputed)
    reviews = {consensus.units.keys[unit][0] for unit in disputed}
    counted = [
        at
        for at, review in enumerate(found.reviews)
        if review.gold is None and of_task.answered[at]
    ]
    kept = sum(of_task.sure[at] for at in counted)
    wrong = _wrong(found, of_task)
    seconds = [
        decision.seconds
        for decisions in judges.values()
        for decision in decisions
        if decision.unit.task == of_task.task.name
    ]
    return DisagreementCosts(
        reviews=len(counted),
        disputed=sum(at in reviews for at in counted),
        left_out=len(counted) - kept,
        money_per_kept_row=money / kept if kept else None,
        wrong_where_agreed=_share([bad for unit, bad in wrong.items() if unit not in disputed]),
        wrong_where_disputed=_share([bad for unit, bad in wrong.items() if unit in disputed]),
        disputed_units=len(to_decide(found, consensus)),
        seconds_a_decision=median(seconds) if seconds else None,
    )


def _wrong(found: Labelled, of_task: TaskLabels) -> dict[int, bool]:
    """By unit of gold: whether the consensus differs from the gold label."""
    units, decided = of_task.consensus.units, of_task.consensus.decided
    answers = [review.gold for review in found.reviews]
    wrong = {}
    for unit, (review, what) in enumerate(units.keys):
        gold = answers[review]
        if gold is None or not of_task.answered[review]:
            continue
        label = _gold_label(of_task, gold, what)
        if label is not None:
            wrong[unit] = label != decided[unit]
    return wrong


def _gold_label(of_task: TaskLabels, gold: Mapping[str, Any], what: Any) -> str | None:
    """The label of a unit in the gold row; None if the row does not label it."""
    answer = of_task.task.answer
    nothing = labels_of_units(of_task.task)[-1]
    if answer == "label":
        return gold.get("sentiment")
    if answer == "polarity_per_label":
        if gold.get("topics") is None:
            return None
        return next((one["polarity"] for one in gold["topics"] if one["topic"] == what), nothing)
    if gold.get("entities") is None:
        return None
    spans = ((one, (one["start"], one["end"])) for one in gold["entities"])
    return next((one["label"] for one, span in spans if span == what), nothing)


def _share(wrong: Sequence[bool]) -> float | None:
    return sum(wrong) / len(wrong) if wrong else None


def _judges(of_task: TaskLabels, judges: Mapping[str, Sequence[Decision]]) -> list[Judges]:
    labels = of_task.consensus.units.labels
    decided: dict[str, dict[DecidedUnit, str]] = {
        judge: {
            one.unit: one.label
            for one in decisions
            if one.unit.task == of_task.task.name and one.unit.digest == of_task.task.digest
        }
        for judge, decisions in judges.items()
    }
    found = []
    for one, other in combinations(sorted(decided), 2):
        both = sorted(decided[one].keys() & decided[other].keys(), key=str)
        if not both:
            continue
        said = np.array(
            [[labels.index(decided[judge][unit]) for judge in (one, other)] for unit in both]
        )
        keys = sorted({unit.key for unit in both})
        review = np.array([keys.index(unit.key) for unit in both])
        found.append(
            Judges(
                one=one,
                other=other,
                units=len(both),
                same=float((said[:, 0] == said[:, 1]).mean()),
                alpha=interval_of(alpha(said, review, len(keys), len(labels))),
            )
        )
    return found
