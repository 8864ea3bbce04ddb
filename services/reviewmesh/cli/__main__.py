"""The entry of `reviewmesh`: Ctrl-C is in order from the first import on."""

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
    """An output that was closed takes what is written, one in ASCII shows the rest as escapes."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - stays open
        else:
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
