"""A person decides what teachers dispute: two keys a decision, any of them can be taken back.

A judge sees the review and the question, and neither what a teacher said nor what another judge
decided: two judges of the same disputes tell how far people agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from reviewmesh_kit.printable import plain, plain_lines
from reviewmesh_models.labelling.consensus import Consensus
from reviewmesh_models.labelling.decisions import DecidedUnit, Decision, Journal
from reviewmesh_models.labelling.results import Labelled, to_decide
from reviewmesh_worker.tasks.definition import Task

CONFIRM: Final = ("\r", "\n", " ")
UNDO: Final = "u"
SKIP: Final = "s"
QUIT: Final = ("q", "\x03", "\x04")
KEYS: Final = "1234567890abcdefghijklmnoprtvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ,.-+=/"
"""A key per label that may be chosen; those of the commands are left out."""

Pressed = Literal["chosen", "decided", "undone", "skipped", "quit", "ignored"]


@dataclass(frozen=True, slots=True)
class Dispute:
    unit: DecidedUnit
    text: str
    labels: tuple[str, ...]


def disputes_of(found: Labelled) -> list[Dispute]:
    """Every disputed unit: by task in turn, those with the highest entropy first.

    The order depends on the teachers' answers alone, so it is the same for every judge.
    """
    queues = [_disputes(found, of_task.task, of_task.consensus) for of_task in found.tasks.values()]
    longest = max((len(queue) for queue in queues), default=0)
    return [queue[at] for at in range(longest) for queue in queues if at < len(queue)]


class JudgeSession:
    """The progress of one judge; `press` takes one key and the time in seconds."""

    def __init__(self, disputes: Sequence[Dispute], journal: Journal, now_s: float) -> None:
        self._journal = journal
        decided = {decision.unit for decision in journal.decisions}
        self._waiting = [one for one in disputes if one.unit not in decided]
        self._by_unit = {one.unit: one for one in disputes}
        self._shown_at = now_s
        self.chosen: str | None = None
        """The label whose key was pressed and not yet confirmed."""

    @property
    def dispute(self) -> Dispute | None:
        """What is to be decided now; None when nothing is left."""
        return self._waiting[0] if self._waiting else None

    @property
    def left(self) -> int:
        return len(self._waiting)

    def press(self, key: str, now_s: float) -> Pressed:
        if key in QUIT:
            return "quit"
        if key == UNDO:
            return self._undo(now_s)
        if self.dispute is None:
            return "ignored"
        if key == SKIP:
            self._waiting.append(self._waiting.pop(0))
            self._show(now_s)
            return "skipped"
        if key in CONFIRM and self.chosen is not None:
            unit = self.dispute.unit
            self._journal.add(Decision(unit, self.chosen, round(now_s - self._shown_at, 3)))
            self._waiting.pop(0)
            self._show(now_s)
            return "decided"
        if key in KEYS and KEYS.index(key) < len(self.dispute.labels):
            self.chosen = self.dispute.labels[KEYS.index(key)]
            return "chosen"
        return "ignored"

    def _undo(self, now_s: float) -> Pressed:
        """First the choice, then the last decision."""
        if self.chosen is not None:
            self.chosen = None
            return "undone"
        last = self._journal.take_back()
        if last is None:
            return "ignored"
        # What is no longer disputed, because a teacher was asked again, is not shown.
        if last.unit in self._by_unit:
            self._waiting.insert(0, self._by_unit[last.unit])
        self._show(now_s)
        return "undone"

    def _show(self, now_s: float) -> None:
        self.chosen = None
        self._shown_at = now_s


def screen(session: JudgeSession) -> str:
    """What is shown of the current dispute; lines of the review begin with a bar."""
    dispute = session.dispute
    if dispute is None:
        return "Nothing is left to decide: q ends, u takes the last decision back."
    unit = dispute.unit
    review = "\n".join(f"  | {line}" for line in plain_lines(_marked(dispute)).split("\n"))
    keys = "\n".join(
        f"  {key} {'>' if label == session.chosen else ' '} {plain(label)}"
        for key, label in zip(KEYS, dispute.labels, strict=False)
    )
    return (
        f"{unit.task}: {session.left} left\n\n{review}\n\n{_question(dispute)}\n{keys}\n\n"
        "A label's key, then Enter. u takes back, s shows it later, q ends."
    )


def _question(dispute: Dispute) -> str:
    what = dispute.unit.what
    if isinstance(what, tuple):
        return f"What is {plain(dispute.text[what[0] : what[1]])!r}, marked »so«?"
    if isinstance(what, str):
        return f"How does the review speak of {plain(what)}?"
    return "Which label has the review as a whole?"


def _marked(dispute: Dispute) -> str:
    what, text = dispute.unit.what, dispute.text
    if isinstance(what, tuple):
        return f"{text[: what[0]]}»{text[what[0] : what[1]]}«{text[what[1] :]}"
    return text


def _disputes(found: Labelled, task: Task, consensus: Consensus) -> list[Dispute]:
    disputes = []
    # From the teachers alone: one judge's decisions must not change what another one sees.
    for at in to_decide(found, consensus):
        review, what = consensus.units.keys[at]
        unit = DecidedUnit(task.name, task.digest, found.reviews[review].key, what)
        disputes.append(Dispute(unit, found.reviews[review].text, consensus.units.labels))
    return disputes
