"""Groups of rows that a package may be better or worse on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from reviewmesh_models.evaluation.rows import Row

_LENGTHS: Final = ((10, "up to 10 words"), (30, "11 to 30 words"), (100, "31 to 100 words"))
_LONGEST: Final = "over 100 words"
_UNSTATED: Final = "unstated"

RowMask = NDArray[np.bool_]


def slices_of(rows: Sequence[Row]) -> dict[str, dict[str, RowMask]]:
    """By kind of slice and name, which rows are in it; no kind that the rows tell nothing of."""
    names: Mapping[str, Sequence[str]] = {
        "source": [str(row.get("source") or _UNSTATED) for row in rows],
        "language": [str(row.get("language") or _UNSTATED) for row in rows],
        "length": [_length(row["text"]) for row in rows],
    }
    order = [name for _, name in _LENGTHS] + [_LONGEST]
    return {
        kind: {
            name: np.array([one == name for one in own])
            for name in (
                [name for name in order if name in own] if kind == "length" else sorted(set(own))
            )
        }
        for kind, own in names.items()
        if set(own) != {_UNSTATED}
    }


def _length(text: str) -> str:
    words = len(text.split())
    return next((name for most, name in _LENGTHS if words <= most), _LONGEST)
