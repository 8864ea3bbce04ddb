"""What the encoder learns from: examples of rows, the tags that are allowed, batches."""

from __future__ import annotations

import numpy as np
import pytest

from reviewmesh_models.training.encoder.dataset import (
    MAX_TOKENS,
    batches,
    pad,
    review_example,
    tag_example,
)
from reviewmesh_worker.engines.encoder.config import MINILM, TOKENIZER_FILE
from reviewmesh_worker.engines.encoder.encoding import TextEncoder
from reviewmesh_worker.tasks.definition import load_tasks
from reviewmesh_worker.tasks.labels import head_labels
from tests.wordpieces import write_wordpieces

LABELS = head_labels(load_tasks())


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    file = write_wordpieces(tmp_path_factory.mktemp("wordpieces") / TOKENIZER_FILE)
    return TextEncoder(file, head_labels(load_tasks()), MINILM)


def _row(text: str, name: str, label: str, source: str, annotated: list[str]) -> dict[str, object]:
    start = text.index(name)
    entity = {"start": start, "end": start + len(name), "label": label, "text": name}
    return {"text": text, "entities": [entity], "source": source, "labels_annotated": annotated}


def _allowed(example_row: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> set[str]:
    return {LABELS.tags[index] for index in np.flatnonzero(example_row)}


def test_tags_stand_at_the_words_of_the_entity(encoder: TextEncoder) -> None:
    row = _row("in New York now", "New York", "location", "wnut17", ["location"])
    allowed = tag_example(row, encoder, LABELS).allowed
    assert _allowed(allowed[2]) == {"B-location"}
    assert _allowed(allowed[3]) == {"I-location"}
    assert not allowed[0].any() and not allowed[-1].any()


def test_an_unmarked_word_may_be_what_the_source_never_marks(encoder: TextEncoder) -> None:
    row = _row("Ana likes Fanta", "Ana", "person", "btc", ["person", "location", "organization"])
    allowed = tag_example(row, encoder, LABELS).allowed
    assert _allowed(allowed[1]) == {"B-person"}
    assert _allowed(allowed[3]) >= {"O", "B-product", "I-creative_work"}
    assert not _allowed(allowed[3]) & {"B-person", "I-location"}


def test_account_names_of_the_other_annotation_style_teach_nothing(encoder: TextEncoder) -> None:
    text = "@ anna hi"
    other = tag_example(_row(text, "anna", "person", "btc", ["person"]), encoder, LABELS)
    own = tag_example(_row(text, "anna", "person", "wnut17", ["person"]), encoder, LABELS)
    assert not other.allowed[1].any() and not other.allowed[2].any()
    assert _allowed(own.allowed[2]) == {"B-person"}


def test_a_review_with_both_polarities_of_a_topic_learns_half_of_each(
    encoder: TextEncoder,
) -> None:
    topic = LABELS.topics[2]
    said = [{"topic": topic, "polarity": polarity} for polarity in ("positive", "negative")]
    row = {"text": "good and bad " * 100, "topics": said, "sentiment": "mixed"}
    example = review_example(row, encoder, LABELS)
    assert example.polarities[2].tolist() == [0.5, 0.5, 0.0]
    assert example.topics.sum() == 1
    assert example.sentiment == LABELS.sentiments.index("mixed")
    assert len(example.ids) == MAX_TOKENS


def test_batches_hold_every_example_once_and_are_of_similar_length() -> None:
    lengths = [int(n) for n in np.random.default_rng(1).integers(3, 128, 500)]
    cut = batches(lengths, lengths, 32, np.random.default_rng(2))
    assert sorted(length for batch in cut for length in batch) == sorted(lengths)
    padded = sum(max(batch) * len(batch) for batch in cut)
    assert padded < 1.35 * sum(lengths)


def test_padding_is_zeros_after_the_shorter_row() -> None:
    assert pad([np.array([1, 2, 3]), np.array([4])]).tolist() == [[1, 2, 3], [4, 0, 0]]
