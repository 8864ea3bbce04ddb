"""How often a package says what on the gate's set: the reference for what it answers in service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from reviewmesh_models.evaluation.predictions import Outcome
from reviewmesh_worker.engines.values import LANGUAGE, values_of
from reviewmesh_worker.serving.languages import language_of
from reviewmesh_worker.serving.values import OTHER

MOST_LANGUAGES: Final = 20


def distributions_of(
    texts: Sequence[str], outcomes: Mapping[str, Sequence[Outcome]]
) -> dict[str, dict[str, dict[str, int]]]:
    """By task and what is counted; `outcomes` are those of the texts."""
    languages = languages_of(texts)
    return {task: _values_of(said) | {LANGUAGE: languages} for task, said in outcomes.items()}


def languages_of(texts: Sequence[str]) -> dict[str, int]:
    """The most frequent, the rest as one."""
    counts = Counter(language_of(text) or OTHER for text in texts)
    kept = dict(counts.most_common(MOST_LANGUAGES))
    if rest := counts.total() - sum(kept.values()):
        kept[OTHER] = kept.get(OTHER, 0) + rest
    return dict(sorted(kept.items()))


def _values_of(outcomes: Sequence[Outcome]) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        for of, value in values_of(outcome):
            found.setdefault(of, Counter())[value] += 1
    return {of: dict(sorted(counts.items())) for of, counts in found.items()}
