"""`python -m tests.odd_service MODULE BEHAVIOUR [ARGUMENTS]`: a service with a defect in its stage.

`hangs`: taking a record never returns. `swallows`: records are taken and never finished.
`dies-of-WORD`: a record that holds the word ends the process by SIGKILL, without a word.
`has-little-memory`: 600 MiB, beyond which its client aborts. `is-left-out`: its first consumer
never joins the group.
"""

from __future__ import annotations

import os
import resource
import runpy
import signal
import sys
import threading
from typing import Any

from reviewmesh.kafka.record import Record
from reviewmesh.loop import membership
from reviewmesh.loop.loop import ConsumerLoop
from reviewmesh.loop.membership import Membership

MODULE, BEHAVIOUR = sys.argv[1:3]
construct = ConsumerLoop.__init__


def construct_with_defect(self: Any, stage: Any, *arguments: Any) -> None:
    receive = stage.receive

    def odd_receive(record: Record) -> None:
        if BEHAVIOUR == "hangs":
            threading.Event().wait()
        elif BEHAVIOUR.startswith("dies-of-"):
            if BEHAVIOUR.removeprefix("dies-of-").encode() in (record.value or b""):
                os.kill(os.getpid(), signal.SIGKILL)
            receive(record)
        elif BEHAVIOUR in ("has-little-memory", "is-left-out"):
            receive(record)

    stage.receive = odd_receive
    construct(self, stage, *arguments)


def subscribe_late(self: Any) -> None:
    """The first time not to the mesh's topics."""
    subscribe(self)
    if self.consumer is first_consumers.setdefault("first", self.consumer):
        self.consumer.unsubscribe()


if BEHAVIOUR == "is-left-out":
    membership.SOON_ASSIGNED_S, membership.ASSIGNED_WITHIN_S = 5.0, 15.0
    subscribe = Membership.subscribe
    first_consumers: dict[str, Any] = {}
    Membership.subscribe = subscribe_late  # type: ignore[method-assign]
if BEHAVIOUR == "has-little-memory":
    resource.setrlimit(resource.RLIMIT_DATA, (600 << 20, 600 << 20))
ConsumerLoop.__init__ = construct_with_defect  # type: ignore[method-assign, assignment]
sys.argv = [MODULE, *sys.argv[3:]]
runpy.run_module(MODULE, run_name="__main__", alter_sys=True)
