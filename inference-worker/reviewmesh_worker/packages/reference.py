"""What a package answered on the gate's set: its evaluation report holds how often each value came.

The report is no part of the package's digest, so it is read with care and may be missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, NonNegativeInt, ValidationError

from reviewmesh_worker.packages.manifest import EVALUATION_FILE, Package

LARGEST_REPORT: Final = 16 * 1024 * 1024
MOST_VALUES: Final = 200

Counts = Mapping[str, Mapping[str, int]]
"""How often each value came, by what it is a value of: label, score, language."""


class ReferenceError(ValueError):
    """There is a report, and it cannot be used; the message says why."""


class _About(BaseModel):
    digest: str


class _Report(BaseModel):
    """The part of a report that is read here."""

    package: _About
    distributions: dict[str, dict[str, dict[str, NonNegativeInt]]] = {}


def read_reference(package: Package) -> dict[str, Counts]:
    """By task; empty where the package has no report, or one from before it held them.

    Raises ReferenceError.
    """
    file = package.folder / EVALUATION_FILE
    # A provider's model has no folder.
    if not package.manifest.files or not file.is_file():
        return {}
    try:
        if (size := file.stat().st_size) > LARGEST_REPORT:
            raise ReferenceError(f"expected at most {LARGEST_REPORT:,} bytes, found {size:,}")
        content: Any = json.loads(file.read_text(encoding="utf-8"))
        report = _Report.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ReferenceError(f"{file}: {place}: {first['msg']}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ReferenceError(f"{file}: {error}") from error
    if report.package.digest != package.digest:
        raise ReferenceError(
            f"{file}: expected a report of {package.digest}, found one of {report.package.digest}; "
            "run `reviewmesh-models evaluate` on the package"
        )
    for task, counts in report.distributions.items():
        if any(len(values) > MOST_VALUES for values in counts.values()):
            raise ReferenceError(f"{file}: expected at most {MOST_VALUES} values each for {task}")
    return dict(report.distributions)
