"""Settings of the engines: which one serves a package, how vLLM runs a model, and which provider
the engine `openai` asks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

EngineChoice = Literal["auto", "onnx", "vllm", "openai"]
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


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


class OpenAISettings(BaseModel):
    """The endpoint that the engine `openai` asks, and how much."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    base_url: str = Field(
        default="https://api.openai.com/v1",
        description="Base URL of the endpoint's API; requests go to `/chat/completions` below it.",
    )
    model: str = Field(
        default="",
        max_length=200,
        description="The provider's name of the model; in the lineage it is the model and its "
        "version, so name a dated one where there is one. Required with the engine openai.",
    )
    provider: str = Field(
        default="",
        max_length=200,
        description="Who runs the model, for the lineage; without it, the host in the base URL.",
    )
    api_key: SecretStr | None = Field(
        default=None, description="The key; never logged. Or give a file of it."
    )
    api_key_file: Path | None = Field(
        default=None,
        description="File that holds the key; read again after the endpoint refused the key.",
    )
    temperature: Annotated[float | None, BeforeValidator(_none_if_empty)] = Field(
        default=0,
        ge=0,
        le=2,
        description="Sent with every request; empty: not sent, for models that take none.",
    )
    max_completion_tokens: int = Field(
        default=2048, gt=0, description="Most tokens of an answer, a model's reasoning included."
    )
    max_text: int = Field(
        default=20_000,
        ge=100,
        description="Most code points of a review that are sent; the middle of a longer one is "
        "left out.",
    )
    timeout_s: float = Field(
        default=30, gt=0, allow_inf_nan=False, description="Seconds for one request."
    )
    give_up_s: float = Field(
        default=90,
        gt=0,
        allow_inf_nan=False,
        description="Seconds for one review with all that it waits for; the mesh waits for 120.",
    )
    max_requests: int = Field(
        default=3,
        gt=0,
        le=10,
        description="Most requests for one review; a caller may allow fewer.",
    )
    max_concurrency: int = Field(
        default=16,
        gt=0,
        le=1000,
        description="Requests at the endpoint at once. The worker holds twice as many items, at "
        "most REVIEWMESH_WORKER__MAX_IN_FLIGHT, and refuses more.",
    )
    requests_per_minute: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="Limit of the account, if it has one."
    )
    tokens_per_minute: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Limit of the account, prompts and answers together, if it has one.",
    )
    prices: Path | None = Field(
        default=None,
        description="File of your own prices; they take precedence over those of genai-prices.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        url = urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("expected a base_url that begins with http:// or https://")
        if url.username or url.password or url.query:
            raise ValueError("expected a base_url without a user, password or query")
        if self.api_key is not None and self.api_key_file is not None:
            raise ValueError("expected a key (api_key) or a file of it (api_key_file), got both")
        return self

    @property
    def provider_name(self) -> str:
        return self.provider or str(urlsplit(self.base_url).hostname)


@dataclass(frozen=True, slots=True)
class EngineSettings:
    engine: EngineChoice = "auto"
    """auto: onnx for an encoder, vllm for a chat model."""
    vllm: VllmSettings = field(default_factory=VllmSettings)
    openai: OpenAISettings = field(default_factory=OpenAISettings)
