"""Which cases `make test` leaves to `make nightly`, to stay short enough for every change."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def but_nightly(cases: Iterable[Any], always: Iterable[Any]) -> list[Any]:
    """All cases as parameters; those that are not among `always` are marked as nightly."""
    kept = list(always)
    return [
        case if case in kept else pytest.param(case, marks=pytest.mark.nightly) for case in cases
    ]
