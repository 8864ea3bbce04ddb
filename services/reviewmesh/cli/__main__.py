"""The entry point of `reviewmesh`: Ctrl-C ends it cleanly from the first import on."""

from __future__ import annotations

import os
import sys

INTERRUPTED = 130


def main() -> None:
    _open_outputs()
    try:
        from reviewmesh.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _open_outputs() -> None:
    """A closed output discards what is written; an ASCII one shows other characters as escapes."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - stays open
        else:
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
