"""`reviewmesh export` with small steps, so that few reviews make many of them."""

from __future__ import annotations

import os
import sys

from reviewmesh.cli.app import main
from reviewmesh.cli.export import export as export  # what it needs is imported once
from reviewmesh.export import chunk, run, source, store

PRELOADED = (chunk, run, source, store)


def run_export(environment: dict[str, str], words: list[str]) -> None:
    """In a process of its own, forked from one that has imported everything."""
    chunk.MAX_REVIEWS = 60
    run.PART_REVIEWS = 150
    run.KEYS_AT_ONCE = 100
    os.environ.update(environment)
    sys.argv = ["reviewmesh", *words]
    main()
