"""`python -m bench.masking`: recall of the masking per kind; writes build/reports/masking.json.

A piece counts as found when every code point of it is masked that is no white space. Names are
found by a real worker with the bundled model, through the mesh's own client.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.masking.made_up import KINDS, LANGUAGES, MadeUp, made_up
from bench.report import FOLDER, machine
from reviewmesh import metrics
from reviewmesh.enrich.items import WorkItem
from reviewmesh.enrich.names import NameFinder, Span
from reviewmesh.enrich.pool import PoolConfig
from reviewmesh.leaving.masking import Masked, mask
from tests.inference import WorkerProcess

FILE = FOLDER / "masking.json"
NAME = "name"
AT_ONCE = 32


def main() -> None:
    reviews = made_up()
    masked = [
        mask(review.text, review.language, names)
        for review, names in zip(reviews, names_in(reviews), strict=True)
    ]
    planted, found = counts(reviews, masked)
    in_vain = sum(
        not any(found.start < planted.end and planted.start < found.end for planted in made.planted)
        for made, one in zip(reviews, masked, strict=True)
        for found in one.found
    )
    recall = {kind: round(found[kind] / planted[kind], 3) for kind in KINDS}
    patterns = [kind for kind in KINDS if kind != NAME]
    print(f"{'kind':<18}{'planted':>8}{'found':>8}{'recall':>8}")
    for kind in KINDS:
        print(f"{kind:<18}{planted[kind]:>8}{found[kind]:>8}{recall[kind]:>8.3f}")
    for language in LANGUAGES:
        own = [pair for pair in zip(reviews, masked, strict=True) if pair[0].language == language]
        there, gone = counts([made for made, _ in own], [one for _, one in own])
        print(
            f"names, {language:<11}{there[NAME]:>8}{gone[NAME]:>8}{gone[NAME] / there[NAME]:>8.3f}"
        )
    of_patterns = sum(found[kind] for kind in patterns) / sum(planted[kind] for kind in patterns)
    print(f"patterns together {of_patterns:.3f}; masked in vain: {in_vain}")
    FILE.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "machine": machine(),
        "reviews": len(reviews),
        "planted": planted,
        "recall": recall,
        "recall_of_patterns": round(of_patterns, 4),
        "masked_in_vain": in_vain,
    }
    FILE.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def counts(
    reviews: Sequence[MadeUp], masked: Sequence[Masked]
) -> tuple[Counter[str], Counter[str]]:
    """By kind: what was planted, and what of it is wholly masked."""
    planted: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for made, one in zip(reviews, masked, strict=True):
        gone = {at for each in one.found for at in range(each.start, each.end)}
        for piece in made.planted:
            places = range(piece.start, piece.end)
            planted[piece.kind] += 1
            found[piece.kind] += all(at in gone or made.text[at].isspace() for at in places)
    return planted, found


def names_in(reviews: Sequence[MadeUp]) -> list[tuple[Span, ...]]:
    """What a worker of the task ner takes for persons."""
    with tempfile.TemporaryDirectory() as folder:
        worker = WorkerProcess(Path(folder) / "worker", {"REVIEWMESH_WORKER__TASKS": "ner"})
        try:
            worker.start()
            return asyncio.run(_names(worker.address, reviews))
        finally:
            worker.stop()


async def _names(address: str, reviews: Sequence[MadeUp]) -> list[tuple[Span, ...]]:
    serving = metrics.NAMES_WORKERS_SERVING.labels("bench")
    calls = metrics.CALLS.labels("bench", "names")
    names = NameFinder(PoolConfig("ner", (address,), "", serving, calls))
    items = [
        WorkItem(None, 0, number, review.text, review.language, None, None, 0.0, "")
        for number, review in enumerate(reviews)
    ]
    at_once = asyncio.Semaphore(AT_ONCE)

    async def find(item: WorkItem) -> tuple[Span, ...]:
        async with at_once:
            found = await names.find(item)
        if found is None:
            raise RuntimeError("expected the worker to answer every review, got an error")
        return found

    answers = await asyncio.gather(*(find(item) for item in items))
    await names.close()
    return list(answers)


if __name__ == "__main__":
    main()
