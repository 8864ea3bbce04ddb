"""The names of topics and consumer groups, each without the mesh's prefix; TASKS comes with them.

`topics.yaml` describes each topic; a test compares the two.
"""

from __future__ import annotations

from typing import Final

from reviewmesh_protos.tasks import TASKS as TASKS

RAW: Final = "reviews.raw"
ACCEPTED: Final = "reviews.accepted"
ENRICHED: Final = "reviews.enriched"
PARTIAL: Final = "reviews.partial"
REPLAYED: Final = "reviews.replayed"
DEAD_LETTER: Final = "reviews.dead-letter"
INSIGHTS: Final = "reviews.insights"
REPROCESS: Final = "reviews.reprocess"
"""Requests to answer one task of an enriched review again."""
REPROCESSED: Final = "reviews.reprocessed"
"""The answers to those requests."""
CAMPAIGNS: Final = "reviews.campaigns"
SPEND: Final = "reviews.spend"
"""What the fallback has spent of its budgets."""
DEPARTURES: Final = "reviews.departures"
"""What left for the fallback."""
COMMANDS: Final = "reviews.commands"
"""What the judge is asked to do with a rollout."""
CONTROL: Final = "reviews.control"
"""The rollout of each task, written by the judge alone."""
RESULT_OF: Final = {task: f"reviews.{task}" for task in TASKS}
"""A task's results are in a topic of its own."""
SHADOW_OF: Final = {task: f"reviews.{task}.shadow" for task in TASKS}
"""What a task's candidate answered to reviews that its own workers answered, too."""
TASK_OF: Final = {topic: task for task, topic in RESULT_OF.items()}

INTAKE_GROUP: Final = "reviewmesh-intake"
ENRICHER_GROUPS: Final = {task: f"reviewmesh-enricher-{task}" for task in TASKS}
JOINER_GROUP: Final = "reviewmesh-joiner"
INSIGHTS_GROUP: Final = "reviewmesh-insights"
TRACER_GROUP: Final = "reviewmesh-tracer"
JUDGE: Final = "reviewmesh-judge"
"""No group: the transactional id of the judge."""
READER_GROUP: Final = "reviewmesh-reader"
"""Consumers that read by hand name it, and neither join it nor commit to it."""
INSIGHTS_PARTIALS: Final = f"{INSIGHTS_GROUP}-partials"
INSIGHTS_CONTRIBUTIONS: Final = f"{INSIGHTS_GROUP}-contributions-changelog"
INSIGHTS_TOTALS: Final = f"{INSIGHTS_GROUP}-totals-changelog"
INSIGHTS_OWN: Final = (INSIGHTS_PARTIALS, INSIGHTS_CONTRIBUTIONS, INSIGHTS_TOTALS)
"""Topics that insights create for themselves; they are no contract with anybody."""

ENRICHERS: Final = tuple(f"enricher-{task}" for task in TASKS)
PRINCIPALS: Final = (
    *("intake", *ENRICHERS, "joiner", "lag", "insights", "judge", "tracer", "console"),
    *("operator", "producer", "consumer"),
)
"""Who connects to the broker: the services, the command line, and clients as examples."""
