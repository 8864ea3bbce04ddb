"""Every metric of a worker, declared once with its meaning and unit."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from reviewmesh_kit.version import running_version

ITEMS = Counter(
    "reviewmesh_worker_items_total",
    "Items that got an outcome, by outcome.",
    ["task", "model_version", "outcome"],
)
UNMEASURED_LANGUAGE = Counter(
    "reviewmesh_worker_unmeasured_language_items_total",
    "Items in a language that the model's package does not name.",
    ["task", "model_version"],
)
ANSWER_VALUES = Counter(
    "reviewmesh_worker_answer_values_total",
    "What a model answered, by value. of label: labels, none for an answer without one; of score: "
    "its scores, by the lower end of a tenth; of language: the languages of one text in twenty, "
    "where the gate's set tells which to expect.",
    ["task", "model", "model_version", "of", "value"],
)
REFERENCE_SHARE = Gauge(
    "reviewmesh_worker_reference_share",
    "Share of a value in what the model answered on the gate's set, from its evaluation report.",
    ["task", "model", "model_version", "of", "value"],
)
REFERENCE_VALUES = Gauge(
    "reviewmesh_worker_reference_values",
    "How many values of the gate's set the shares are of.",
    ["task", "model", "model_version", "of"],
)
CALL_ITEMS = Histogram(
    "reviewmesh_worker_call_items",
    "Items per call.",
    ["task"],
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)
ENGINE_SECONDS = Histogram(
    "reviewmesh_worker_engine_seconds",
    "Seconds that the engine took for a call, including its queue.",
    ["task", "model_version"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
REFUSED = Counter("reviewmesh_worker_refused_total", "Calls refused, by status code.", ["code"])
REFUSED_CODES = ("DEADLINE_EXCEEDED", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNAVAILABLE")
# Pre-create labels, so that rate() sees the first refusal.
for _code in REFUSED_CODES:
    REFUSED.labels(_code)
IN_FLIGHT = Gauge("reviewmesh_worker_in_flight_items", "Items admitted and not answered yet.")
WAITING = Gauge("reviewmesh_worker_waiting_items", "Items in the engine's queue.")
MODEL = Gauge(
    "reviewmesh_worker_model_info",
    "1 for the model that serves a task now.",
    ["task", "engine", "model", "model_version", "model_digest"],
)
SWAP_OUTCOMES = ("beside", "drained", "refused", "failed")
SWAPS = Counter(
    "reviewmesh_worker_swaps_total",
    "Changes of an alias in the registry. beside: the new model was loaded while the old one "
    "served; drained: after the old one was unloaded; refused: before loading; failed: while "
    "loading. After the last two the old model goes on serving.",
    ["outcome"],
)
for _outcome in SWAP_OUTCOMES:
    # Pre-create the labels, so that rate() sees the first increment.
    SWAPS.labels(_outcome)
LOAD_SECONDS = Histogram(
    "reviewmesh_worker_load_seconds",
    "Seconds to load a package and warm it up.",
    buckets=(0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800),
)
CERTIFICATE_NOT_BEFORE = Gauge(
    "reviewmesh_worker_certificate_not_before_timestamp_seconds",
    "Since when the certificate is valid that the worker shows on a hop.",
    ["hop"],
)
CERTIFICATE_NOT_AFTER = Gauge(
    "reviewmesh_worker_certificate_not_after_timestamp_seconds",
    "When the certificate expires that the worker shows on a hop.",
    ["hop"],
)
BUILD = Gauge(
    "reviewmesh_worker_build_info",
    "1 for the version of reviewmesh that the process runs.",
    ["version"],
)
BUILD.labels(running_version()).set(1)
