"""`reviewmesh export` with small steps, so that few reviews make many of them."""

from __future__ import annotations

from reviewmesh.cli.__main__ import main
from reviewmesh.export import chunk, run

if __name__ == "__main__":
    chunk.MAX_REVIEWS = 60
    run.PART_REVIEWS = 150
    run.KEYS_AT_ONCE = 100
    main()
