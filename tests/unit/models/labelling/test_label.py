"""`reviewmesh-models label` against providers that answer as they are told."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from reviewmesh_models.cli.__main__ import app
from reviewmesh_models.labelling import batches, live
from reviewmesh_worker.bundled import BUNDLED_MODEL
from tests.scripted_provider import Failing, Provider, completed, sound

REVIEWS = 500
CONCURRENCY = 4


def always(word: str = "positive") -> Callable[[str, str, str], Any]:
    return lambda model, task, text: sound(task, word)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRST_KEY", "s3cret")
    monkeypatch.setattr(live, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(batches, "_FIRST_PAUSE_S", 0.01)
    return tmp_path


def write(
    folder: Path, provider: Provider, texts: int = 6, budget: Any = None, **settings: Any
) -> list[str]:
    """The arguments of `label`, with a file for each."""
    teacher = {"base_url": provider.url, "concurrency": CONCURRENCY, **settings}
    teachers = [
        {"name": "first", "model": "one", "key_env": "FIRST_KEY", **teacher},
        {"name": "second", "model": "two", **teacher},
    ]
    content = {"teachers": teachers, "budget": budget or {"requests": 100_000}}
    (folder / "teachers.yaml").write_text(yaml.safe_dump(content))
    lines = [json.dumps({"text": f"review {number}", "stars": 4}) for number in range(texts)]
    (folder / "reviews.jsonl").write_text("\n".join(lines))
    return [
        "label",
        str(folder / "reviews.jsonl"),
        "--teachers",
        str(folder / "teachers.yaml"),
        "--output",
        str(folder / "made"),
        "--task",
        "sentiment",
    ]


def label(arguments: list[str], said: str | None = None) -> Result:
    return CliRunner().invoke(app, arguments, input=said)


def rows(folder: Path, name: str = "reviews_train.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "made" / name).read_text().splitlines()]


def test_every_teacher_is_asked_once_and_rows_come_out(folder: Path) -> None:
    with Provider(always()) as provider:
        arguments = write(folder, provider)
        result = label([*arguments, "--task", "topic", "--task", "ner"])
        assert result.exit_code == 0, result.output
        assert set(provider.calls.values()) == {1} and provider.asked == 6 * 2 * 3
        assert provider.keys == {"Bearer s3cret", "Bearer none"}
        assert provider.most_in_flight <= CONCURRENCY
        again = label([*arguments, "--task", "topic", "--task", "ner"])
        assert again.exit_code == 0 and provider.asked == 6 * 2 * 3
    [row, *_] = rows(folder)
    assert row["sentiment"] == "positive" and len(rows(folder)) == 6
    assert row["topics"] == [{"topic": "account-management.account-access", "polarity": "positive"}]
    assert rows(folder, "ner_train.jsonl")[0]["entities"] == []
    assert "s3cret" not in result.output + (folder / "made/labels.sqlite").read_bytes().decode(
        errors="replace"
    )


def test_reviews_come_from_standard_input_too(folder: Path) -> None:
    with Provider(always()) as provider:
        # A record of a mesh stays in the house.
        arguments = write(folder, provider, inside=True)
        arguments[1] = "-"
        line = json.dumps({"review_id": "a", "text": "from the topic", "sentiment": None})
        assert label(arguments, f"{line}\n").exit_code == 0
    assert [row["text"] for row in rows(folder)] == ["from the topic"]


def test_another_prompt_or_model_is_asked_anew(folder: Path) -> None:
    with Provider(always()) as provider:
        assert label(write(folder, provider)).exit_code == 0
        write(folder, provider, temperature=1)
        assert label(write(folder, provider, temperature=1)).exit_code == 0
        assert provider.asked == 24


@pytest.mark.parametrize(
    ("failing", "code"),
    [
        (Failing(body=completed("positive")), "INVALID_ANSWER"),
        (Failing(body=completed('{"label": "glad"}')), "INVALID_ANSWER"),
        (Failing(body=completed('{"label": "pos', "length")), "TRUNCATED"),
        (Failing(body=completed("", "content_filter")), "REFUSED"),
        (Failing(400, {"error": {"code": "content_filter", "message": "no"}}), "REFUSED"),
        (Failing(body={"choices": []}), "INVALID_ANSWER"),
    ],
    ids=["no JSON", "no label", "truncated", "filtered", "filtered before", "no choice"],
)
def test_an_answer_without_labels_is_kept_and_not_asked_again(
    folder: Path, failing: Failing, code: str
) -> None:
    def answer(model: str, task: str, text: str) -> Any:
        return failing if (model, text) == ("two", "review 3") else sound(task)

    with Provider(answer) as provider:
        for _ in range(2):
            result = label(write(folder, provider))
            assert result.exit_code == 0, result.output
        assert provider.asked == 12
    assert {row["text"] for row in rows(folder)} == {f"review {n}" for n in (0, 1, 2, 4, 5)}


@pytest.mark.parametrize(
    "failing",
    [
        Failing(429, {"error": {"message": "slow"}}, {"Retry-After": "0.01"}),
        Failing(429, {"error": {"message": "slow"}}),
        Failing(500, {"error": {"message": "oh"}}),
        Failing(200, b"<html>"),
        Failing(200, [1]),
        Failing(hang_s=5.0),
    ],
    ids=["429 with time", "429", "500", "no JSON", "no object", "hangs"],
)
def test_what_may_pass_is_tried_again(folder: Path, failing: Failing) -> None:
    with Provider(always()) as provider:

        def answer(model: str, task: str, text: str) -> Any:
            first = provider.calls[model, task, text] == 1
            return failing if first and text == "review 3" else sound(task)

        provider.answer = answer
        result = label(write(folder, provider, timeout_s=2.5))
        assert result.exit_code == 0, result.output
        assert all(provider.calls[model, "sentiment", "review 3"] > 1 for model in ("one", "two"))
    assert len(rows(folder)) == 6


def test_a_teacher_that_does_not_answer_ends_after_some_attempts(folder: Path) -> None:
    def answer(model: str, task: str, text: str) -> Any:
        return sound(task) if model == "one" else Failing(503, {"error": {"message": "down"}})

    with Provider(answer) as provider:
        result = label(write(folder, provider))
        assert result.exit_code == 1
        assert "503: down" in result.stderr and "again to continue" in result.stderr
        asked = sum(calls for (model, _, _), calls in provider.calls.items() if model == "two")
        assert asked <= live.ATTEMPTS * CONCURRENCY
        provider.answer = always()
        assert label(write(folder, provider)).exit_code == 0
    assert len(rows(folder)) == 6


@pytest.mark.parametrize("batch", [False, True], ids=["live", "batches"])
def test_counts_that_no_budget_can_hold_end_the_teacher(folder: Path, batch: bool) -> None:
    wrong = Failing(body=completed('{"label": "positive"}', tokens=(10**6, 5)))
    with Provider(lambda model, task, text: wrong) as provider:
        result = label(write(folder, provider, 50, batch=batch))
        assert result.exit_code == 1 and "no budget holds" in result.stderr
        assert batch or provider.asked <= 2 * CONCURRENCY


def test_an_answer_without_counts_is_kept_and_counts_in_full(folder: Path) -> None:
    silent = {**completed('{"label": "positive"}'), "usage": None}
    with Provider(lambda model, task, text: Failing(body=silent)) as provider:
        result = label(write(folder, provider))
        assert result.exit_code == 0, result.output
    [tokens] = re.findall(r"12 requests, ([\d,]+) tokens", result.stdout)
    assert int(tokens.replace(",", "")) > 12 * 500


def test_a_refused_key_ends_at_once_and_is_not_told(folder: Path) -> None:
    refusal = Failing(401, {"error": {"message": "no such key: s3cret"}})
    with Provider(lambda model, task, text: refusal) as provider:
        result = label(write(folder, provider))
        assert result.exit_code == 1 and "401: the key is refused" in result.stderr
        assert "s3cret" not in result.output
        assert provider.asked <= 2 * CONCURRENCY


def test_a_missing_key_is_told_before_anything_is_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FIRST_KEY")
    with Provider(always()) as provider:
        result = label(write(folder, provider))
        assert result.exit_code == 2 and "FIRST_KEY" in result.stderr
        assert provider.asked == 0


@pytest.mark.parametrize("batch", [False, True], ids=["live", "batches"])
@pytest.mark.parametrize(
    "budget",
    [{"requests": 7}, {"tokens": 3_000}, {"money": 0.003}],
    ids=["requests", "tokens", "money"],
)
def test_no_budget_is_passed_and_the_rest_goes_on_with_more(
    folder: Path, batch: bool, budget: dict[str, float]
) -> None:
    settings = {"price": {"input": 1, "output": 2}, "batch": batch}
    with Provider(always()) as provider:
        for _ in range(3):
            result = label(write(folder, provider, 40, budget, **settings))
            assert result.exit_code == 1, result.output
            assert "no room" in result.stderr
        assert provider.asked > 0
        spent = {
            "requests": provider.asked,
            "tokens": provider.asked * 55,
            "money": provider.asked * 60 / 1e6,
        }
        for bound, value in budget.items():
            assert spent[bound] <= value
        assert label(write(folder, provider, 40, {"money": 100}, **settings)).exit_code == 0
        assert set(provider.calls.values()) == {1}
    assert len(rows(folder)) == 40


def test_a_package_is_a_teacher_too_and_costs_nothing(folder: Path) -> None:
    with Provider(always()) as provider:
        arguments = write(folder, provider)
        content = yaml.safe_load((folder / "teachers.yaml").read_text())
        content["teachers"][1] = {"name": "ours", "package": str(BUNDLED_MODEL)}
        (folder / "teachers.yaml").write_text(yaml.safe_dump(content))
        lines = [json.dumps({"text": text}) for text in ("I love it", "Awful, never again")]
        (folder / "reviews.jsonl").write_text("\n".join(lines))
        result = label(arguments)
        assert result.exit_code == 0, result.output
        assert provider.asked == 2 and "2 requests" in result.stdout
    [dispute] = rows(folder, "disagreements.jsonl")
    assert dispute["units"][0]["said"] == {"first": "positive", "ours": "negative"}


def test_gold_is_asked_unseen_and_judges(folder: Path) -> None:
    def answer(model: str, task: str, text: str) -> Any:
        return sound(task, "negative" if (model, text) == ("two", "gold 0") else "positive")

    with Provider(answer) as provider:
        gold = folder / "gold.jsonl"
        gold.write_text(
            "\n".join(
                json.dumps({"text": f"gold {at}", "sentiment": "positive"}) for at in range(4)
            )
        )
        result = label([*write(folder, provider), "--gold", str(gold)])
        assert result.exit_code == 0, result.output
        assert provider.asked == 2 * 10
    assert "on 4 gold rows the consensus has sentiment.accuracy 1.000" in result.stdout
    assert "best teacher (first) 1.000" in result.stdout
    assert not any("gold" in row["text"] for row in rows(folder))


def running(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "reviewmesh_models.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def reached(provider: Provider, calls: int, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while provider.asked < calls:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.001)


def test_killed_half_way_it_asks_again_at_most_what_was_under_way(folder: Path) -> None:
    with Provider(always(), delay_s=0.005) as provider:
        arguments = write(
            folder, provider, REVIEWS, {"requests": 2 * REVIEWS + 2 * 2 * CONCURRENCY}
        )
        for calls in (REVIEWS // 2, REVIEWS):
            process = running(arguments)
            reached(provider, calls, process)
            process.kill()
            process.communicate()
        process = running(arguments)
        said, _ = process.communicate(timeout=240)
        assert process.returncode == 0, said
        assert len(provider.calls) == 2 * REVIEWS
        assert provider.asked - 2 * REVIEWS <= 2 * 2 * CONCURRENCY
    assert len(rows(folder)) == REVIEWS


def test_batches_are_answered_and_rows_come_out(folder: Path) -> None:
    with Provider(always()) as provider:
        provider.looks_until_done = 3
        result = label(write(folder, provider, 30, batch=True))
        assert result.exit_code == 0, result.output
        assert len(provider.batches) == 2 and provider.asked == 60
        assert label(write(folder, provider, 30, batch=True)).exit_code == 0
        assert len(provider.batches) == 2
    assert len(rows(folder)) == 30


def test_a_batch_that_the_provider_gave_up_is_told_and_asked_again(folder: Path) -> None:
    with Provider(always()) as provider:
        provider.looks_until_done = 10**6

        def expire() -> None:
            for made in provider.batches.values():
                made["status"] = "expired"

        provider.on_batch = expire
        result = label(write(folder, provider, 30, batch=True))
        assert result.exit_code == 1 and "ended as expired" in result.stderr
        provider.on_batch, provider.looks_until_done = lambda: None, 1
        # The other way of asking is as good; nothing is under way any more.
        assert label(write(folder, provider, 30)).exit_code == 0
        assert provider.asked == 60
    assert len(rows(folder)) == 30


@pytest.fixture
def killed_in_batch(folder: Path) -> Iterator[tuple[Provider, list[str]]]:
    """Killed when the provider has made the batch, before it could say so."""
    with Provider(always()) as provider:
        arguments = write(folder, provider, 30, batch=True)
        process = running(arguments)
        provider.on_batch = process.kill
        process.communicate()
        provider.on_batch = lambda: None
        yield provider, arguments


def test_a_batch_that_was_made_at_a_kill_is_found_again(
    folder: Path, killed_in_batch: tuple[Provider, list[str]]
) -> None:
    provider, arguments = killed_in_batch
    assert 1 <= len(provider.batches) <= 2
    result = label(arguments)
    assert result.exit_code == 0, result.output
    assert len(provider.batches) == 2 and set(provider.calls.values()) == {1}
    assert len(rows(folder)) == 30


def test_two_processes_do_not_share_a_folder(folder: Path) -> None:
    with Provider(always(), delay_s=0.2) as provider:
        arguments = write(folder, provider, 100)
        process = running(arguments)
        try:
            reached(provider, 1, process)
            result = label(arguments)
            assert result.exit_code == 1 and "another process" in result.stderr
        finally:
            process.kill()
            process.communicate()


# -- providers that answer anything ----------------------------------------------------------


def only_first(failing: Failing) -> Callable[[str, str, str], Any]:
    return lambda model, task, text: failing if model == "one" else sound(task)


def test_a_redirect_takes_no_text_to_another_host(folder: Path) -> None:
    with Provider(always()) as other:
        away = Failing(307, b"", {"Location": f"{other.url}/chat/completions"})
        with Provider(only_first(away)) as provider:
            result = label(write(folder, provider))
        assert result.exit_code == 1 and "HTTP 307" in result.output
        assert not other.asked


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, completed("x", finish="\ud800"), b"{", [], "x"], ids=range(5)
)
def test_an_answer_of_any_form_ends_only_its_teacher(folder: Path, body: Any) -> None:
    with Provider(only_first(Failing(body=body))) as provider:
        result = label(write(folder, provider))
        assert isinstance(result.exception, SystemExit | None), result.exception
        of_second = [call for call in provider.calls if call[0] == "two"]
    assert len(of_second) == 6 and "second" in result.output


def _line(said: dict[str, Any]) -> bytes:
    return json.dumps(said).encode()


@pytest.mark.parametrize(
    "changed",
    [
        lambda said: b"hello",
        lambda said: b"[1]",
        lambda said: b"{}",
        lambda said: b"[" * 100_000,
        lambda said: b"\xff\xfe",
        lambda said: _line(said | {"custom_id": ["x"]}),
        lambda said: _line(said | {"response": "x"}),
    ],
    ids=range(7),
)
def test_lines_of_a_batch_that_nobody_can_read_count_in_full(
    folder: Path, changed: Callable[[dict[str, Any]], bytes]
) -> None:
    """The provider has worked on them: without an answer, nobody knows what they cost."""
    with Provider(always()) as provider:
        told = provider.batch

        def hostile(made: dict[str, Any]) -> dict[str, Any]:
            done = told(made)
            if file := done.get("output_file_id"):
                lines = provider.files[file].splitlines()
                provider.files[file] = b"\n".join(changed(json.loads(line)) for line in lines)
            return done

        provider.batch = hostile  # type: ignore[method-assign]
        arguments = write(folder, provider, budget={"requests": 12}, batch=True)
        result = label(arguments)
        assert result.exit_code == 1 and "no readable answer for 6 of 6" in result.output
        spent = int(re.search(r"([\d,]+) tokens", result.output)[1].replace(",", ""))  # type: ignore[index]
        assert spent > 12 * 100
        assert "the budget has no room" in label(arguments).output
        assert provider.asked == 12
