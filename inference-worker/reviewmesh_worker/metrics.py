"""Every metric of a worker, declared once with its meaning and unit."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

ITEMS = Counter(
    "reviewmesh_worker_items_total",
    "Items answered, by outcome.",
    ["task", "model_version", "outcome"],
)
CALL_ITEMS = Histogram(
    "reviewmesh_worker_call_items",
    "Items in a call.",
    ["task"],
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)
ENGINE_SECONDS = Histogram(
    "reviewmesh_worker_engine_seconds",
    "Seconds that the engine took for a call, its own queue included.",
    ["task", "model_version"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
REFUSED = Counter("reviewmesh_worker_refused_total", "Calls refused, by status code.", ["code"])
IN_FLIGHT = Gauge("reviewmesh_worker_in_flight_items", "Items admitted and not answered.")
WAITING = Gauge("reviewmesh_worker_waiting_items", "Items in the engine's queue.")
