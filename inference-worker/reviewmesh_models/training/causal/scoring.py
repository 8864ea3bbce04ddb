"""A chat model's probabilities for labelled rows, by plain `transformers`.

Answers are generated as in serving: word by word, out of the task's words, each after the ones
generated before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reviewmesh_worker.tasks.answers import words_in_answer
from reviewmesh_worker.tasks.chat import ChatPrompts

_AT_ONCE: Final = 16


def word_logprobs(
    model: Any,
    prompts: ChatPrompts,
    texts: Sequence[str],
) -> NDArray[np.float64]:
    """Shape (texts, words in an answer, words to choose from), each the log of a probability.

    Probabilities are over the whole vocabulary.
    """
    encoded = prompts.prompts(texts)
    # Texts of similar length together, to keep padding small.
    order = sorted(range(len(texts)), key=lambda index: len(encoded[index]))
    out = np.zeros((len(texts), words_in_answer(prompts.task), len(prompts.words)))
    for at in range(0, len(order), _AT_ONCE):
        some = order[at : at + _AT_ONCE]
        with torch.no_grad():
            out[some] = _write_answers(model, prompts, [encoded[index] for index in some])
    return out


def _write_answers(
    model: Any, prompts: ChatPrompts, encoded: Sequence[Sequence[int]]
) -> NDArray[np.float64]:
    ids, mask = _pad_left(encoded, model.device)
    choices = torch.tensor(prompts.word_ids, device=model.device)
    cache: Any = None
    words: list[Tensor] = []
    for _ in range(words_in_answer(prompts.task)):
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        outputs = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = outputs.past_key_values
        words.append(outputs.logits[:, -1].float().log_softmax(-1)[:, choices])
        ids = choices[words[-1].argmax(-1)][:, None]
        mask = torch.cat((mask, torch.ones_like(ids)), 1)
    scores: NDArray[np.float64] = torch.stack(words, 1).double().cpu().numpy()
    return scores


def _pad_left(encoded: Sequence[Sequence[int]], device: Any) -> tuple[Tensor, Tensor]:
    """Ids, zeros before the shorter ones, and a mask that is 1 where an id is real."""
    width = max(len(ids) for ids in encoded)
    padded = [[0] * (width - len(ids)) + list(ids) for ids in encoded]
    real = [[0] * (width - len(ids)) + [1] * len(ids) for ids in encoded]
    return torch.tensor(padded, device=device), torch.tensor(real, device=device)
