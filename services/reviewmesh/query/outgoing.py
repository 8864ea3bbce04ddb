"""Enriched reviews that may leave the mesh: their text, with personal data masked.

The rules are those of a fallback. Names are those that the mesh's own workers found in the review.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from reviewmesh.leaving.masking import PERSON, mask
from reviewmesh.leaving.policy import Policy, Rule
from reviewmesh.loop.erasures import Erasures

FORBIDDEN = "the policy lets nothing of their business leave for there"
NO_NAMES = "names are to be masked, and the mesh's own workers have not looked for them"
ERASED = "they were erased"


class Outgoing:
    """Masks the texts that may leave for all of these regions, and counts why others stay."""

    def __init__(self, policy: Policy, regions: Sequence[str], erasures: Erasures) -> None:
        """`erasures`: the topic still holds what was published before them."""
        self._policy = policy
        self._erasures = erasures
        self._regions = tuple(dict.fromkeys(regions))
        self.stay: Counter[str] = Counter()
        """Reviews by the reason why they stay."""

    def masked(self, enriched: Mapping[str, Any]) -> dict[str, Any] | None:
        """The masked text and its language; None if the review may not leave."""
        rule = self._policy.rule_of(enriched["business_id"])
        if self._was_erased(enriched):
            self.stay[ERASED] += 1
        elif rule is None or not set(self._regions) <= set(rule.regions):
            self.stay[FORBIDDEN] += 1
        elif (names := _names(rule, enriched)) is None:
            self.stay[NO_NAMES] += 1
        else:
            language = enriched["language"] or ""
            text = mask(enriched["text"] or "", language, names).text
            return {"text": text, "language": language, "leaves_for": list(self._regions)}
        return None

    def _was_erased(self, enriched: Mapping[str, Any]) -> bool:
        review_id, accepted_at = enriched["review_id"], enriched["accepted_at"]
        return enriched["erased_at"] is not None or self._erasures.covers(review_id, accepted_at)


def _names(rule: Rule, enriched: Mapping[str, Any]) -> list[tuple[int, int]] | None:
    """Spans of the names to mask; None if the mesh's own workers have not looked for names."""
    if not rule.masks_names:
        return []
    found = enriched["tasks"]["ner"]
    if found["status"] != "OK" or (found["lineage"] or {}).get("route") != "primary":
        return None
    return [
        (entity["start"], entity["end"])
        for entity in enriched["entities"]
        if entity["label"] == PERSON
    ]
