"""Labelled rows as training data of the encoder: tokenized and batched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from reviewmesh_models.evaluation.languages import ENGLISH
from reviewmesh_models.evaluation.rows import Row
from reviewmesh_worker.engines.encoder.config import EncoderForm
from reviewmesh_worker.engines.encoder.encoding import TextEncoder, word_starts
from reviewmesh_worker.tasks.definition import OUTSIDE
from reviewmesh_worker.tasks.labels import HeadLabels

MAX_TOKENS: Final = 128
SECOND_STYLE_SOURCE: Final = "btc"
"""The Broad Twitter Corpus: account names are persons there and it knows only three labels."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ReviewExample:
    ids: NDArray[np.int64]
    shapes: NDArray[np.int64]
    sentiment: int
    topics: NDArray[np.float32]
    """Per topic how likely it is present, 1 or 0 where the row is labelled."""
    polarities: NDArray[np.float32]
    """Per topic a distribution over the polarities, times how likely the topic is present."""
    translated: bool = False


@dataclass(frozen=True, slots=True)
class TagExample:
    ids: NDArray[np.int64]
    shapes: NDArray[np.int64]
    allowed: NDArray[np.bool_]
    """Per token the tags that its annotation allows; a row without any is not learned from."""
    style: int
    foreign: bool = False
    """In another language."""


def review_example(row: Row, encoder: TextEncoder, labels: HeadLabels) -> ReviewExample:
    encoded = encoder.encode(row["text"])
    ids, shapes = with_specials(encoded.ids, encoded.shapes, encoder.form)
    polarities = np.zeros((len(labels.topics), len(labels.polarities)), dtype=np.float32)
    for topic in row["topics"]:
        about, polarity = topic["topic"], topic["polarity"]
        polarities[labels.topics.index(about), labels.polarities.index(polarity)] = 1
    count = polarities.sum(1, keepdims=True)
    return ReviewExample(
        ids=ids,
        shapes=shapes,
        sentiment=labels.sentiments.index(row["sentiment"]),
        topics=(count[:, 0] > 0).astype(np.float32),
        polarities=polarities / np.maximum(count, 1),
    )


def translated_example(
    row: Row, taught: NDArray[np.float32], encoder: TextEncoder, labels: HeadLabels
) -> ReviewExample:
    """`taught`: per topic how likely the teacher finds it in the English sentence.

    A review that judges everything alike judges its topics so.
    """
    encoded = encoder.encode(row["text"])
    ids, shapes = with_specials(encoded.ids, encoded.shapes, encoder.form)
    polarities = np.zeros((len(labels.topics), len(labels.polarities)), dtype=np.float32)
    if row["sentiment"] in labels.polarities:
        polarities[:, labels.polarities.index(row["sentiment"])] = taught
    return ReviewExample(
        ids=ids,
        shapes=shapes,
        sentiment=labels.sentiments.index(row["sentiment"]),
        topics=taught,
        polarities=polarities,
        translated=True,
    )


def lowered(row: Row) -> Row | None:
    """The row in lower case; None where that would move the entities."""
    text = row["text"].lower()
    if len(text) != len(row["text"]) or text == row["text"]:
        return None
    entities = [{**e, "text": text[e["start"] : e["end"]]} for e in row["entities"]]
    return {**row, "text": text, "entities": entities}


def tag_example(row: Row, encoder: TextEncoder, labels: HeadLabels) -> TagExample:
    """Tags at the first piece of each word; the other pieces have no loss."""
    text = row["text"]
    encoded = encoder.encode(text)
    allowed = np.zeros((len(encoded), len(labels.tags)), dtype=np.bool_)
    outside = _tags_of_outside(row["labels_annotated"], labels)
    other_style = row["source"] == SECOND_STYLE_SOURCE
    for index in np.flatnonzero(word_starts(encoded.words)).tolist():
        start, end = int(encoded.starts[index]), int(encoded.ends[index])
        if other_style and _names_an_account(text, start):
            continue
        entity = _entity_at(row["entities"], start, end, labels)
        if entity is None:
            allowed[index] = outside
        else:
            mark = "B" if start <= entity["start"] else "I"
            allowed[index, labels.tags.index(f"{mark}-{entity['label']}")] = True
    ids, shapes = with_specials(encoded.ids, encoded.shapes, encoder.form)
    padded = np.zeros((len(ids), len(labels.tags)), dtype=np.bool_)
    padded[1:-1] = allowed[: len(ids) - 2]
    return TagExample(
        ids=ids,
        shapes=shapes,
        allowed=padded,
        style=int(other_style),
        foreign=row.get("language", ENGLISH) != ENGLISH,
    )


def _tags_of_outside(annotated: Sequence[str], labels: HeadLabels) -> NDArray[np.bool_]:
    """An unmarked word may still be what the source never marks."""
    tags = np.array([tag == OUTSIDE or tag[2:] not in annotated for tag in labels.tags])
    return tags


def _names_an_account(text: str, start: int) -> bool:
    return text[start] == "@" or text[:start].rstrip().endswith("@")


def _entity_at(entities: Iterable[Row], start: int, end: int, labels: HeadLabels) -> Row | None:
    for entity in entities:
        if entity["label"] in labels.entities and entity["start"] < end and start < entity["end"]:
            return entity
    return None


def with_specials(
    ids: NDArray[np.int64], shapes: NDArray[np.int64], form: EncoderForm
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    room = MAX_TOKENS - 2
    return (
        np.concatenate(([form.start], ids[:room], [form.end])),
        np.concatenate(([0], shapes[:room], [0])),
    )


def batches(
    examples: Sequence[T], lengths: Sequence[int], size: int, random: np.random.Generator
) -> list[list[T]]:
    """Batches of similar length, to keep padding small, in random order."""
    jitter = random.uniform(0.85, 1.15, len(examples))
    order = np.argsort(np.array(lengths) * jitter, kind="stable")
    cut = [
        [examples[index] for index in order[at : at + size]] for at in range(0, len(order), size)
    ]
    return [cut[index] for index in random.permutation(len(cut))]


def pad(rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Stack rows of different length, zeros after the shorter ones."""
    width = max(len(row) for row in rows)
    out = np.zeros((len(rows), width, *rows[0].shape[1:]), dtype=rows[0].dtype)
    for index, row in enumerate(rows):
        out[index, : len(row)] = row
    return out
