"""What is no condition is refused: the reason, and a caret below what is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reviewmesh.query.where.errors import EXCERPT_LENGTH, BadCondition
from reviewmesh.query.where.expression import And, Comparison, Not, Or, TimeSpan
from reviewmesh.query.where.fields import FieldKind, fields_of
from reviewmesh.query.where.grammar import MAX_DEPTH, MAX_LENGTH
from reviewmesh.query.where.reading import read_condition
from tests.unit.query.conditions import NOW_MS

PAGE = Path(__file__).parents[3] / "docs/reprocess.md"
WORDS = [
    "stars",
    "complete",
    "language",
    "accepted_at",
    "status",
    "ner.model_version",
    "nothing",
    "and",
    "or",
    "not",
    "in",
    "is",
    "null",
    "true",
    "ago",
    "(",
    ")",
    ",",
    "=",
    "!=",
    "<=",
    ">",
    "4",
    "1.10",
    "2026-11-30",
    "7d",
    "'da'",
    '"OK"',
    "“",
    "\\",
]


def refused(text: str, task: str = "topic") -> BadCondition:
    with pytest.raises(BadCondition) as raised:
        read_condition(text, task, NOW_MS)
    return raised.value


@pytest.mark.parametrize(
    ("marked", "reason"),
    [
        # What is wrong stands between « and ».
        ("«»", 'expected a field, "\\(" or "not", got the end of the condition'),
        ("complete or «»", "got the end of the condition"),
        ("(complete«»", 'expected .*"\\)", "and".* or "or", got the end of the condition'),
        ("complete«)»", 'expected .*"and", .*"or" or the end, got \\)'),
        ("stars «~» 3", "expected one of = != < <= > >=, .* got ~"),
        ("stars =«=» 4", "expected a value, got =; write = in place of =="),
        ("stars <«>» 4", "expected a value, got >; write != in place of <>"),
        ("«3» < stars", "expected a field, .* got 3"),
        ("stars in «4»", 'expected "\\(", got 4'),
        ("stars in («)»", "expected a value, got \\)"),
        ("stars in (4 «5»)", 'expected .*"\\)".* a comma.*, got 5'),
        ("not «not» complete", "got not"),
        ("stars is «4»", 'expected "not" or "null", got 4'),
        ("model = «qwen»", 'expected a value, got qwen; write text in quotes: "qwen"'),
        ("model = «null»", "got null; write is null or is not null"),
        ('model = «"»qwen', 'expected a closing "'),
        ("language = «“»da”", "expected a value, got “"),
        ("«\x1b»[31m = 3", "got \ufffd"),
        ("«modle_version» < 3", "is not a field: did you mean model_version?"),
        ("«ner.modle_version» < 3", "did you mean ner.model_version?"),
        ("«Language» = 'da'", "did you mean language?"),
        ("«xyzzy» = 3", "expected one of acceptance, accepted_at, .*, topic_at"),
        ("«topics» = 'food'", "it has more than one value"),
        ("«attributes» is null", "it has more than one value"),
        ("«stars»", "stars is a number: expected a comparison, such as"),
        ('stars < «"x"»', 'stars is a number: expected one such as 4 or 4.5.*, got "x"'),
        ("stars < «'4'»", "without quotes, got '4'"),
        ("stars < «1.2.3»", "got 1.2.3"),
        ("stars < «1_000»", "got 1_000"),
        ("stars = «true»", "stars is a number"),
        ("stars < «7d ago»", "stars is a number"),
        ("stars < «1e999»", "expected one of a magnitude below 1e308"),
        (f"stars < «{'9' * 5_000}»", "expected one of a magnitude below 1e308"),
        ("stars in (4, «'x'», 5)", "stars is a number"),
        ("business_id = «7»", 'business_id is text: expected it in quotes, such as "en", got 7'),
        ("business_id «<» 'b'", "business_id is text, which has no order: expected =, != or in"),
        ("language «>=» 'da'", "language is a language, which has no order"),
        ("complete «<» true", "complete is true or false, which has no order"),
        ("complete = «1»", "complete is true or false: expected true or false, got 1"),
        ('status = «"failed"»', '"FALLBACK" \\(did you mean FAILED\\?\\), got "failed"'),
        ("ner.status in (\"OK\", «'x'»)", "ner.status is a task's status: expected one of"),
        ("model_version < «'latest'»", "expected one of PEP 440"),
        ("model_version = «true»", "model_version is a version"),
        ("model_version = «7d ago»", "model_version is a version"),
        ("accepted_at > «7»", "accepted_at is a time: expected one such as 2026-11-30"),
        ("accepted_at > «'yesterday'»", "accepted_at is a time"),
        ("accepted_at > «2026-02-30»", "accepted_at is a time"),
        ("accepted_at > «20261130»", "accepted_at is a time"),
        ("accepted_at > «7y ago»", "accepted_at is a time"),
        ("accepted_at > «7ſ ago»", "accepted_at is a time"),
        ("accepted_at > «1969-12-31»", "expected one from 1970 to 9999"),
        ("accepted_at > «999999999w ago»", "expected one from 1970 to 9999"),
    ],
)
def test_a_refusal_marks_what_is_wrong(marked: str, reason: str) -> None:
    before, _, rest = marked.partition("«")
    wrong, _, behind = rest.partition("»")
    text = before + wrong + behind
    error = refused(text)
    assert error.start == len(before)
    first, shown, carets = str(error).splitlines()
    assert re.search(reason, first), first
    if len(text) <= EXCERPT_LENGTH:
        assert carets == " " * (2 + len(before)) + "^" * max(1, len(wrong))
        assert len(shown) == 2 + len(text)
    assert len(str(error)) < 1_000


def test_a_long_condition_is_shown_around_what_is_wrong() -> None:
    text = "complete and " * 500 + "starz = 4" + " and complete" * 500
    _, shown, carets = str(refused(text)).splitlines()
    assert len(shown) == 2 + EXCERPT_LENGTH
    assert shown[carets.index("^") :].startswith("starz = 4")
    assert carets.strip() == "^" * len("starz")


def test_lines_are_shown_as_one() -> None:
    _, shown, carets = str(refused("complete\n\tand starz = 4")).split("\n")
    assert shown == "  complete  and starz = 4"
    assert carets == " " * shown.index("starz") + "^" * len("starz")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("(" * 10_000, f"expected at most {MAX_DEPTH} nested parentheses"),
        ("(" * 7_000 + "complete" + ")" * 7_000, f"at most {MAX_DEPTH} nested parentheses"),
        ("not (" * 3_000, f"at most {MAX_DEPTH} nested parentheses"),
        (
            "x" * 1_000_000,
            f"expected a condition of at most {MAX_LENGTH:,} characters, got 1,000,000",
        ),
        ("(" * 1_000_000, "got 1,000,000"),
        ("'" + "\\" * (MAX_LENGTH - 1), "expected a closing '"),
        ("a." * (MAX_LENGTH // 2), "is not a field"),
        ("1" * MAX_LENGTH, "expected a field"),
    ],
    ids=lambda value: value[:20],
)
def test_a_hostile_condition_is_refused(text: str, reason: str) -> None:
    assert reason in str(refused(text))
    assert len(str(refused(text))) < 1_500


def test_the_deepest_and_the_longest_are_taken() -> None:
    deep = "not (" * MAX_DEPTH + "complete" + ")" * MAX_DEPTH
    assert isinstance(read_condition(deep, "topic", NOW_MS), Not)
    side_by_side = " and ".join(["(complete)"] * (MAX_DEPTH + 1))
    assert isinstance(read_condition(side_by_side, "topic", NOW_MS), And)
    long = " or ".join(["complete"] * ((MAX_LENGTH + 4) // len("complete or ")))
    assert MAX_LENGTH - len("complete or ") < len(long) <= MAX_LENGTH
    assert isinstance(read_condition(long, "topic", NOW_MS), Or)


@given(st.text() | st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join))
def test_whatever_is_written_is_read_or_refused_in_three_lines(text: str) -> None:
    try:
        read_condition(text, "topic", NOW_MS)
    except BadCondition as error:
        assert 0 <= error.start <= len(text)
        _, shown, carets = str(error).split("\n")
        assert set(carets) == {" ", "^"}
        assert len(carets) <= len(shown) + 1
        assert len(shown) <= 2 + EXCERPT_LENGTH


def test_and_binds_closer_than_or_and_not_closest() -> None:
    read_ = read_condition("not complete or stars = 4 and revision > 1", "topic", NOW_MS)
    assert isinstance(read_, Or)
    assert [type(part) for part in read_.parts] == [Not, And]
    assert str(read_) == "(not complete = true) or (stars = 4 and revision > 1)"


def test_keywords_are_taken_in_any_case_and_text_in_either_quotes() -> None:
    one = read_condition("NOT complete IN (TRUE)", "topic", NOW_MS)
    assert one == read_condition("not complete in (true)", "topic", NOW_MS)
    assert read_condition("model = 'a\\'b\"\\\\'", "topic", NOW_MS) == read_condition(
        'model = "a\'b\\"\\\\"', "topic", NOW_MS
    )


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2026-11-30", "2026-11-30"),
        ("'2026-11-30'", "2026-11-30"),
        ("2026-11-30T08:00:00Z", "2026-11-30T08:00:00.000Z"),
        ("2026-11-30T08:00", "2026-11-30T08:00:00.000Z"),
        ("'2026-11-30 08:00:00.5'", "2026-11-30T08:00:00.500Z"),
        ("2026-11-30T08:00:00.1239+01:00", "2026-11-30T07:00:00.123Z"),
        ("7d ago", "2026-11-23T12:00:00.000Z"),
        ("'90m ago'", "2026-11-30T10:30:00.000Z"),
        ("2w  AGO", "2026-11-16T12:00:00.000Z"),
        ("0s ago", "2026-11-30T12:00:00.000Z"),
        ("36h ago", "2026-11-29T00:00:00.000Z"),
    ],
)
def test_times(written: str, meant: str) -> None:
    read_ = read_condition(f"accepted_at >= {written}", "topic", NOW_MS)
    assert str(read_) == f"accepted_at >= {meant}"
    assert isinstance(read_, Comparison) and isinstance(read_.value, TimeSpan)
    assert read_.value.end_ms - read_.value.start_ms == (86_400_000 if len(meant) == 10 else 1)


def test_fields_and_their_kinds_are_those_of_the_schema() -> None:
    fields = fields_of("topic")
    kinds = {name: field.kind for name, field in fields.items()}
    assert kinds["model_version"] is kinds["ner.prompt_version"] is FieldKind.VERSION
    assert kinds["language"] is FieldKind.LANGUAGE
    assert kinds["status"] is kinds["topic.status"] is FieldKind.STATUS
    assert kinds["stars"] is kinds["attempts"] is kinds["cost_micros"] is FieldKind.NUMBER
    assert kinds["created_at"] is kinds["enriched_at"] is kinds["topic_at"] is FieldKind.TIME
    assert kinds["complete"] is FieldKind.FLAG
    assert kinds["route"] is kinds["error"] is kinds["business_id"] is FieldKind.TEXT
    assert fields["model_version"].path == ("tasks", "topic", "lineage", "model_version")
    assert fields_of("ner")["status"].path == ("tasks", "ner", "status")
    assert fields["accepted_at"].path == ("accepted_at",)


def test_a_task_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected one of the tasks ner, .* got 'mood'"):
        read_condition("complete", "mood", NOW_MS)


def test_the_conditions_of_the_page_are_conditions() -> None:
    _, _, section = PAGE.read_text().partition("## Which answers")
    examples, *_ = re.findall(r"^```text\n(.*?)^```", section, re.M | re.S)
    assert [read_condition(line, "topic", NOW_MS) for line in examples.splitlines()]
