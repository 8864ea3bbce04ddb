"""A tokenizer for a model from scratch: byte-level BPE over the corpus, turns marked as Gemma's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Final

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from reviewmesh_worker.tasks.answers import words_of
from reviewmesh_worker.tasks.definition import Task
from reviewmesh_worker.tasks.prompt import prefix_of

PAD: Final = "<pad>"
END_OF_TEXT: Final = "<eos>"
BEGIN: Final = "<bos>"
UNKNOWN: Final = "<unk>"
START_OF_TURN: Final = "<start_of_turn>"
END_OF_TURN: Final = "<end_of_turn>"
_SPECIALS: Final = (PAD, END_OF_TEXT, BEGIN, UNKNOWN, START_OF_TURN, END_OF_TURN)

_CHAT_TEMPLATE: Final = (
    "{{ bos_token }}{% for message in messages %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "<start_of_turn>{{ role }}\n{{ message['content'] | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_WORDS: Final = (
    r"\p{Lu}[\p{L}\p{M}]*"
    r"| ?[\p{Ll}\p{Lt}\p{Lm}\p{Lo}\p{M}][\p{L}\p{M}]*"
    r"| ?\p{N}+"
    r"| ?[^\s\p{L}\p{M}\p{N}]+"
    r"|\s+"
)
"""What is never merged across. A word takes the space before it along, but for one that begins with
a capital: a name is the same tokens after a space as after a quotation mark, so that an answer
copies it from the review token by token."""
_REPEATS: Final = 1_000
"""How often the fixed words of prompts and answers stand in the corpus, so that each is merged
whole: answers need that, and every token of a prompt costs with every review."""


def make_tokenizer(
    tasks: Mapping[str, Task], texts: Iterable[str], size: int
) -> PreTrainedTokenizerFast:
    """A vocabulary of at most `size` tokens for the texts, the tasks' prompts and their answers.

    Bytes are its alphabet, so that no text is unknown to it. The same texts give the same tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(_SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(tasks, texts), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END_OF_TEXT,
        bos_token=BEGIN,
        unk_token=UNKNOWN,
        additional_special_tokens=[START_OF_TURN, END_OF_TURN],
        chat_template=_CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _corpus(tasks: Mapping[str, Task], texts: Iterable[str]) -> Iterable[str]:
    yield from texts
    for task in tasks.values():
        yield from [prefix_of(task)] * _REPEATS
        for words in _answer_parts(task):
            yield from [words] * _REPEATS


def _answer_parts(task: Task) -> list[str]:
    if task.answer != "spans":
        return [f" {word}" for word in words_of(task)]
    names = [{"label": label, "text": "A"} for label in task.label_ids]
    return [json.dumps(names), "[]"]
