"""YAML that people write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml


def load_yaml(text: str) -> Any:
    """Raises yaml.YAMLError, and nothing else."""
    with only_yaml_errors():
        return yaml.safe_load(text)


@contextmanager
def only_yaml_errors() -> Iterator[None]:
    """PyYAML lets other errors through, such as for `!!bool maybe`, `2026-99-99` and `[[[[…`."""
    try:
        yield
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise yaml.YAMLError(f"a value that cannot be read ({type(error).__name__}: {said})") from (
            error
        )
