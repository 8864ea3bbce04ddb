"""`python -m bench.gpu`: Gemma-2 9B with random weights, vLLM alone against the gRPC worker."""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from bench import reviews
from bench.gpu.model import GEMMA_2_9B, TINY, Form, write
from bench.vllm import turns
from bench.vllm.offline import Offline
from bench.vllm.online import ITEMS_AT_ONCE, Online
from bench.vllm.turns import Question, Side, Tell, Turn
from reviewmesh_worker.engines.settings import VllmSettings
from reviewmesh_worker.engines.vllm.chat import chat_arguments, load_tokenizer, sampling_of
from reviewmesh_worker.engines.vllm.core import device_of, prepare
from reviewmesh_worker.tasks.chat import ChatPrompts
from reviewmesh_worker.tasks.definition import load_tasks

REPORT: Final = Path("build/reports/bench_gpu.json")
ROUNDS: Final = 4
"""Turns; the first is for warming up."""
SHARE: Final = 0.45
"""Of the GPU's memory for each of both engines: they are loaded at the same time."""
NOTES: Final = (
    "The weights are random. Sentiment is always one token, topics one for each; every list of "
    "names is cut at the longest answer, so its reviews/s are the least and its tokens/s compare.",
    "The tokenizer was made of these reviews and has 4,096 tokens: a review has another number of "
    "tokens than with Gemma's.",
    "Both engines share the GPU's memory: one that has it all keeps more sequences and prefixes.",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument(
        "--tiny",
        action="store_true",
        help="a small model of the same form, to see on CPU that the bench works",
    )
    tiny: bool = parser.parse_args().tiny
    device = _device()
    if device == "cpu" and not tiny:
        parser.error("expected a GPU, vLLM found none; --tiny runs a small model without one")
    began = time.monotonic()

    def tell(line: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {line}", flush=True)

    settings = VllmSettings(load_format="dummy")
    if device != "cpu":
        settings = VllmSettings(load_format="dummy", gpu_memory_utilization=SHARE)
    with tempfile.TemporaryDirectory(prefix="reviewmesh-bench-") as folder:
        report = _measured(TINY if tiny else GEMMA_2_9B, settings, Path(folder), tell)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    tell(f"written to {REPORT}")


def _device() -> str:
    prepare(VllmSettings(), encoder=False)
    from vllm.platforms import current_platform

    return device_of(current_platform)


def _measured(form: Form, settings: VllmSettings, folder: Path, tell: Tell) -> dict[str, Any]:
    tasks = load_tasks()
    count = ROUNDS * max(form.reviews.values())
    texts = list(dict.fromkeys(row["text"] for row in reviews.load(2 * count)))[:count]
    model = folder / form.name
    write(model, form, tasks, texts)
    tokenizer = load_tokenizer(model)
    context = settings.max_model_len
    arguments = chat_arguments(tasks) | {"max_model_len": context}
    tell("loading vLLM")
    with closing(Offline(str(model), False, settings, arguments)) as offline:
        facts = offline.facts
        # One batch in the engine and one that waits.
        at_once = max(ITEMS_AT_ONCE, 2 * facts["arguments"]["max_num_seqs"])
        tell(f"loading the worker; the device is {facts['device']}")
        with closing(Online(model, folder / "worker.log", settings, at_once)) as online:
            measured = {
                name: _task(
                    ChatPrompts(tokenizer, task, context),
                    texts,
                    form.reviews[name],
                    offline,
                    online,
                    tell,
                )
                for name, task in tasks.items()
            }
    return {
        "model": form.name,
        "config": dict(form.numbers),
        **{name: facts[name] for name in ("device", "vllm", "torch")},
        "reviews": reviews.source(),
        "settings": {**facts["arguments"], "worker_max_in_flight": at_once},
        "notes": NOTES,
        "ratio": min(figures["ratio"] for figures in measured.values()),
        "tasks": measured,
    }


def _task(
    chat: ChatPrompts,
    texts: Sequence[str],
    count: int,
    offline: Offline,
    online: Online,
    tell: Tell,
) -> dict[str, Any]:
    task = chat.task
    # A list that was cut is no list; see bench.gpu.model.
    bearable = "INVALID_ANSWER" if task.answer == "spans" else ""
    question = Question(task.name, task.name, chat.prompts, sampling_of(chat), bearable)
    taken = turns.take(question, texts, ROUNDS, count, offline, online, tell)
    tokens = tokens_of(taken)
    tell(
        f"{task.name}: {tokens['generated_tokens_per_review']['worker']:.1f} tokens generated per "
        f"review, {tokens['generated_tokens_per_s']['worker']:.0f} a second through the worker"
    )
    return turns.summary(taken) | tokens | _of_task(chat, taken)


def tokens_of(taken: Sequence[Turn]) -> dict[str, Any]:
    """Medians over the turns; a prompt's tokens count whether cached or not."""

    def medians(of: Callable[[Turn, Side], float]) -> dict[str, float]:
        return {
            "offline": statistics.median(of(turn, turn.offline) for turn in taken),
            "worker": statistics.median(of(turn, turn.worker) for turn in taken),
        }

    prompts = [turn.prompt_tokens / turn.reviews for turn in taken]
    return {
        "prompt_tokens_per_review": statistics.median(prompts),
        "prompt_tokens_per_s": medians(lambda turn, side: turn.prompt_tokens / side.seconds),
        "generated_tokens_per_review": medians(lambda turn, side: side.generated / turn.reviews),
        "generated_tokens_per_s": medians(lambda turn, side: side.generated / side.seconds),
    }


def _of_task(chat: ChatPrompts, taken: Sequence[Turn]) -> dict[str, Any]:
    golden = chat.answers(chat.task.golden)
    results = [result for turn in taken for result in turn.results]
    failed = sum(result.WhichOneof("outcome") == "error" for result in results)
    return {
        "prompt_tokens_of_the_task": len(chat.prefix) + len(chat.suffix),
        "answer_tokens_of_golden_rows": statistics.mean(map(len, golden)),
        "answers_cut": failed,
    }


if __name__ == "__main__":
    main()
