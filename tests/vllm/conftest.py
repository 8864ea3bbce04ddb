"""Tests on real vLLM, on CPU.

They belong to the models' environment, which is not the mesh's: `make test-vllm` runs them there;
elsewhere there is nothing here to run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

from reviewmesh_worker.bundled import BUNDLED_MODEL
from reviewmesh_worker.tasks.definition import Task, load_tasks
from tests.vllm.worker import VllmWorker

collect_ignore_glob = [] if find_spec("vllm") else ["test_*.py"]

REVIEWS = (
    "Anna at the desk in Berlin was great, and Netflix is good value.",
    "Third time they cancel on me without a word. Never again.",
    "Lovely staff, but the app logs me out every five minutes.",
    "Ordered on Monday, it came on Friday as announced.",
    "",
    "👍🏽",
    "Ich habe bei Müller in München bestellt. Nie wieder!",
    "word " * 700 + "and Maria Lopez from Madrid was kind.",
)


@pytest.fixture(scope="session")
def encoder_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmWorker]:
    """The bundled encoder; for tests that leave it as it is."""
    worker = VllmWorker(tmp_path_factory.mktemp("encoder"), BUNDLED_MODEL)
    try:
        worker.start()
        yield worker
    finally:
        worker.stop()


@pytest.fixture(scope="session")
def tiny_gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Gemma-2 of random weights: what it says means nothing, its form is all there."""
    folder = tmp_path_factory.mktemp("tiny-gemma")
    write_tiny_gemma(folder, load_tasks(), "1")
    return folder


def write_tiny_gemma(folder: Path, tasks: Mapping[str, Task], version: str) -> None:
    from bench.vllm import tiny_gemma

    tiny_gemma.write(folder, tasks, REVIEWS * 20, version)


@pytest.fixture(scope="session")
def chat_worker(tiny_gemma: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmWorker]:
    """The tiny Gemma for all tasks; for tests that leave it as it is."""
    worker = VllmWorker(tmp_path_factory.mktemp("chat"), tiny_gemma)
    try:
        worker.start()
        yield worker
    finally:
        worker.stop()
