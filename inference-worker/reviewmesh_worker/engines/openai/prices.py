"""Prices of tokens: a file of your own, then the dated table of genai-prices.

The file is a YAML list. An entry holds from its date on, until a later one of the same model:

    - model: gemma-2-9b
      from: 2026-01-01
      input_per_million: 0.10
      cached_input_per_million: 0.05
      output_per_million: 0.40

Prices are in US dollars; without one for cached input that costs what other input does.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Final

import yaml
from genai_prices import Usage as PricedUsage
from genai_prices import calc_price
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from reviewmesh_kit.yamltext import load_yaml
from reviewmesh_worker.engines.interface import EngineLoadError

_LOG = logging.getLogger(__name__)
_MICROS: Final = 1_000_000


class Price(BaseModel):
    """What a model costs from a day on, in US dollars for a million tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    since: date = Field(alias="from")
    input_per_million: Decimal = Field(ge=0, allow_inf_nan=False)
    cached_input_per_million: Decimal | None = Field(default=None, ge=0, allow_inf_nan=False)
    output_per_million: Decimal = Field(ge=0, allow_inf_nan=False)

    def micros(self, prompt: int, cached: int, completion: int) -> Decimal:
        cached_price = self.cached_input_per_million
        if cached_price is None:
            cached_price = self.input_per_million
        return (
            (prompt - cached) * self.input_per_million
            + cached * cached_price
            + completion * self.output_per_million
        )


def read_prices(file: Path) -> list[Price]:
    """Raises EngineLoadError."""
    try:
        content = load_yaml(file.read_text(encoding="utf-8"))
        return TypeAdapter(list[Price]).validate_python(content)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()
        )
        raise EngineLoadError(f"{file}: expected a list of prices: {problems}") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise EngineLoadError(f"expected a file of prices at {file}: {error}") from error


class Prices:
    """Of one model at one endpoint."""

    def __init__(self, model: str, base_url: str, own: Sequence[Price]) -> None:
        self._model = model
        self._base_url = base_url
        self._own = sorted((p for p in own if p.model == model), key=lambda price: price.since)
        self._unknown_told = False

    def micros(self, prompt: int, cached: int, completion: int, at: datetime) -> int | None:
        """Millionths of a US dollar, rounded up; None where no price is known."""
        valid = [price for price in self._own if price.since <= at.astimezone(UTC).date()]
        if valid:
            return math.ceil(valid[-1].micros(prompt, cached, completion))
        usage = PricedUsage(input_tokens=prompt, cache_read_tokens=cached, output_tokens=completion)
        try:
            price = calc_price(
                usage,
                self._model,
                provider_api_url=self._base_url,
                genai_request_timestamp=at,
            )
        except (LookupError, ValueError) as error:
            self._tell_unknown(error)
            return None
        return math.ceil(price.total_price * _MICROS)

    def _tell_unknown(self, error: Exception) -> None:
        if not self._unknown_told:
            self._unknown_told = True
            _LOG.warning(
                "no price of %s at %s is known, so the cost is empty: %s; give a file of "
                "prices: REVIEWMESH_OPENAI__PRICES",
                self._model,
                self._base_url,
                error,
            )
