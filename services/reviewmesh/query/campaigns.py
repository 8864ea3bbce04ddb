"""Campaigns, which do answers again: choosing reviews, sending requests, progress.

A campaign is a record of `reviews.campaigns`, and a request for each review that it chose. It needs
no further commands: enrichers and joiner read the topics.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from confluent_kafka import OFFSET_BEGINNING

from reviewmesh.avro.codec import DecodeError
from reviewmesh.avro.topics import load_topics
from reviewmesh.enrich.campaigns import CANCELLED, RUNNING
from reviewmesh.kafka.partitioning import partition_of
from reviewmesh.kafka.partitions import MeshPartition
from reviewmesh.kafka.record import CAMPAIGN, Record, kept_headers
from reviewmesh.query.connection import Connection
from reviewmesh.query.errors import NotFound
from reviewmesh.query.lag import progress_of
from reviewmesh.query.reading import offsets, partitions_of, read_all, read_until
from reviewmesh.query.sending import Sender
from reviewmesh_schemas.names import (
    CAMPAIGNS,
    ENRICHED,
    ENRICHER_GROUPS,
    JOINER_GROUP,
    REPROCESS,
    REPROCESSED,
)

HOUR_MS = 3_600_000

Matches = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True)
class ChosenReviews:
    """The latest enriched records that match, by review, with totals for the user."""

    places: dict[bytes, tuple[MeshPartition, int]]
    """Partition and offset."""
    enriched_since: dict[int, int]
    read: int
    """Number of reviews that were read."""
    oldest_ms: int | None
    """When the oldest of them was published: a campaign reaches no further back."""
    inference_ms: float
    """Inference time of the old answers, as far as they have it."""
    cost_micros: int | None
    """Cost of the old answers; None if none has it."""

    def __len__(self) -> int:
        return len(self.places)


@dataclass(frozen=True)
class Campaign:
    id: str
    task: str
    where: str
    state: str
    requests: int
    enriched_since: dict[int, int]
    created_ms: int

    def has_expired(self) -> bool:
        """Whether its requests have expired: those without an answer will not get one."""
        [kept] = [
            topic.retention_hours for topic in load_topics().topics if topic.name == REPROCESS
        ]
        return time.time() * 1000 - self.created_ms > kept * HOUR_MS


@dataclass(frozen=True)
class Status:
    campaign: Campaign
    sent: int
    answered: int
    published: int
    dropped: int
    """Answers that were not published: superseded, failed, or unproven."""

    @property
    def is_over(self) -> bool:
        """Whether no more answers will come."""
        if self.campaign.has_expired():
            return True
        if self.campaign.state == CANCELLED:
            return self.published + self.dropped >= self.answered
        return self.published + self.dropped >= self.campaign.requests

    @property
    def state(self) -> str:
        """In words."""
        state = self.campaign.state.lower()
        if self.is_over:
            return "done" if self.campaign.state != CANCELLED else "cancelled"
        if self.sent < self.campaign.requests and self.campaign.state != CANCELLED:
            return f"{state}, not all sent"
        return state


def choose_reviews(connection: Connection, task: str, matches: Matches) -> ChosenReviews:
    """The reviews whose latest enriched record matches. Raises CannotReach."""
    wanted = partitions_of(connection, ENRICHED)
    ends = offsets(connection, wanted)
    starts = offsets(connection, wanted, OFFSET_BEGINNING)
    return _choose(connection, task, matches, starts, ends)


def _choose(
    connection: Connection,
    task: str,
    matches: Matches,
    starts: Mapping[MeshPartition, int],
    ends: Mapping[MeshPartition, int],
) -> ChosenReviews:
    codec = connection.codec(ENRICHED)
    chosen: dict[bytes, tuple[MeshPartition, int]] = {}
    weights: dict[bytes, tuple[float, int | None]] = {}
    seen: set[bytes] = set()
    oldest_ms: int | None = None
    for record in read_until(connection, starts, ends):
        key = record.key or b""
        oldest_ms = (
            record.timestamp_ms if oldest_ms is None else min(oldest_ms, record.timestamp_ms)
        )
        seen.add(key)
        enriched = _enriched(codec, record)
        if enriched is None or not matches(enriched):
            # Only the latest record of a review counts.
            chosen.pop(key, None)
            continue
        chosen[key] = (place_of(record), record.offset)
        lineage = (enriched["tasks"].get(task) or {}).get("lineage") or {}
        weights[key] = (lineage.get("inference_ms") or 0.0, lineage.get("cost_micros"))
    costs = [weights[key][1] for key in chosen]
    known = [cost for cost in costs if cost is not None]
    return ChosenReviews(
        chosen,
        {partition: at for (_, partition), at in ends.items()},
        len(seen),
        oldest_ms,
        sum(weights[key][0] for key in chosen),
        sum(known) if known else None,
    )


def _enriched(codec: Any, record: Record) -> dict[str, Any] | None:
    """None for a record that no joiner wrote, or that is in another partition than a joiner would
    use."""
    try:
        enriched: dict[str, Any] = codec.decode_ours(record.value or b"")
    except DecodeError:
        return None
    is_ours = record.key == enriched["review_id"].encode() and enriched["tasks"]
    return enriched if is_ours else None


def begin(
    connection: Connection,
    task: str,
    where: str,
    chosen: ChosenReviews,
    on_begun: Callable[[Campaign], None] = lambda campaign: None,
) -> Campaign:
    """Write the campaign, call `on_begun`, then write its requests.

    Raises CannotReach; `resume` sends what is missing.
    """
    now = time.time()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
    campaign = Campaign(
        f"{task}-{stamp}-{secrets.token_hex(2)}",
        task,
        where,
        RUNNING,
        len(chosen),
        chosen.enriched_since,
        int(now * 1000),
    )
    _write(connection, campaign)
    on_begun(campaign)
    _send(connection, campaign, chosen, frozenset())
    return campaign


def change(connection: Connection, campaign: Campaign, state: str) -> Campaign:
    """Raises CannotReach."""
    changed = replace(campaign, state=state)
    _write(connection, changed)
    return changed


def send_missing(connection: Connection, campaign: Campaign, matches: Matches) -> int:
    """Choose again among the same records, and send the requests that are not there yet."""
    wanted = partitions_of(connection, ENRICHED)
    starts = offsets(connection, wanted, OFFSET_BEGINNING)
    ends = {place: campaign.enriched_since.get(place.partition, 0) for place in wanted}
    chosen = _choose(connection, campaign.task, matches, starts, ends)
    sent = frozenset(record.key or b"" for record in _requests(connection, campaign))
    _send(connection, campaign, chosen, sent)
    return len(chosen.places.keys() - sent)


def campaigns(connection: Connection) -> list[Campaign]:
    """All campaigns in the topic, oldest first. Raises CannotReach."""
    codec = connection.codec(CAMPAIGNS)
    latest: dict[bytes | None, Campaign] = {}
    for record in read_all(connection, partitions_of(connection, CAMPAIGNS)):
        latest.pop(record.key, None)
        if record.value is not None:
            try:
                content = codec.decode_ours(record.value)
            except DecodeError:
                continue
            latest[record.key] = Campaign(
                content["campaign"],
                content["task"],
                content["where"] or "",
                content["state"],
                content["requests"],
                {int(number): at for number, at in content["enriched_since"].items()},
                content["created_at"] or 0,
            )
    return sorted(latest.values(), key=lambda campaign: campaign.created_ms)


def campaign_named(connection: Connection, name: str) -> Campaign:
    """Raises NotFound, and CannotReach."""
    for campaign in campaigns(connection):
        if campaign.id == name:
            return campaign
    raise NotFound(f"no campaign is called {name!r:.80}; see `reviewmesh reprocess status`")


def statuses(connection: Connection, of: list[Campaign]) -> list[Status]:
    """Each topic is read once, however many campaigns there are. Raises CannotReach."""
    names = {campaign.id.encode(): campaign for campaign in of}
    sent: Counter[bytes] = Counter()
    answered: Counter[bytes] = Counter()
    joined: Counter[bytes] = Counter()
    published: Counter[bytes] = Counter()
    progress = progress_of(connection, JOINER_GROUP, partitions_of(connection, REPROCESSED))
    for name, record in _headed(connection, names, REPROCESS, REPROCESSED, ENRICHED):
        if record.topic == REPROCESS:
            sent[name] += 1
        elif record.topic == ENRICHED:
            published[name] += 1
        else:
            answered[name] += 1
            joined[name] += progress[place_of(record)].covers(record.offset)
    return [
        Status(
            campaign,
            sent[name],
            answered[name],
            published[name],
            max(0, joined[name] - published[name]),
        )
        for name, campaign in names.items()
    ]


def status(connection: Connection, campaign: Campaign) -> Status:
    """Raises CannotReach."""
    [found] = statuses(connection, [campaign])
    return found


def unfinished(connection: Connection, task: str) -> Campaign | None:
    """The latest campaign of the task that is running or paused. Raises CannotReach."""
    open_ = {
        campaign.id.encode(): campaign
        for campaign in campaigns(connection)
        if campaign.task == task and campaign.state != CANCELLED and not campaign.has_expired()
    }
    if not open_:
        return None
    finished: Counter[bytes] = Counter()
    group, wanted = ENRICHER_GROUPS[task], partitions_of(connection, REPROCESS)
    progress = progress_of(connection, group, wanted)
    for name, record in _headed(connection, open_, REPROCESS):
        finished[name] += progress[place_of(record)].covers(record.offset)
    left = [one for name, one in open_.items() if finished[name] < one.requests]
    return left[-1] if left else None


def unfinished_of_others(connection: Connection, task: str) -> Campaign | None:
    """A campaign of another task of which answers are still to come. Raises CannotReach.

    Each publishes a higher revision of its reviews: an answer of the other campaign that was made
    for the revision before is dropped.
    """
    others = [
        campaign
        for campaign in campaigns(connection)
        if campaign.task != task and campaign.state != CANCELLED and not campaign.has_expired()
    ]
    going_on = [found.campaign for found in statuses(connection, others) if not found.is_over]
    return going_on[-1] if going_on else None


def _requests(connection: Connection, campaign: Campaign) -> Iterator[Record]:
    name = campaign.id.encode()
    return (record for _, record in _headed(connection, {name: campaign}, REPROCESS))


def _headed(
    connection: Connection, of: Mapping[bytes, Campaign], *topics: str
) -> Iterator[tuple[bytes, Record]]:
    """The records of these topics that belong to one of the campaigns, with its name."""
    if not of:
        return
    wanted = partitions_of(connection, *topics)
    ends = offsets(connection, wanted)
    starts = offsets(connection, wanted, OFFSET_BEGINNING)
    for place in wanted:
        if place.topic == ENRICHED:
            since = min(one.enriched_since.get(place.partition, 0) for one in of.values())
            starts[place] = max(starts[place], since)
    for record in read_until(connection, starts, ends):
        name = record.header(CAMPAIGN)
        if name is not None and name in of:
            yield name, record


def _write(connection: Connection, campaign: Campaign) -> None:
    value = connection.codec(CAMPAIGNS).encode(
        {
            "campaign": campaign.id,
            "task": campaign.task,
            "where": campaign.where,
            "state": campaign.state,
            "requests": campaign.requests,
            "enriched_since": {str(n): at for n, at in campaign.enriched_since.items()},
            "created_at": campaign.created_ms,
            "changed_at": int(time.time() * 1000),
        }
    )
    key = campaign.id.encode()
    number = partition_of(key, connection.partitions(CAMPAIGNS))
    sender = Sender(connection)
    sender.send(CAMPAIGNS, number, key, value, ())
    sender.close()


def _send(
    connection: Connection, campaign: Campaign, chosen: ChosenReviews, but: frozenset[bytes]
) -> None:
    """Reads the chosen records a second time, because only their offsets were kept."""
    wanted = {at for key, at in chosen.places.items() if key not in but}
    if not wanted:
        return
    starts: dict[MeshPartition, int] = {}
    ends: dict[MeshPartition, int] = {}
    for place, offset in wanted:
        starts[place] = min(offset, starts.get(place, offset))
        ends[place] = max(offset + 1, ends.get(place, 0))
    codec = connection.codec(REPROCESS)
    now_ms = int(time.time() * 1000)
    sender = Sender(connection)
    for record in read_until(connection, starts, ends):
        if (place_of(record), record.offset) not in wanted:
            continue
        value = codec.encode(
            {
                "review_id": (record.key or b"").decode(),
                "campaign": campaign.id,
                "task": campaign.task,
                "enriched_offset": record.offset,
                "enriched": record.value,
                "enriched_since": campaign.enriched_since.get(record.partition, 0),
                "requested_at": now_ms,
            }
        )
        headers = (*kept_headers(record.headers), (CAMPAIGN, campaign.id.encode()))
        sender.send(REPROCESS, record.partition, record.key, value, headers)
    sender.close()


def place_of(record: Record) -> MeshPartition:
    return MeshPartition(record.topic, record.partition)
