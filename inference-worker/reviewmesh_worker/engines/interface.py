"""The interface between the server and its engines.

An engine answers one or more tasks (`ner`, `topic`, `sentiment`). Offsets are code points of the
text exactly as it was passed in. The outcome of an answer is an output or an `ItemFailure`: a text
that cannot be answered does not fail the others of its call.
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
    """A topic of the taxonomy that the text is about, with its polarity."""

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
    """What one text cost; None where the engine does not measure it."""

    queue_ms: int | None = None
    inference_ms: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    cost_micros: int | None = None
    """In millionths of a US dollar, rounded up; None where the price is not known."""
    provider_requests: int | None = None
    """None where the engine runs the model itself."""

    def counted_elsewhere(self) -> Usage:
        """The usage of the same answer for another call: tokens and cost are counted once."""
        return Usage(
            queue_ms=self.queue_ms,
            inference_ms=self.inference_ms,
            prompt_tokens=_nothing(self.prompt_tokens),
            cached_tokens=_nothing(self.cached_tokens),
            completion_tokens=_nothing(self.completion_tokens),
            cost_micros=_nothing(self.cost_micros),
            provider_requests=_nothing(self.provider_requests),
        )


def _nothing(measured: int | None) -> int | None:
    return None if measured is None else 0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What each text of a call may take at most; 0 leaves it to the engine."""

    provider_requests: int = 0
    tokens: int = 0
    """Of prompt and answer."""
    cost_micros: int = 0
    """In millionths of a US dollar."""


UNBOUND = Bounds()


@dataclass(frozen=True, slots=True)
class ItemFailure:
    """Why one text has no output, and whether a retry can help.

    It has a usage too: an answer that cannot be parsed costs as much as any other.
    """

    code: str
    message: str
    retryable: bool
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class ItemResult:
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
    """Version of the task that the model was trained for; empty without a prompt."""
    provider: str = ""
    """Who runs the model; empty where the engine does so itself."""
    languages: tuple[str, ...] = ()
    """Languages that the model was made for; empty if its package lists none."""


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """How busy an engine is: texts being inferred, texts waiting, share of KV blocks in use."""

    running: int
    waiting: int
    kv_usage: float


class EngineLoadError(RuntimeError):
    """An engine cannot start; the message says what was expected, what was found and what to do."""


class EngineMemoryError(EngineLoadError):
    """Too little memory to start: a retry may succeed after another engine has freed its own."""


class EngineUnavailable(RuntimeError):
    """The engine's endpoint refuses or cannot be reached: no text was processed, another worker may
    try."""

    requests = 0
    """That were sent for the text before."""


class EngineDead(RuntimeError):
    """An engine cannot answer any more: its process must be restarted."""


NOT_STARTED = ItemResult(ItemFailure("UNAVAILABLE", "the engine has not started", retryable=True))
"""The answer to every text until the engine has started."""


class Engine(Protocol):
    @property
    def tasks(self) -> Mapping[str, TaskDescription]:
        """The tasks that this engine answers, known before `start`."""
        ...

    async def start(self) -> None:
        """Load and warm up. Raises EngineLoadError."""
        ...

    async def infer(
        self,
        task: str,
        texts: Sequence[str],
        lane: Lane = Lane.INTERACTIVE,
        bounds: Bounds = UNBOUND,
    ) -> Sequence[ItemResult]:
        """One answer per text, in order; cancelling the call cancels its texts.

        Queued texts of interactive calls go before those of a backfill, see `lanes`. An engine that
        runs the model itself keeps to any `bounds`: it asks no provider.

        Raises EngineDead, and EngineUnavailable: with bounds, before anything was sent.
        """
        ...

    def unavailable(self) -> str:
        """Why calls should go elsewhere at the moment; empty when they need not."""
        ...

    def check(self) -> None:
        """Raises EngineDead when the engine died, also between calls."""
        ...

    def load(self) -> EngineLoad:
        """A snapshot, cheap enough to take with every answer."""
        ...

    async def close(self) -> None:
        """Free threads and memory; queued texts fail as retryable."""
        ...
