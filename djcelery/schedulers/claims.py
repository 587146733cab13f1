"""Claims: a firing becomes a row with a fixed task id before anything is sent.

Called by ``scheduler`` in each tick that has something due. Writes ``PeriodicRun``, and of the periodic
tasks ``last_run_at``, ``total_run_count`` and, for one-off tasks, ``enabled``. A row per entry and instant
is all that decides who sends; what is claimed and not marked as sent goes out again, under the same id.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from djcelery import db, utils
from djcelery.models import PeriodicRun, PeriodicTask
from djcelery.schedulers import statements
from djcelery.schedulers.lease import Lease

#: More runs that are passed over at once are not recorded: of each task the latest, and in all.
SKIPPED_PER_TASK, SKIPPED_IN_ALL = 100, 1000
#: Rows of tasks that one statement counts; more make it longer than SQLite allows.
COUNTED_AT_ONCE = 10_000
#: Runs per page of ``unsent()``.
PAGE_ROWS = 1000

#: The columns that differ from run to run, and their types on PostgreSQL.
_COLUMNS = {"periodic_task_id": "integer", "name": "text", "scheduled_at": "timestamptz", "task_id": "text"}
#: What a run may have become when it is marked.
_UNSENT = " AND outcome IS NULL"


class Firing(NamedTuple):
    """One instant at which one entry fires. ``scheduled_at`` is aware."""

    task_pk: int
    name: str
    scheduled_at: datetime
    one_off: bool = False


class Run(NamedTuple):
    """A firing that was claimed: it is sent under ``task_id`` and no other. ``scheduled_at`` is in UTC."""

    task_pk: int
    name: str
    scheduled_at: datetime
    task_id: str


@dataclass(frozen=True)
class Counted:
    """What is to be written to the rows of tasks: ``last_run_at``, new runs by key, and which to switch off."""

    at: datetime
    runs: dict[int, int]
    one_offs: set[int]

    @classmethod
    def of(cls, now: datetime, firings: Sequence[Firing], runs: list[Run], claimed: set[str]) -> Counted:
        """Count the *claimed* among *runs*; a task whose runs were all claimed before ran 0 times more."""
        counts = dict.fromkeys((firing.task_pk for firing in firings), 0)
        for run in runs:
            counts[run.task_pk] += run.task_id in claimed
        return cls(now, counts, {firing.task_pk for firing in firings if firing.one_off})

    def plus(self, other: Counted) -> Counted:
        """Return both as one, at the later of the two times."""
        runs = {pk: self.runs.get(pk, 0) + other.runs.get(pk, 0) for pk in self.runs.keys() | other.runs.keys()}
        return Counted(max(self.at, other.at), runs, self.one_offs | other.one_offs)

    def parts(self) -> Iterator[Counted]:
        """Yield parts that are small enough for one statement; a task is in one of them."""
        keys = sorted(self.runs)
        for start in range(0, len(keys), COUNTED_AT_ONCE):
            part = keys[start : start + COUNTED_AT_ONCE]
            yield Counted(self.at, {pk: self.runs[pk] for pk in part}, self.one_offs.intersection(part))

    def added(self) -> str:
        """Return the SQL of how many runs to add to a row."""
        by_runs: dict[int, list[int]] = {}
        for pk, runs in self.runs.items():
            by_runs.setdefault(runs, []).append(pk)
        by_runs.pop(1, None)
        whens = "".join(f" WHEN id IN ({statements.numbers(pks)}) THEN {runs}" for runs, pks in by_runs.items())
        return f"CASE{whens} ELSE 1 END" if whens else "1"


NOTHING = Counted(datetime.min.replace(tzinfo=timezone.utc), {}, set())


class Claims:
    """The runs in database *alias*, claimed under *lease*."""

    def __init__(self, alias: str, lease: Lease) -> None:
        self.alias = alias
        self.lease = lease
        # Of rows that were locked by an editor.
        self._late = NOTHING

    def claim(self, firings: Sequence[Firing], now: datetime) -> list[Run]:
        """Claim *firings*, count them in the rows of their tasks, and return the runs to send, in the same order.

        A firing without a run in the answer has one already: it was sent, passed over, or is unsent.

        Args:
            now: Becomes ``last_run_at``: what was due until then is decided.

        Raises:
            LeaseLost: Another beat leads; nothing was claimed.
            django.db.Error: Nothing was claimed, or, if the connection broke at the very end, all was:
                ``unsent()`` knows.

        Database: one transaction of three statements, on MySQL of four and one more per 2,000 firings; one more
            per 10,000 tasks. Two more if somebody is editing the row of one of the tasks in a transaction; it is
            then counted in a later claim. One more if a firing was claimed before.
        """
        runs = _runs(firings)
        if not runs:
            return []

        def work(connection: BaseDatabaseWrapper, is_retry: bool) -> tuple[set[str], Counted]:
            with transaction.atomic(using=self.alias, durable=True):
                self.lease.fence(connection)
                if is_retry and (claimed := self._present(connection, runs)):
                    return claimed, NOTHING
                claimed = self._insert(connection, runs, now)
                late = NOTHING
                for counted in (self._late, Counted.of(utils.to_utc(now), firings, runs, claimed)):
                    for part in counted.parts():
                        late = late.plus(self._count(connection, part))
                return claimed, late

        claimed, self._late = statements.attempt(self.alias, work, self.lease.is_held)
        return [run for run in runs if run.task_id in claimed]

    def mark_sent(self, task_ids: Collection[str], at: datetime) -> int:
        """Note that the runs were sent at *at*; return how many are known. Needs no lease: it is a fact.

        Database: one UPDATE, none for no *task_ids*.
        """
        return self._mark(task_ids, {"outcome": PeriodicRun.SENT, "sent_at": at, "error": None}, "")

    def mark_dropped(self, task_ids: Collection[str], error: str) -> int:
        """Note that the runs will not be sent and why; return how many. Those that were sent stay as they are.

        Database: one UPDATE, none for no *task_ids*.
        """
        return self._mark(task_ids, {"outcome": PeriodicRun.DROPPED, "error": db.storable(error)}, _UNSENT)

    def record_skipped(self, firings: Sequence[Firing], why: str, now: datetime | None = None) -> int:
        """Record instants that were decided not to run; return how many are new.

        Of each task the latest 100 are recorded, and the latest 1,000 in all.

        Args:
            now: When it was decided; None is the present.

        Raises:
            LeaseLost: Another beat leads; nothing was recorded.

        Database: one transaction of two statements.
        """
        runs = _runs(_latest(firings))
        if not runs:
            return 0

        def work(connection: BaseDatabaseWrapper, is_retry: bool) -> int:
            with transaction.atomic(using=self.alias, durable=True):
                self.lease.fence(connection)
                return self._write(connection, runs, now or utils.now(), PeriodicRun.SKIPPED, db.storable(why))

        return statements.attempt(self.alias, work, self.lease.is_held)

    def unsent(self, limit: int = PAGE_ROWS, but_of: Collection[int] = ()) -> list[Run]:
        """Return up to *limit* runs that are claimed and not sent, the oldest first.

        Args:
            but_of: Keys of tasks whose runs are left out.

        Database: one SELECT.
        """

        def work(connection: BaseDatabaseWrapper, is_retry: bool) -> list[Run]:
            others = f"AND periodic_task_id NOT IN ({statements.numbers(but_of)}) " if but_of else ""
            rows = statements.fetch(
                connection,
                "SELECT periodic_task_id, name, scheduled_at, task_id "  # noqa: S608 - a quoted name, whole numbers
                f"FROM {statements.table(connection, PeriodicRun)} WHERE outcome IS NULL {others}"
                "ORDER BY scheduled_at, id LIMIT %s",
                [limit],
            )
            return [Run(pk, name, statements.read_instant(connection, at), task_id) for pk, name, at, task_id in rows]

        return statements.attempt(self.alias, work, lambda: True)

    def purge(self, age: timedelta | float | None, batch_rows: int = 1000, max_batches: int | None = None) -> int:
        """Delete the runs whose instant is longer than *age* ago, but those still to be sent; return how many.

        None deletes nothing. *max_batches* bounds one call.

        Database: per outcome a SELECT and a DELETE per *batch_rows* rows.
        """
        return PeriodicRun.objects.delete_expired(age, batch_rows, max_batches)

    # the statements

    def _insert(self, connection: BaseDatabaseWrapper, runs: list[Run], now: datetime) -> set[str]:
        """Insert *runs* and return the task ids of those that had no row before."""
        inserted = self._write(connection, runs, now, None, None)
        return {run.task_id for run in runs} if inserted == len(runs) else self._present(connection, runs)

    def _write(
        self, connection: BaseDatabaseWrapper, runs: list[Run], now: datetime, outcome: str | None, error: str | None
    ) -> int:
        def row(run: Run) -> tuple[int, str, object, str]:
            return run.task_pk, run.name, statements.store_instant(connection, run.scheduled_at), run.task_id

        return statements.insert_new(
            connection,
            statements.table(connection, PeriodicRun),
            _COLUMNS,
            # In one order, else two that insert the same runs wait for each other.
            [row(run) for run in sorted(runs)],
            {
                "claimed_at": statements.store_instant(connection, utils.to_utc(now)),
                "outcome": outcome,
                "error": error,
                "token": self.lease.token,
            },
        )

    def _present(self, connection: BaseDatabaseWrapper, runs: list[Run]) -> set[str]:
        condition, values = statements.is_one_of(connection, "task_id", [run.task_id for run in runs])
        table = statements.table(connection, PeriodicRun)
        sql = f"SELECT task_id FROM {table} WHERE {condition}"  # noqa: S608 - quoted name of the model
        return {row[0] for row in statements.fetch(connection, sql, values)}

    def _count(self, connection: BaseDatabaseWrapper, counted: Counted) -> Counted:
        """Write the last run and the count of tasks, switch one-off tasks off; return what is still to be written.

        A row that somebody is editing in a transaction is locked: to wait for it would hold up all others.
        """
        found = self._update(connection, counted)
        if len(found) == len(counted.runs):
            return NOTHING
        missing = counted.runs.keys() - found
        table = statements.table(connection, PeriodicTask)
        sql = f"SELECT id FROM {table} WHERE id IN ({statements.numbers(missing)})"  # noqa: S608 - whole numbers
        # The others are deleted.
        locked = {row[0] for row in statements.fetch(connection, sql)}
        return Counted(counted.at, {pk: counted.runs[pk] for pk in locked}, counted.one_offs & locked)

    def _update(self, connection: BaseDatabaseWrapper, counted: Counted) -> set[int]:
        """Update the rows that nobody has locked; return their keys."""
        table, chosen = statements.table(connection, PeriodicTask), statements.numbers(counted.runs)
        sets = f"last_run_at = %s, total_run_count = total_run_count + {counted.added()}"
        values = [statements.store_instant(connection, counted.at)]
        if counted.one_offs:
            sets += f", enabled = CASE WHEN id IN ({statements.numbers(counted.one_offs)}) THEN %s ELSE enabled END"
            values.append(False)
        update = f"UPDATE {table} SET {sets} WHERE id IN"  # noqa: S608 - whole numbers and quoted names
        free = f"SELECT id FROM {table} WHERE id IN ({chosen}) ORDER BY id"  # noqa: S608 - as above
        if connection.vendor == "postgresql":
            # The keys twice: by the inner ones alone it would read the whole table.
            sql = f"{update} ({chosen}) AND id IN ({free} FOR NO KEY UPDATE SKIP LOCKED) RETURNING id"
            return {row[0] for row in statements.fetch(connection, sql, values)}
        if connection.vendor == "sqlite":
            # It has one lock for all, which the fence has taken.
            statements.execute(connection, f"{update} ({chosen})", values)
            return set(counted.runs)
        skip = " SKIP LOCKED" if connection.features.has_select_for_update_skip_locked else ""
        rows = statements.fetch(connection, f"{free} FOR UPDATE{skip}")
        if rows:
            statements.execute(connection, f"{update} ({statements.numbers(row[0] for row in rows)})", values)
        return {row[0] for row in rows}

    def _mark(self, task_ids: Collection[str], columns: dict[str, object], condition: str) -> int:
        if not task_ids:
            return 0

        def work(connection: BaseDatabaseWrapper, is_retry: bool) -> int:
            values = [
                statements.store_instant(connection, utils.to_utc(value)) if isinstance(value, datetime) else value
                for value in columns.values()
            ]
            chosen, ids = statements.is_one_of(connection, "task_id", list(task_ids))
            sets = ", ".join(f"{column} = %s" for column in columns)
            table = statements.table(connection, PeriodicRun)
            sql = f"UPDATE {table} SET {sets} WHERE {chosen}{condition}"  # noqa: S608 - names of columns
            return statements.execute(connection, sql, [*values, *ids])

        return statements.attempt(self.alias, work, lambda: True)


def _runs(firings: Sequence[Firing]) -> list[Run]:
    """Return a run with a new task id per firing; one that is named twice gets one run."""
    runs = {}
    for firing in firings:
        at = utils.to_utc(firing.scheduled_at)
        if (firing.task_pk, at) not in runs:
            runs[firing.task_pk, at] = Run(firing.task_pk, firing.name, at, str(uuid.uuid4()))
    return list(runs.values())


def _latest(firings: Sequence[Firing]) -> list[Firing]:
    kept: list[Firing] = []
    per_task: Counter[int] = Counter()
    for firing in sorted(firings, key=lambda firing: firing.scheduled_at, reverse=True):
        per_task[firing.task_pk] += 1
        if per_task[firing.task_pk] <= SKIPPED_PER_TASK and len(kept) < SKIPPED_IN_ALL:
            kept.append(firing)
    return kept[::-1]
