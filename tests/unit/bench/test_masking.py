"""The made-up reviews, and what of them the patterns find."""

from __future__ import annotations

from collections import Counter

from bench.masking.__main__ import NAME, counts
from bench.masking.made_up import KINDS, LANGUAGES, REVIEWS, made_up
from reviewmesh.leaving.masking import mask

LEAST = 0.98


def test_the_reviews_are_the_same_every_time_and_hold_every_kind_in_every_language() -> None:
    reviews = made_up()
    assert reviews == made_up()
    assert len(reviews) == REVIEWS == 500
    pairs = Counter((made.language, piece.kind) for made in reviews for piece in made.planted)
    assert len(pairs) == len(LANGUAGES) * len(KINDS) == 5 * 12
    assert min(pairs.values()) >= 5
    assert all(made.text[piece.start : piece.end] for made in reviews for piece in made.planted)


def test_the_patterns_find_nearly_all_that_has_one() -> None:
    reviews = made_up()
    planted, found = counts(reviews, [mask(made.text, made.language) for made in reviews])
    recall = {kind: found[kind] / planted[kind] for kind in KINDS if kind != NAME}
    assert min(recall.values()) >= LEAST, recall


def test_what_is_left_of_a_piece_counts_as_missed() -> None:
    [made] = [made for made in made_up() if made.planted[0].kind == "email"][:1]
    planted, found = counts([made], [mask("x" * len(made.text), "en")])
    assert planted["email"] >= 1 and not found.total()
