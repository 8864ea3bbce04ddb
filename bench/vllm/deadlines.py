"""How long is waited for an engine; beyond, something hangs."""

from __future__ import annotations

from typing import Final

LOADING_S: Final = 900.0
"""A large model is compiled and its graphs are captured before it serves."""
RUN_S: Final = 600.0
