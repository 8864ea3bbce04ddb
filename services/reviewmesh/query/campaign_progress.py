"""How far campaigns came, for who asks again and again: what was read once is not read again."""

from __future__ import annotations

from collections import Counter

from confluent_kafka import OFFSET_BEGINNING

from reviewmesh.kafka.partitions import MeshPartition
from reviewmesh.kafka.record import CAMPAIGN, Record
from reviewmesh.query.campaigns import Campaign, Status, campaigns, place_of
from reviewmesh.query.connection import Connection
from reviewmesh.query.lag import progress_of
from reviewmesh.query.reading import offsets, partitions_of, read_until
from reviewmesh_schemas.names import ENRICHED, JOINER_GROUP, REPROCESS, REPROCESSED

# Headers may hold anything; there are few campaigns.
NAMES_AT_MOST = 10_000


class CampaignProgress:
    """One thread at a time."""

    def __init__(self) -> None:
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._positions: dict[MeshPartition, int] = {}
        self._counts: dict[str, Counter[bytes]] = {
            topic: Counter() for topic in (REPROCESS, REPROCESSED, ENRICHED)
        }
        self._joined: Counter[bytes] = Counter()
        self._not_joined: list[tuple[MeshPartition, int, bytes]] = []

    def statuses(self, connection: Connection) -> list[tuple[Campaign, Status | None]]:
        """All campaigns, oldest first. Of one whose requests have expired there are no counts.

        Raises CannotReach and KafkaException.
        """
        found = campaigns(connection)
        going_on = [campaign for campaign in found if not campaign.has_expired()]
        if going_on:
            self._read_on(connection, going_on)
        return [
            (campaign, None if campaign.has_expired() else self._status(campaign))
            for campaign in found
        ]

    def _status(self, campaign: Campaign) -> Status:
        name = campaign.id.encode()
        published = self._counts[ENRICHED][name]
        return Status(
            campaign,
            sent=self._counts[REPROCESS][name],
            answered=self._counts[REPROCESSED][name],
            published=published,
            dropped=max(0, self._joined[name] - published),
        )

    def _read_on(self, connection: Connection, going_on: list[Campaign]) -> None:
        wanted = partitions_of(connection, REPROCESS, REPROCESSED, ENRICHED)
        reprocessed = [place for place in wanted if place.topic == REPROCESSED]
        # Before the ends: what the joiner has finished by then is read below.
        progress = progress_of(connection, JOINER_GROUP, reprocessed)
        ends = offsets(connection, wanted)
        starts = offsets(connection, wanted, OFFSET_BEGINNING)
        if any(self._positions.get(place, 0) > end for place, end in ends.items()):
            # A topic was made again.
            self._begin_anew()
        for place in wanted:
            begin = 0
            if place.topic == ENRICHED:
                begin = min(one.enriched_since.get(place.partition, 0) for one in going_on)
            starts[place] = max(starts[place], self._positions.get(place, begin))
        for record in read_until(connection, starts, ends):
            self._count(record)
            self._positions[place_of(record)] = record.offset + 1
        self._positions |= {
            place: max(starts[place], end) for place, end in ends.items() if end >= starts[place]
        }
        waiting = []
        for place, offset, name in self._not_joined:
            if progress[place].covers(offset):
                self._joined[name] += 1
            else:
                waiting.append((place, offset, name))
        self._not_joined = waiting

    def _count(self, record: Record) -> None:
        name = record.header(CAMPAIGN)
        if name is None:
            return
        counts = self._counts[record.topic]
        if name not in counts and len(counts) >= NAMES_AT_MOST:
            return
        counts[name] += 1
        if record.topic == REPROCESSED:
            self._not_joined.append((place_of(record), record.offset, name))
