"""What a worker's server needs of an engine, and nothing about any one engine.

An engine answers one or more tasks (`ner`, `topic`, `sentiment`). Offsets are code points of the
text exactly as it was handed in. An answer's outcome is an output or an `ItemFailure`: one bad text
fails alone and never takes the texts beside it along.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from reviewmesh_worker.engines.lanes import Lane


@dataclass(frozen=True, slots=True)
class Entity:
    """A named span: `text[start:end]` of the review is `text`, counted in code points."""

    start: int
    end: int
    text: str
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic of the taxonomy that the text is about, and what it says of it."""

    id: str
    score: float
    polarity: str


@dataclass(frozen=True, slots=True)
class NerOutput:
    entities: tuple[Entity, ...]


@dataclass(frozen=True, slots=True)
class TopicOutput:
    topics: tuple[Topic, ...]


@dataclass(frozen=True, slots=True)
class SentimentOutput:
    """The likeliest label and a probability per label; the probabilities add up to one."""

    label: str
    scores: Mapping[str, float]


TaskOutput = NerOutput | TopicOutput | SentimentOutput


@dataclass(frozen=True, slots=True)
class Usage:
    """What one text cost; None is what the engine does not measure."""

    queue_ms: int | None = None
    inference_ms: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class ItemFailure:
    """Why one text has no output; whoever raises it knows whether trying again can help.

    An answer that nothing could be made of cost as much as any other.
    """

    code: str
    message: str
    retryable: bool
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class Answer:
    outcome: TaskOutput | ItemFailure
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class TaskDescription:
    """What answers a task; it becomes the lineage of every result."""

    task: str
    labels: tuple[str, ...]
    engine: str
    model: str
    model_version: str
    model_digest: str
    prompt_version: str = ""
    """Version of the task that the model was trained and is asked for; empty without a prompt."""


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """How busy an engine is: texts being inferred, texts waiting, share of KV blocks in use."""

    running: int
    waiting: int
    kv_usage: float


class EngineLoadError(RuntimeError):
    """An engine cannot start; the message says what was expected, what is off, what to do."""


class EngineMemoryError(EngineLoadError):
    """An engine cannot start for want of memory: it may, once another one has let go of its own."""


class EngineDead(RuntimeError):
    """An engine can answer no more: its process must be started anew."""


NOT_STARTED = Answer(ItemFailure("UNAVAILABLE", "the engine has not started", retryable=True))
"""What an engine says of every text until it has started."""


class Engine(Protocol):
    @property
    def tasks(self) -> Mapping[str, TaskDescription]:
        """The tasks that this engine answers, known before `start`."""
        ...

    async def start(self) -> None:
        """Load and warm up; raises EngineLoadError saying what is off."""
        ...

    async def infer(
        self, task: str, texts: Sequence[str], lane: Lane = Lane.INTERACTIVE
    ) -> Sequence[Answer]:
        """One answer per text, in order; cancelling the call withdraws its texts.

        Where texts wait, those of interactive calls are taken first, see `lanes`.

        Raises EngineDead.
        """
        ...

    def check(self) -> None:
        """Raises EngineDead when the engine died while nobody asked it anything."""
        ...

    def load(self) -> EngineLoad:
        """A snapshot, cheap enough to take with every answer."""
        ...

    async def close(self) -> None:
        """Let go of threads and memory; what still waits fails as retryable."""
        ...
