"""`python -m tests.dying_service MODULE TURN [ARGUMENTS]`: a service that dies in mid-transaction.

It is the service itself, killed by SIGKILL in its TURNth transaction that has outputs: they are
produced and acknowledged, the offsets are sent, and nothing is committed.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from typing import Any

from reviewmesh.kafka.transactions import ProducerSession

MODULE, TURN = sys.argv[1], int(sys.argv[2])
transact = ProducerSession.transact
turns = 0


def dying_transact(self: Any, outputs: Any, offsets: Any, group_metadata: Any) -> None:
    global turns
    turns += bool(outputs)
    if turns == TURN:

        def die() -> None:
            self.producer.flush(5)
            os.kill(os.getpid(), signal.SIGKILL)

        self._commit_or_abort = die
    transact(self, outputs, offsets, group_metadata)


ProducerSession.transact = dying_transact  # type: ignore[method-assign]
sys.argv = [MODULE, *sys.argv[3:]]
runpy.run_module(MODULE, run_name="__main__", alter_sys=True)
