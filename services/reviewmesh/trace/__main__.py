"""`python -m reviewmesh.trace`: builds the tracer from its settings and runs it."""

from __future__ import annotations

import sys

from reviewmesh.process.service import run_process
from reviewmesh.trace.service import TracerService

if __name__ == "__main__":
    sys.exit(run_process("tracer", TracerService))
