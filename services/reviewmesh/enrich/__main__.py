"""`python -m reviewmesh.enrich --task ner`: builds one task's enricher and runs it."""

from __future__ import annotations

import argparse
import sys

import structlog

from reviewmesh import metrics
from reviewmesh.avro.contracts import Contracts
from reviewmesh.clock import wall_clock
from reviewmesh.enrich.campaigns import Campaigns
from reviewmesh.enrich.candidate import CandidatePlan
from reviewmesh.enrich.client import InferenceClient
from reviewmesh.enrich.connection import worker_certificates
from reviewmesh.enrich.fallback import FallbackPlan
from reviewmesh.enrich.payments import Payments, SpendCodecs
from reviewmesh.enrich.pool import PoolConfig
from reviewmesh.enrich.reprocess import ReprocessCodecs, Reprocessing
from reviewmesh.enrich.rollouts import Rollouts
from reviewmesh.enrich.routes import CANDIDATE, FALLBACK, FallbackLimits
from reviewmesh.enrich.shadow import ShadowTopic
from reviewmesh.enrich.stage import EnrichContract, EnrichStage
from reviewmesh.kafka.exemplars import Exemplars
from reviewmesh.kafka.reader import PartitionReader
from reviewmesh.leaving.budgets import Budgets, read_budgets
from reviewmesh.leaving.policy import Policy, read_policy
from reviewmesh.leaving.yamlfile import FileProblem
from reviewmesh.loop.deadletter import DeadLetters
from reviewmesh.process.service import run
from reviewmesh.settings import Settings, WrongSetting
from reviewmesh_kit.certificates import CertificateFiles
from reviewmesh_kit.settings import variable
from reviewmesh_protos.inference.v1 import inference_pb2
from reviewmesh_schemas.names import (
    ACCEPTED,
    CAMPAIGNS,
    CONTROL,
    DEAD_LETTER,
    DEPARTURES,
    ENRICHED,
    REPROCESS,
    REPROCESSED,
    RESULT_OF,
    SHADOW_OF,
    SPEND,
    TASKS,
)


def workers_of(settings: Settings, task: str) -> tuple[str, ...]:
    endpoints = getattr(settings.workers, task).split(",")
    return tuple(endpoint.strip() for endpoint in endpoints if endpoint.strip())


def budgets_of(settings: Settings, task: str, partitions: int) -> Budgets | None:
    """None if the task has no fallback workers or no budget for them. Raises WrongSetting."""
    if settings.budgets is None:
        return None
    try:
        # Read even without a fallback, so that a wrong file is found before an outage needs it.
        budgets = read_budgets(settings.budgets, partitions)
    except FileProblem as error:
        raise WrongSetting(f"{variable('budgets')}: {error}") from error
    return budgets if task in budgets.tasks and settings.fallbacks.by_region(task) else None


def plan_of(
    settings: Settings,
    task: str,
    payments: Payments | None = None,
    tls: CertificateFiles | None = None,
) -> FallbackPlan | None:
    """None if the task has no fallback workers. Raises WrongSetting."""
    policy = _policy(settings)
    regions = settings.fallbacks.by_region(task)
    if not regions:
        return None
    _check_names(settings, policy, task)
    masks_names = any(rule.masks_names for rule in policy.rules())
    return FallbackPlan(
        pools={
            region: PoolConfig(
                task,
                addresses,
                variable("fallbacks", task),
                metrics.FALLBACK_WORKERS_SERVING.labels(task, region),
                metrics.CALLS.labels(task, FALLBACK),
                f"no review can leave for the fallback in {region}",
                tls,
            )
            for region, addresses in regions.items()
        },
        names=PoolConfig(
            "ner",
            workers_of(settings, "ner"),
            variable("workers", "ner"),
            metrics.NAMES_WORKERS_SERVING.labels(task),
            metrics.CALLS.labels(task, "names"),
            "no review can leave whose names have to be masked",
            tls,
        )
        if masks_names
        else None,
        policy=policy,
        limits=FallbackLimits(settings.fallbacks.after_s, settings.fallbacks.spill_s),
        payments=None if payments is None else payments.spending,
    )


def candidate_of(
    settings: Settings,
    contracts: Contracts,
    task: str,
    log: structlog.stdlib.BoundLogger,
    tls: CertificateFiles | None,
) -> CandidatePlan | None:
    """None if the task has no workers with a candidate."""
    addresses: tuple[str, ...] = getattr(settings.candidates, task)
    if not addresses:
        return None

    def pool(lane: str, empty_message: str) -> PoolConfig:
        serving = metrics.CANDIDATE_WORKERS_SERVING.labels(task, lane)
        calls = metrics.CALLS.labels(task, CANDIDATE)
        return PoolConfig(
            task, addresses, variable("candidates", task), serving, calls, empty_message, tls
        )

    shadow = contracts.codec(SHADOW_OF[task])
    return CandidatePlan(
        canary=pool("canary", "canaries of a rollout are sent to the task's own workers"),
        shadow=pool("shadow", "a rollout has nothing to compare in shadow"),
        rollouts=Rollouts(
            task,
            settings,
            codec=contracts.codec(CONTROL),
            partitions=contracts.partitions(CONTROL),
            # Before the first answer, because the event loop must not wait for the registry.
            prepare=shadow.prepare,
            log=log,
        ),
        topic=ShadowTopic(task, settings, shadow, contracts.max_bytes(SHADOW_OF[task]), wall_clock),
        patience_s=settings.candidates.patience_s,
    )


def _policy(settings: Settings) -> Policy:
    if settings.policy is None:
        return Policy()
    try:
        return read_policy(settings.policy)
    except FileProblem as error:
        raise WrongSetting(f"{variable('policy')}: {error}") from error


def _check_names(settings: Settings, policy: Policy, task: str) -> None:
    rule = next((rule for rule in policy.rules() if rule.masks_names), None)
    if task == "ner" and rule is not None:
        raise WrongSetting(
            f"{variable('policy')}: {settings.policy}:{rule.line}: expected no names to mask where "
            f"ner has a fallback, because the workers of ner find the names; leave out names, or "
            f"{variable('fallbacks', 'ner')}"
        )


def build(
    task: str,
    settings: Settings,
    contracts: Contracts,
    log: structlog.stdlib.BoundLogger,
) -> EnrichStage:
    endpoints = workers_of(settings, task)
    budgets = budgets_of(settings, task, contracts.partitions(ACCEPTED))
    payments = None
    if budgets is not None:
        payments = Payments(
            task,
            budgets,
            SpendCodecs(contracts.codec(SPEND), contracts.codec(DEPARTURES)),
            PartitionReader(settings),
            clock=wall_clock,
            log=log,
        )
    tls = worker_certificates(settings)
    client = InferenceClient(
        task,
        endpoints,
        fallback=plan_of(settings, task, payments, tls),
        candidate=candidate_of(settings, contracts, task, log, tls),
        tls=tls,
    )
    client.start()
    campaigns = Campaigns(
        settings, contracts.codec(CAMPAIGNS), contracts.partitions(CAMPAIGNS), log
    )
    codecs = ReprocessCodecs(
        request=contracts.codec(REPROCESS),
        enriched=contracts.codec(ENRICHED),
        result=contracts.codec(RESULT_OF[task]),
        answer=contracts.codec(REPROCESSED),
    )
    contract = EnrichContract(
        accepted=contracts.codec(ACCEPTED),
        result=contracts.codec(RESULT_OF[task]),
        max_result_bytes=contracts.max_bytes(RESULT_OF[task]),
    )
    reprocessing = Reprocessing(
        task=task,
        codecs=codecs,
        campaigns=campaigns,
        make_client=lambda: InferenceClient(
            task, endpoints, lane=inference_pb2.LANE_BACKFILL, tls=tls
        ),
        live_late_s=settings.reprocess.live_late_s,
        clock=wall_clock,
        max_answer_bytes=contracts.max_bytes(REPROCESSED),
    )
    dead_letters = DeadLetters(contracts.codec(DEAD_LETTER), wall_clock)
    return EnrichStage(
        task,
        contract,
        dead_letters,
        client=client,
        reprocessing=reprocessing,
        clock=wall_clock,
        payments=payments,
        exemplars=Exemplars(settings.traces),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Enrich accepted reviews with one task.")
    parser.add_argument("--task", required=True, choices=TASKS)
    task: str = parser.parse_args().task

    def build_task(
        settings: Settings, contracts: Contracts, log: structlog.stdlib.BoundLogger
    ) -> EnrichStage:
        return build(task, settings, contracts, log)

    return run(f"enricher-{task}", build_task)


if __name__ == "__main__":
    sys.exit(main())
