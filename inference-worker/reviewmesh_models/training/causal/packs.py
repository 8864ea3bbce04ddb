"""Packs several reviews after one copy of a task's prompt.

Most tokens of a prompt are the same for all reviews. A pack has them once. Each review after them
attends to them and itself only, at the positions that it would have alone. So outputs are the same
as for single reviews, for a fraction of the computation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from reviewmesh_models.evaluation.rows import Row
from reviewmesh_worker.tasks.chat import ChatPrompts

NOT_LEARNED: Final = -100
"""The label of tokens without loss."""
_UNSEEN: Final = -1e9
_SHARED: Final = 0
"""The segment of the prompt's fixed words; reviews are 1, 2, …"""

Pack = dict[str, list[int]]


def make_packs(
    prompts: ChatPrompts, rows: Sequence[Row], random: np.random.Generator
) -> list[Pack]:
    """Rows in random order, as many to a pack as fit the context.

    A pack: `input_ids`; `position_ids`; `segments`, which review a token belongs to; `labels`, the
    token itself where it is of an answer, else `NOT_LEARNED`. All of one length.
    """
    shuffled = [rows[index] for index in random.permutation(len(rows))]
    texts = prompts.reviews([row["text"] for row in shuffled])
    answers = prompts.answers(shuffled)
    packs: list[Pack] = []
    for text, answer in zip(texts, answers, strict=True):
        asked = [*text, *prompts.suffix]
        if not packs or len(packs[-1]["input_ids"]) + len(asked) + len(answer) > prompts.context:
            packs.append(_empty(prompts))
        _append(packs[-1], len(prompts.prefix), asked, answer)
    return packs


def collate(packs: Sequence[Pack]) -> dict[str, Tensor]:
    """One pack as a model's inputs, with a mask that is added to attention scores.

    Shapes: (1, tokens); `attention_mask` (1, 1, tokens, tokens).
    """
    (pack,) = packs
    segments = torch.tensor(pack["segments"])
    seen = (segments[None, :] == segments[:, None]) | (segments[None, :] == _SHARED)
    mask = torch.where(seen.tril(), 0.0, _UNSEEN)
    inputs = {name: torch.tensor([pack[name]]) for name in ("input_ids", "position_ids", "labels")}
    return {**inputs, "attention_mask": mask[None, None]}


def _empty(prompts: ChatPrompts) -> Pack:
    size = len(prompts.prefix)
    return {
        "input_ids": list(prompts.prefix),
        "position_ids": list(range(size)),
        "segments": [_SHARED] * size,
        "labels": [NOT_LEARNED] * size,
    }


def _append(pack: Pack, start: int, asked: Sequence[int], answer: Sequence[int]) -> None:
    size = len(asked) + len(answer)
    pack["input_ids"] += [*asked, *answer]
    pack["position_ids"] += range(start, start + size)
    pack["segments"] += [pack["segments"][-1] + 1] * size
    pack["labels"] += [*([NOT_LEARNED] * len(asked)), *answer]
