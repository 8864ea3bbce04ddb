"""`python -m bench.vllm`: reviews a second through the gRPC worker against vLLM alone.

Offline and online take turns on the same prompts, both engines loaded throughout; every turn has
texts of its own, for the worker remembers answers and vLLM keeps prompts.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import reviews
from bench.vllm import tiny_gemma
from bench.vllm.offline import Offline
from bench.vllm.online import Online, Results
from reviewmesh_worker.engines.encoder.config import TOKENIZER_FILE, read_config
from reviewmesh_worker.engines.encoder.encoding import load_encoder
from reviewmesh_worker.engines.encoder.windows import cut
from reviewmesh_worker.engines.vllm.chat import chat_arguments, load_tokenizer, sampling_of
from reviewmesh_worker.engines.vllm.derived import huggingface_form
from reviewmesh_worker.engines.vllm.encoder import packed
from reviewmesh_worker.engines.vllm.settings import BLOCK_SIZE
from reviewmesh_worker.models import BUNDLED_MODEL
from reviewmesh_worker.packages.manifest import Package
from reviewmesh_worker.tasks import SENTIMENT, TOPIC
from reviewmesh_worker.tasks.chat import ChatPrompts
from reviewmesh_worker.tasks.definition import load_tasks

REPORT = Path("build/reports/bench_vllm.json")
ROUNDS = 4
ENCODER_REVIEWS = 800
CHAT_REVIEWS = 300
CONTEXT = 2048

Prompts = list[list[int]]
Tell = Callable[[str], None]


def main() -> None:
    began = time.monotonic()

    def tell(line: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {line}", flush=True)

    count = ROUNDS * max(ENCODER_REVIEWS, 2 * CHAT_REVIEWS)
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
    encoder = load_encoder(BUNDLED_MODEL / TOKENIZER_FILE, config.labels)

    def prompts(some: Sequence[str]) -> Prompts:
        encoded = [encoder.encode(text) for text in some]
        return [packed(encoded[window.text], window) for window in cut(encoded, config)]

    form = huggingface_form(Package.open(BUNDLED_MODEL))
    offline = Offline(str(form), True, {"max_model_len": config.window + 2})
    online = Online(BUNDLED_MODEL, folder / "encoder.log")
    try:
        return _turns(
            "encoder", SENTIMENT, texts, ENCODER_REVIEWS, prompts, None, offline, online, tell
        )[0]
    finally:
        offline.end()
        online.end()


def _chat(texts: Sequence[str], folder: Path, tell: Tell) -> dict[str, Any]:
    tasks = load_tasks()
    model = folder / "tiny-gemma-2"
    tiny_gemma.write(model, tasks, texts)
    tokenizer = load_tokenizer(model)
    offline = Offline(str(model), False, chat_arguments(tasks) | {"max_model_len": CONTEXT})
    online = Online(model, folder / "chat.log")
    measured: dict[str, Any] = {}
    try:
        for at, name in enumerate((SENTIMENT, TOPIC)):
            task = tasks[name]
            chat = ChatPrompts(tokenizer, task, CONTEXT)
            own = texts[at * ROUNDS * CHAT_REVIEWS :]
            figures, results = _turns(
                f"tiny-gemma-2 {name}",
                name,
                own,
                CHAT_REVIEWS,
                chat.prompts,
                sampling_of(chat),
                offline,
                online,
                tell,
            )
            shared = len(chat.prefix) // BLOCK_SIZE * BLOCK_SIZE
            cached = sum(min(result.usage.cached_tokens, shared) for result in results)
            figures["prefix_cache_share"] = cached / (shared * len(results))
            figures["shared_tokens"] = shared
            tell(
                f"tiny-gemma-2 {name}: {figures['prefix_cache_share']:.3f} of {shared} shared "
                "tokens of a prompt came from the prefix cache"
            )
            measured[name] = figures
    finally:
        offline.end()
        online.end()
    measured["ratio"] = min(measured[name]["ratio"] for name in (SENTIMENT, TOPIC))
    return measured


def _turns(
    title: str,
    task: str,
    texts: Sequence[str],
    count: int,
    prompts: Callable[[Sequence[str]], Prompts],
    asked: Any,
    offline: Offline,
    online: Online,
    tell: Tell,
) -> tuple[dict[str, Any], Results]:
    """Take turns; the first is for warming up. Gives the figures and the worker's results."""
    alone: list[float] = []
    through: list[float] = []
    answered: Results = []
    for turn in range(ROUNDS):
        some = texts[turn * count : (turn + 1) * count]
        took = {}
        # Whoever is first finds the machine as the other left it: they change places.
        for which in ("alone", "through") if turn % 2 else ("through", "alone"):
            if which == "alone":
                took[which] = offline.seconds(prompts(some), asked)
            else:
                took[which], results = online.seconds(task, some)
                failed = [r.error.message for r in results if r.WhichOneof("outcome") == "error"]
                if failed:
                    raise RuntimeError(f"{len(failed)} of {len(some)} failed: {failed[0]}")
        rates = {which: len(some) / seconds for which, seconds in took.items()}
        tell(
            f"{title}: {rates['alone']:.0f} reviews/s alone, {rates['through']:.0f} through the "
            f"worker{'' if turn else ' (warming up)'}"
        )
        if turn:
            alone.append(rates["alone"])
            through.append(rates["through"])
            answered += results
    return {
        "offline_reviews_per_s": statistics.median(alone),
        "worker_reviews_per_s": statistics.median(through),
        "ratio": statistics.median(b / a for a, b in zip(alone, through, strict=True)),
        "turns": [{"offline": a, "worker": b} for a, b in zip(alone, through, strict=True)],
        "reviews_per_turn": count,
    }, answered


if __name__ == "__main__":
    main()
