"""What a shell offers for a value of which there are only some."""

from __future__ import annotations

from collections.abc import Callable, Iterable


def among(names: Iterable[str]) -> Callable[[str], list[str]]:
    """Those that begin with what is typed."""
    known = list(names)
    return lambda incomplete: [name for name in known if name.startswith(incomplete)]
