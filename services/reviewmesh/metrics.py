"""Every metric of the services, declared once with its meaning and unit."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

from reviewmesh_kit.version import running_version

RECORDS_READ = Counter(
    "reviewmesh_records_read_total",
    "Records read, without those that were finished before a restart.",
    ["service", "topic"],
)
OUTPUTS = Counter(
    "reviewmesh_records_written_total",
    "Records written in committed transactions.",
    ["service", "topic"],
)
TRANSACTION_SECONDS = Histogram(
    "reviewmesh_transaction_seconds",
    "Seconds from begin to commit of a transaction.",
    ["service"],
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
TRANSACTIONS_ABORTED = Counter(
    "reviewmesh_transactions_aborted_total",
    "Transactions that were aborted and tried again.",
    ["service"],
)
PRODUCERS_RECOVERED = Counter(
    "reviewmesh_producers_recovered_total",
    "Times that the producer was replaced and every partition rewound to its commit.",
    ["service"],
)
SET_ASIDE = Counter(
    "reviewmesh_records_set_aside_total",
    "Records that became a dead letter because they could not be processed. raised: the stage "
    "raised an error; aborted: their transaction failed again and again; killed: the process died "
    "with them again and again; impassable: the client cannot read the batch that holds them.",
    ["service", "reason"],
)
SET_ASIDE_REASONS = ("raised", "aborted", "killed", "impassable")
SKIPPED_OFFSETS = Counter(
    "reviewmesh_skipped_offsets_total",
    "Offsets that were deleted before they were read: by retention, by delete-records, or because "
    "the topic was deleted and created again.",
    ["service", "topic"],
)
STALLED = Gauge(
    "reviewmesh_stalled_partitions",
    "Partitions that have work and make no progress, although nothing outside holds them up.",
    ["service"],
)
REOPENED = Counter(
    "reviewmesh_partitions_reopened_total",
    "Partitions that were reopened because they made no progress.",
    ["service"],
)
IN_FLIGHT = Gauge(
    "reviewmesh_in_flight_records", "Records read and not finished.", ["service", "topic"]
)
PAUSED = Gauge("reviewmesh_paused_partitions", "Partitions paused by backpressure.", ["service"])
ASSIGNED = Gauge(
    "reviewmesh_assigned_partitions",
    "Partitions that are assigned to this process and being read.",
    ["service"],
)
DUPLICATES = Counter(
    "reviewmesh_duplicates_total",
    "Reviews dropped because they came again unchanged within the dedupe window.",
)
FORWARDED = Counter(
    "reviewmesh_forwarded_total", "Raw records forwarded to the partition of their review_id."
)
DEAD_LETTERS = Counter(
    "reviewmesh_dead_letters_total", "Dead letters by stage and cause.", ["stage", "cause"]
)
# Each with what it means, for docs/reference/dead-letters.md.
DEAD_LETTER_CAUSES = {
    "MALFORMED": "The value is not Avro in Confluent wire format, or does not fit its schema.",
    "UNKNOWN_SCHEMA": "The registry knows no schema of the id in the value.",
    "INVALID": "The value decodes, but is not a review that the mesh can take: the writer's schema "
    "lacks a field or has another type for it, or a field holds what the contract excludes.",
    "EMPTY": "The review has no visible text.",
    "OVERSIZE": "The text, the attributes, the headers or the whole record is larger than allowed, "
    "or its batch takes too much memory when it is decompressed.",
    "TOMBSTONE": "The record has no value, and its key is not the id of a review.",
    "FAILED": "The inference worker gave a final error for the review, or an answer that is not "
    "valid. The review is published without the answer of this task.",
    "UNREADABLE": "The client cannot read the batch that holds the record, or the record makes the "
    "service fail each time it is tried.",
}
INFERENCE_WAITING = Gauge(
    "reviewmesh_inference_waiting_items",
    "Items that wait until a worker has room for them.",
    ["task"],
)
WORKERS_SERVING = Gauge(
    "reviewmesh_workers_serving", "Inference workers that this process sends calls to.", ["task"]
)
FALLBACK_WORKERS_SERVING = Gauge(
    "reviewmesh_fallback_workers_serving",
    "Fallback workers that this process would send calls to, by the region they are in.",
    ["task", "region"],
)
NAMES_WORKERS_SERVING = Gauge(
    "reviewmesh_names_workers_serving",
    "Workers of the mesh that find the names to mask in what leaves for a task's fallback.",
    ["task"],
)
CALLS = Counter(
    "reviewmesh_inference_calls_total",
    "Calls sent to workers. primary: the task's own; fallback: the fallback's; names: those that "
    "find the names to mask; candidate: those with the candidate of a rollout.",
    ["task", "route"],
)
BUDGET_USED = Gauge(
    "reviewmesh_budget_used",
    "What the fallback has used of its budget in the running day or month: reserved, settled and "
    "orphaned, of the partitions that this process has. business is empty for the budget of all; "
    "unit is requests, tokens or usd.",
    ["task", "business", "period", "unit"],
)
BUDGET_LIMIT = Gauge(
    "reviewmesh_budget_limit",
    "The part of the budget that these partitions have; no series where nothing limits that unit.",
    ["task", "business", "period", "unit"],
)
CANDIDATE_WORKERS_SERVING = Gauge(
    "reviewmesh_candidate_workers_serving",
    "Workers with the candidate of a rollout that this process would send calls to, by what they "
    "would be asked for: shadow, or canary.",
    ["task", "lane"],
)
SHADOWED = Counter(
    "reviewmesh_shadow_reviews_total",
    "Reviews that were to be answered by the candidate as well. answered: its answer, or its "
    "failure, was sent to the shadow topic; dropped: the candidate had no room for it, or the "
    "rollout went on without it.",
    ["task", "outcome"],
)
CANARIES = Counter(
    "reviewmesh_canary_reviews_total",
    "Reviews that were given to the candidate as canaries. answered: by the candidate; failed: by "
    "the task's own workers after it; taken_back: by them, because the rollout ended.",
    ["task", "outcome"],
)
HELD_BACK = Gauge(
    "reviewmesh_reviews_held_back",
    "Reviews that wait although the fallback would be taken for them. forbidden: the policy lets "
    "nothing of their business leave; no_worker: no fallback worker serves in a region that is "
    "allowed; no_names: names are to be masked, and no worker finds them; no_budget: no budget is "
    "given for the task; spent: a budget is spent; over_bound: they might take more than one call "
    "may; failed: the fallback failed on them and is tried again later.",
    ["task", "reason"],
)
RETRIES = Counter(
    "reviewmesh_inference_retries_total", "Calls to workers that were repeated.", ["task"]
)
INFERENCE_SECONDS = Histogram(
    "reviewmesh_inference_seconds",
    "Seconds from reading an accepted review to having its result.",
    ["task"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
ENRICHED = Counter("reviewmesh_enriched_total", "Enriched records published, by kind.", ["kind"])
LATE_RESULTS = Counter(
    "reviewmesh_late_results_total",
    "Results for which no review was waiting. merged: completed a partial record; dropped: the "
    "review is published already; doubled: a second result of the same task; orphaned: there is no "
    "accepted review at that offset; foreign: the accepted review there has another content.",
    ["task", "outcome"],
)
LATE_OUTCOMES = ("merged", "dropped", "doubled", "orphaned", "foreign")
ENRICHERS_ASKED = Counter(
    "reviewmesh_enrichers_asked_total",
    "Times that the joiner looked up what a task's enricher has finished, because later results "
    "had overtaken a review for straggler_s.",
    ["task"],
)
REPLAYS_DROPPED = Counter(
    "reviewmesh_replays_dropped_total",
    "Replays dropped because another replay of the same dead letter had taken effect.",
    ["service"],
)
ERASED = Counter(
    "reviewmesh_erased_reviews_total",
    "Tombstones that were accepted: the review is published once more, without its content.",
)
ERASED_REPLAYS_DROPPED = Counter(
    "reviewmesh_erased_replays_dropped_total",
    "Replays of dead letters dropped because their review was erased since.",
    ["service"],
)
NOT_REPEATED = Counter(
    "reviewmesh_records_not_repeated_total",
    "Records that were read again after an offset reset and got no second outcome. judged: intake "
    "had judged them; published: their review is published; superseded: a later version of it "
    "is; unproven: the review would be incomplete, and records of that time are deleted.",
    ["service", "reason"],
)
REPROCESS_REQUESTS = Counter(
    "reviewmesh_reprocess_requests_total",
    "Requests of campaigns that an enricher has finished. answered: the answer or the failure was "
    "sent to the joiner; cancelled: the campaign was cancelled or has expired.",
    ["task", "outcome"],
)
REPROCESSED = Counter(
    "reviewmesh_reprocessed_answers_total",
    "Answers of campaigns that the joiner has finished. published: the review was published as a "
    "higher revision; superseded: a newer version was accepted or published since the campaign "
    "chose the review; failed: the task failed, and the old answer stays; unproven: more reviews "
    "were published since than the joiner remembers, and a later campaign finds this one again.",
    ["task", "outcome"],
)
JUDGE_WORKERS_SERVING = Gauge(
    "reviewmesh_judge_workers_serving",
    "Workers that the judge asks about labelled texts. route: primary, or candidate.",
    ["task", "route"],
)
ROLLOUT_SHARE = Gauge(
    "reviewmesh_rollout_share_ratio",
    "Share of a task's reviews that the candidate of its rollout answers, in state CANARY and "
    "READY, or answers as well, in state SHADOW; 0 without a rollout.",
    ["task", "state"],
)
ROLLED_BACK = Counter(
    "reviewmesh_rollouts_rolled_back_total",
    "Rollouts that the judge ended, by the metric that showed the candidate to be worse.",
    ["task", "metric"],
)
ROLLOUT_KAPPA = Gauge(
    "reviewmesh_rollout_kappa",
    "Cohen's kappa between the candidate's answers and those of the task's own workers to the same "
    "reviews, for each label by itself, in all languages or one. 1 is full agreement, 0 what "
    "chance would give.",
    ["task", "slice", "label"],
)
ROLLOUT_COMPARED = Gauge(
    "reviewmesh_rollout_compared_ratio",
    "Reviews whose answers were compared in shadow, of those that the task answered meanwhile.",
    ["task"],
)
PARTIALS_OPEN = Gauge(
    "reviewmesh_open_partial_records", "Published records that still lack the answer of a task."
)
END_TO_END_SECONDS = Histogram(
    "reviewmesh_end_to_end_seconds",
    "Seconds from the raw record's timestamp to the enriched record.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600),
)
INSIGHTS_RECORDS = Counter(
    "reviewmesh_insights_records_total",
    "Enriched records read. counted: part of a window; repeated: older than what is counted; "
    "late: of a window that is closed; undecodable: not an enriched review.",
    ["outcome"],
)
INSIGHTS_PUBLISHED = Counter(
    "reviewmesh_insights_published_total", "Records written to reviews.insights."
)
INSIGHTS_REVIEWS = Gauge(
    "reviewmesh_insights_held_reviews", "Reviews whose contribution is in memory."
)
INSIGHTS_WINDOWS = Gauge(
    "reviewmesh_insights_held_windows", "Pairs of business and window in memory."
)


def start_at_zero(service: str, stage: str, topics: Iterable[str]) -> None:
    """Pre-create labels, so that rate() and increase() see the first increment."""
    PRODUCERS_RECOVERED.labels(service)
    TRANSACTIONS_ABORTED.labels(service)
    REOPENED.labels(service)
    STALLED.labels(service)
    for reason in SET_ASIDE_REASONS:
        SET_ASIDE.labels(service, reason)
    for cause in DEAD_LETTER_CAUSES:
        DEAD_LETTERS.labels(stage, cause)
    for topic in topics:
        SKIPPED_OFFSETS.labels(service, topic)


CERTIFICATE_NOT_BEFORE = Gauge(
    "reviewmesh_certificate_not_before_timestamp_seconds",
    "Since when the certificate is valid that this process shows on a hop.",
    ["hop"],
)
CERTIFICATE_NOT_AFTER = Gauge(
    "reviewmesh_certificate_not_after_timestamp_seconds",
    "When the certificate expires that this process shows on a hop.",
    ["hop"],
)
SPANS = Counter(
    "reviewmesh_spans_total",
    "Spans that the tracer sent. reason: why their review is traced.",
    ["reason"],
)
SPANS_REFUSED = Counter(
    "reviewmesh_spans_refused_total",
    "Spans that the OTLP endpoint refused, or did not take for too long.",
)
BUILD = Gauge(
    "reviewmesh_build_info", "1 for the version of reviewmesh that the process runs.", ["version"]
)
BUILD.labels(running_version()).set(1)
