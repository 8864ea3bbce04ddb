"""The request to an OpenAI-compatible endpoint for a text, and the cost of its answer.

Prompt, schema and parsing are those of the worker's engine `openai`: a teacher gets the same
requests as from the mesh.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from openai.types.chat import ChatCompletion

from reviewmesh_models.labelling.answers import Labels, Spent, TeacherFailure, labels_of
from reviewmesh_models.labelling.teachers import Teacher
from reviewmesh_worker.engines.interface import ItemFailure
from reviewmesh_worker.engines.openai.engine import read_completion, text_for_prompt, tokens_of
from reviewmesh_worker.tasks.answers import answer_form, answer_schema
from reviewmesh_worker.tasks.definition import Task
from reviewmesh_worker.tasks.prompt import prefix_of

REFUSED: Final = "REFUSED"

_PER_CALL: Final = 64
"""Tokens that an endpoint may add to a request: its chat template."""
_PER_WORD: Final = 32
"""Tokens of one label with its name and the JSON around it, at most."""
_SPAN_TOKENS: Final = 1024
_LONGEST_TEXT: Final = 100_000
"""Characters; of a longer review the middle is left out."""


def request_of(teacher: Teacher, task: Task, text: str) -> dict[str, Any]:
    """The body of a chat completion."""
    words = f"{answer_form(task)}\n\n{prefix_of(task)}{text_for_prompt(text, _LONGEST_TEXT)}"
    body: dict[str, Any] = {
        "model": teacher.model,
        "messages": [{"role": "user", "content": words}],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": task.name, "strict": True, "schema": answer_schema(task)},
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


def read_teacher_completion(
    teacher: Teacher, task: Task, text: str, body: Mapping[str, Any]
) -> tuple[Labels | TeacherFailure, Spent | None]:
    """The labels of a chat completion, and its cost; None if it does not report its usage."""
    completion = ChatCompletion.construct(**body)
    outcome = read_completion(task, completion, text)
    tokens = tokens_of(completion)
    cost = None
    if tokens is not None:
        prompt, _, completed = tokens
        cost = spent(teacher, prompt, completed)
    if isinstance(outcome, ItemFailure):
        return TeacherFailure(outcome.code, outcome.message), cost
    return labels_of(outcome), cost
