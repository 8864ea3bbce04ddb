"""Which records a condition means."""

from __future__ import annotations

import math
from typing import Any

import pytest

from reviewmesh.query.where.matching import matcher
from reviewmesh.query.where.reading import read_condition
from tests.unit.query.conditions import NOW_MS, enriched, result


def decided(text: str, record: dict[str, Any], task: str = "topic") -> bool | None:
    """None where it is unknown: neither it nor its negation matches."""
    yes = matcher(read_condition(text, task, NOW_MS))(record)
    no = matcher(read_condition(f"not ({text})", task, NOW_MS))(record)
    assert not (yes and no)
    return True if yes else False if no else None


def of_version(version: str | None) -> dict[str, Any]:
    return enriched({"topic": result("topic", model_version=version)})


@pytest.mark.parametrize(
    ("version", "text", "expected"),
    [
        ("2", "model_version < 3", True),
        ("10", "model_version < 3", False),
        ("1.10", "model_version > 1.9", True),
        ("1.9", "model_version < 1.10", True),
        ("1.9", 'model_version < "1.10"', True),
        ("1.1", "model_version = 1.10", False),
        ("2", "model_version = 2.0.0", True),
        ("2", "model_version != 2.0", False),
        ("v2", "model_version = 2", True),
        ("2.0rc1", "model_version < 2", True),
        ("2.0.0-beta.2", "model_version < 2.0.0-rc.1", True),
        ("2.0.post1", "model_version > 2", True),
        ("2", "model_version in (1, 2.0)", True),
        ("2", "model_version not in (1, 3)", True),
        # What is no version equals itself alone, and has no order.
        ("latest", "model_version < 3", None),
        ("latest", "model_version >= 3", None),
        ("2026-11-30", "model_version > 2026", None),
        ("latest", 'model_version = "latest"', True),
        ("latest", "model_version = 3", False),
        ("latest", "model_version != 3", True),
        ("2", 'model_version != "latest"', True),
        ("9" * 101, "model_version > 3", None),
        ("9" * 101, f'model_version = "{"9" * 101}"', True),
        ("9" * 5_000, "model_version > 3", None),
        (None, "model_version < 3", None),
        (None, "model_version = 3", None),
        (None, "model_version != 3", None),
        (None, "model_version in (3)", None),
        (None, "model_version not in (3)", None),
        (None, "model_version is null", True),
        ("", "model_version is null", False),
    ],
)
def test_versions(version: str | None, text: str, expected: bool | None) -> None:
    assert decided(text, of_version(version)) is expected


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("da", 'language = "da"', True),
        ("da-DK", 'language = "da"', True),
        ("DA-dk", 'language = "da"', True),
        ("da", 'language = "DA"', True),
        ("da", 'language = "da-DK"', False),
        ("dan", 'language = "da"', False),
        ("zh-Hant-TW", 'language = "zh-hant"', True),
        ("zh-Hant-TW", 'language = "zh-TW"', False),
        ("da-DK", 'language != "da"', False),
        ("en", 'language != "da"', True),
        ("da-DK", 'language in ("en", "da")', True),
        ("da-DK", 'language not in ("en", "da")', False),
        ("en", 'language = "*"', True),
        (None, 'language = "*"', None),
        (None, 'language != "da"', None),
    ],
)
def test_languages(language: str | None, text: str, expected: bool | None) -> None:
    assert decided(text, enriched(language=language)) is expected


@pytest.mark.parametrize(
    ("accepted_at", "text", "expected"),
    [
        # A date is the whole day, in UTC.
        ("2026-11-29T23:59:59.999Z", "accepted_at < 2026-11-30", True),
        ("2026-11-30T00:00:00.000Z", "accepted_at < 2026-11-30", False),
        ("2026-11-30T23:59:59.999Z", "accepted_at <= 2026-11-30", True),
        ("2026-12-01T00:00:00.000Z", "accepted_at <= 2026-11-30", False),
        ("2026-11-30T23:59:59.999Z", "accepted_at > 2026-11-30", False),
        ("2026-12-01T00:00:00.000Z", "accepted_at > 2026-11-30", True),
        ("2026-11-30T00:00:00.000Z", "accepted_at >= 2026-11-30", True),
        ("2026-11-30T17:00:00.000Z", "accepted_at = 2026-11-30", True),
        ("2026-12-01T00:00:00.000Z", "accepted_at != 2026-11-30", True),
        ("2026-11-30T17:00:00.000Z", "accepted_at in (2026-11-29, 2026-11-30)", True),
        # Anything else is a moment.
        ("2026-11-30T08:00:00.000Z", "accepted_at = 2026-11-30T09:00:00+01:00", True),
        ("2026-11-30T08:00:00.001Z", "accepted_at = 2026-11-30T09:00:00+01:00", False),
        ("2026-11-30T08:00:00.001Z", "accepted_at > 2026-11-30T08:00:00Z", True),
        ("2026-11-23T12:00:00.000Z", "accepted_at < 7d ago", False),
        ("2026-11-23T11:59:59.999Z", "accepted_at < 7d ago", True),
        ("2026-11-23T12:00:00.000Z", "accepted_at >= 7d ago", True),
    ],
)
def test_times(accepted_at: str, text: str, expected: bool) -> None:
    # The field is named by itself, and its value read as an equal moment.
    moment = read_condition(f"accepted_at = {accepted_at}", "topic", NOW_MS).value.start_ms  # type: ignore[union-attr]
    assert decided(text, enriched(accepted_at=moment)) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stars = 4", True),
        ("stars >= 4.5", False),
        ("stars in (1, 2)", False),
        ("stars in (1, 4.0)", True),
        ("revision > 2 and revision <= 3", True),
        ("attempts < 1e1", True),
        ('business_id = "b-1" and source = "web"', True),
        ('business_id = "B-1"', False),
        ('review_id in ("r-0", "r-1")', True),
        ('title = "x"', None),
        ('title != "x"', None),
        ("title is null", True),
        ("title is not null", False),
        ('title = "x" or complete', True),
        ('title = "x" and complete', None),
        ('title = "x" and not complete', False),
        ('title = "x" or not complete', None),
        ("complete", True),
        ("complete = false", False),
        ("complete != false", True),
        ("complete in (true, false)", True),
        ('status = "OK" and topic.status = "OK"', True),
        ("created_at < 7d ago", None),
        ("enriched_at > 24h ago", True),
        ("topic_at < 0s ago", True),
        ("source_offset = 7", True),
        ('model_digest = "sha256:0a"', True),
        ("cost_micros > 0", None),
    ],
)
def test_values(text: str, expected: bool | None) -> None:
    assert decided(text, enriched()) is expected


def test_the_lineage_is_that_of_the_task_unless_another_is_named() -> None:
    record = enriched(
        {
            "ner": result("ner", model_version="1", route="fallback"),
            "topic": result("topic", model_version="5"),
        }
    )
    assert decided("model_version < 3", record, task="ner") is True
    assert decided("model_version < 3", record, task="topic") is False
    assert decided("ner.model_version < 3 and model_version = 5", record, task="topic") is True
    assert decided('route = "fallback"', record, task="ner") is True
    assert decided('ner.route = "fallback"', record, task="topic") is True
    assert decided('status = "TIMEOUT"', record, task="sentiment") is True
    assert decided("sentiment_at is null and ner_at is not null", record) is True


def test_a_task_without_an_answer_has_no_lineage() -> None:
    record = enriched({"topic": result("topic", status="FAILED")})
    assert decided("model_version < 3", record) is None
    assert decided('model_version < 3 or status = "FAILED"', record) is True
    assert decided('error = "the model gave no answer"', record) is True
    assert decided("attempts is null", record) is True


def test_what_a_record_of_another_time_has_not_is_null() -> None:
    record = {**enriched(), "tasks": {}, "timings": None}
    assert decided('status = "OK"', record) is None
    assert decided("ner.model_version is null", record) is True
    assert decided("enriched_at < 0s ago", record) is None


def test_a_double_that_is_no_number_is_null() -> None:
    record = enriched({"topic": result("topic", queue_ms=math.nan)}, stars=math.nan)
    for field in ("stars", "queue_ms"):
        assert decided(f"{field} < 3", record) is None
        assert decided(f"{field} != 3", record) is None
        assert decided(f"{field} is null", record) is True
