"""How vLLM runs a model: typed settings, with defaults per kind of machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

Device = Literal["cpu", "l4", "a100", "h100", "h200"]

_GIB: Final = 1024**3
BLOCK_SIZE: Final = 32
"""Tokens in a block of the KV cache: a shared prefix is kept in whole blocks."""


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
class _Defaults:
    dtype: str
    quantization: str | None
    max_num_seqs: int
    gpu_memory_utilization: float
    kv_cache_gib: float | None


_DEFAULTS: Final[Mapping[str, _Defaults]] = {
    # Measured here, with models of 7 and 23M parameters: `make bench-vllm`.
    "cpu": _Defaults("float32", None, 64, 0.3, 1.0),
    # The rest is arithmetic, not measured: gemma-2-9b has 9.2 billion weights, 18.5 GB in bfloat16
    # and half of that in fp8, and a token of its KV cache takes 344 kB in bfloat16 (42 layers, 8
    # heads of 256, keys and values; the model's config.json). An l4 has 24 GB, an a100 40 or 80, an
    # h100 80 and an h200 141 (NVIDIA's data sheets). A review is 600 tokens with its prompt.
    "l4": _Defaults("bfloat16", "fp8", 48, 0.9, None),
    "a100": _Defaults("bfloat16", None, 128, 0.9, None),
    "h100": _Defaults("bfloat16", None, 256, 0.9, None),
    "h200": _Defaults("bfloat16", None, 512, 0.9, None),
}


def engine_arguments(settings: VllmSettings, device: str, encoder: bool) -> dict[str, Any]:
    """Keyword arguments of vLLM's `EngineArgs`, without the model."""
    ours = _DEFAULTS[device]
    cpu = device == "cpu"
    arguments: dict[str, Any] = {
        # Else vLLM would take pickles too.
        "load_format": "dummy" if settings.load_format == "dummy" else "safetensors",
        "max_num_seqs": settings.max_num_seqs or ours.max_num_seqs,
        "scheduling_policy": settings.scheduling_policy,
        "gpu_memory_utilization": settings.gpu_memory_utilization or ours.gpu_memory_utilization,
        # On CPU the first requests would compile for 12 to 18 s each, and need a C++ compiler.
        "enforce_eager": cpu,
        "disable_log_stats": False,
    }
    if encoder:
        # An encoder keeps no KV cache, so there is no prefix of it to share; and quantized twice
        # its labels would no longer be those of the embedded engine.
        return arguments | {
            "runner": "pooling",
            "dtype": settings.dtype or "float32",
            "enable_prefix_caching": False,
            "skip_tokenizer_init": True,
        }
    kv_cache_gib = settings.kv_cache_gib or ours.kv_cache_gib
    return arguments | {
        "dtype": settings.dtype or ours.dtype,
        "quantization": settings.quantization or ours.quantization,
        "enable_prefix_caching": settings.enable_prefix_caching,
        "block_size": BLOCK_SIZE,
        "kv_cache_memory_bytes": int(kv_cache_gib * _GIB) if cpu and kv_cache_gib else None,
    }
