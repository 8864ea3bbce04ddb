"""What the broker's authorizer decided, from its log: who asked for what, and who was refused.

The broker writes refusals as it is; with AUDITED in its environment it writes every decision.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

AUDITED = {"JAVA_TOOL_OPTIONS": "-Dorg.slf4j.simpleLogger.log.kafka.authorizer.logger=debug"}
DECISION = re.compile(
    r"Principal = (?P<principal>\S+) is (?P<verdict>Allowed|Denied) operation = (?P<operation>\w+) "
    r"from host = \S+ on resource = (?P<kind>\w+):LITERAL:(?P<name>\S+) for request = (?P<api>\w+)"
)


class Decision(NamedTuple):
    principal: str
    operation: str
    """As Kafka's command line writes it: Read, DescribeConfigs."""
    kind: str
    """topic, group, transactionalId or cluster."""
    name: str
    api: str
    """The request that asked."""
    is_allowed: bool


def decisions(log: Path) -> Iterator[Decision]:
    """Of a broker's log, those that were rotated away included as far as they are there."""
    for file in sorted(log.parent.glob(f"{log.name}*"), reverse=True):
        with file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if (found := DECISION.search(line)) is not None:
                    yield _decision(found)


def _decision(found: re.Match[str]) -> Decision:
    words = found["operation"].split("_")
    kind = found["kind"]
    return Decision(
        found["principal"],
        "".join(word.capitalize() for word in words),
        kind[0].lower() + kind[1:],
        found["name"],
        found["api"],
        found["verdict"] == "Allowed",
    )
