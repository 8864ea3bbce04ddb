"""Which cases `make test` leaves to `make nightly`, to stay short enough for every change."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def but_nightly(cases: Iterable[Any], always: Iterable[Any]) -> list[Any]:
    """All cases as parameters; those that are not among `always` are marked as nightly.

    A tuple is a case of several parameters.
    """
    kept = list(always)
    return [case if case in kept else _nightly(case) for case in cases]


def _nightly(case: Any) -> Any:
    values = case if isinstance(case, tuple) else (case,)
    return pytest.param(*values, marks=pytest.mark.nightly)
