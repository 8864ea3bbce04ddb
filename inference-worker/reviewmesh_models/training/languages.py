"""Rows in other languages: translated reviews, and entities of several languages.

`reviews_multilingual_train.jsonl.gz` has `row`, `language`, `text`, `sentiment`; rows with the same
`row` are translations of one sentence, and the one in English is the original.
`ner_multilingual_train.jsonl.gz` has what `ner_train.jsonl` has. Rows whose text stands in the dev
file of the same kind are left out, and translations of one sentence are held out together.
"""

from __future__ import annotations

import gzip
import hashlib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from reviewmesh_models.evaluation.languages import ENGLISH
from reviewmesh_models.evaluation.rows import Row, parse_rows
from reviewmesh_models.training.rows import (
    DataError,
    LabelledFile,
    LanguageData,
    Rows,
    is_held_out,
    misplaced_entity,
    split_held_out,
    without_texts_of,
)
from reviewmesh_worker.tasks import NER, SENTIMENT
from reviewmesh_worker.tasks.definition import Task

NO_OPINION: Final = "neutral"
_REVIEWS: Final = "reviews_multilingual"
_ENTITIES: Final = "ner_multilingual"


def read_languages(folder: Path, tasks: Mapping[str, Task], neutral_share: float) -> LanguageData:
    """Raises DataError; FileNotFoundError without a file."""
    reviews, reviews_file = _read(folder, _REVIEWS)
    entities, entities_file = _read(folder, _ENTITIES)
    for number, row in enumerate(reviews, 1):
        _check(row, {"row", "language", "sentiment"}, f"{reviews_file.name}, row {number}")
        if row["sentiment"] not in tasks[SENTIMENT].label_ids:
            raise DataError(
                f"{reviews_file.name}, row {number}: expected a sentiment of "
                f"{', '.join(tasks[SENTIMENT].label_ids)}, found {row['sentiment']!r}"
            )
    for number, row in enumerate(entities, 1):
        where = f"{entities_file.name}, row {number}"
        _check(row, {"entities", "labels_annotated", "source", "language"}, where)
        if wrong := misplaced_entity(tasks[NER], row):
            raise DataError(f"{where}: expected entities of the task and the text, found {wrong}")
    originals = {row["row"]: row["text"] for row in reviews if row["language"] == ENGLISH}
    translated = [row for row in reviews if row["row"] in originals]
    apart = _without_dev(folder, _REVIEWS, translated)
    told = [row for row in apart if _says_something(row, neutral_share)]
    return LanguageData(
        reviews=_split_by_sentence(told, len(translated) - len(apart)),
        originals=originals,
        entities=_split_entities(folder, entities),
        reviews_file=reviews_file,
        entities_file=entities_file,
    )


def _read(folder: Path, kind: str) -> tuple[list[Row], LabelledFile]:
    file = folder / f"{kind}_train.jsonl.gz"
    rows = _rows_of(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return rows, LabelledFile(file.name, digest, len(rows))


def _rows_of(file: Path) -> list[Row]:
    try:
        return parse_rows(gzip.decompress(file.read_bytes()).decode("utf-8"))
    except (gzip.BadGzipFile, EOFError, ValueError) as error:
        raise DataError(f"{file}: expected JSON lines in a gzip file, {error}") from error


def _check(row: Row, fields: set[str], where: str) -> None:
    missing = sorted((fields | {"text"}) - row.keys())
    if missing:
        raise DataError(f"{where}: expected the fields {sorted(fields)}, missing {missing}")


def _without_dev(folder: Path, kind: str, rows: list[Row]) -> list[Row]:
    dev = folder / f"{kind}_dev.jsonl.gz"
    return without_texts_of(rows, _rows_of(dev)) if dev.is_file() else rows


def _says_something(row: Row, neutral_share: float) -> bool:
    """Nobody marked an opinion in a "neutral" sentence: that need not mean that it has none."""
    if row["sentiment"] != NO_OPINION:
        return True
    digest = hashlib.sha256(row["text"].encode("utf-8", "surrogatepass")).digest()
    return digest[1] < neutral_share * 256


def _split_by_sentence(rows: list[Row], in_dev: int) -> Rows:
    parts: dict[bool, list[Row]] = defaultdict(list)
    for row in rows:
        parts[is_held_out(row["row"])].append(row)
    return Rows(parts[False], parts[True], in_dev)


def _split_entities(folder: Path, rows: list[Row]) -> Rows:
    apart = _without_dev(folder, _ENTITIES, rows)
    return Rows(*split_held_out(apart), len(rows) - len(apart))
