"""Agreement of two models on each label. Pure.

Jacob Cohen, "A coefficient of agreement for nominal scales", Educational and Psychological
Measurement 20(1), 1960.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

MOST_LABELS = 100
"""Most labels, because a model may invent them without end. Later labels are left out."""


@dataclass(slots=True)
class Agreement:
    """Counts of labels in pairs of answers to the same reviews."""

    pairs: int = 0
    both: Counter[str] = field(default_factory=Counter)
    own: Counter[str] = field(default_factory=Counter)
    candidate: Counter[str] = field(default_factory=Counter)

    def add(self, own: frozenset[str], candidate: frozenset[str]) -> None:
        self.pairs += 1
        for label in own | candidate:
            if label not in self.own and len(self.own) >= MOST_LABELS:
                continue
            self.own[label] += label in own
            self.candidate[label] += label in candidate
            self.both[label] += label in own and label in candidate

    def kappas(self) -> dict[str, float]:
        """Cohen's kappa by label, without labels that both models give to all reviews or to none:
        for those it is undefined."""
        found = {}
        for label in self.own:
            ours, theirs = self.own[label] / self.pairs, self.candidate[label] / self.pairs
            both = self.both[label] / self.pairs
            observed = both + (1 - ours - theirs + both)
            by_chance = ours * theirs + (1 - ours) * (1 - theirs)
            if by_chance < 1:
                found[label] = (observed - by_chance) / (1 - by_chance)
        return found
