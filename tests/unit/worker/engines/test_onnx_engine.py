"""The bundled model behind the engine interface: odd texts, long texts, shared passes."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from reviewmesh_worker.bundled import BUNDLED_MODEL
from reviewmesh_worker.engines.encoder.config import HEADS_FILE, TOKENIZER_FILE, WEIGHTS_FILE
from reviewmesh_worker.engines.encoder.windows import TaskOutputs
from reviewmesh_worker.engines.interface import (
    Engine,
    EngineLoadError,
    ItemFailure,
    NerOutput,
    SentimentOutput,
    TopicOutput,
)
from reviewmesh_worker.engines.onnx.engine import OnnxEngine
from reviewmesh_worker.engines.onnx.reader import OnnxReader
from reviewmesh_worker.packages.manifest import Package, write_manifest
from reviewmesh_worker.tasks import TASKS
from reviewmesh_worker.tasks.definition import load_tasks

T = TypeVar("T")
_DEADLINE_S = 60.0
DEFINED = load_tasks()
BUNDLED = Package.open(BUNDLED_MODEL)

ODD_TEXTS = {
    "empty": "",
    "blank": " \n\t ",
    "null bytes": "great\x00app\x00 from London \x00",
    "emoji": "😀" * 10_000,
    "emoji beside a name": "👩‍👩‍👧‍👦🇵🇹 Anna Schmidt in Lisbon 👍🏽 was great 🎉",
    "right to left": "مرحبا، التطبيق رائع جداً! \u202eשלום\u202c from Amazon",
    "lone combining marks": "\u0301\u0308\u0301 e\u0301 Zürich in Zu\u0308rich with José",
    "one long word": "a" * 5_000,
    "lone surrogate": "broken \ud83d half in Paris",
    "separators": "one\u2028two\u2029three\x85four London",
}


@pytest.fixture(scope="module")
def reader() -> OnnxReader:
    return OnnxReader(BUNDLED_MODEL, threads=2)


def with_engine(scenario: Callable[[OnnxEngine], Awaitable[T]]) -> T:
    async def bounded() -> T:
        engine = OnnxEngine(BUNDLED, DEFINED)
        await engine.start()
        try:
            return await asyncio.wait_for(scenario(engine), _DEADLINE_S)
        finally:
            await engine.close()

    return asyncio.run(bounded())


def assert_sound(text: str, reading: TaskOutputs) -> None:
    for entity in reading.ner.entities:
        assert entity.text and text[entity.start : entity.end] == entity.text
        assert entity.label in DEFINED["ner"].label_ids
        assert 0 <= entity.score <= 1
    ends = [entity.end for entity in reading.ner.entities]
    starts = [entity.start for entity in reading.ner.entities]
    assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))
    assert set(reading.sentiment.scores) == set(DEFINED["sentiment"].label_ids)
    assert sum(reading.sentiment.scores.values()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS.keys())
def test_odd_texts_are_read_and_spans_hold(reader: OnnxReader, text: str) -> None:
    assert_sound(text, reader.read([text])[0])


def test_odd_texts_do_not_disturb_their_neighbours(reader: OnnxReader) -> None:
    review = "Anna from the London shop was very helpful and the delivery was quick."
    texts = [text for text in ODD_TEXTS.values() if len(text) < 1000]
    readings = reader.read([*texts, review])
    for text, reading in zip([*texts, review], readings, strict=True):
        assert_sound(text, reading)
    assert readings[-1].sentiment.label == "positive"
    assert {"Anna", "London"} & {entity.text for entity in readings[-1].ner.entities}


def test_an_entity_in_the_last_sentence_of_5000_characters_is_found(reader: OnnxReader) -> None:
    filler = "The app works well and I am happy with the quick delivery. "
    text = (filler * 100)[:4950] + ". Yesterday I met Barack Obama in Berlin."
    found = {entity.text: entity for entity in reader.read([text])[0].ner.entities}
    assert {"Barack Obama", "Berlin"} <= set(found)
    assert found["Barack Obama"].start == text.index("Barack Obama")


def test_an_entity_is_found_once_wherever_a_window_is_cut(reader: OnnxReader) -> None:
    sentence = "I met Barack Obama in Berlin. "
    filler = "it was all fine "
    for words in range(22, 32):
        text = filler * words + sentence + filler * 20
        entities = reader.read([text])[0].ner.entities
        names = [entity.text for entity in entities]
        assert names.count("Barack Obama") == 1, (words, names)


def test_99000_characters_are_read(reader: OnnxReader) -> None:
    text = ("Bad service at the Berlin shop, nobody answers the phone. " * 2000)[:99_000]
    reading = reader.read([text])[0]
    assert_sound(text, reading)
    assert reading.sentiment.label == "negative"


def test_plain_reviews_are_understood(reader: OnnxReader) -> None:
    good, bad = reader.read(
        [
            "Excellent service, fast delivery and great prices. Highly recommended!",
            "Terrible app, it crashes all the time and I cannot log in to my account.",
        ]
    )
    assert (good.sentiment.label, bad.sentiment.label) == ("positive", "negative")
    assert "logistics-rides.speed" in {topic.id for topic in good.topic.topics}
    about = {topic.id: topic.polarity for topic in bad.topic.topics}
    assert about["account-management.account-access"] == "negative"


def test_every_task_answers_with_its_own_output() -> None:
    async def scenario(engine: OnnxEngine) -> None:
        kinds = {"ner": NerOutput, "topic": TopicOutput, "sentiment": SentimentOutput}
        for task, kind in kinds.items():
            answers = await engine.infer(task, ["Great app", "", "Bad app"])
            assert [type(answer.outcome) for answer in answers] == [kind] * 3

    with_engine(scenario)


def test_a_text_is_encoded_once_for_all_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []
    encode = OnnxReader.read

    def counting(reader: OnnxReader, texts: list[str]) -> list[TaskOutputs]:
        encoded.extend(texts)
        return encode(reader, texts)

    monkeypatch.setattr(OnnxReader, "read", counting)

    async def scenario(engine: OnnxEngine) -> None:
        encoded.clear()
        await asyncio.gather(*(engine.infer(task, ["one text", "another"]) for task in TASKS))
        assert sorted(encoded) == ["another", "one text"]

    with_engine(scenario)


def test_an_engine_tells_its_tasks_before_it_starts() -> None:
    engine: Engine = OnnxEngine(BUNDLED, DEFINED)
    assert set(engine.tasks) == set(TASKS)
    for task, about in engine.tasks.items():
        assert (about.task, about.labels, about.engine) == (task, DEFINED[task].label_ids, "onnx")
        assert about.model_digest.startswith("sha256:")
    assert engine.load().waiting == 0


def test_an_engine_that_has_not_started_fails_as_retryable() -> None:
    outcome = asyncio.run(OnnxEngine(BUNDLED, DEFINED).infer("ner", ["text"]))[0].outcome
    assert isinstance(outcome, ItemFailure) and outcome.retryable


def test_an_unknown_task_is_refused() -> None:
    async def scenario(engine: OnnxEngine) -> None:
        with pytest.raises(ValueError, match="expected one of"):
            await engine.infer("translation", ["text"])

    with_engine(scenario)


def test_an_engine_answers_only_the_tasks_that_it_is_given() -> None:
    engine = OnnxEngine(BUNDLED, {"topic": DEFINED["topic"]})
    assert set(engine.tasks) == {"topic"}
    with pytest.raises(ValueError, match="expected one of"):
        asyncio.run(engine.infer("ner", ["text"]))


def test_a_lineage_is_that_of_the_package() -> None:
    about = OnnxEngine(BUNDLED, DEFINED).tasks["ner"]
    assert (about.model, about.model_version, about.model_digest, about.prompt_version) == (
        BUNDLED.manifest.name,
        BUNDLED.manifest.version,
        BUNDLED.digest,
        DEFINED["ner"].version,
    )


def test_missing_heads_are_named(tmp_path: Path) -> None:
    package = _copy_small_files(tmp_path)
    (tmp_path / HEADS_FILE).unlink()
    with pytest.raises(EngineLoadError, match=HEADS_FILE):
        OnnxEngine(package, DEFINED)


def test_a_missing_tokenizer_is_named_at_the_start(tmp_path: Path) -> None:
    package = _copy_small_files(tmp_path)
    (tmp_path / TOKENIZER_FILE).unlink()
    with pytest.raises(EngineLoadError, match=TOKENIZER_FILE):
        asyncio.run(OnnxEngine(package, DEFINED).start())


def test_broken_weights_are_named_at_the_start(tmp_path: Path) -> None:
    package = _copy_small_files(tmp_path)
    with pytest.raises(EngineLoadError, match=WEIGHTS_FILE):
        asyncio.run(OnnxEngine(package, DEFINED).start())


def test_foreign_labels_are_refused(tmp_path: Path) -> None:
    package = _copy_small_files(tmp_path)
    config = json.loads((tmp_path / HEADS_FILE).read_text())
    config["labels"]["sentiments"].reverse()
    (tmp_path / HEADS_FILE).write_text(json.dumps(config))
    with pytest.raises(EngineLoadError, match="the labels of small@1 for sentiment"):
        OnnxEngine(package, DEFINED)
    assert OnnxEngine(package, {"ner": DEFINED["ner"]}).tasks.keys() == {"ner"}


def _copy_small_files(folder: Path) -> Package:
    for name in (HEADS_FILE, TOKENIZER_FILE):
        shutil.copyfile(BUNDLED_MODEL / name, folder / name)
    (folder / WEIGHTS_FILE).write_bytes(b"no weights")
    write_manifest(
        folder,
        name="small",
        version="1",
        kind="encoder",
        tasks=DEFINED,
        base=None,
        license="Apache-2.0",
        data=[],
        training={},
    )
    return Package.open(folder)
