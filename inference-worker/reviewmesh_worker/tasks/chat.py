"""A task as a chat model's tokens, the same in training and in serving.

A prompt has three parts: a prefix (the same for every review of the task, so that its KV cache is
shared), the review, and a suffix that opens the model's turn. Each is tokenized separately, so that
no review changes the tokens of the other parts. Training and serving use the same prompts: nothing
else in the project builds them.

A model's answer is `answers.answer_of` and ends with the token that closes its turn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from reviewmesh_worker.tasks.answers import answer_of, words_in_answer, words_of
from reviewmesh_worker.tasks.definition import Task
from reviewmesh_worker.tasks.prompt import prefix_of, without_turn_tokens

MAX_SPAN_TOKENS: Final = 512
"""The longest answer that is written for spans; a shorter context allows a quarter of itself."""

LEFT_OUT: Final = " […] "
"""Replaces the middle of a review that was cut."""

_LEAST_ROOM: Final = 32
"""Tokens of a review, below which a context is too short for a task."""
_SURROGATES: Final = re.compile("[\ud800-\udfff]")
_STAND_IN: Final = "\ue000"
"""A placeholder in a rendered conversation; no template contains it."""


class ChatError(ValueError):
    """A tokenizer that cannot serve a task; the message says what it lacks."""


class ChatPrompts:
    """Prompts and answers of one task in the tokens of one model.

    `tokenizer` is a fast one of `transformers`, with a chat template. `context` is the number of
    tokens that the model reads and writes at most. A review for which there is no room beside the
    longest answer has its middle replaced by `LEFT_OUT`: the beginning and the end of a review tell
    most.

    Raises ChatError when the tokenizer has no chat template, when an answer's word is not one token
    or when the context has no room for a review.
    """

    def __init__(self, tokenizer: Any, task: Task, context: int) -> None:
        self.task = task
        self.context = context
        # Not through `transformers`, which makes a batch of every text and passes it to other
        # threads, for which the event loop would have to wait.
        self._tokenizer = tokenizer.backend_tokenizer
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        before, after = _render(tokenizer, [_user(prefix_of(task) + _STAND_IN)], opened=True)
        closing = _render(tokenizer, [_user("-"), _model(_STAND_IN)], opened=False)[1]
        self.prefix: Final = tuple(self._encode([before])[0])
        self.suffix: Final = tuple(self._encode([after])[0])
        self.end: Final = self._one_token(closing)
        """The token that closes the model's turn, and ends an answer."""
        self.words: Final = words_of(task)
        """What an answer is made of; empty for spans."""
        self.word_ids: Final = tuple(self._word_id(word) for word in self.words)
        """The token of each of `words` with a space before it."""
        self._left_out = self._encode([LEFT_OUT])[0]
        turns = before + after + closing
        self._turn_ids = {
            id: str(token)
            for id, token in tokenizer.added_tokens_decoder.items()
            if str(token).strip() and (token.special or str(token) in turns)
        }

    @property
    def answer_tokens(self) -> int:
        """The longest answer, in tokens, with the one that ends it."""
        if self.task.answer == "spans":
            return min(MAX_SPAN_TOKENS, self.context // 4)
        return words_in_answer(self.task) + 1

    @property
    def room(self) -> int:
        """The longest review, in tokens."""
        room = self.context - len(self.prefix) - len(self.suffix) - self.answer_tokens
        if room < _LEAST_ROOM:
            raise ChatError(
                f"expected a context with room for a review, but the prompt of {self.task.name} "
                f"takes {len(self.prefix) + len(self.suffix)} and its answer {self.answer_tokens} "
                f"of {self.context} tokens; give the model a longer context"
            )
        return room

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of a whole prompt per text."""
        return [[*self.prefix, *ids, *self.suffix] for ids in self.reviews(texts)]

    def reviews(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of the texts alone, without turn tokens, cut to `room`."""
        marks = self._turn_ids.values()
        # Tokenizers take no lone surrogates.
        whole = [_SURROGATES.sub("\ufffd", text) for text in texts]
        encoded = self._encode([without_turn_tokens(text, marks) for text in whole])
        return [self._fitting([id for id in ids if id not in self._turn_ids]) for ids in encoded]

    def answers(self, rows: Sequence[Mapping[str, Any]]) -> list[list[int]]:
        """The token ids of the expected answers for labelled rows, each with the end token.

        An answer longer than `answer_tokens` is cut there, without an end: it cannot be written.
        """
        if self.words:
            ids = dict(zip(self.words, self.word_ids, strict=True))
            said = [[ids[word] for word in answer_of(self.task, row).split()] for row in rows]
        else:
            said = self._encode([answer_of(self.task, row) for row in rows])
        return [[*answer, self.end][: self.answer_tokens] for answer in said]

    def _fitting(self, ids: list[int]) -> list[int]:
        room = self.room
        if len(ids) <= room:
            return ids
        end = (room - len(self._left_out)) // 2
        return [*ids[: room - len(self._left_out) - end], *self._left_out, *ids[-end:]]

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        if len(texts) == 1:
            return [self._tokenizer.encode(texts[0], add_special_tokens=False).ids]
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [one.ids for one in encoded]

    def _word_id(self, word: str) -> int:
        ids = self._encode([f" {word}"])[0]
        if len(ids) != 1:
            raise ChatError(
                f"expected {word!r} with a space before it to be one token, found {len(ids)}: the "
                f"answers of {self.task.name} need labels that the model's vocabulary holds whole"
            )
        return ids[0]

    def _one_token(self, closing: str) -> int:
        ids = self._encode([closing])[0]
        if not ids:
            raise ChatError("expected the chat template to close the model's turn with a token")
        return ids[0]


def _user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def _model(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def _render(tokenizer: Any, turns: list[dict[str, str]], *, opened: bool) -> tuple[str, str]:
    """The rendered conversation before and after the placeholder."""
    if not tokenizer.chat_template:
        raise ChatError("expected a tokenizer with a chat template, found none")
    rendered = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=opened)
    before, mark, after = str(rendered).partition(_STAND_IN)
    if not mark:
        raise ChatError("expected the chat template to hold the words of each turn as they are")
    return before, after
