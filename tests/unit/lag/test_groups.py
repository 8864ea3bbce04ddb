"""What is watched is what the services read."""

from __future__ import annotations

from reviewmesh.enrich.stage import EnrichStage
from reviewmesh.intake.stage import IntakeStage
from reviewmesh.join.stage import JoinStage
from reviewmesh.lag.groups import mesh_groups, watched_groups
from reviewmesh.settings import LagSettings, Settings
from reviewmesh_schemas.names import TASKS


def test_every_service_is_watched_on_every_partition_that_it_reads() -> None:
    wanted = {f"reviewmesh-enricher-{task}": EnrichStage.topics for task in TASKS}
    for stage in (IntakeStage, JoinStage):
        wanted[f"reviewmesh-{stage.service}"] = stage.topics

    groups = mesh_groups("p.")

    assert {group.name for group in groups} == {f"p.{name}" for name in wanted}
    for group in groups:
        topics = wanted[group.name.removeprefix("p.")]
        places = {(f"p.{topic}", number) for topic in topics for number in range(6)}
        assert set(group.partitions) == places and group.reads_all
    assert {group.task for group in groups} == {"", *TASKS}


def test_named_groups_are_watched_beside_the_meshs_own() -> None:
    settings = Settings(prefix="p.", lag=LagSettings(groups=("reports", "p.reviewmesh-joiner")))

    others = [group for group in watched_groups(settings) if not group.reads_all]

    assert [group.name for group in others] == ["p.reviewmesh-insights", "reports"]
    assert all(("p.reviews.enriched", 5) in group.partitions for group in others)
