"""vLLM's offline `LLM` in a process of its own: the same prompts with nothing around them."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

from bench.vllm.deadlines import LOADING_S, RUN_S
from reviewmesh_worker.engines.settings import VllmSettings
from reviewmesh_worker.engines.vllm.core import prepare


class Offline:
    """An `LLM` with the arguments that the worker's engine gets."""

    def __init__(
        self, model: str, encoder: bool, settings: VllmSettings, more: Mapping[str, Any]
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, model, encoder, settings, dict(more))
        # Not a daemon: it has an engine process of its own.
        self._process = context.Process(target=_serve, args=arguments)
        self._process.start()
        theirs.close()
        try:
            self.facts: dict[str, Any] = self._answer(LOADING_S)
            """The device, versions and engine arguments."""
        except BaseException:
            self.close()
            raise

    def ask(self, prompts: Sequence[list[int]], sampling: Any) -> tuple[float, int]:
        """Seconds and generated tokens of all prompts: pooling for an encoder, else `sampling`."""
        self._pipe.send((list(prompts), sampling))
        seconds, generated = self._answer(RUN_S)
        return float(seconds), int(generated)

    def close(self) -> None:
        self._pipe.close()
        self._process.join(20)
        if self._process.is_alive():
            self._process.kill()

    def _answer(self, within_s: float) -> Any:
        if not self._pipe.poll(within_s):
            raise RuntimeError(f"offline vLLM did not answer within {within_s:g} s")
        try:
            return self._pipe.recv()
        except EOFError as error:
            raise RuntimeError("offline vLLM ended; its words above say why") from error


def _serve(
    pipe: Connection, model: str, encoder: bool, settings: VllmSettings, more: dict[str, Any]
) -> None:
    arguments = prepare(settings, encoder) | more
    import torch
    import vllm
    from vllm.platforms import current_platform

    llm = vllm.LLM(model=model, **arguments)
    pipe.send(
        {
            "device": current_platform.get_device_name(),
            "vllm": vllm.__version__,
            "torch": torch.__version__,
            "arguments": arguments,
        }
    )
    while True:
        try:
            prompts, sampling = pipe.recv()
        except EOFError:
            return
        inputs = [{"prompt_token_ids": ids} for ids in prompts]
        generated = 0
        began = time.monotonic()
        if encoder:
            llm.encode(inputs, pooling_task="token_classify", use_tqdm=False)
        else:
            outputs = llm.generate(inputs, sampling, use_tqdm=False)
            generated = sum(len(output.outputs[0].token_ids) for output in outputs)
        pipe.send((time.monotonic() - began, generated))
