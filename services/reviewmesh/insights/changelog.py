"""Reads partitions of a table's changelog, from their beginning to their current end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection
from typing import Any

from aiokafka import AIOKafkaConsumer

from reviewmesh.insights.broker import connection
from reviewmesh.settings import KafkaSettings

NO_PROGRESS_S = 60.0


async def read_back(
    settings: KafkaSettings,
    partitions: Collection[Any],
    keep: Callable[[str, Any, Any], None],
    is_wanted: Callable[[], bool],
) -> bool:
    """Give each record's topic, key and value to `keep`, per partition in their order.

    False if it was no longer wanted before the end. Raises TimeoutError when nothing came for
    NO_PROGRESS_S, and what the client raises.
    """
    if not partitions:
        return True
    consumer = AIOKafkaConsumer(auto_offset_reset="earliest", **connection(settings))
    clock = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(NO_PROGRESS_S) as limit:
            await consumer.start()
            consumer.assign(list(partitions))
            unread = await consumer.end_offsets(list(partitions))
            while unread and is_wanted():
                for records in (await consumer.getmany(timeout_ms=200, max_records=1000)).values():
                    limit.reschedule(clock() + NO_PROGRESS_S)
                    for record in records:
                        keep(record.topic, json.loads(record.key), json.loads(record.value))
                # Records do not tell: the last one may have been compacted or deleted meanwhile.
                unread = {
                    partition: end
                    for partition, end in unread.items()
                    if await consumer.position(partition) < end
                }
    finally:
        await consumer.stop()
    return not unread
