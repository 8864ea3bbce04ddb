"""`reviewmesh publish` on files as people have them, on a real broker."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.broker import TestStack, wait_until
from tests.mesh import Mesh
from tests.odd_files import FILES
from tests.publishing import Publish, publish_here


@pytest.fixture
def topics(stack: TestStack, prefix: str, tmp_path: Path) -> Mesh:
    mesh = Mesh(stack, prefix, tmp_path)
    mesh.apply_topics()
    return mesh


@pytest.fixture
def publish(
    topics: Mesh,
    stack: TestStack,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Publish:
    for name, value in {**stack.environment(), "REVIEWMESH_PREFIX": topics.prefix}.items():
        monkeypatch.setenv(name, value)
    return publish_here(monkeypatch, capsys)


def test_of_each_file_exactly_its_reviews_arrive(
    publish: Publish, topics: Mesh, tmp_path: Path
) -> None:
    expected: Counter[str] = Counter()
    for file in FILES:
        path = tmp_path / "reviews.txt"
        path.write_bytes(file.content)
        said = publish(str(path), *file.options, "--set", f"source={file.name}")
        assert said.code == file.code, (file.name, said.err)
        expected[file.name] = file.published
    arrived = Counter(each["source"] for each in topics.read("reviews.raw"))
    assert arrived == +expected


def test_after_an_interruption_the_rest_is_published_once(
    topics: Mesh, stack: TestStack, tmp_path: Path
) -> None:
    rows = 400
    table = tmp_path / "reviews.csv"
    table.write_text("text,stars\n" + "".join(f"review {n},{n % 5 + 1}\n" for n in range(rows)))
    environment = os.environ | stack.environment() | {"REVIEWMESH_PREFIX": topics.prefix}
    command = [sys.executable, "-m", "reviewmesh.cli", "publish", str(table)]
    ids = tmp_path / "ids"
    with ids.open("w") as out:
        running = subprocess.Popen(
            [*command, "--rate", "40"],
            env=environment | {"PYTHONUNBUFFERED": "1"},
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: len(ids.read_text().split()) > 20, 60, "some reviews")
        running.send_signal(signal.SIGINT)
        _out, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    done = re.search(r"every row up to (\d+) is done.*; go on with: .* --skip (\d+)$", said.strip())
    assert done and done[1] == done[2] and 20 <= int(done[1]) < rows, said

    rest = subprocess.run(
        [*command, "--skip", done[2]], env=environment, capture_output=True, text=True, timeout=120
    )
    assert rest.returncode == 0, rest.stderr
    assert f"{rows - int(done[1])} published, 0 refused" in rest.stderr
    arrived = topics.read("reviews.raw")
    assert len({each["review_id"] for each in arrived}) == len(arrived) == rows
    # Again, without having been told anything: the same ids, so that intake drops them.
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 0
    again = topics.read("reviews.raw")
    assert len(again) == 2 * rows
    assert len({each["review_id"] for each in again}) == rows
