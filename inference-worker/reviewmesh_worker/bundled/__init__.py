"""The model that comes with the package, as files beside this one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

BUNDLED_MODEL: Final = Path(__file__).parent / "e5-reviews"
