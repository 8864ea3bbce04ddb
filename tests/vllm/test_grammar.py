"""What a chat model is trained to write, and what it may write when it serves, by real xgrammar."""

from __future__ import annotations

import pytest
import xgrammar

from reviewmesh_worker.tasks import NER
from reviewmesh_worker.tasks.answers import MAX_SPANS, answer_of, spans_grammar
from reviewmesh_worker.tasks.definition import load_tasks

TASK = load_tasks()[NER]
END = 256
BYTES = [bytes([number]) for number in range(END)] + [b"<end>"]


@pytest.fixture(scope="module")
def grammar() -> xgrammar.CompiledGrammar:
    tokens = xgrammar.TokenizerInfo(BYTES, stop_token_ids=[END])
    return xgrammar.GrammarCompiler(tokens).compile_grammar(spans_grammar(TASK))


def row(*names: str) -> dict[str, object]:
    """A row that holds these names one after the other, of every label in turn."""
    labels = TASK.label_ids
    starts = [sum(len(name) for name in names[:at]) for at in range(len(names))]
    return {
        "entities": [
            {"start": start, "label": labels[at % len(labels)], "text": name}
            for at, (start, name) in enumerate(zip(starts, names, strict=True))
        ]
    }


def may_be_written(grammar: xgrammar.CompiledGrammar, answer: str) -> bool:
    """The whole of it, with an end after it."""
    matcher = xgrammar.GrammarMatcher(grammar)
    return matcher.accept_string(answer) and matcher.accept_token(END)


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("Anna",),
        ("Anna", "Rick's", "Lisbon", "The Third Man", "Galaxy S9", "Zoë"),
        ('7" Records', "AC\\DC", "a\nb", "a\tb", "a\x01b", "a\x7fb", "a/b"),
        ("東京", "Müller", "👍🏽", "\u202eabc"),
        ("x" * 1_000,),
        ("a",) * MAX_SPANS,
    ],
)
def test_what_is_learned_may_be_written(
    grammar: xgrammar.CompiledGrammar, names: tuple[str, ...]
) -> None:
    assert may_be_written(grammar, answer_of(TASK, row(*names)))


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Anna",
        "[ ]",
        '[{"label":"person","text":"Anna"}]',
        '[{"label": "deity", "text": "Anna"}]',
        '[{"label": "person", "text": ""}]',
        '[{"label": "person", "text": "Anna"}, ]',
        '[{"label": "person", "text": "A\nB"}]',
        answer_of(TASK, row(*("a",) * MAX_SPANS))[:-1] + ', {"label": "person", "text": "b"}]',
    ],
)
def test_nothing_else_may(grammar: xgrammar.CompiledGrammar, answer: str) -> None:
    assert not may_be_written(grammar, answer)
