"""Labelled rows that were written for this project: one YAML file per language in a folder.

They show what labelled data lacks: topics of reviews in other languages than English, and names of
shops, products and titles as reviews speak of them. A file has

- `reviews`: by topic and polarity, sentences that speak of that topic only;
- `mixed`: sentences with their topics, of opposite polarity;
- `neutral`: sentences without a judgement;
- `names`: by label, names as they stand in a sentence;
- `sentences`: with names' places in them, such as `{person}`.

Each sentence with places is filled several times, and pairs of sentences of one polarity are joined
to reviews of two topics. What is drawn depends on the files alone.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reviewmesh_kit.yamltext import load_yaml
from reviewmesh_models.evaluation.rows import Row
from reviewmesh_models.training.rows import DataError, LabelledFile, WrittenData
from reviewmesh_worker.tasks import NER, SENTIMENT, TOPIC
from reviewmesh_worker.tasks.definition import POLARITIES, Task

SOURCE: Final = "written"
_FILLINGS: Final = 3
_UNSPACED: Final = frozenset({"ja", "th", "zh"})
_PLACE: Final = re.compile(r"\{(\w+)\}")

_Text = Annotated[str, Field(min_length=1)]


class _Mixed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    text: _Text
    topics: dict[str, str] = Field(min_length=2)


class _Written(BaseModel):
    """A file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reviews: dict[str, dict[str, list[_Text]]]
    mixed: list[_Mixed]
    neutral: list[_Text]
    names: dict[str, list[_Text]]
    sentences: list[_Text]


def read_written(folder: Path, tasks: Mapping[str, Task]) -> WrittenData:
    """Raises DataError."""
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise DataError(f"expected YAML files of written rows in {folder}, found none")
    reviews: list[Row] = []
    entities: list[Row] = []
    for file in files:
        written = _read(file)
        _check(written, tasks, file)
        # By the language, so that another file's rows do not change when one is edited.
        chance = random.Random(file.stem)
        reviews += _reviews(written, file.stem, chance)
        entities += _entities(written, tasks[NER], chance)
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    described = LabelledFile(folder.name, digest, len(reviews) + len(entities))
    return WrittenData(reviews, entities, described)


def _read(file: Path) -> _Written:
    try:
        return _Written.model_validate(load_yaml(file.read_text(encoding="utf-8")))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{file}: expected YAML in UTF-8, {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{file}: {where or 'file'}: {first['msg']}") from error


def _check(written: _Written, tasks: Mapping[str, Task], file: Path) -> None:
    topics, labels = tasks[TOPIC].label_ids, tasks[NER].label_ids
    said = [(topic, polarity) for topic, by in written.reviews.items() for polarity in by]
    said += [pair for mixed in written.mixed for pair in mixed.topics.items()]
    for topic, polarity in said:
        if topic not in topics or polarity not in POLARITIES:
            raise DataError(
                f"{file}: expected topics of the task, each with a polarity of "
                f"{', '.join(POLARITIES)}, found {topic}: {polarity}"
            )
    for label in written.names:
        if label not in labels:
            raise DataError(f"{file}: expected names of {', '.join(labels)}, found {label!r}")
    for sentence in written.sentences:
        for label in _PLACE.findall(sentence):
            if not written.names.get(label):
                raise DataError(f"{file}: expected names for {{{label}}}, found none: {sentence!r}")


def _reviews(written: _Written, language: str, chance: random.Random) -> Iterator[Row]:
    single = [
        _review(text, {topic: polarity})
        for topic, by_polarity in written.reviews.items()
        for polarity, texts in by_polarity.items()
        for text in texts
    ]
    yield from single
    yield from (_review(mixed.text, mixed.topics) for mixed in written.mixed)
    yield from (_review(text, {}) for text in written.neutral)
    between = "" if language in _UNSPACED else " "
    # With pairs of opposite polarity a quarter of the rows were mixed: few real reviews are.
    for polarity in POLARITIES:
        own = [row for row in single if row["topics"][0]["polarity"] == polarity]
        shuffled = chance.sample(own, len(own))
        for one, other in zip(shuffled[::2], shuffled[1::2], strict=False):
            topics = [one["topics"][0]["topic"], other["topics"][0]["topic"]]
            text = _ended(one["text"]) + between + other["text"]
            yield _review(text, dict.fromkeys(topics, polarity))


def _ended(text: str) -> str:
    """With something at its end that tells it from the next sentence."""
    return f"{text}." if text[-1].isalnum() and text[-1].isascii() else text


def _review(text: str, topics: Mapping[str, str]) -> Row:
    polarities = set(topics.values())
    if not polarities:
        sentiment = "neutral"
    else:
        sentiment = polarities.pop() if len(polarities) == 1 else "mixed"
    return {
        "text": text,
        "topics": [{"topic": topic, "polarity": said} for topic, said in topics.items()],
        SENTIMENT: sentiment,
    }


def _entities(written: _Written, task: Task, chance: random.Random) -> Iterator[Row]:
    # Each name comes once before any comes again.
    waiting: dict[str, list[str]] = {label: [] for label in written.names}
    for sentence in written.sentences:
        for _ in range(_FILLINGS if _PLACE.search(sentence) else 1):
            text, entities = "", []
            for index, part in enumerate(_PLACE.split(sentence)):
                if index % 2 == 0:
                    text += part
                    continue
                if not waiting[part]:
                    waiting[part] = chance.sample(written.names[part], len(written.names[part]))
                name = waiting[part].pop()
                entities.append(_entity(part, len(text), name))
                text += name
            yield {
                "text": text,
                "entities": entities,
                "labels_annotated": list(task.label_ids),
                "source": SOURCE,
            }


def _entity(label: str, start: int, name: str) -> dict[str, Any]:
    return {"start": start, "end": start + len(name), "label": label, "text": name}
