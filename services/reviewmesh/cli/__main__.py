"""The entry of `reviewmesh`: Ctrl-C is in order from the first import on."""

from __future__ import annotations

import sys

INTERRUPTED = 130


def main() -> None:
    try:
        from reviewmesh.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
