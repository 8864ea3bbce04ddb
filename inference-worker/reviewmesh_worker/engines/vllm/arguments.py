"""The arguments that vLLM is started with: the settings, and defaults for each kind of machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from reviewmesh_worker.engines.settings import VllmSettings

_GIB: Final = 1024**3
BLOCK_SIZE: Final = 32
"""Tokens in a block of the KV cache: a shared prefix is cached in whole blocks."""


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
        # By default vLLM would load pickles too.
        "load_format": "dummy" if settings.load_format == "dummy" else "safetensors",
        "max_num_seqs": settings.max_num_seqs or ours.max_num_seqs,
        "scheduling_policy": settings.scheduling_policy,
        "gpu_memory_utilization": settings.gpu_memory_utilization or ours.gpu_memory_utilization,
        # On CPU the first requests would compile for 12 to 18 s each, and need a C++ compiler.
        "enforce_eager": cpu,
        "disable_log_stats": False,
    }
    if encoder:
        # An encoder has no KV cache, so no prefix to share. Its weights are quantized already;
        # quantized again, its labels would differ from the embedded engine's.
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
