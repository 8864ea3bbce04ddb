"""From logits to outputs, on logits made by hand."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from reviewmesh_worker.engines.encoder.config import neutral_encoder_calibration
from reviewmesh_worker.engines.encoder.decoding import (
    TextLogits,
    best_tags,
    read_entities,
    read_sentiment,
    read_topics,
)
from reviewmesh_worker.engines.encoder.encoding import EncodedText
from reviewmesh_worker.engines.encoder.windows import windows_of
from reviewmesh_worker.engines.onnx.reader import chunks_of
from reviewmesh_worker.tasks.definition import load_tasks
from reviewmesh_worker.tasks.labels import head_labels

_SURE = 8.0
LABELS = head_labels(load_tasks())
NEUTRAL = neutral_encoder_calibration(LABELS)


def _logits(windows: int = 1, sizes: tuple[int, ...] = (10,), tokens: int = 0) -> TextLogits:
    return TextLogits(
        sentiment=np.zeros((windows, len(LABELS.sentiments)), dtype=np.float32),
        topics=np.full((windows, len(LABELS.topics)), -_SURE, dtype=np.float32),
        polarities=np.zeros(
            (windows, len(LABELS.topics), len(LABELS.polarities)), dtype=np.float32
        ),
        tags=np.zeros((tokens, len(LABELS.tags)), dtype=np.float32),
        sizes=np.array(sizes, dtype=np.int64),
    )


def _words(text: str) -> EncodedText:
    """One token per word; the last is cut in two pieces."""
    starts, ends, at = [], [], 0
    for word in text.split(" "):
        starts.append(at)
        ends.append(at + len(word))
        at += len(word) + 1
    words = [*range(len(starts)), len(starts) - 1]
    middle = (starts[-1] + ends[-1]) // 2
    starts.append(middle)
    ends.insert(-1, middle)
    count = np.zeros(len(starts), dtype=np.int64)
    return EncodedText(count, count, np.array(starts), np.array(ends), np.array(words))


def _tagged(*tags: str) -> TextLogits:
    logits = _logits(tokens=len(tags))
    for row, tag in enumerate(tags):
        logits.tags[row, LABELS.tags.index(tag)] = _SURE
    return logits


def test_spans_are_whole_words_and_quote_the_text() -> None:
    text = "in New York with Tim"
    logits = _tagged("O", "B-location", "I-location", "O", "B-person", "O")
    entities = read_entities(text, _words(text), logits, LABELS, NEUTRAL).entities
    assert [(e.text, e.label) for e in entities] == [("New York", "location"), ("Tim", "person")]
    assert all(text[e.start : e.end] == e.text for e in entities)
    assert all(e.score > 0.9 for e in entities)


def test_two_names_side_by_side_stay_two() -> None:
    text = "Anna Ben Cleo"
    logits = _tagged("B-person", "B-person", "I-person", "O")
    entities = read_entities(text, _words(text), logits, LABELS, NEUTRAL).entities
    assert [entity.text for entity in entities] == ["Anna", "Ben Cleo"]


def test_an_inside_tag_never_follows_another_label() -> None:
    random = np.random.default_rng(3)
    for _ in range(50):
        tags = best_tags(random.normal(size=(12, len(LABELS.tags))).astype(np.float32))
        names = ["O", *(LABELS.tags[tag] for tag in tags)]
        for before, after in itertools.pairwise(names):
            if after.startswith("I-"):
                assert before[2:] == after[2:]


def test_the_outside_bias_finds_more() -> None:
    logits = _logits(tokens=2)
    logits.tags[0, LABELS.tags.index("O")] = 2.0
    logits.tags[0, LABELS.tags.index("B-product")] = 1.5
    logits.tags[1, LABELS.tags.index("O")] = _SURE
    text = "ab"
    encoded = _words(text)
    biased = replace(NEUTRAL, outside_bias=1.0)
    assert not read_entities(text, encoded, logits, LABELS, NEUTRAL).entities
    assert len(read_entities(text, encoded, logits, LABELS, biased).entities) == 1


def test_windows_speak_in_proportion_to_their_tokens() -> None:
    logits = _logits(windows=2, sizes=(90, 10))
    logits.sentiment[0, LABELS.sentiments.index("negative")] = _SURE
    logits.sentiment[1, LABELS.sentiments.index("positive")] = _SURE
    said = read_sentiment(logits, LABELS, NEUTRAL)
    assert said.label == "negative"
    assert said.scores["negative"] == pytest.approx(0.9, abs=0.01)
    assert sum(said.scores.values()) == pytest.approx(1)


def test_a_temperature_softens_and_a_bias_shifts() -> None:
    logits = _logits()
    logits.sentiment[0] = [2.0, 0.0, 1.5, 0.0]
    plain = read_sentiment(logits, LABELS, NEUTRAL)
    soft = read_sentiment(logits, LABELS, replace(NEUTRAL, sentiment_temperature=2.0))
    shifted = read_sentiment(logits, LABELS, replace(NEUTRAL, sentiment_bias=(0, 0, 1, 0)))
    assert soft.scores["positive"] < plain.scores["positive"]
    assert (plain.label, shifted.label) == ("positive", "neutral")


def test_a_topic_of_any_window_counts_with_that_windows_polarity() -> None:
    logits = _logits(windows=2, sizes=(90, 10))
    logits.topics[1, 3] = _SURE
    logits.polarities[0, 3, LABELS.polarities.index("positive")] = _SURE
    logits.polarities[1, 3, LABELS.polarities.index("negative")] = _SURE
    topics = read_topics(logits, LABELS, NEUTRAL).topics
    assert [(topic.id, topic.polarity) for topic in topics] == [(LABELS.topics[3], "negative")]


def test_below_every_threshold_the_likeliest_topic_stands_from_the_floor_up() -> None:
    logits = _logits()
    logits.topics[0, 5] = -0.5  # a score of 0.38
    low = replace(NEUTRAL, topic_floor=0.3)
    high = replace(NEUTRAL, topic_floor=0.4)
    assert [topic.id for topic in read_topics(logits, LABELS, low).topics] == [LABELS.topics[5]]
    assert read_topics(logits, LABELS, high).topics == ()


@pytest.mark.parametrize("tokens", [0, 1, 126, 127, 222, 223, 1000, 25_000])
def test_windows_cover_everything_and_overlap(tokens: int) -> None:
    ranges = windows_of(tokens, 126, 96)
    assert ranges[0][0] == 0
    assert ranges[-1][1] == tokens
    assert all(end - begin <= 126 for begin, end in ranges)
    overlaps = [a[1] - b[0] for a, b in itertools.pairwise(ranges)]
    assert all(overlap == 30 for overlap in overlaps)
    assert len({end for _, end in ranges}) == len(ranges)


def test_windows_of_similar_size_go_together_and_none_is_lost() -> None:
    sizes = [int(size) for size in np.random.default_rng(5).integers(0, 127, 300)]
    chunks = list(chunks_of(sizes))
    assert sorted(at for chunk in chunks for at in chunk) == list(range(300))
    assert max(len(chunk) for chunk in chunks) <= 32
    for chunk in chunks:
        own = [sizes[at] for at in chunk]
        assert max(own) <= 1.25 * min(own) + 4


@pytest.mark.parametrize(
    ("text", "name"),
    [("Anna; was", "Anna"), ('"Anna", was', "Anna"), ("Yahoo! was", "Yahoo!"), (";; was", None)],
)
def test_a_name_ends_before_commas_and_quotes(text: str, name: str | None) -> None:
    logits = _tagged("B-person", "O", "O")
    output = read_entities(text, _words(text), logits, LABELS, NEUTRAL)
    assert [entity.text for entity in output.entities] == ([name] if name else [])
    assert all(text[one.start : one.end] == one.text for one in output.entities)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Lisbon. It was", "Lisbon"),
        ("Tim. It was", "Tim"),
        ("Ana J. It was", "Ana J."),
        ("Acme Inc. It was", "Acme Inc."),
        ("U.S.A. It was", "U.S.A."),
        ("Lisbon... It was", "Lisbon"),
        ('"Lisbon." It was', "Lisbon"),
        (". It was", None),
    ],
)
def test_a_full_stop_belongs_to_an_abbreviation_only(text: str, name: str | None) -> None:
    named = len(text.split()) - 2
    inside = ["I-organization"] * (named - 1)
    logits = _tagged("B-organization", *inside, "O", "O", "O")
    output = read_entities(text, _words(text), logits, LABELS, NEUTRAL)
    assert [entity.text for entity in output.entities] == ([name] if name else [])
