"""`python -m reviewmesh.judge`: builds the judge of rollouts from its settings and runs it."""

from __future__ import annotations

import sys

from reviewmesh.judge.service import JudgeService
from reviewmesh.process.service import run_process

if __name__ == "__main__":
    sys.exit(run_process("judge", JudgeService))
