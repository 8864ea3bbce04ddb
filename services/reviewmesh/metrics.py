"""Every metric of the services, declared once with its meaning and unit."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

RECORDS_READ = Counter(
    "reviewmesh_records_read_total", "Records read and not finished before.", ["service", "topic"]
)
OUTPUTS = Counter(
    "reviewmesh_records_written_total", "Records written and committed.", ["service", "topic"]
)
TRANSACTION_SECONDS = Histogram(
    "reviewmesh_transaction_seconds",
    "Seconds from begin to commit of a transaction.",
    ["service"],
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
TRANSACTIONS_ABORTED = Counter(
    "reviewmesh_transactions_aborted_total", "Transactions aborted and tried again.", ["service"]
)
PRODUCERS_RECOVERED = Counter(
    "reviewmesh_producers_recovered_total",
    "Times that the producer was replaced and all partitions rewound.",
    ["service"],
)
SET_ASIDE = Counter(
    "reviewmesh_records_set_aside_total",
    "Records that a stage could not take, by what showed it: raised, aborted, killed; impassable, "
    "a batch of which the client gives none.",
    ["service", "reason"],
)
SET_ASIDE_REASONS = ("raised", "aborted", "killed", "impassable")
SKIPPED_OFFSETS = Counter(
    "reviewmesh_skipped_offsets_total",
    "Offsets that were gone before they were read: retention, delete-records, a topic made anew.",
    ["service", "topic"],
)
STALLED = Gauge(
    "reviewmesh_stalled_partitions",
    "Partitions with records that wait and nothing finished, for no reason outside.",
    ["service"],
)
REOPENED = Counter(
    "reviewmesh_partitions_reopened_total",
    "Partitions reopened since they stood still.",
    ["service"],
)
IN_FLIGHT = Gauge(
    "reviewmesh_in_flight_records", "Records read and unfinished.", ["service", "topic"]
)
PAUSED = Gauge("reviewmesh_paused_partitions", "Partitions paused by backpressure.", ["service"])
ASSIGNED = Gauge("reviewmesh_assigned_partitions", "Partitions owned and resolved.", ["service"])
DUPLICATES = Counter(
    "reviewmesh_duplicates_total", "Reviews dropped as unchanged within the dedupe window."
)
FORWARDED = Counter(
    "reviewmesh_forwarded_total", "Raw records moved to the partition of their review_id."
)
DEAD_LETTERS = Counter("reviewmesh_dead_letters_total", "Dead letters.", ["stage", "cause"])
DEAD_LETTER_CAUSES = (
    "MALFORMED",
    "UNKNOWN_SCHEMA",
    "INVALID",
    "EMPTY",
    "OVERSIZE",
    "TOMBSTONE",
    "REJECTED",
    "FAILED",
    "UNREADABLE",
)
INFERENCE_WAITING = Gauge(
    "reviewmesh_inference_waiting_items", "Items that wait for room at a worker.", ["task"]
)
WORKERS_SERVING = Gauge(
    "reviewmesh_workers_serving", "Inference workers that this process sends calls to.", ["task"]
)
RETRIES = Counter("reviewmesh_inference_retries_total", "Calls beyond the first.", ["task"])
INFERENCE_SECONDS = Histogram(
    "reviewmesh_inference_seconds",
    "Seconds from reading an accepted review to having its result.",
    ["task"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
ENRICHED = Counter("reviewmesh_enriched_total", "Enriched records by kind.", ["kind"])
LATE_RESULTS = Counter(
    "reviewmesh_late_results_total",
    "Results that no review waited for: merged into a partial record; dropped, since their review "
    "is out; doubled; orphaned, since their accepted review never comes; foreign, since that is of "
    "another content.",
    ["task", "outcome"],
)
ENRICHERS_ASKED = Counter(
    "reviewmesh_enrichers_asked_total",
    "Times that the joiner asked what a task's enricher has finished, since later results had long "
    "overtaken a review.",
    ["task"],
)
REPLAYS_DROPPED = Counter(
    "reviewmesh_replays_dropped_total",
    "Replays of a dead letter whose replay has taken effect before.",
    ["service"],
)
NOT_REPEATED = Counter(
    "reviewmesh_records_not_repeated_total",
    "Records that an operator's reset made come again and that have no second outcome: judged "
    "(intake), published, superseded by a later version that is out, unproven (incomplete now, and "
    "what was published of that time is deleted).",
    ["service", "reason"],
)
PARTIALS_OPEN = Gauge("reviewmesh_open_partial_records", "Published records that lack an answer.")
END_TO_END_SECONDS = Histogram(
    "reviewmesh_end_to_end_seconds",
    "Seconds from the producer's timestamp to the enriched record.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600),
)
INSIGHTS_RECORDS = Counter(
    "reviewmesh_insights_records_total",
    "Enriched records read: counted, repeated (older than what is counted), late (of a closed "
    "window), undecodable.",
    ["outcome"],
)
INSIGHTS_PUBLISHED = Counter(
    "reviewmesh_insights_published_total", "Insights written to reviews.insights."
)
INSIGHTS_REVIEWS = Gauge(
    "reviewmesh_insights_held_reviews", "Reviews whose contribution is in memory."
)
INSIGHTS_WINDOWS = Gauge(
    "reviewmesh_insights_held_windows", "Pairs of business and window that are in memory."
)


def start_at_zero(service: str, stage: str) -> None:
    """A counter that appears with its first event hides that event from rate() and increase()."""
    PRODUCERS_RECOVERED.labels(service)
    TRANSACTIONS_ABORTED.labels(service)
    REOPENED.labels(service)
    STALLED.labels(service)
    for reason in SET_ASIDE_REASONS:
        SET_ASIDE.labels(service, reason)
    for cause in DEAD_LETTER_CAUSES:
        DEAD_LETTERS.labels(stage, cause)
