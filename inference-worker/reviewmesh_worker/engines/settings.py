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
        default="auto",
        description="auto: the device that vLLM finds; an unknown GPU gets the "
        "defaults of an a100.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = Field(
        default=None, description="Number format of weights and activations, as vLLM names it."
    )
    load_format: Literal["auto", "dummy"] = Field(
        default="auto",
        description="dummy: random weights for a package that has none, to measure speed.",
    )
    quantization: str | None = Field(
        default=None,
        description="Quantization of a chat model, as vLLM names it. fp8 halves the size of the "
        "weights on l4, h100 and h200, says vLLM's documentation of FP8 W8A8; not measured here.",
    )
    max_num_seqs: int | None = Field(
        default=None, gt=0, description="Most sequences in one step of the engine."
    )
    max_model_len: int = Field(
        default=2048,
        gt=0,
        description="Most tokens of prompt and answer together for a chat model, at most what the "
        "model supports. The middle of a longer review is left out.",
    )
    max_waiting: int = Field(
        default=4096, gt=0, description="Most requests in the engine; more are refused."
    )
    gpu_memory_utilization: float | None = Field(
        default=None, gt=0, le=1, description="Share of the GPU's memory that this worker takes."
    )
    kv_cache_gib: float | None = Field(
        default=None, gt=0, description="Size of the KV cache on CPU, in GiB."
    )
    enable_prefix_caching: bool = Field(
        default=True, description="Reuse the KV cache of a prompt's common beginning."
    )
    scheduling_policy: Literal["fcfs", "priority"] = Field(
        default="priority",
        description="priority: interactive calls overtake a backfill inside vLLM; fcfs: calls are "
        "served in order of arrival, whatever their lane.",
    )


@dataclass(frozen=True, slots=True)
class EngineSettings:
    engine: EngineChoice = "auto"
    """auto: onnx for an encoder, vllm for a chat model."""
    vllm: VllmSettings = field(default_factory=VllmSettings)
