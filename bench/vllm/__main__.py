"""`python -m bench.vllm`: reviews a second through the gRPC worker against vLLM alone."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from bench import reviews
from bench.vllm import tiny_gemma, turns
from bench.vllm.offline import Offline
from bench.vllm.online import ITEMS_AT_ONCE, Online
from bench.vllm.turns import Prompts, Question, Tell
from reviewmesh_worker.bundled import BUNDLED_MODEL
from reviewmesh_worker.engines.encoder.config import TOKENIZER_FILE, read_config
from reviewmesh_worker.engines.encoder.encoding import load_encoder
from reviewmesh_worker.engines.encoder.windows import cut
from reviewmesh_worker.engines.settings import VllmSettings
from reviewmesh_worker.engines.vllm.arguments import BLOCK_SIZE
from reviewmesh_worker.engines.vllm.chat import chat_arguments, load_tokenizer, sampling_of
from reviewmesh_worker.engines.vllm.derived import huggingface_form
from reviewmesh_worker.engines.vllm.encoder import packed
from reviewmesh_worker.packages.manifest import Package
from reviewmesh_worker.tasks import SENTIMENT, TOPIC
from reviewmesh_worker.tasks.chat import ChatPrompts
from reviewmesh_worker.tasks.definition import load_tasks

REPORT = Path("build/reports/bench_vllm.json")
ROUNDS = 7
"""Turns; the first is for warming up."""
REVIEWS = 3 * ITEMS_AT_ONCE
"""A turn's: several times what a worker holds, or how a turn begins and ends would count."""
CONTEXT = 2048


def main() -> None:
    began = time.monotonic()

    def tell(line: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {line}", flush=True)

    count = 2 * ROUNDS * REVIEWS
    texts = list(dict.fromkeys(row["text"] for row in reviews.load(2 * count)))[:count]
    report: dict[str, Any] = {"reviews": reviews.source(), "cpus": os.cpu_count()}
    with tempfile.TemporaryDirectory(prefix="reviewmesh-bench-") as folder:
        report["models"] = {
            "encoder": _encoder(texts, Path(folder), tell),
            "tiny-gemma-2": _chat(texts, Path(folder), tell),
        }
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    tell(f"written to {REPORT}")


def _encoder(texts: Sequence[str], folder: Path, tell: Tell) -> dict[str, Any]:
    config = read_config(BUNDLED_MODEL)
    encoder = load_encoder(BUNDLED_MODEL / TOKENIZER_FILE, config.labels, config.form)

    def prompts(some: Sequence[str]) -> Prompts:
        encoded = [encoder.encode(text) for text in some]
        return [
            packed(encoded[window.text], window, config.form) for window in cut(encoded, config)
        ]

    form = huggingface_form(Package.open(BUNDLED_MODEL))
    settings = VllmSettings()
    with (
        closing(
            Offline(str(form), True, settings, {"max_model_len": config.window + 2})
        ) as offline,
        closing(Online(BUNDLED_MODEL, folder / "encoder.log", settings)) as online,
    ):
        question = Question("encoder", SENTIMENT, prompts, None)
        taken = turns.take(question, texts, ROUNDS, REVIEWS, offline, online, tell)
        return turns.summary(taken)


def _chat(texts: Sequence[str], folder: Path, tell: Tell) -> dict[str, Any]:
    tasks = load_tasks()
    model = folder / "tiny-gemma-2"
    # Large enough that on two cores the model is what takes the time, as with every model that is
    # worth serving: of one with 1.5 million weights vLLM answers 500 reviews a second, and what is
    # measured is what the processes around it do on the same cores.
    tiny_gemma.write(model, tasks, texts, hidden=256, layers=6)
    tokenizer = load_tokenizer(model)
    settings = VllmSettings()
    measured: dict[str, Any] = {}
    arguments = chat_arguments(tasks) | {"max_model_len": CONTEXT}
    with (
        closing(Offline(str(model), False, settings, arguments)) as offline,
        closing(Online(model, folder / "chat.log", settings)) as online,
    ):
        for at, name in enumerate((SENTIMENT, TOPIC)):
            chat = ChatPrompts(tokenizer, tasks[name], CONTEXT)
            title = f"tiny-gemma-2 {name}"
            question = Question(title, name, chat.prompts, sampling_of(chat))
            own = texts[at * ROUNDS * REVIEWS :]
            taken = turns.take(question, own, ROUNDS, REVIEWS, offline, online, tell)
            shared = len(chat.prefix) // BLOCK_SIZE * BLOCK_SIZE
            results = [result for turn in taken for result in turn.results]
            cached = sum(min(result.usage.cached_tokens, shared) for result in results)
            share = cached / (shared * len(results))
            tell(f"{title}: {share:.3f} of {shared} shared tokens came from the prefix cache")
            measured[name] = turns.summary(taken) | {
                "prefix_cache_share": share,
                "shared_tokens": shared,
            }
    measured["ratio"] = min(measured[name]["ratio"] for name in (SENTIMENT, TOPIC))
    return measured


if __name__ == "__main__":
    main()
