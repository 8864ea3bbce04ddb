"""Packs: reviews behind one copy of their prompt are what they are alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from reviewmesh_models.training.causal.packs import NOT_LEARNED, collate, make_packs
from reviewmesh_models.training.causal.run import from_scratch
from reviewmesh_models.training.causal.vocabulary import make_tokenizer
from reviewmesh_models.training.config import Scratch
from reviewmesh_worker.tasks import NER, SENTIMENT, TASKS
from reviewmesh_worker.tasks.chat import ChatPrompts
from reviewmesh_worker.tasks.definition import load_tasks
from tests.training.generated import rows_of

CONTEXT = 768
_NUMBERS = Scratch(
    vocabulary=1200,
    hidden=32,
    layers=2,
    heads=2,
    key_value_heads=1,
    head=16,
    inner=64,
    initializer=0.1,
    copying_steps=0,
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    rows = [*rows_of(SENTIMENT, 100, 1), *rows_of(NER, 100, 2)]
    return make_tokenizer(load_tasks(), [row["text"] for row in rows], _NUMBERS.vocabulary)


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    torch.manual_seed(3)
    return from_scratch(_NUMBERS, CONTEXT, tokenizer).eval()


@pytest.fixture(params=TASKS)
def prompts(request: pytest.FixtureRequest, tokenizer: Any) -> ChatPrompts:
    return ChatPrompts(tokenizer, load_tasks()[request.param], CONTEXT)


def test_only_the_answers_are_learned(prompts: ChatPrompts) -> None:
    rows = rows_of(prompts.task.name, 40, 5)
    packs = make_packs(prompts, rows, np.random.default_rng(1))
    learned = []
    for pack in packs:
        segments = np.array(pack["segments"])
        ids, labels = np.array(pack["input_ids"]), np.array(pack["labels"])
        assert (labels[segments == 0] == NOT_LEARNED).all()
        for segment in range(1, segments.max() + 1):
            own = segments == segment
            answer = labels[own] != NOT_LEARNED
            # One run, at the review's end, of the very tokens that stand there.
            assert not np.any(np.diff(answer.astype(int)) < 0)
            assert (labels[own][answer] == ids[own][answer]).all()
            learned.append(tuple(labels[own][answer].tolist()))
    assert sorted(learned) == sorted(tuple(answer) for answer in prompts.answers(rows))


def test_a_pack_holds_each_review_with_its_own_prompt(prompts: ChatPrompts) -> None:
    rows = rows_of(prompts.task.name, 40, 5)
    packs = make_packs(prompts, rows, np.random.default_rng(1))
    assert len(packs) < len(rows) / 3
    found = []
    for pack in packs:
        ids, segments = np.array(pack["input_ids"]), np.array(pack["segments"])
        assert len(ids) <= CONTEXT
        for segment in range(1, segments.max() + 1):
            own = (segments == segment) & (np.array(pack["labels"]) == NOT_LEARNED)
            found.append([*ids[segments == 0].tolist(), *ids[own].tolist()])
    assert sorted(found) == sorted(prompts.prompts([row["text"] for row in rows]))


@torch.no_grad()
def test_a_model_says_the_same_of_a_review_alone(prompts: ChatPrompts, model: Any) -> None:
    rows = rows_of(prompts.task.name, 6, 6)
    (pack,) = make_packs(prompts, rows, np.random.default_rng(1))
    inputs = collate([pack])
    inputs.pop("labels")
    together = model(**inputs).logits[0]
    segments = np.array(pack["segments"])
    for segment in range(1, len(rows) + 1):
        seen = torch.tensor((segments == 0) | (segments == segment))
        alone = model(input_ids=torch.tensor(pack["input_ids"])[seen][None]).logits[0]
        assert torch.allclose(together[seen], alone, atol=1e-4)


@torch.no_grad()
def test_a_merged_adapter_says_what_base_and_adapter_say(
    prompts: ChatPrompts, tokenizer: Any
) -> None:
    torch.manual_seed(4)
    base = from_scratch(_NUMBERS, CONTEXT, tokenizer).eval()
    ids = torch.tensor(prompts.prompts(["Delivery was great, and Maria helped."]))
    bare = base(input_ids=ids).logits
    adapted = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    for name, weights in adapted.named_parameters():
        if "lora_B" in name:
            weights.normal_(std=0.2)
    expected = adapted.eval()(input_ids=ids).logits
    merged = adapted.merge_and_unload()(input_ids=ids).logits
    assert torch.allclose(merged, expected, atol=1e-4)
    assert not torch.allclose(merged, bare, atol=1e-2)
