"""Topics and groups as tables show them: what all names begin with is left out. JSON has it all."""

from __future__ import annotations

TOPICS = "reviews."
GROUPS = "reviewmesh-"


def short_topic(name: str, prefix: str = "") -> str:
    """`raw` of `<prefix>reviews.raw`."""
    return name.removeprefix(prefix).removeprefix(TOPICS)


def short_group(name: str, prefix: str = "") -> str:
    """`intake` of `<prefix>reviewmesh-intake`; others keep their whole names."""
    return name.removeprefix(prefix).removeprefix(GROUPS)
