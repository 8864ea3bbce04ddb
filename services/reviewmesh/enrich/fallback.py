"""Reviews that leave for the fallback, and come back from it.

Twice a second it looks at what waits for a primary worker and asks `routes.choose`. What is
chosen is taken out of the primary's queue, masked and sent to a fallback worker in a region that
the policy allows, once a transaction has reserved what it may take (`departures`, `spending`). What
has not been sent when that choice changes goes back to the primary.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import structlog

from reviewmesh import metrics
from reviewmesh.enrich.calls import Calls
from reviewmesh.enrich.departures import Asks, Departure, GivesBack, Steps, Unanswered
from reviewmesh.enrich.items import NOT_TAKEN, Answer, Job, TaskOutput, WorkItem, used_in_all
from reviewmesh.enrich.jobs import Jobs
from reviewmesh.enrich.names import Names, Span
from reviewmesh.enrich.pool import PoolOf
from reviewmesh.enrich.routes import FALLBACK, TOLD, Choice, Held, Known, Limits, choose
from reviewmesh.enrich.spending import Spending
from reviewmesh.leaving.amounts import Amount
from reviewmesh.leaving.masking import Masked, mask
from reviewmesh.leaving.policy import Policy
from reviewmesh_protos.inference.v1 import inference_pb2
from reviewmesh_protos.metadata import OVER_BOUND

ONE_REQUEST = Amount(requests=1)
LOOK_EVERY_S = 0.5
# What is there when the primary comes back is paid for all the same.
AWAY_AT_ONCE = 256
REST_S = 30.0
# Of a text that is too large for the budget or the worker: each try is recorded, few are of use.
LONGEST_REST_S = 3_600.0
TELL_AGAIN_AFTER_S = 60.0
BATCH_ITEMS = 32
BATCH_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class FallbackPlan:
    """Where and when a task's reviews may go elsewhere."""

    pools: Mapping[str, PoolOf]
    """By region."""
    names: PoolOf | None
    """Who finds names; None where the policy masks none."""
    policy: Policy
    limits: Limits
    payments: Spending | None = None
    """None: no budget is given, so nothing leaves."""


@dataclass(slots=True, eq=False)
class Away:
    """A job that left the primary's queue."""

    job: Job
    region: str
    since: float
    """By the event loop's clock."""
    reason: str = ""
    """Why it leaves."""
    masked: Masked | None = None
    departure: Departure | None = None
    withdrawn: bool = False


@dataclass(slots=True)
class Region:
    """A region's workers, and what they have."""

    calls: Calls
    jobs: Jobs
    answered_at: float = float("-inf")
    """When it last answered a review, by the event loop's clock."""
    told_at: float = float("-inf")
    """When it was last logged that it fails."""


class Fallback:
    """Lives in the event loop of the primary's calls."""

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
        """`max_attempts`: how often a review leaves that the fallback fails on, and no other."""
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
        self._away: dict[tuple[int, int], Away] = {}
        self._masking: set[asyncio.Task[None]] = set()
        self._asking: dict[Departure, Away] = {}
        self._missing_since: float | None = None
        self._held: Counter[Held] = Counter()
        self._told_at: dict[Held, float] = {}
        self._taken = False
        self._regions: dict[str, Region] = {}
        for name, of in plan.pools.items():
            own = Jobs(BATCH_ITEMS, BATCH_BYTES, self._answered)
            bound = ONE_REQUEST if plan.payments is None else plan.payments.bound
            calls = Calls(of, own, call_timeout_s, max_attempts=1, bound=bound)
            self._regions[name] = Region(calls, own)
        self._names = Names(plan.names) if plan.names is not None else None
        for reason in Held:
            metrics.HELD_BACK.labels(self._task, reason.value).set(0)
        self._looking = self._loop.create_task(self._look_for_ever())

    async def close(self) -> None:
        self._looking.cancel()
        for masking in tuple(self._masking):
            masking.cancel()
        for region in self._regions.values():
            await region.calls.close()
        if self._names is not None:
            await self._names.close()

    def withdraw(self, withdrawn: Callable[[object], bool]) -> None:
        """Let go of the items whose token is named."""
        for place, away in list(self._away.items()):
            if withdrawn(away.job.item.token):
                away.withdrawn = True
                del self._away[place]
        self._asking = {
            departure: away for departure, away in self._asking.items() if not away.withdrawn
        }
        for region in self._regions.values():
            region.calls.withdraw(_is_withdrawn)

    # -- asked from other threads, too -------------------------------------------------------

    def has_some(self) -> bool:
        """Whether answers may come although no primary worker is there."""
        return bool(self._away)

    def waits_for(self, partition: int, offset: int) -> str:
        """What an item waits for that is away; empty when it is not."""
        away = self._away.get((partition, offset))
        if away is None:
            return ""
        return f"the fallback has had it for {self._loop.time() - away.since:.0f} s"

    def words(self) -> str:
        """What became of the reviews that the fallback is taken for; empty when it is not."""
        held = dict(self._held)
        told = [f"{count} reviews are held back: {TOLD[reason]}" for reason, count in held.items()]
        away = len(self._away)
        return "; ".join([*([f"the fallback has {away} reviews"] if away else []), *told])

    # -- looking -----------------------------------------------------------------------------

    async def _look_for_ever(self) -> None:
        while True:
            try:
                self._look()
            except Exception:  # noqa: BLE001 - the next look may go well, and without any all wait
                self._log.exception("choosing routes failed")
            await asyncio.sleep(LOOK_EVERY_S)

    def _look(self) -> None:
        now = self._loop.time()
        # Where nobody waits, what comes next finds out whether a worker answers again.
        nobody_waits = not self._jobs.has_any and not self._away
        if self._primary.any_answering() or (nobody_waits and self._primary.any_serving()):
            self._missing_since = None
        elif self._missing_since is None:
            self._missing_since = now
        held: Counter[Held] = Counter()
        if self._is_needed(now):
            self._send_away(now, held)
        self._call_back(now)
        self._tell(now, held)

    def _missing_s(self, now: float) -> float:
        return 0.0 if self._missing_since is None else now - self._missing_since

    def _is_needed(self, now: float) -> bool:
        """Whether it may be that for any review that waits: a glance, this comes often."""
        if self._missing_s(now) > self._plan.limits.after_s:
            return True
        eldest = min((job.item.accepted_s for job in self._jobs.oldest()), default=time.time())
        return time.time() - eldest > self._plan.limits.spill_s

    def _choose(
        self, job: Job, now: float, serving: frozenset[str], is_paid: bool = False
    ) -> Choice:
        return choose(
            Known(
                primary_missing_s=self._missing_s(now),
                age_s=time.time() - job.item.accepted_s,
                rule=self._plan.policy.rule_of(job.item.business_id),
                regions_serving=serving,
                names_serving=self._names is not None and self._names.serving(),
                unpaid=None if is_paid else self._unpaid(job.item),
                rests=job.rests_as if job.rests_until > now else None,
            ),
            self._plan.limits,
        )

    def _unpaid(self, item: WorkItem) -> Held | None:
        payments = self._plan.payments
        if payments is None:
            return Held.NO_BUDGET
        return None if payments.left_for(item.partition, item.business_id) else Held.SPENT

    def _serving(self) -> frozenset[str]:
        return frozenset(
            name for name, region in self._regions.items() if region.calls.pool.any_serving()
        )

    def _send_away(self, now: float, held: Counter[Held]) -> None:
        serving = self._serving()
        room = Counter({name: self._room(name) for name in serving})
        room.subtract(Counter(away.region for away in self._away.values()))
        leaving = []
        for job in sorted(self._jobs.in_wait(), key=lambda job: job.item.accepted_s):
            choice = self._choose(job, now, serving)
            if choice.held is not None:
                held[choice.held] += 1
            elif choice.region is not None and room[choice.region] > 0:
                room[choice.region] -= 1
                leaving.append(Away(job, choice.region, now, choice.reason))
        self._jobs.take_out([away.job for away in leaving])
        for away in leaving:
            self._away[_place(away.job)] = away
            masking = self._loop.create_task(self._mask_and_send(away))
            self._masking.add(masking)
            masking.add_done_callback(self._masking.discard)

    def _room(self, name: str) -> int:
        """Of workers that fail their calls, each try is paid for, and one finds out."""
        return AWAY_AT_ONCE if self._regions[name].calls.pool.any_answering() else 1

    def _call_back(self, now: float) -> None:
        """What has not been sent there, and would not be now."""
        serving = self._serving()
        for away in list(self._asking.values()):
            if self._choose(away.job, now, serving, is_paid=True).region != away.region:
                del self._asking[_departure(away)]
                self._back(away)
        for name, region in self._regions.items():
            waiting = region.jobs.in_wait()
            back = [
                job
                for job in waiting
                if self._choose(_away(job.item).job, now, serving, is_paid=True).region != name
            ]
            region.jobs.take_out(back)
            for job in back:
                self._give_back(_away(job.item))

    async def _mask_and_send(self, away: Away) -> None:
        try:
            masked = await self._masked(away)
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001 - what cannot be masked does not leave
            self._log.exception("a text could not be masked: it does not leave")
            masked = None
        if away.withdrawn:
            return
        now = self._loop.time()
        if masked is None:
            self._rest(away.job, Held.FAILED)
            self._back(away)
        elif self._choose(away.job, now, self._serving()).region != away.region:
            self._back(away)
        else:
            away.masked = masked
            departure = Departure.of(
                away.job.item,
                away.region,
                away.reason,
                masked.text,
                Counter(found.kind for found in masked.found),
            )
            away.departure = departure
            self._asking[departure] = away
            self._steps.append(Asks(departure))

    def let_leave(self, departure: Departure) -> None:
        """A transaction has reserved it."""
        away = self._asking.pop(departure, None)
        if away is None:
            # It went back meanwhile, or the partition did.
            self._steps.append(GivesBack(departure))
            return
        serving = self._serving()
        if self._choose(away.job, self._loop.time(), serving, is_paid=True).region != away.region:
            self._give_back(away)
            return
        assert away.masked is not None
        item = replace(away.job.item, token=away, text=away.masked.text)
        self._regions[away.region].calls.submit([item])

    def refuse(self, departure: Departure) -> None:
        """Nothing pays for it."""
        away = self._asking.pop(departure, None)
        if away is not None:
            self._back(away)

    def hold_back(self, departure: Departure) -> None:
        """Its topic refuses the record: each try costs aborted transactions."""
        if departure in self._asking:
            self._rest(self._asking[departure].job, Held.FAILED)
        self.refuse(departure)

    async def _masked(self, away: Away) -> Masked | None:
        """None when the names in it could not be found."""
        item = away.job.item
        rule = self._plan.policy.rule_of(item.business_id)
        assert rule is not None, "it was sent away without a rule that allows it"
        names: tuple[Span, ...] | None = ()
        if rule.masks_names:
            names = None if self._names is None else await self._names.find(item)
        if names is None:
            return None
        # A long text takes a while, and the workers' health is watched from here.
        return await asyncio.to_thread(mask, item.text, item.language, names)

    # -- coming back -------------------------------------------------------------------------

    def _rest(self, job: Job, held: Held, times: float = 1.0) -> None:
        rest_s = min(REST_S * times, LONGEST_REST_S)
        job.rests_until, job.rests_as = self._loop.time() + rest_s, held

    def _give_back(self, away: Away) -> None:
        """It was reserved, and is not sent."""
        self._steps.append(GivesBack(_departure(away)))
        self._back(away)

    def _back(self, away: Away) -> None:
        del self._away[_place(away.job)]
        self._calls.take_back(away.job)

    def _answered(self, item: WorkItem, answer: Answer) -> None:
        away = _away(item)
        region, now = self._regions[away.region], self._loop.time()
        if away.withdrawn:
            return
        if answer.output is not None:
            region.answered_at = now
        elif answer.code in (OVER_BOUND, NOT_TAKEN):
            # Nothing was sent. Masking may have made the text too long for any worker.
            self._steps.append(GivesBack(_departure(away)))
            held = Held.OVER_BOUND if answer.code == OVER_BOUND else Held.FAILED
            away.job.not_taken += 1
            self._rest(away.job, held, 2.0 ** min(away.job.not_taken - 1, 16))
            self._back(away)
            return
        elif answer.may_pass and self._may_leave_again(away):
            # It waits as it would without a fallback. Each further try is paid for anew; what this
            # one took is in reviews.spend, not in the review's result.
            if now - region.told_at >= REST_S:
                region.told_at = now
                self._log.warning("the fallback fails", region=away.region, reason=answer.error)
            self._steps.append(Unanswered(_departure(away), told_by(answer)))
            away.job.departures += 1
            if region.answered_at < away.since:
                self._rest(away.job, Held.FAILED)
            self._back(away)
            return
        assert away.masked is not None
        before = away.job
        del self._away[_place(before)]
        self._on_finished(
            before.item,
            replace(
                answer,
                output=unmasked(answer.output, away.masked, before.item.text),
                attempts=answer.attempts + before.attempts + before.broken,
                usage=used_in_all(before.used, answer.usage),
                paid=told_by(answer),
                route=FALLBACK,
            ),
        )

    def _may_leave_again(self, away: Away) -> bool:
        """Where nobody is answered, it is not this review that is at fault."""
        nobody_is = self._regions[away.region].answered_at < away.since
        return nobody_is or away.job.departures + 1 < self._max_attempts

    # -- telling -----------------------------------------------------------------------------

    def _tell(self, now: float, held: Counter[Held]) -> None:
        self._held = held
        for reason in Held:
            metrics.HELD_BACK.labels(self._task, reason.value).set(held[reason])
            if not held[reason]:
                self._told_at.pop(reason, None)
            elif now - self._told_at.get(reason, float("-inf")) >= TELL_AGAIN_AFTER_S:
                self._told_at[reason] = now
                self._log.warning("reviews are held back", reason=TOLD[reason], count=held[reason])
        if bool(self._away) and not self._taken:
            self._taken = True
            self._log.warning(
                "the fallback is taken", primary_missing_s=round(self._missing_s(now), 1)
            )
        elif self._taken and not self._away and self._missing_since is None:
            self._taken = False
            self._log.info("all reviews go to the primary workers again")


def told_by(answer: Answer) -> inference_pb2.Usage | None:
    """What a call took; None where a provider was asked and the worker does not tell how often."""
    provider = "" if answer.lineage is None else answer.lineage.provider
    usage = answer.usage
    silent = usage is not None and not usage.HasField("provider_requests")
    return None if provider and silent else usage


def unmasked(output: TaskOutput | None, masked: Masked, text: str) -> TaskOutput | None:
    """The same answer about `text`; only names have places in it."""
    if not isinstance(output, inference_pb2.NerOutput):
        return output
    entities = []
    for entity in output.entities:
        holds = 0 <= entity.start < entity.end <= len(masked.text)
        if not holds or masked.text[entity.start : entity.end] != entity.text:
            continue
        span = masked.span(entity.start, entity.end)
        if span is not None:
            start, end = span
            entities.append(
                inference_pb2.Entity(
                    start=start,
                    end=end,
                    text=text[start:end],
                    label=entity.label,
                    score=entity.score,
                )
            )
    return inference_pb2.NerOutput(entities=entities)


def _away(item: WorkItem) -> Away:
    assert isinstance(item.token, Away)
    return item.token


def _departure(away: Away) -> Departure:
    assert away.departure is not None, "expected a text that was masked"
    return away.departure


def _is_withdrawn(token: object) -> bool:
    return isinstance(token, Away) and token.withdrawn


def _place(job: Job) -> tuple[int, int]:
    return job.item.partition, job.item.offset
