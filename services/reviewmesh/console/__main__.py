"""`python -m reviewmesh.console`: builds the console from its settings and runs it."""

from __future__ import annotations

import sys

from reviewmesh.console.service import ConsoleService
from reviewmesh.process.service import run_process

if __name__ == "__main__":
    sys.exit(run_process("console", ConsoleService))
