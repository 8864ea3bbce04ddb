"""`python -m tests.insights_readers RECORDS`: readers of the insights in one process, one group.

Prints, as JSON, how often each record was given out in a batch that could be written, and whether
the batch whose partitions were taken away could. Runs in Faust's environment.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Callable

from reviewmesh.insights.reader import GroupReader, ReadBatch
from reviewmesh.insights.topics import TopicNames
from reviewmesh.settings import Settings
from reviewmesh_schemas.names import INSIGHTS_GROUP


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 (the client tells of it by no event)
            await asyncio.sleep(0.01)


async def joined(reader: GroupReader) -> ReadBatch:
    await reader.start()
    return await reader.gather(1, 0.1)


class Group:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.written: Counter[tuple[int, int]] = Counter()

    def reader(self, slot: str) -> GroupReader:
        settings = self.settings.model_copy(update={"slot": slot})
        return GroupReader(
            settings, settings.prefix + INSIGHTS_GROUP, [TopicNames.of(settings).enriched]
        )

    async def write(self, reader: GroupReader, batch: ReadBatch) -> bool:
        async with reader.holding(batch) as held:
            if held and batch.records:
                await reader.commit(batch)
                self.written.update((item.partition, item.offset) for item in batch.records)
            return held


async def run(records: int) -> dict[str, object]:
    group = Group(Settings())
    first, second = group.reader("0"), group.reader("1")
    await first.start()
    batch = ReadBatch(frozenset())
    while not batch.records:
        batch = await first.gather(records // 4, 0.5)

    # A rebalance begins while a batch is written: the second reader goes on behind it.
    async with first.holding(batch) as held:
        joining = asyncio.ensure_future(joined(second))
        await until(lambda: not first.holds(batch.assignment))
        # Round trips enough for the group to go on without us, if it did not wait.
        for _ in range(50):
            await first._consumer.committed(next(iter(batch.assignment)))
        await first.commit(batch)
        group.written.update((item.partition, item.offset) for item in batch.records)
    await group.write(second, await joining)
    await until(lambda: not first.is_current(batch.assignment))
    of_first = await first.gather(records // 4, 0.5)

    # Partitions are taken away while one batch is in hand, and another one is being gathered: what
    # was of the assignment before is left, and comes again.
    spanning = asyncio.ensure_future(second.gather(records, 5))
    third = group.reader("2")
    of_third = await joined(third)
    await until(lambda: not first.is_current(of_first.assignment))
    was_held = await group.write(first, of_first)
    await group.write(second, await spanning)
    await group.write(third, of_third)
    async with asyncio.timeout(60):
        while len(group.written) < records:
            for reader in (first, second, third):
                await group.write(reader, await reader.gather(1000, 0.2))
    await asyncio.gather(first.stop(), second.stop(), third.stop())
    return {
        "written_while_it_was_ours": held,
        "written_afterwards": was_held,
        "most_often": max(group.written.values()),
        "records": len(group.written),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(int(sys.argv[1])))))
