"""The form of a chat model's answer, in training and in serving.

`label`: one word. `polarity_per_label`: one word for each label, in the order of the task. `spans`:
a JSON list of `{"label", "text"}` in the order of the text. A word is one token of the model's
vocabulary with a space before it, so that its probability is that of the answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from reviewmesh_worker.tasks.definition import NO_POLARITY, POLARITIES, Task

MAX_SPANS: Final = 64
_LABEL: Final = "label"
_NAMES: Final = "names"


@dataclass(frozen=True, slots=True)
class LabelledSpan:
    """`text[start:end]` in code points; `position`: its index in the answer."""

    start: int
    end: int
    label: str
    position: int


def words_of(task: Task) -> tuple[str, ...]:
    """The words that an answer may contain; none for spans."""
    if task.answer == "label":
        return task.label_ids
    return (NO_POLARITY, *POLARITIES) if task.answer == "polarity_per_label" else ()


def words_in_answer(task: Task) -> int:
    """How many words an answer has."""
    return len(task.labels) if task.answer == "polarity_per_label" else 1


def answer_of(task: Task, row: Mapping[str, Any]) -> str:
    """The expected answer for a labelled row; words begin with a space, JSON does not."""
    if task.answer == "label":
        return f" {row['sentiment']}"
    if task.answer == "polarity_per_label":
        said = {topic["topic"]: topic["polarity"] for topic in row["topics"]}
        return "".join(f" {said.get(label, NO_POLARITY)}" for label in task.label_ids)
    names = sorted(row["entities"], key=lambda entity: int(entity["start"]))
    spans = [{"label": name["label"], "text": name["text"]} for name in names]
    return json.dumps(spans[:MAX_SPANS], ensure_ascii=False)


def spans_grammar(task: Task) -> str:
    """The grammar of an answer, in xgrammar's EBNF.

    Exactly the form of `answer_of`, including spaces. With a JSON schema vLLM would forbid the
    spaces that a model learned, and a small model then generates text unlike its training.
    """
    labels = " | ".join(f'"{label}"' for label in task.label_ids)
    return "\n".join(
        (
            f'root ::= "[]" | "[" name (", " name){{0,{MAX_SPANS - 1}}} "]"',
            r'name ::= "{\"label\": \"" label "\", \"text\": \"" character rest "}"',
            f"label ::= {labels}",
            # Recursive up to the closing quotation mark, so that xgrammar can cache the token mask.
            # A repeated class is evaluated for every generated token, a bounded one takes tens of
            # milliseconds. The length of the answer is bounded anyway.
            r'rest ::= "\"" | [^\0-\x1f\"\\\r\n] rest | "\\" escape rest',
            r'character ::= [^\0-\x1f\"\\\r\n] | "\\" escape',
            r'escape ::= ["\\/bfnrt] | "u" [A-Fa-f0-9]{4}',
        )
    )


def read_spans(task: Task, answer: str, text: str) -> list[LabelledSpan]:
    """The spans of an answer's names in the text; names that are not in it are left out.

    Names come in the order of the text: each is searched after the one before it, then anywhere
    that no other name covers. Raises ValueError when the answer is no list of names.
    """
    return place_names(task, _checked(json.loads(answer), answer), text)


def answer_schema(task: Task) -> dict[str, Any]:
    """The JSON schema of an answer, for servers that hold a model to one.

    An object, with every property required and no other one allowed: what the strict mode of
    OpenAI's `response_format` takes.
    """
    if task.answer == "label":
        return _object({_LABEL: _one_of(task.label_ids)})
    if task.answer == "polarity_per_label":
        return _object({label: _one_of(words_of(task)) for label in task.label_ids})
    name = _object({"label": _one_of(task.label_ids), "text": {"type": "string"}})
    return _object({_NAMES: {"type": "array", "items": name}})


def answer_form(task: Task) -> str:
    """The same in words, for the prompt: its own words ask for an answer that is no object."""
    if task.answer == "label":
        form = f'{{"{_LABEL}": the word}}'
    elif task.answer == "polarity_per_label":
        form = "{topic: word}, with every topic of the list"
    else:
        form = f'{{"{_NAMES}": the list}}, each name as {{"label": its label, "text": its words}}'
    return f"Write the answer as one JSON object: {form}."


def read_json_label(task: Task, answer: str) -> str:
    """The label of an answer that follows `answer_schema`. Raises ValueError."""
    label = _object_in(answer).get(_LABEL)
    if label not in task.label_ids:
        raise ValueError(f"expected one of {', '.join(task.label_ids)}, got {str(label)[:80]!r}")
    return str(label)


def read_json_polarities(task: Task, answer: str) -> dict[str, str]:
    """By topic, those that the answer speaks of. Raises ValueError."""
    said = _object_in(answer)
    for label in task.label_ids:
        if said.get(label) not in words_of(task):
            raise ValueError(
                f"expected one of {', '.join(words_of(task))} for {label}, "
                f"got {str(said.get(label))[:80]!r}"
            )
    return {label: said[label] for label in task.label_ids if said[label] != NO_POLARITY}


def read_json_spans(task: Task, answer: str, text: str) -> list[LabelledSpan]:
    """As `read_spans`, of an answer that follows `answer_schema`. Raises ValueError."""
    return place_names(task, _checked(_object_in(answer).get(_NAMES), answer), text)


def place_names(task: Task, names: Sequence[Mapping[str, Any]], text: str) -> list[LabelledSpan]:
    """Names where they stand in the text, see `read_spans`."""
    spans: list[LabelledSpan] = []
    after = 0
    for position, name in enumerate(names):
        label, words = str(name["label"]), str(name["text"])
        start = _find(text, words, after, spans)
        if start is None or label not in task.label_ids:
            continue
        spans.append(LabelledSpan(start, start + len(words), label, position))
        after = start + len(words)
    return sorted(spans, key=lambda span: span.start)


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def _one_of(words: Sequence[str]) -> dict[str, Any]:
    return {"type": "string", "enum": list(words)}


def _object_in(answer: str) -> dict[str, Any]:
    try:
        said = json.loads(answer)
    except RecursionError as error:
        raise ValueError("expected JSON that is not nested so deep") from error
    if not isinstance(said, dict):
        raise ValueError(f"expected a JSON object, got {answer[:80]!r}")
    return said


def _checked(names: Any, answer: str) -> Sequence[Mapping[str, Any]]:
    if not isinstance(names, list) or not all(
        isinstance(name, dict) and {"label", "text"} <= name.keys() for name in names
    ):
        raise ValueError(f"expected a list of names with label and text, got {answer[:80]!r}")
    return names


def _find(text: str, words: str, after: int, taken: Sequence[LabelledSpan]) -> int | None:
    for begin in (after, 0):
        at = text.find(words, begin) if words.strip() else -1
        while at >= 0:
            if not any(span.start < at + len(words) and at < span.end for span in taken):
                return at
            at = text.find(words, at + 1)
    return None
