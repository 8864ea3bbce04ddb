"""What the fallback has spent of its budgets, over all tasks and partitions."""

from __future__ import annotations

from dataclasses import dataclass

from confluent_kafka import OFFSET_BEGINNING

from reviewmesh.avro.codec import DecodeError
from reviewmesh.kafka.partitions import MeshPartition
from reviewmesh.leaving.accounts import Account, account_and_spent
from reviewmesh.leaving.amounts import Spent
from reviewmesh.query.connection import Connection
from reviewmesh.query.reading import offsets, read_until
from reviewmesh_schemas.names import SPEND


@dataclass
class SpentByAccount:
    """The latest sums."""

    spent: dict[Account, Spent]
    skipped: int
    """Records that no enricher writes."""


def spending(connection: Connection) -> SpentByAccount:
    """Raises CannotReach."""
    places = [MeshPartition(SPEND, number) for number in range(connection.partitions(SPEND))]
    starts, ends = offsets(connection, places, OFFSET_BEGINNING), offsets(connection, places)
    codec = connection.codec(SPEND)
    latest: dict[bytes, tuple[Account, Spent]] = {}
    skipped = 0
    for record in read_until(connection, starts, ends):
        if record.value is None:
            latest.pop(record.key or b"", None)
            continue
        try:
            latest[record.key or b""] = account_and_spent(codec.decode_ours(record.value))
        except DecodeError:
            skipped += 1
    found = SpentByAccount({}, skipped)
    for account, spent in latest.values():
        found.spent[account] = found.spent.get(account, Spent()).plus(spent)
    return found
