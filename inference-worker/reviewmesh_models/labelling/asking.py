"""What an OpenAI-compatible endpoint is asked of a text, and how its answer is read.

The task's own prompt, with an answer that is held to a JSON schema: one field per label of the
task, so that nothing but labels can come back. Reading checks it again: not every endpoint keeps
to a schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from reviewmesh_models.labelling.answers import Failure, Labels, Spent
from reviewmesh_models.labelling.teachers import Teacher
from reviewmesh_worker.tasks.answers import MAX_SPANS, read_spans
from reviewmesh_worker.tasks.definition import NO_POLARITY, POLARITIES, Task
from reviewmesh_worker.tasks.prompt import prefix_of

INVALID_ANSWER: Final = "INVALID_ANSWER"
TRUNCATED: Final = "TRUNCATED"
REFUSED: Final = "REFUSED"

_PER_CALL: Final = 64
"""Tokens that an endpoint may add around what it is sent: roles, turns."""
_PER_WORD: Final = 32
"""Tokens of one label with its name and the JSON around it, at most."""
_SPAN_TOKENS: Final = 1024
_SURROGATES: Final = re.compile("[\ud800-\udfff]")


def request_of(teacher: Teacher, task: Task, text: str) -> dict[str, Any]:
    """The body of a chat completion."""
    # Half a surrogate pair has no UTF-8.
    words = prefix_of(task) + _SURROGATES.sub("\ufffd", text)
    body: dict[str, Any] = {
        "model": teacher.model,
        "messages": [{"role": "user", "content": words}],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": task.name, "strict": True, "schema": _schema(task)},
        },
        "max_completion_tokens": answer_tokens(teacher, task),
    }
    if teacher.temperature is not None:
        body["temperature"] = teacher.temperature
    return body


def bound_of(teacher: Teacher, task: Task, text: str) -> Spent:
    """The most that a call can cost: no token is shorter than a byte of what is sent."""
    sent = len(json.dumps(request_of(teacher, task, text), ensure_ascii=False).encode())
    return spent(teacher, sent + _PER_CALL, answer_tokens(teacher, task))


def spent(teacher: Teacher, prompt_tokens: int, completion_tokens: int) -> Spent:
    money = 0.0
    if teacher.price is not None:
        paid = prompt_tokens * teacher.price.input + completion_tokens * teacher.price.output
        money = paid / 1e6
    return Spent(prompt_tokens, completion_tokens, money)


def answer_tokens(teacher: Teacher, task: Task) -> int:
    if teacher.answer_tokens is not None:
        return teacher.answer_tokens
    if task.answer == "spans":
        return _SPAN_TOKENS
    return _PER_WORD * (len(task.labels) if task.answer == "polarity_per_label" else 1)


def read_completion(
    teacher: Teacher, task: Task, text: str, body: Mapping[str, Any]
) -> tuple[Labels | Failure, Spent | None]:
    """What a chat completion says, and what it cost; None where it does not say so."""
    usage = body.get("usage")
    cost = None
    if isinstance(usage, Mapping):
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if isinstance(prompt, int) and isinstance(completion, int) and min(prompt, completion) >= 0:
            cost = spent(teacher, prompt, completion)
    try:
        choice = body["choices"][0]
        message = choice["message"]
        if message.get("refusal"):
            return Failure(REFUSED, str(message["refusal"])[:200]), cost
        if choice.get("finish_reason") == "content_filter":
            return Failure(REFUSED, "the provider's filter held the answer back"), cost
        if choice.get("finish_reason") == "length":
            return Failure(TRUNCATED, "the answer is longer than answer_tokens"), cost
        return read_answer(task, text, message["content"]), cost
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        return Failure(INVALID_ANSWER, f"expected a chat completion, found no {error}"), cost


def read_answer(task: Task, text: str, content: Any) -> Labels | Failure:
    try:
        said = json.loads(content)
        return _labels(task, text, said)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return Failure(INVALID_ANSWER, f"{type(error).__name__}: {error}"[:200])


def _labels(task: Task, text: str, said: Mapping[str, Any]) -> Labels:
    if task.answer == "label":
        return {"sentiment": _one_of(task.label_ids, said["sentiment"])}
    if task.answer == "polarity_per_label":
        polarities = {
            label: _one_of((NO_POLARITY, *POLARITIES), said[label]) for label in task.label_ids
        }
        return {
            "topics": [
                {"topic": label, "polarity": polarity}
                for label, polarity in polarities.items()
                if polarity != NO_POLARITY
            ]
        }
    spans = read_spans(task, json.dumps(said["names"]), text)
    return {
        "entities": [
            {
                "start": span.start,
                "end": span.end,
                "label": span.label,
                "text": text[span.start : span.end],
            }
            for span in spans[:MAX_SPANS]
        ]
    }


def _one_of(allowed: tuple[str, ...], said: Any) -> str:
    if said not in allowed:
        raise ValueError(f"expected one of {', '.join(allowed)}, got {str(said)[:40]!r}")
    return str(said)


def _schema(task: Task) -> dict[str, Any]:
    if task.answer == "label":
        return _object({"sentiment": _enum(task.label_ids)})
    if task.answer == "polarity_per_label":
        return _object({label: _enum((NO_POLARITY, *POLARITIES)) for label in task.label_ids})
    name = _object({"label": _enum(task.label_ids), "text": {"type": "string"}})
    return _object({"names": {"type": "array", "items": name}})


def _object(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(fields),
        "required": list(fields),
        "additionalProperties": False,
    }


def _enum(words: tuple[str, ...]) -> dict[str, Any]:
    return {"type": "string", "enum": list(words)}
