"""`python -m tests.dying_insights N`: the insights service, killed as it hands over its Nth write.

Never with 0. Writes are slowed, so that a batch takes a second. Runs in Faust's environment.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable
from typing import Any

from reviewmesh.insights import __main__ as service
from reviewmesh.insights import app
from reviewmesh.insights.windows import Message
from reviewmesh.process.service import run_process


def die_at(last: int) -> None:
    send, writes = app.send, 0

    async def send_or_die(topic: Any, message: Message) -> Awaitable[object]:
        nonlocal writes
        writes += 1
        if writes == last:
            os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(0.001)
        return await send(topic, message)

    app.send = send_or_die


if __name__ == "__main__":
    die_at(int(sys.argv[1]))
    sys.exit(run_process("insights", service.InsightsService, service.check_both_clients))
