"""Settings of the engines: which one serves a package, and how vLLM runs a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

EngineChoice = Literal["auto", "onnx", "vllm"]
Device = Literal["cpu", "l4", "a100", "h100", "h200"]


class VllmSettings(BaseModel):
    """What is None comes from the defaults of the device."""

    model_config = ConfigDict(extra="forbid")

    device: Device | Literal["auto"] = Field(
        default="auto", description="auto: what vLLM finds; an unknown GPU counts as an a100."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = None
    load_format: Literal["auto", "dummy"] = Field(
        default="auto",
        description="dummy: random weights for a package that has none, to measure speed.",
    )
    quantization: str | None = Field(
        default=None,
        description="As vLLM names it, for a chat model: fp8 halves the weights on l4, h100 and "
        "h200 (vLLM's documentation of FP8 W8A8); not measured here.",
    )
    max_num_seqs: int | None = Field(
        default=None, gt=0, description="Sequences in one step of the engine."
    )
    max_model_len: int = Field(
        default=2048,
        gt=0,
        description="Tokens of prompt and answer of a chat model, no more than it was made for; of "
        "longer reviews the middle is left out.",
    )
    max_waiting: int = Field(
        default=4096, gt=0, description="Requests in the engine, beyond which it refuses more."
    )
    gpu_memory_utilization: float | None = Field(
        default=None, gt=0, le=1, description="Share of the GPU's memory that this worker takes."
    )
    kv_cache_gib: float | None = Field(
        default=None, gt=0, description="KV cache on CPU, where nothing else bounds it."
    )
    enable_prefix_caching: bool = True
    scheduling_policy: Literal["fcfs", "priority"] = Field(
        default="priority",
        description="priority: interactive calls overtake a backfill inside vLLM; fcfs: in order "
        "of arrival, whatever the lane.",
    )


@dataclass(frozen=True, slots=True)
class EngineSettings:
    engine: EngineChoice = "auto"
    """auto: onnx for an encoder, vllm for a chat model."""
    vllm: VllmSettings = field(default_factory=VllmSettings)
