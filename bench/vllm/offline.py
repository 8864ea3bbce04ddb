"""vLLM's offline `LLM` in a process of its own: the same prompts with nothing around them."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

from reviewmesh_worker.engines.vllm.core import prepare
from reviewmesh_worker.engines.vllm.settings import VllmSettings

_LOADING_S = 180.0
_RUN_S = 300.0


class Offline:
    """An `LLM` with the arguments that the worker's engine gets."""

    def __init__(self, model: str, encoder: bool, more: Mapping[str, Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        # Not a daemon: it has an engine process of its own.
        self._process = context.Process(target=_serve, args=(theirs, model, encoder, dict(more)))
        self._process.start()
        theirs.close()
        self._answer(_LOADING_S)

    def seconds(self, prompts: Sequence[list[int]], asked: Any) -> float:
        """How long all prompts together take: pooling for an encoder, else `asked` sampling."""
        self._pipe.send((list(prompts), asked))
        return float(self._answer(_RUN_S))

    def end(self) -> None:
        self._pipe.close()
        self._process.join(20)
        if self._process.is_alive():
            self._process.kill()

    def _answer(self, within_s: float) -> Any:
        if not self._pipe.poll(within_s):
            raise RuntimeError(f"offline vLLM did not answer within {within_s:g} s")
        return self._pipe.recv()


def _serve(pipe: Connection, model: str, encoder: bool, more: dict[str, Any]) -> None:
    arguments = prepare(VllmSettings(), encoder) | more
    from vllm import LLM

    llm = LLM(model=model, **arguments)
    pipe.send(0.0)
    while True:
        try:
            prompts, asked = pipe.recv()
        except EOFError:
            return
        inputs = [{"prompt_token_ids": ids} for ids in prompts]
        began = time.monotonic()
        if encoder:
            llm.encode(inputs, pooling_task="token_classify", use_tqdm=False)
        else:
            llm.generate(inputs, asked, use_tqdm=False)
        pipe.send(time.monotonic() - began)
