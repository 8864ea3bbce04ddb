"""What is watched is what the services read."""

from __future__ import annotations

from reviewmesh.avro.topics import load_topics
from reviewmesh.enrich.stage import EnrichStage
from reviewmesh.intake.stage import IntakeStage
from reviewmesh.join.stage import JoinStage
from reviewmesh.lag.groups import mesh_groups, watched_groups
from reviewmesh.settings import LagSettings, Settings
from reviewmesh_schemas.names import REPROCESS, REPROCESSED, TASKS


def test_every_service_is_watched_on_every_partition_of_live_reviews() -> None:
    """What a campaign has left is no lag: nobody waits for it, and it asks for no more workers."""
    wanted = {f"reviewmesh-enricher-{task}": EnrichStage.topics for task in TASKS}
    for stage in (IntakeStage, JoinStage):
        wanted[f"reviewmesh-{stage.service}"] = stage.topics

    groups = mesh_groups("p.")

    assert {group.name for group in groups} == {f"p.{name}" for name in wanted}
    for group in groups:
        topics = {*wanted[group.name.removeprefix("p.")]} - {REPROCESS, REPROCESSED}
        places = {(f"p.{topic}", number) for topic in topics for number in range(6)}
        assert set(group.partitions) == places and group.reads_all
    assert {group.task for group in groups} == {"", *TASKS}


def test_named_groups_are_watched_beside_the_meshs_own() -> None:
    settings = Settings(prefix="p.", lag=LagSettings(groups=("reports", "p.reviewmesh-joiner")))

    others = [group for group in watched_groups(settings) if not group.reads_all]

    own = ["p.reviewmesh-insights", "p.reviewmesh-tracer"]
    assert [group.name for group in others] == [*own, "reports"]
    assert all(("p.reviews.enriched", 5) in group.partitions for group in others)
    assert all(("p.reviews.dead-letter", 5) in group.partitions for group in others)


def test_the_lag_service_may_read_what_is_committed_by_those_it_watches() -> None:
    """Seconds of lag come from the oldest unfinished record itself."""
    for topic in load_topics().topics:
        if {"insights", "tracer"} & {*topic.consumers}:
            assert "lag" in topic.consumers, topic.name
