"""A worker process with the openai engine, over gRPC, against a scripted endpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from reviewmesh_protos.inference.v1 import inference_pb2
from reviewmesh_protos.metadata import NOT_STARTED
from reviewmesh_worker.tasks import TASKS
from tests.inference import SOON_S, Driver, WorkerProcess, infer, soon
from tests.scripted_openai import ScriptedOpenAI, says, status

KEY = "sk-very-secret"
TEXT = "Anna in Berlin was great."


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedOpenAI]:
    with ScriptedOpenAI() as scripted:
        yield scripted


@pytest.fixture(scope="module")
def worker(
    server: ScriptedOpenAI, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WorkerProcess]:
    folder = tmp_path_factory.mktemp("openai-worker")
    (folder / "key").write_text(KEY)
    (folder / "prices.yaml").write_text(
        json.dumps(
            [
                {
                    "model": "m-1",
                    "from": "2026-01-01",
                    "input_per_million": 1,
                    "output_per_million": 2,
                }
            ]
        )
    )
    made = WorkerProcess(
        folder / "worker",
        {
            "REVIEWMESH_WORKER__ENGINE": "openai",
            "REVIEWMESH_OPENAI__MODEL": "m-1",
            "REVIEWMESH_OPENAI__BASE_URL": server.base_url,
            "REVIEWMESH_OPENAI__API_KEY_FILE": str(folder / "key"),
            "REVIEWMESH_OPENAI__PROVIDER": "acme",
            "REVIEWMESH_OPENAI__PRICES": str(folder / "prices.yaml"),
            "REVIEWMESH_OPENAI__MAX_CONCURRENCY": "4",
        },
    )
    made.start()
    yield made
    made.stop()


def ask(worker: WorkerProcess, text: str, task: str = "sentiment") -> inference_pb2.InferResponse:
    request = infer([text], task)
    request.max_provider_requests = 1
    return worker.stub.Infer(request, timeout=SOON_S)


def test_answers_come_with_tokens_money_and_the_provider(worker: WorkerProcess) -> None:
    described = worker.stub.Describe(inference_pb2.DescribeRequest(), timeout=SOON_S)
    assert {task.task: task.provider for task in described.tasks} == dict.fromkeys(TASKS, "acme")
    # No more than the endpoint is asked soon.
    assert described.limits.max_in_flight_items == 8
    for task in TASKS:
        response = ask(worker, TEXT, task)
        lineage, usage = response.lineage, response.results[0].usage
        assert (lineage.engine, lineage.provider) == ("openai", "acme")
        assert (lineage.model, lineage.model_version) == ("m-1", "m-1")
        assert response.results[0].WhichOneof("outcome") == task
        assert (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens) == (200, 128, 10)
        assert (usage.cost_micros, usage.provider_requests) == (220, 1)
        assert response.load.max == 8
    again = ask(worker, TEXT).results[0].usage
    assert (again.prompt_tokens, again.cost_micros, again.provider_requests) == (0, 0, 0)
    assert again.HasField("cost_micros")


def test_what_failed_attempts_took_counts_for_the_answer(
    worker: WorkerProcess, server: ScriptedOpenAI
) -> None:
    driver = Driver([worker.address])
    try:
        # An answer without a text has its tokens, and another try may have one.
        server.script.extend([says(None), says(None)])
        driver.submit(["Anna paid three times."])
        (answer,) = driver.wait()
        assert (answer.attempts, answer.error) == (3, None)
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (600, 30)
        assert (answer.usage.cost_micros, answer.usage.provider_requests) == (660, 3)

        server.always = says(None)
        driver.submit(["Anna paid in vain."])
        (_, failed) = driver.wait(60)
        assert failed.error is not None and failed.lineage is not None
        assert failed.lineage.provider == "acme"
        assert failed.usage is not None
        assert failed.usage.prompt_tokens == 200 * failed.attempts > 200

        server.always = None
        # Out of the worker's memory: paid by the first answer.
        driver.submit(["Anna paid three times."])
        (*_, again) = driver.wait()
        assert again.usage is not None
        assert (again.usage.cost_micros, again.usage.provider_requests) == (0, 0)
    finally:
        server.always = None
        driver.client.close()


@pytest.mark.parametrize("bound", ["max_provider_requests", "max_tokens", "max_cost_micros"])
def test_a_caller_may_not_allow_less_than_nothing(worker: WorkerProcess, bound: str) -> None:
    request = infer([TEXT], "sentiment")
    setattr(request, bound, -1)
    with pytest.raises(grpc.RpcError) as refused:
        worker.stub.Infer(request, timeout=SOON_S)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_refused_key_takes_the_worker_out_of_service_and_costs_no_review(
    worker: WorkerProcess, server: ScriptedOpenAI
) -> None:
    server.always = status(401, f"Incorrect API key provided: {KEY}")
    counted = ask(worker, "refused").results[0]
    assert (counted.error.code, counted.usage.provider_requests) == ("UNAVAILABLE", 1)
    with pytest.raises(grpc.RpcError) as refused:
        worker.stub.Infer(infer(["refused, too"], "sentiment"), timeout=SOON_S)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "refuses the key" in (refused.value.details() or "")
    assert NOT_STARTED in str(refused.value.trailing_metadata())
    soon(lambda: worker.health("sentiment") == "NOT_SERVING", "no calls are wanted")
    code, page = worker.process.get("/readyz")
    assert (code, json.loads(page)["state"]) == (503, "unavailable")
    assert "refuses the key" in json.loads(page)["reason"]
    driver = Driver([worker.address])
    try:
        driver.submit(["Anna waits."])
        server.always = None
        (answer,) = driver.wait(60)
        # What was refused was no attempt.
        assert (answer.attempts, answer.error) == (1, None)
    finally:
        driver.client.close()
    soon(lambda: worker.health("sentiment") == "SERVING", "calls are wanted again")
    assert KEY not in worker.log.read_text()
    assert KEY not in page + (refused.value.details() or "")


def test_a_wrong_setting_ends_the_worker_without_the_key(tmp_path: Path) -> None:
    wrong = WorkerProcess(
        tmp_path / "wrong",
        {
            "REVIEWMESH_WORKER__ENGINE": "openai",
            "REVIEWMESH_OPENAI__API_KEY": KEY,
            "REVIEWMESH_OPENAI__API_KEY_FILE": "/run/key",
        },
    )
    wrong.process.start()
    assert wrong.process.popen is not None
    assert wrong.process.popen.wait(SOON_S) == 2
    said = wrong.log.read_text()
    assert "api_key_file" in said and KEY not in said
