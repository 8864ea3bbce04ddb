"""Budgets on the real broker: enrichers killed in the middle of calls, a budget that is spent."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml

from reviewmesh.leaving.accounts import account_and_spent
from reviewmesh.leaving.amounts import NOTHING, Amount, Spent
from tests.broker import TestStack
from tests.inference import WorkerProcess
from tests.mesh import PARTITIONS, Mesh, assert_exactly_once, review
from tests.nightly import but_nightly
from tests.scripted_openai import ScriptedOpenAI, answer, review_of

TASK = "topic"
AT_ONCE = 40
PRICES = [
    {"model": "m-1", "from": "2026-01-01", "input_per_million": 1, "output_per_million": 2},
]


@dataclass
class Paying:
    """A mesh without workers for one task, and a provider that is paid for its answers."""

    mesh: Mesh
    provider: ScriptedOpenAI

    @property
    def enricher(self) -> Any:
        return self.mesh.processes[f"enricher-{TASK}"]

    def results(self) -> list[dict[str, Any]]:
        return [
            result
            for result in self.mesh.read(f"reviews.{TASK}")
            if result["lineage"] is not None and result["lineage"]["route"] == "fallback"
        ]

    def spent(self, business_id: str | None = None) -> Spent:
        """Of the day, over all partitions."""
        latest = {
            (record["partition"], record["period"], record["business_id"]): record
            for record in self.mesh.read("reviews.spend")
        }
        days = [
            account_and_spent(record)[1]
            for (_, period, business), record in latest.items()
            if business == business_id and len(period) == len("2026-11-29")
        ]
        total = Spent()
        for spent in days:
            total = total.plus(spent)
        return total

    def told(self) -> list[dict[str, Any]]:
        """By `reviewmesh budget`."""
        done = subprocess.run(
            [sys.executable, "-m", "reviewmesh.cli", "budget", "--json"],
            env=self.enricher.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return [json.loads(line) for line in done.stdout.splitlines()]

    def wait_for_more(self, requests: int) -> None:
        wanted = len(self.provider.requests) + requests
        self.mesh.wait_for(lambda: len(self.provider.requests) > wanted, 60, "some to leave")

    def check(self) -> None:
        """What is settled is what the results say, and all that the provider saw is accounted
        for."""
        said = NOTHING
        for result in self.results():
            lineage = result["lineage"]
            said = said.plus(
                Amount(
                    lineage["provider_requests"],
                    lineage["prompt_tokens"] + lineage["completion_tokens"],
                    lineage["cost_micros"],
                )
            )
        spent = self.spent()
        assert spent.settled == said
        assert len(self.provider.requests) <= spent.total().requests
        reserved = Counter(record["digest"] for record in self.mesh.read("reviews.departures"))
        seen = Counter(
            sha256(review_of(request).encode()).hexdigest() for request in self.provider.requests
        )
        assert all(reserved[digest] >= count for digest, count in seen.items())


Begin = Callable[..., Paying]


@pytest.fixture
def begin(stack: TestStack, tmp_path: Path) -> Iterator[Begin]:
    with ExitStack() as ends:

        def begun(budgets: dict[str, Any], **settings: str) -> Paying:
            (tmp_path / "prices.yaml").write_text(yaml.safe_dump(PRICES))
            (tmp_path / "budgets.yaml").write_text(yaml.safe_dump(budgets))
            (tmp_path / "policy.yaml").write_text("all:\n  regions: [eu]\n  mask: [patterns]\n")
            provider = ends.enter_context(ScriptedOpenAI())
            worker = WorkerProcess(
                tmp_path / "provider",
                {
                    "REVIEWMESH_WORKER__ENGINE": "openai",
                    "REVIEWMESH_OPENAI__MODEL": "m-1",
                    "REVIEWMESH_OPENAI__BASE_URL": provider.base_url,
                    "REVIEWMESH_OPENAI__API_KEY": "sk-secret",
                    "REVIEWMESH_OPENAI__PRICES": str(tmp_path / "prices.yaml"),
                    "REVIEWMESH_OPENAI__MAX_CONCURRENCY": "8",
                },
            )
            worker.start()
            ends.callback(worker.stop)
            settings = {
                f"REVIEWMESH_FALLBACKS__{TASK.upper()}": f"eu@{worker.address}",
                "REVIEWMESH_FALLBACKS__AFTER_S": "1",
                "REVIEWMESH_POLICY": str(tmp_path / "policy.yaml"),
                "REVIEWMESH_BUDGETS": str(tmp_path / "budgets.yaml"),
                **settings,
            }
            prefix = f"b{uuid.uuid4().hex[:8]}."
            mesh = Mesh(stack, prefix, tmp_path, settings, workers_per_task=True)
            ends.enter_context(mesh)
            mesh.script()
            mesh.start()
            mesh.processes[f"worker-{TASK}"].kill()
            return Paying(mesh, provider)

        yield begun


def published(numbers: range, business_id: str | None = None) -> list[dict[str, Any]]:
    return [
        review(f"r-{n}", f"the guest of room {n} came again", business_id=business_id)
        for n in numbers
    ]


@pytest.mark.parametrize("kills", but_nightly([5, 50], always=[5]))
def test_no_kill_spends_more_than_is_accounted_for(begin: Begin, kills: int) -> None:
    budget = {"requests": PARTITIONS * kills * AT_ONCE}
    paying = begin({"tasks": [TASK], "all": {"day": budget}})
    chance = random.Random(kills)

    def slow(handler: Any, request: Any) -> None:
        time.sleep(0.05)
        answer(handler, request)

    paying.provider.always = slow
    sent: list[dict[str, Any]] = []
    for number in range(kills):
        these = published(range(number * AT_ONCE, (number + 1) * AT_ONCE))
        sent += these
        paying.mesh.publish(these)
        paying.wait_for_more(chance.randrange(AT_ONCE // 2))
        time.sleep(chance.random() * 0.2)
        paying.enricher.kill()
        paying.enricher.start()
    enriched = paying.mesh.wait_enriched(len(sent), 180)
    assert_exactly_once(sent, enriched)
    paying.mesh.wait_for(lambda: paying.spent().reserved == NOTHING, 20, "nothing in flight")
    paying.check()
    spent = paying.spent()
    assert spent.orphaned != NOTHING
    assert spent.total().requests <= budget["requests"]


def test_reviews_wait_once_a_budget_is_spent_and_nothing_leaves(begin: Begin) -> None:
    paying = begin(
        {
            "tasks": [TASK],
            "call": {"tokens": 20_000, "usd": 0.05},
            "all": {"day": {"requests": 10 * PARTITIONS}},
            "businesses": {
                "acme": {"month": {"usd": 0.05 * PARTITIONS}},
                "never": {"day": {"requests": 0}},
            },
        }
    )
    mesh = paying.mesh
    none = published(range(1_000, 1_020), business_id="never")
    mesh.publish(none)
    held_back = f'reviewmesh_reviews_held_back{{reason="spent",task="{TASK}"}}'
    mesh.wait_for(lambda: paying.enricher.metric(held_back) == len(none), 30, "all held back")
    assert paying.provider.requests == []
    rest = published(range(300)) + published(range(300, 330), business_id="acme")
    mesh.publish(rest)
    # Each partition has ten requests, and more than ten reviews.
    spent = 10 * PARTITIONS
    mesh.wait_for(lambda: len(paying.results()) == spent, 60, "the budget to be spent")
    waiting = len(none) + len(rest) - spent
    mesh.wait_for(lambda: paying.enricher.metric(held_back) == waiting, 30, "the rest to wait")
    status, body = paying.enricher.get("/readyz")
    assert status == 200
    assert f"{waiting} reviews are held back: a budget is spent" in body
    assert "a budget is spent" in paying.enricher.log.read_text()
    # A new owner knows what is spent.
    paying.enricher.kill()
    paying.enricher.start()
    mesh.wait_for(lambda: paying.enricher.metric(held_back) == waiting, 60, "the rest to wait")
    assert len(paying.provider.requests) == spent
    paying.check()
    assert paying.spent().total().requests == spent
    requests = next(line for line in paying.told() if line["unit"] == "requests")
    assert (requests["budget"], requests["settled"], requests["left"]) == (spent, spent, 0)
    # 220 micros a call, and 50,000 are reserved for each: one at a time per partition.
    assert paying.spent("acme").settled.micros % 220 == 0
    mesh.processes[f"worker-{TASK}"].start()
    enriched = mesh.wait_enriched(len(none) + len(rest), 90)
    assert_exactly_once(none + rest, enriched)
    assert len(paying.provider.requests) == spent
