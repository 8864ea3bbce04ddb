"""The bundled encoder on real vLLM."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch

from reviewmesh_worker.bundled import BUNDLED_MODEL
from reviewmesh_worker.engines.encoder.config import WEIGHTS_FILE, read_config
from reviewmesh_worker.engines.encoder.windows import cut, gather, judge
from reviewmesh_worker.engines.interface import ItemFailure
from reviewmesh_worker.engines.onnx.reader import OnnxReader
from reviewmesh_worker.engines.vllm.derived import huggingface_form, network_of
from reviewmesh_worker.packages.manifest import Package
from reviewmesh_worker.tasks import TASKS
from reviewmesh_worker.tasks.definition import load_tasks
from tests.vllm.conftest import REVIEWS
from tests.vllm.worker import VllmWorker

BUNDLED = Package.open(BUNDLED_MODEL)


def test_every_head_says_what_the_network_says_in_plain_torch(encoder_worker: VllmWorker) -> None:
    config = read_config(BUNDLED_MODEL)
    form = config.form
    network = network_of(BUNDLED_MODEL / WEIGHTS_FILE, config)
    reader = OnnxReader(BUNDLED_MODEL, threads=1)
    answers = {task: encoder_worker.ask(task, REVIEWS) for task in TASKS}
    for at, text in enumerate(REVIEWS):
        encoded = reader.encode(text)
        windows = cut([encoded], config)
        said = []
        for window in windows:
            here = slice(window.begin, window.end)
            ids = torch.tensor([[form.start, *encoded.ids[here].tolist(), form.end]])
            shapes = torch.tensor([[0, *encoded.shapes[here].tolist(), 0]])
            with torch.no_grad():
                outputs = network(ids, shapes, torch.ones_like(ids))
            said.append(tuple(output[0].numpy() for output in outputs))
        (logits,) = gather([encoded], windows, said)
        expected = judge(text, encoded, logits, config.labels, config.calibration)
        sentiment = answers["sentiment"][at].sentiment
        assert sentiment.label == expected.sentiment.label
        assert dict(sentiment.scores) == pytest.approx(expected.sentiment.scores, abs=1e-3)
        topics = [(t.id, t.polarity) for t in answers["topic"][at].topic.topics]
        assert topics == [(t.id, t.polarity) for t in expected.topic.topics]
        entities = [(e.start, e.end, e.label) for e in answers["ner"][at].ner.entities]
        assert entities == [(e.start, e.end, e.label) for e in expected.ner.entities]


def test_a_name_at_the_end_of_a_long_review_is_found(encoder_worker: VllmWorker) -> None:
    text = REVIEWS[-1]
    (result,) = encoder_worker.ask("ner", [text])
    names = {text[e.start : e.end]: e.label for e in result.ner.entities}
    assert names.get("Maria Lopez") == "person"


def test_a_text_is_read_once_for_all_tasks(encoder_worker: VllmWorker) -> None:
    before = encoder_worker.metric("vllm:request_success_total")
    for task in TASKS:
        encoder_worker.ask(task, ["A text that no other test asks about, of one window."])
    assert encoder_worker.metric("vllm:request_success_total") == before + 1


def test_a_review_of_the_largest_size_is_answered(encoder_worker: VllmWorker) -> None:
    (result,) = encoder_worker.ask("sentiment", ["Terrible service, never again. " * 3_200])
    assert result.sentiment.label == "negative"
    assert result.usage.prompt_tokens > 25_000


def test_metrics_of_vllm_say_which_tasks_and_model_they_are_of(encoder_worker: VllmWorker) -> None:
    encoder_worker.ask("sentiment", ["Good."])
    page = encoder_worker.process.get("/metrics")[1]
    (line,) = [one for one in page.splitlines() if one.startswith("vllm:num_requests_running{")]
    assert 'task="ner,sentiment,topic"' in line
    assert f'model_version="{BUNDLED.manifest.version}"' in line
    assert "reviewmesh_worker_items_total" in page


def test_the_form_is_written_once_and_by_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVIEWMESH_CACHE_DIR", str(tmp_path))
    first = huggingface_form(BUNDLED)
    written = (first / "model.safetensors").stat().st_mtime_ns
    assert huggingface_form(BUNDLED) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == written
    assert [folder.name for folder in (tmp_path / "models").iterdir()] == [first.name]


def test_asking_for_nothing_gives_nothing() -> None:
    from reviewmesh_worker.engines.settings import VllmSettings
    from reviewmesh_worker.engines.vllm.encoder import VllmEncoderEngine

    engine = VllmEncoderEngine(BUNDLED, load_tasks(), VllmSettings())
    (answer,) = asyncio.run(engine.infer("ner", ["before it has started"]))
    assert isinstance(answer.outcome, ItemFailure)
    assert answer.outcome.code == "UNAVAILABLE"
    assert np.isclose(engine.load().kv_usage, 0.0)
