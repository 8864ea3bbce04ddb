"""Producers and consumers of other people: Java, Node and Python programs on a whole mesh.

The programs are those that `docs/clients.md` shows.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from reviewmesh.avro.codec import load_schema
from reviewmesh.kafka.partitioning import partition_of
from tests.clients.programs import CLIENTS, HERE, ROOT, addressed, run_together
from tests.clients.relock import CLIENT as JAVA_CLIENT
from tests.mesh import PARTITIONS, Mesh, review

PER_CLIENT = 40
SHARED = "everyone"
"""The id of a review that every client publishes, with the same content."""

Printed = dict[str, list[dict[str, Any]]]


def ids_of(client: str) -> list[str]:
    return [f"{client}-{number}" for number in range(PER_CLIENT)]


@pytest.fixture(scope="module")
def printed(mesh: Mesh, tmp_path_factory: pytest.TempPathFactory) -> Printed:
    """What each program printed: the enriched reviews that it read, by its own upserts."""
    _abort_an_enriched_record(mesh)
    commands = {}
    for name, (path, prepare) in CLIENTS.items():
        source = addressed(path.read_text(encoding="utf-8"), mesh.stack, mesh.prefix)
        command = prepare(source, tmp_path_factory.mktemp(name))
        commands[name] = [*command, *ids_of(name), SHARED]
    return run_together(commands)


def _abort_an_enriched_record(mesh: Mesh) -> None:
    """At the start of a partition lies what no reader of committed records may see."""
    producer = Producer({**mesh.kafka, "transactional.id": f"{mesh.prefix}ghost"})
    producer.init_transactions(10)
    producer.begin_transaction()
    value = mesh.codec("reviews.enriched").encode({"review_id": "ghost", "content_hash": "0"})
    producer.produce(f"{mesh.prefix}reviews.enriched", key="ghost", value=value, partition=0)
    assert producer.flush(10) == 0
    producer.abort_transaction(10)


def _first_of(mesh: Mesh, isolation: str) -> Any:
    consumer = Consumer({**mesh.kafka, "group.id": "anyone", "isolation.level": isolation})
    consumer.assign([TopicPartition(f"{mesh.prefix}reviews.enriched", 0, 0)])
    message = consumer.poll(20)
    consumer.close()
    assert message is not None and message.error() is None
    return message.key()


@pytest.mark.parametrize("client", CLIENTS)
def test_what_a_client_published_it_reads_back_enriched(printed: Printed, client: str) -> None:
    read = {record["review_id"]: record for record in printed[client]}
    assert set(ids_of(client)) <= set(read)
    for review_id in ids_of(client):
        record = read[review_id]
        assert record["complete"] is True
        assert record["revision"] >= 1
        assert record["text"] == "Anna at the desk was great."
        assert record["stars"] == 5
        assert record["entities"][0]["text"] == "Anna"
        assert record["tasks"]["ner"]["status"] == "OK"


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_reads_committed_records_only(mesh: Mesh, printed: Printed, client: str) -> None:
    assert _first_of(mesh, "read_uncommitted") == b"ghost"
    assert "ghost" not in {record["review_id"] for record in printed[client]}


def test_the_same_review_from_every_client_is_enriched_once(mesh: Mesh, printed: Printed) -> None:
    last = _another_id_on_the_partition_of(SHARED)
    mesh.publish([review(last, "What was sent before it has been judged")])

    def accepted() -> list[str]:
        return [record["review_id"] for record in mesh.read("reviews.accepted")]

    mesh.wait_for(lambda: last in accepted(), 30, f"{last} accepted")
    assert [record["review_id"] for record in mesh.read("reviews.raw")].count(SHARED) == len(
        CLIENTS
    )
    assert accepted().count(SHARED) == 1


def _another_id_on_the_partition_of(review_id: str) -> str:
    wanted = partition_of(review_id.encode(), PARTITIONS)
    candidates = (f"after-{number}" for number in range(1000))
    return next(c for c in candidates if partition_of(c.encode(), PARTITIONS) == wanted)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_writes_with_the_registrys_id_on_the_partition_of_the_key(
    mesh: Mesh, printed: Printed, client: str
) -> None:
    wanted = set(ids_of(client))
    records = [record for record in mesh.read("reviews.raw") if record["review_id"] in wanted]
    assert len(records) == len(wanted), "none was sent twice, none forwarded to another partition"
    subject = f"{mesh.prefix}reviews.raw-value"
    assert {record["_schema_id"] for record in records} == {
        mesh.registry.id_of(subject, load_schema("review"))
    }
    for record in records:
        assert record["_partition"] == partition_of(record["review_id"].encode(), PARTITIONS)


def test_the_example_in_the_readme_runs_as_it_stands(mesh: Mesh, printed: Printed) -> None:
    [example] = _fenced((ROOT / "README.md").read_text(encoding="utf-8"), "python")
    done = subprocess.run(
        [sys.executable, "-c", addressed(example, mesh.stack, mesh.prefix)],
        env=os.environ | mesh.stack.environment(),
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    assert "'review_id': " in done.stdout and "'complete': True" in done.stdout
    mesh.wait_for(
        lambda: "r-1" in {record["review_id"] for record in mesh.enriched()}, 30, "r-1 enriched"
    )


@pytest.mark.parametrize(("client", "language"), [("python",) * 2, ("java",) * 2, ("node", "js")])
def test_the_documentation_shows_the_programs_that_run_here(client: str, language: str) -> None:
    shown = _fenced((ROOT / "docs" / "clients.md").read_text(encoding="utf-8"), language)
    assert shown == _regions(CLIENTS[client][0])


def test_the_documentation_names_the_versions_that_run_here() -> None:
    text = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
    for group, name, version in JAVA_CLIENT[:2]:
        assert f"`{group}:{name}:{version}`" in text
    package = json.loads((HERE / "node" / "package.json").read_text(encoding="utf-8"))
    for name, version in package["dependencies"].items():
        assert f"{name}@{version}" in text


def _fenced(markdown: str, language: str) -> list[str]:
    """The code blocks of one language, in their order."""
    return re.findall(rf"^```{language}\n(.*?)\n```$", markdown, re.MULTILINE | re.DOTALL)


def _regions(path: Path) -> list[str]:
    """What stands between `docs: NAME` and `docs: end` in a program, in its order."""
    text = path.read_text(encoding="utf-8")
    found = re.findall(
        r"^ *(?:#|//) docs: (?!end)\w+\n(.*?)\n *(?:#|//) docs: end$",
        text,
        re.MULTILINE | re.DOTALL,
    )
    return [textwrap.dedent(region).strip() for region in found]
