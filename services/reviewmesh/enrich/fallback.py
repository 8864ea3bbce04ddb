"""Sends waiting reviews to fallback workers, and takes their answers.

Twice a second `fallback_routing` is asked about every review that waits for a primary worker. A
review for the fallback is taken out of the primary's queue, and its text is masked. A transaction
then reserves the most that the call may cost (`departures`, `payments`), and only after that the
text is sent to a worker in a region that the policy allows. A review that was not sent yet returns
to the primary's queue when the fallback is no longer needed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import structlog

from reviewmesh import metrics
from reviewmesh.enrich.calls import Calls
from reviewmesh.enrich.departures import Charge, Departure, Release, Reserve, Steps
from reviewmesh.enrich.fallback_routing import FallbackRouting, RegionWorkers
from reviewmesh.enrich.items import ITEM_REFUSED, Answer, Job, WorkItem, sum_of_usage
from reviewmesh.enrich.jobs import Jobs
from reviewmesh.enrich.masked_texts import mask_item, unmasked
from reviewmesh.enrich.names import NameFinder
from reviewmesh.enrich.pool import PoolConfig
from reviewmesh.enrich.routes import FALLBACK, HOLD_MESSAGES, FallbackLimits, HoldReason
from reviewmesh.enrich.spending import Spending
from reviewmesh.leaving.amounts import Amount
from reviewmesh.leaving.masking import Masked
from reviewmesh.leaving.policy import Policy
from reviewmesh_protos.inference.v1 import inference_pb2
from reviewmesh_protos.metadata import OVER_BOUND

ONE_REQUEST = Amount(requests=1)
CHECK_EVERY_S = 0.5
# For so long a review on which the fallback failed is not sent there again.
PAUSE_S = 30.0
# After texts that are too large for the budget or the worker: another attempt rarely helps, and
# each one writes a record.
LONGEST_PAUSE_S = 3_600.0
LOG_EVERY_S = 60.0
BATCH_ITEMS = 32
BATCH_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class FallbackPlan:
    """The fallback workers of a task, and when reviews may be sent to them."""

    pools: Mapping[str, PoolConfig]
    """By region."""
    names: PoolConfig | None
    """The workers that find names; None if the policy masks none."""
    policy: Policy
    limits: FallbackLimits
    payments: Spending | None = None
    """None without a budget: then nothing leaves."""


@dataclass(slots=True, eq=False)
class FallbackJob:
    """A job that was taken out of the primary's queue."""

    job: Job
    region: str
    since: float
    """When it was taken out, by the event loop's clock."""
    reason: str = ""
    """Why it leaves: NO_PRIMARY or LATE."""
    masked: Masked | None = None
    departure: Departure | None = None
    withdrawn: bool = False


class Fallback:
    """Belongs to the event loop of the primary's calls."""

    def __init__(
        self,
        plan: FallbackPlan,
        primary: Calls,
        jobs: Jobs,
        on_finished: Callable[[WorkItem, Answer], None],
        call_timeout_s: float,
        max_attempts: int,
        steps: Steps,
    ) -> None:
        """`max_attempts`: most calls for a review that fails while others are answered."""
        self._task = primary.pool.task
        self._plan = plan
        self._calls = primary
        self._primary = primary.pool
        self._jobs = jobs
        self._on_finished = on_finished
        self._max_attempts = max_attempts
        self._steps = steps
        self._loop = asyncio.get_running_loop()
        self._log = structlog.get_logger(task=self._task)
        # By partition and offset.
        self._in_fallback: dict[tuple[int, int], FallbackJob] = {}
        self._masking: set[asyncio.Task[None]] = set()
        self._awaiting_reservation: dict[Departure, FallbackJob] = {}
        self._hold_counts: Counter[HoldReason] = Counter()
        self._logged_at: dict[HoldReason, float] = {}
        self._in_use = False
        self._regions: dict[str, RegionWorkers] = {}
        for name, config in plan.pools.items():
            own = Jobs(BATCH_ITEMS, BATCH_BYTES, self._answered)
            bound = ONE_REQUEST if plan.payments is None else plan.payments.bound
            calls = Calls(config, own, call_timeout_s, max_attempts=1, bound=bound)
            self._regions[name] = RegionWorkers(calls, own)
        self._names = NameFinder(plan.names) if plan.names is not None else None
        self._routing = FallbackRouting(
            plan.policy, plan.limits, plan.payments, self._regions, self._names
        )
        # Pre-create the labels, so that a gauge without reviews is 0 instead of missing.
        for reason in HoldReason:
            metrics.HELD_BACK.labels(self._task, reason.value).set(0)
        self._checking = self._loop.create_task(self._run())

    async def close(self) -> None:
        self._checking.cancel()
        for masking in tuple(self._masking):
            masking.cancel()
        for region in self._regions.values():
            await region.calls.close()
        if self._names is not None:
            await self._names.close()

    def withdraw(self, withdrawn: Callable[[object], bool]) -> None:
        """Drop the items whose token `withdrawn` accepts."""
        for key, item in list(self._in_fallback.items()):
            if withdrawn(item.job.item.token):
                item.withdrawn = True
                del self._in_fallback[key]
        self._awaiting_reservation = {
            departure: item
            for departure, item in self._awaiting_reservation.items()
            if not item.withdrawn
        }
        for region in self._regions.values():
            region.calls.withdraw(_is_withdrawn)

    # -- called from other threads too -------------------------------------------------------

    def has_jobs(self) -> bool:
        """Whether an answer may come even without a primary worker."""
        return bool(self._in_fallback)

    def waits_for(self, partition: int, offset: int) -> str:
        """Why an item of the fallback is not answered yet; empty if it is none."""
        item = self._in_fallback.get((partition, offset))
        if item is None:
            return ""
        return f"the fallback has had it for {self._loop.time() - item.since:.0f} s"

    def status(self) -> str:
        """How many reviews the fallback has and holds back, for /readyz; empty without any."""
        counts = dict(self._hold_counts)
        held_back = [
            f"{count} reviews are held back: {HOLD_MESSAGES[reason]}"
            for reason, count in counts.items()
        ]
        number = len(self._in_fallback)
        return "; ".join([*([f"the fallback has {number} reviews"] if number else []), *held_back])

    # -- every CHECK_EVERY_S -----------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                self._check()
            except Exception:  # noqa: BLE001 - if this ended, all reviews would wait
                self._log.exception("checking which reviews need the fallback failed, retrying")
            await asyncio.sleep(CHECK_EVERY_S)

    def _check(self) -> None:
        now = self._loop.time()
        has_jobs = self._jobs.has_any or bool(self._in_fallback)
        self._routing.observe(self._primary, has_jobs, now)
        hold_counts: Counter[HoldReason] = Counter()
        if self._routing.may_be_needed(self._jobs, now):
            self._send_waiting(now, hold_counts)
        self._recall(now)
        self._report(now, hold_counts)

    def _send_waiting(self, now: float, hold_counts: Counter[HoldReason]) -> None:
        """Start to send waiting reviews, oldest first, and count those that are held back."""
        serving = self._routing.serving()
        room = Counter({name: self._routing.room(name) for name in serving})
        room.subtract(Counter(item.region for item in self._in_fallback.values()))
        leaving = []
        for job in sorted(self._jobs.waiting_jobs(), key=lambda job: job.item.accepted_s):
            choice = self._routing.choose(job, now, serving)
            if choice.held is not None:
                hold_counts[choice.held] += 1
            elif choice.region is not None and room[choice.region] > 0:
                room[choice.region] -= 1
                leaving.append(FallbackJob(job, choice.region, now, choice.reason))
        self._jobs.remove([item.job for item in leaving])
        for item in leaving:
            self._in_fallback[_key(item.job)] = item
            masking = self._loop.create_task(self._mask_and_reserve(item))
            self._masking.add(masking)
            masking.add_done_callback(self._masking.discard)

    def _recall(self, now: float) -> None:
        """Return unsent reviews to the primary that would not be sent to the same region now."""
        serving = self._routing.serving()
        for item in list(self._awaiting_reservation.values()):
            choice = self._routing.choose(item.job, now, serving, is_reserved=True)
            if choice.region != item.region:
                del self._awaiting_reservation[_departure(item)]
                self._return_to_primary(item)
        for name, region in self._regions.items():
            recalled = [
                waiting
                for waiting in region.jobs.waiting_jobs()
                if self._routing.choose(
                    _fallback_job(waiting.item).job, now, serving, is_reserved=True
                ).region
                != name
            ]
            region.jobs.remove(recalled)
            for waiting in recalled:
                self._release(_fallback_job(waiting.item))

    def _report(self, now: float, hold_counts: Counter[HoldReason]) -> None:
        """Set the metrics of reviews that are held back, and log changes."""
        self._hold_counts = hold_counts
        for reason in HoldReason:
            metrics.HELD_BACK.labels(self._task, reason.value).set(hold_counts[reason])
            if not hold_counts[reason]:
                self._logged_at.pop(reason, None)
            elif now - self._logged_at.get(reason, float("-inf")) >= LOG_EVERY_S:
                self._logged_at[reason] = now
                self._log.warning(
                    "reviews are held back: they may not leave, and wait for a primary worker",
                    reason=HOLD_MESSAGES[reason],
                    count=hold_counts[reason],
                )
        if bool(self._in_fallback) and not self._in_use:
            self._in_use = True
            missing_s = round(self._routing.missing_s(now), 1)
            self._log.warning("sending reviews to the fallback", primary_missing_s=missing_s)
        elif self._in_use and not self._in_fallback and not self._routing.primary_is_missing:
            self._in_use = False
            self._log.info("all reviews go to the primary workers again")

    # -- leaving -----------------------------------------------------------------------------

    async def _mask_and_reserve(self, item: FallbackJob) -> None:
        """Mask the text, and ask for a reservation if the review may still leave."""
        try:
            masked = await mask_item(item.job.item, self._plan.policy, self._names)
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001 - an unmasked text must not leave
            self._log.exception("masking a text failed: it is not sent to the fallback")
            masked = None
        if item.withdrawn:
            return
        now = self._loop.time()
        if masked is None:
            self._pause(item.job, HoldReason.FAILED)
            self._return_to_primary(item)
        elif self._routing.choose(item.job, now, self._routing.serving()).region != item.region:
            self._return_to_primary(item)
        else:
            item.masked = masked
            departure = Departure.of(
                item.job.item,
                item.region,
                item.reason,
                masked.text,
                Counter(found.kind for found in masked.found),
            )
            item.departure = departure
            self._awaiting_reservation[departure] = item
            self._steps.append(Reserve(departure))

    def reservation_committed(self, departure: Departure) -> None:
        """Send the text: its reservation is committed."""
        item = self._awaiting_reservation.pop(departure, None)
        if item is None:
            # The review was recalled, or its partition was revoked.
            self._steps.append(Release(departure))
            return
        now, serving = self._loop.time(), self._routing.serving()
        choice = self._routing.choose(item.job, now, serving, is_reserved=True)
        if choice.region != item.region:
            self._release(item)
            return
        assert item.masked is not None
        work = replace(item.job.item, token=item, text=item.masked.text)
        self._regions[item.region].calls.submit([work])

    def reservation_refused(self, departure: Departure) -> None:
        """Return the review to the primary: no budget pays for the call."""
        item = self._awaiting_reservation.pop(departure, None)
        if item is not None:
            self._return_to_primary(item)

    def reservation_rejected(self, departure: Departure) -> None:
        """Return the review to the primary: the broker rejects the record of its departure.

        Pause it, because each attempt costs aborted transactions.
        """
        if departure in self._awaiting_reservation:
            self._pause(self._awaiting_reservation[departure].job, HoldReason.FAILED)
        self.reservation_refused(departure)

    # -- returning ---------------------------------------------------------------------------

    def _pause(self, job: Job, reason: HoldReason, times: float = 1.0) -> None:
        """Do not send the review to the fallback for PAUSE_S, that many `times`."""
        pause_s = min(PAUSE_S * times, LONGEST_PAUSE_S)
        job.fallback_paused_until = self._loop.time() + pause_s
        job.fallback_pause_reason = reason

    def _release(self, item: FallbackJob) -> None:
        """Return a review to the primary that was reserved and not sent."""
        self._steps.append(Release(_departure(item)))
        self._return_to_primary(item)

    def _return_to_primary(self, item: FallbackJob) -> None:
        del self._in_fallback[_key(item.job)]
        self._calls.put_back(item.job)

    def _answered(self, work: WorkItem, answer: Answer) -> None:
        """Finish the review with the answer, or return it to the primary after a failure."""
        item = _fallback_job(work)
        region, now = self._regions[item.region], self._loop.time()
        if item.withdrawn:
            return
        if answer.output is not None:
            region.answered_at = now
        elif answer.code in (OVER_BOUND, ITEM_REFUSED):
            # No provider was asked. Masking may have made the text too long for any worker.
            self._steps.append(Release(_departure(item)))
            is_over_bound = answer.code == OVER_BOUND
            reason = HoldReason.OVER_BOUND if is_over_bound else HoldReason.FAILED
            item.job.fallback_refusals += 1
            self._pause(item.job, reason, 2.0 ** min(item.job.fallback_refusals - 1, 16))
            self._return_to_primary(item)
            return
        elif answer.retryable and self._may_leave_again(item):
            # Every further call is paid for separately. The usage of this one goes to
            # reviews.spend, not into the review's result.
            if now - region.failure_logged_at >= PAUSE_S:
                region.failure_logged_at = now
                self._log.warning(
                    "a call to the fallback failed", region=item.region, reason=answer.error
                )
            self._steps.append(Charge(_departure(item), reported_usage(answer)))
            item.job.fallback_failures += 1
            if region.answered_at < item.since:
                self._pause(item.job, HoldReason.FAILED)
            self._return_to_primary(item)
            return
        assert item.masked is not None
        before = item.job
        del self._in_fallback[_key(before)]
        self._on_finished(
            before.item,
            replace(
                answer,
                output=unmasked(answer.output, item.masked, before.item.text),
                attempts=answer.attempts + before.attempts + before.broken_calls,
                usage=sum_of_usage(before.usage, answer.usage),
                paid=reported_usage(answer),
                route=FALLBACK,
            ),
        )

    def _may_leave_again(self, item: FallbackJob) -> bool:
        """Attempts count only if the region answers other reviews: else the workers are at
        fault."""
        none_answered = self._regions[item.region].answered_at < item.since
        return none_answered or item.job.fallback_failures + 1 < self._max_attempts


def reported_usage(answer: Answer) -> inference_pb2.Usage | None:
    """The usage of a call; None if the worker asked a provider and does not report how often."""
    provider = "" if answer.lineage is None else answer.lineage.provider
    usage = answer.usage
    is_unknown = usage is not None and not usage.HasField("provider_requests")
    return None if provider and is_unknown else usage


def _fallback_job(item: WorkItem) -> FallbackJob:
    assert isinstance(item.token, FallbackJob)
    return item.token


def _departure(item: FallbackJob) -> Departure:
    assert item.departure is not None, "expected a text that was masked"
    return item.departure


def _is_withdrawn(token: object) -> bool:
    return isinstance(token, FallbackJob) and token.withdrawn


def _key(job: Job) -> tuple[int, int]:
    return job.item.partition, job.item.offset
