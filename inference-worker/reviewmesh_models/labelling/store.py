"""Reviews, answers, calls and cost, in one SQLite file that survives a kill at any moment.

A call is reserved, with the most that it can cost, before it is sent; its answer and its real cost
are written in one transaction. What was reserved by a process that died counts in full for
ever, because nobody knows whether the provider worked. So what was spent never passes the budget,
and whoever goes on asks again at most what was under way.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from reviewmesh_models.labelling.answers import Labels, Spent, TeacherFailure
from reviewmesh_models.labelling.reviews import Review
from reviewmesh_models.labelling.teachers import Budget

FILE: Final = "labels.sqlite"
_LOCK: Final = "labels.lock"
_VERSION: Final = 1

RESERVED: Final = "reserved"
SETTLED: Final = "settled"
ORPHANED: Final = "orphaned"

_SCHEMA: Final = """
CREATE TABLE reviews (
  key TEXT PRIMARY KEY, text TEXT NOT NULL, gold TEXT, position INTEGER NOT NULL
);
CREATE TABLE answers (
  identity TEXT NOT NULL, task TEXT NOT NULL, digest TEXT NOT NULL, key TEXT NOT NULL,
  labels TEXT, code TEXT, message TEXT,
  PRIMARY KEY (identity, task, digest, key)
) WITHOUT ROWID;
CREATE TABLE calls (
  id INTEGER PRIMARY KEY, identity TEXT NOT NULL, task TEXT NOT NULL, key TEXT NOT NULL,
  batch INTEGER, state TEXT NOT NULL,
  prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, money REAL NOT NULL
);
CREATE INDEX calls_state ON calls (state);
CREATE INDEX calls_batch ON calls (batch);
CREATE TABLE batches (
  id INTEGER PRIMARY KEY, mark TEXT NOT NULL UNIQUE, identity TEXT NOT NULL, task TEXT NOT NULL,
  digest TEXT NOT NULL, state TEXT NOT NULL, file TEXT, provider_id TEXT
);
CREATE TABLE teachers (name TEXT PRIMARY KEY, identity TEXT NOT NULL, position INTEGER NOT NULL);
CREATE TABLE tasks (name TEXT PRIMARY KEY, digest TEXT NOT NULL);
"""
# Folders from before it have no reviews of which anybody said where they may go.
_LEAVING: Final = "CREATE TABLE IF NOT EXISTS leaving (key TEXT PRIMARY KEY, regions TEXT NOT NULL)"


class StoreError(RuntimeError):
    """The folder cannot be used; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One teacher and one task in one version: the key of the answers."""

    identity: str
    task: str
    digest: str


@dataclass(frozen=True, slots=True)
class RecordedCall:
    id: int
    key: str


@dataclass(frozen=True, slots=True)
class ProviderBatch:
    id: int
    mark: str
    """Sent with the batch: finds it if its number was not recorded before a kill."""
    task: str
    state: str
    file: str | None
    provider_id: str | None


@dataclass(frozen=True, slots=True)
class Spending:
    requests: int
    tokens: int
    money: float

    def and_one(self, call: Spent) -> Spending:
        return Spending(self.requests + 1, self.tokens + call.tokens, self.money + call.money)


class Store:
    """The file of one folder; one process at a time."""

    def __init__(self, folder: Path) -> None:
        """Raises StoreError while another process works in the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(folder / _LOCK)
        self._db = sqlite3.connect(folder / FILE, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version not in (0, _VERSION):
            self.close()
            raise StoreError(
                f"{folder / FILE}: expected version {_VERSION}, found {version}; use the "
                "reviewmesh that made it, or another folder"
            )
        with self._transaction():
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={_VERSION}")
            self._db.execute(_LEAVING)
            # The process that reserved them has died: this one holds the lock.
            self._db.execute(
                "UPDATE calls SET state=? WHERE state=? AND batch IS NULL", (ORPHANED, RESERVED)
            )
        self._totals = self.totals()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()
        os.close(self._lock)

    # -- what is asked --------------------------------------------------------------------------

    def begin(self, teachers: Mapping[str, str], tasks: Mapping[str, str]) -> None:
        """Set the teachers (identity by name) and tasks (digest by task) of this run."""
        with self._transaction():
            self._db.execute("DELETE FROM teachers")
            self._db.executemany(
                "INSERT INTO teachers VALUES (?, ?, ?)",
                [(name, who, place) for place, (name, who) in enumerate(teachers.items())],
            )
            self._db.execute("DELETE FROM tasks")
            self._db.executemany("INSERT INTO tasks VALUES (?, ?)", list(tasks.items()))

    @property
    def teachers(self) -> dict[str, str]:
        """Identity by name, of the last run."""
        rows = self._db.execute("SELECT name, identity FROM teachers ORDER BY position")
        return dict(rows.fetchall())

    @property
    def tasks(self) -> dict[str, str]:
        """Digest by task, of the last run."""
        return dict(self._db.execute("SELECT name, digest FROM tasks").fetchall())

    def add(self, reviews: Iterable[Review]) -> None:
        """Add the reviews that are missing; a gold review stays gold."""
        with self._transaction():
            (position,) = self._db.execute("SELECT count(*) FROM reviews").fetchone()
            for review in reviews:
                gold = None if review.gold is None else _dumped(review.gold)
                added = self._db.execute(
                    "INSERT INTO reviews VALUES (?, ?, ?, ?) "
                    "ON CONFLICT (key) DO UPDATE SET gold = coalesce(excluded.gold, gold)",
                    (review.key, _dumped(review.text), gold, position),
                )
                position += added.rowcount
                if review.leaves_for is not None:
                    self._may_leave(review.key, review.leaves_for)

    def _may_leave(self, key: str, regions: Sequence[str]) -> None:
        """The same text may come once more, of another review with other rules."""
        found = self._db.execute("SELECT regions FROM leaving WHERE key=?", (key,)).fetchone()
        known = json.loads(found[0]) if found else []
        self._db.execute(
            "INSERT OR REPLACE INTO leaving VALUES (?, ?)",
            (key, _dumped(sorted({*known, *regions}))),
        )

    def reviews(self) -> list[Review]:
        """In the order in which they came."""
        rows = self._db.execute(
            "SELECT text, gold, regions FROM reviews LEFT JOIN leaving USING (key) "
            "ORDER BY position, key"
        )
        return [
            Review(
                json.loads(text),
                json.loads(gold) if gold else None,
                None if regions is None else tuple(json.loads(regions)),
            )
            for text, gold, regions in rows
        ]

    # -- answers --------------------------------------------------------------------------------

    def answers(self, asked: Asked) -> dict[str, Labels | TeacherFailure]:
        """By the key of the review."""
        rows = self._db.execute(
            "SELECT key, labels, code, message FROM answers "
            "WHERE identity=? AND task=? AND digest=?",
            (asked.identity, asked.task, asked.digest),
        )
        return {
            key: json.loads(labels) if labels is not None else TeacherFailure(code, message)
            for key, labels, code, message in rows
        }

    def under_way(self, asked: Asked) -> set[str]:
        """Keys of the reviews that are in a batch that is not collected."""
        rows = self._db.execute(
            "SELECT calls.key FROM calls JOIN batches ON calls.batch = batches.id "
            "WHERE batches.identity=? AND batches.task=? AND digest=? AND calls.state=?",
            (asked.identity, asked.task, asked.digest, RESERVED),
        )
        return {key for (key,) in rows}

    def keep(self, asked: Asked, answers: Iterable[tuple[str, Labels | TeacherFailure]]) -> None:
        """Write answers that cost nothing."""
        with self._transaction():
            for key, answer in answers:
                self._keep(asked, key, answer)

    # -- calls ----------------------------------------------------------------------------------

    def reserve(
        self, asked: Asked, key: str, bound: Spent, budget: Budget | None
    ) -> RecordedCall | None:
        """Reserve a call before it is sent; None if the budget has no room for its highest cost."""
        with self._transaction():
            if not _within(self._totals.and_one(bound), budget):
                return None
            return RecordedCall(self._reserve(asked, key, bound, None), key)

    def settle(
        self, asked: Asked, call: RecordedCall, cost: Spent, answer: Labels | TeacherFailure | None
    ) -> None:
        """Record the cost of a call and its answer; None if it has no final answer."""
        with self._transaction():
            self._settle(call.id, cost)
            if answer is not None:
                self._keep(asked, call.key, answer)

    def orphan(
        self, call: RecordedCall, answered: tuple[Asked, Labels | TeacherFailure] | None = None
    ) -> None:
        """The cost of the call is unknown: it counts with its highest possible cost."""
        with self._transaction():
            self._db.execute("UPDATE calls SET state=? WHERE id=?", (ORPHANED, call.id))
            if answered is not None:
                self._keep(answered[0], call.key, answered[1])

    def in_flight(self) -> int:
        """Calls that were sent and not settled, without those in batches."""
        (found,) = self._db.execute(
            "SELECT count(*) FROM calls WHERE state=? AND batch IS NULL", (RESERVED,)
        ).fetchone()
        return int(found)

    def totals(self) -> Spending:
        """What was spent or is reserved, of all teachers."""
        (requests, tokens, money) = self._db.execute(
            "SELECT count(*), coalesce(sum(prompt_tokens + completion_tokens), 0), "
            "coalesce(sum(money), 0.0) FROM calls"
        ).fetchone()
        return Spending(requests, tokens, money)

    # -- batches --------------------------------------------------------------------------------

    def open_batch(
        self, asked: Asked, mark: str, bounds: Sequence[tuple[str, Spent]], budget: Budget | None
    ) -> int:
        """Reserve as many of the calls as the budget has room for; returns how many."""
        with self._transaction():
            fitting, totals = 0, self._totals
            for _, bound in bounds:
                totals = totals.and_one(bound)
                if not _within(totals, budget):
                    break
                fitting += 1
            if fitting:
                batch = self._db.execute(
                    "INSERT INTO batches (mark, identity, task, digest, state) "
                    "VALUES (?, ?, ?, ?, 'open')",
                    (mark, asked.identity, asked.task, asked.digest),
                ).lastrowid
                for key, bound in bounds[:fitting]:
                    self._reserve(asked, key, bound, batch)
            return fitting

    def open_batches(self, asked: Asked) -> list[ProviderBatch]:
        """Those that are not collected."""
        rows = self._db.execute(
            "SELECT id, mark, task, state, file, provider_id FROM batches "
            "WHERE identity=? AND task=? AND digest=? AND state != 'collected' ORDER BY id",
            (asked.identity, asked.task, asked.digest),
        )
        return [ProviderBatch(*row) for row in rows]

    def batch_keys(self, batch: ProviderBatch) -> list[str]:
        """Keys of the reviews in it, in order."""
        rows = self._db.execute("SELECT key FROM calls WHERE batch=? ORDER BY id", (batch.id,))
        return [key for (key,) in rows]

    def uploaded(self, batch: ProviderBatch, file: str) -> None:
        self._db.execute("UPDATE batches SET state='uploaded', file=? WHERE id=?", (file, batch.id))

    def submitted(self, batch: ProviderBatch, provider_id: str) -> None:
        self._db.execute(
            "UPDATE batches SET state='submitted', provider_id=? WHERE id=?",
            (provider_id, batch.id),
        )

    def collected(
        self,
        asked: Asked,
        batch: ProviderBatch,
        answers: Mapping[str, tuple[Labels | TeacherFailure | None, Spent]],
    ) -> None:
        """Record every answer of a batch with its cost; a review without one was not processed."""
        with self._transaction():
            rows = self._db.execute("SELECT id, key FROM calls WHERE batch=?", (batch.id,))
            for call, key in rows.fetchall():
                answer, cost = answers.get(key, (None, Spent()))
                self._settle(call, cost)
                if answer is not None:
                    self._keep(asked, key, answer)
            self._db.execute("UPDATE batches SET state='collected' WHERE id=?", (batch.id,))

    # -------------------------------------------------------------------------------------------

    def _reserve(self, asked: Asked, key: str, bound: Spent, batch: int | None) -> int:
        row = self._db.execute(
            "INSERT INTO calls (identity, task, key, batch, state, prompt_tokens, "
            "completion_tokens, money) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                asked.identity,
                asked.task,
                key,
                batch,
                RESERVED,
                bound.prompt_tokens,
                bound.completion_tokens,
                bound.money,
            ),
        ).lastrowid
        assert row is not None
        self._totals = self._totals.and_one(bound)
        return row

    def _settle(self, call: int, cost: Spent) -> None:
        tokens, money = self._db.execute(
            "SELECT prompt_tokens + completion_tokens, money FROM calls WHERE id=?", (call,)
        ).fetchone()
        self._totals = Spending(
            self._totals.requests,
            self._totals.tokens + cost.tokens - tokens,
            self._totals.money + cost.money - money,
        )
        self._db.execute(
            "UPDATE calls SET state=?, prompt_tokens=?, completion_tokens=?, money=? WHERE id=?",
            (SETTLED, cost.prompt_tokens, cost.completion_tokens, cost.money, call),
        )

    def _keep(self, asked: Asked, key: str, answer: Labels | TeacherFailure) -> None:
        said: tuple[str | None, str | None, str | None]
        if isinstance(answer, TeacherFailure):
            said = None, answer.code, answer.message
        else:
            said = _dumped(answer), None, None
        self._db.execute(
            "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)",
            (asked.identity, asked.task, asked.digest, key, *said),
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            self._totals = self.totals()
            raise
        self._db.execute("COMMIT")


def _within(totals: Spending, budget: Budget | None) -> bool:
    return budget is not None and (
        (budget.requests is None or totals.requests <= budget.requests)
        and (budget.tokens is None or totals.tokens <= budget.tokens)
        and (budget.money is None or totals.money <= budget.money)
    )


def _locked(file: Path) -> int:
    handle = os.open(file, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise StoreError(
            f"{file.parent}: another process labels or adjudicates here; wait for its end"
        ) from error
    return handle


def _dumped(value: object) -> str:
    # In ASCII: SQLite refuses lone surrogates.
    return json.dumps(value)
