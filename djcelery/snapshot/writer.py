"""Writes what has changed: tasks and workers, what they add to the history, malformed events, how the camera does.

Called by ``program`` and by ``camera`` at each shutter. A transaction of 1,000 tasks locks the gate, reads the rows
that are there, merges, writes, and counts what was new: whatever is written twice, or by two cameras, counts once.
Next: ``docs/explain/life-of-a-task-event.rst``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

from django.db import DataError, Error, IntegrityError, connections, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from djcelery import db
from djcelery.snapshot import merging, rows, statements
from djcelery.snapshot.dirty import Batch
from djcelery.snapshot.history import add_to_history
from djcelery.snapshot.malformed import MalformedLog
from djcelery.snapshot.news import Malformed, TaskNews, WorkerNews
from djcelery.snapshot.redaction import Redactor
from djcelery.snapshot.status import Status
from djcelery.snapshot.tally import Tallies

logger = logging.getLogger(__name__)

#: Tasks per transaction.
BATCH_ROWS = 1000
#: What is wrong with one row, by what the database says or the driver: with the same values it never will be written.
_REFUSED = (DataError, IntegrityError, ValueError, TypeError, OverflowError)


class Writer:
    """Writes batches to the monitor's tables, and how the camera *name* does to ``CameraState``.

    Use each from one thread only; its connection is that thread's.

    Args:
        name: The node name of the camera; of cameras with the same name one should run.
        frequency: Seconds between two shutters.
        app: Whose tasks may say what is not stored of them; None: the setting alone says it.
        task_model, worker_model: Subclasses of ``TaskState`` and ``WorkerState``; None: those.
    """

    def __init__(
        self, name: str, frequency: float, app: Any = None, *, task_model: Any = None, worker_model: Any = None
    ) -> None:
        # Models are there only after Django's setup, and this module may be imported before.
        from djcelery.models import MonitorGate, TaskState, WorkerState

        self.name = name
        self.task_model, self.worker_model = task_model or TaskState, worker_model or WorkerState
        self.alias = router.db_for_write(self.task_model)
        self.redactor = Redactor(app)
        self._gate = MonitorGate._meta.db_table
        self._new_table, self._known_table = rows.tables(self.task_model._meta.db_table)
        self._worker_table = rows.worker_table(self.worker_model._meta.db_table)
        self._status = Status(name, frequency, self.alias)
        self._malformed = MalformedLog(name, self.alias)

    def write(self, batch: Batch) -> None:
        """Write *batch*, of any size, in transactions of 1,000 tasks each; an empty one writes the heartbeat when due.

        A row that the database refuses is logged, counted and left out. Call it at each shutter.

        Raises:
            django.db.Error: The database can't be written at present. What is not committed is to be written again;
                give the whole batch back: writing twice changes nothing. An error of the heartbeat alone is logged.

        Database: per 1,000 tasks one transaction of 8 statements at most, and two more if workers changed. Every few
            seconds an UPDATE.
        """
        self.redactor.read_settings()
        parts = list(_parts(batch.tasks, BATCH_ROWS)) or [[]]
        for number, tasks in enumerate(parts):
            # The last one: what workers say of themselves is true when all that they did is written.
            workers = batch.workers if number == len(parts) - 1 else []
            if tasks or workers:
                self._write_part(tasks, workers)
        if batch.malformed:
            self._write_malformed(batch.malformed)
        if self._status.is_due(is_busy=not batch.is_empty):
            self._write_status(is_alone=batch.is_empty)
        connection = connections[self.alias]
        if connection.queries_logged and not connection.force_debug_cursor:
            # With DEBUG on Django would keep the last 9,000 statements, and these are long.
            connection.queries_log.clear()

    def note(self, **fields: Any) -> None:
        """Remember what the next ``write`` says of the camera.

        Args:
            events, malformed, dropped, missed: Sums since the start of this process, as in ``Dirty.counts``.
            waiting: Tasks that wait.
            event_at_s: When the latest event came, in seconds since the epoch.
            error: What is wrong, as text; None or "" if nothing is.
        """
        self._status.note(**fields)

    def stop(self) -> None:
        """Write that the camera has stopped (``stopped_at``), and the last sums; errors are logged, not raised."""
        try:
            self._attempt(lambda: self._status.write(has_stopped=True))
        except (Error, *_REFUSED) as exc:
            logger.error("The end of camera %s could not be written: %s", self.name, exc)

    # transactions

    def _attempt(self, work: Callable[[], None]) -> None:
        """Call *work*, which writes; if the connection turns out to be broken, once more on a new one."""
        connection = db.ready(connections[self.alias])
        try:
            work()
        except Error as exc:
            if connection.in_atomic_block:
                raise
            db.close_broken(connection)
            if not db.is_transient(exc):
                raise
            logger.info("The camera could not write (%s); trying again at once.", exc)
            try:
                work()
            except Error:
                db.close_broken(connection)
                raise

    def _write_part(self, tasks: Sequence[TaskNews], workers: Sequence[WorkerNews]) -> None:
        """Write *tasks* and *workers* in one transaction; if a row is refused, in smaller and smaller ones."""
        try:
            self._attempt(lambda: self._commit(tasks, workers))
        except _REFUSED as exc:
            if len(tasks) + len(workers) == 1:
                what = f"Task {tasks[0].task_id}" if tasks else f"Worker {workers[0].hostname}"
                logger.error("%s can't be written and is left out: %s", what, exc)
                self._status.refused += 1
            elif tasks and workers:
                self._write_part(tasks, ())
                self._write_part((), workers)
            else:
                half = (len(tasks) + len(workers)) // 2
                self._write_part(tasks[:half], workers[:half])
                self._write_part(tasks[half:], workers[half:])

    def _write_malformed(self, events: Sequence[Malformed]) -> None:
        try:
            self._attempt(lambda: self._malformed.write(events))
        except _REFUSED as exc:
            logger.error("%d events that can't be read can't be written either, and are left out: %s", len(events), exc)
            self._status.refused += len(events)

    def _write_status(self, *, is_alone: bool) -> None:
        """Write how the camera does. What was written before is committed: no error here may have it written again."""
        try:
            self._attempt(self._status.write)
        except (Error, *_REFUSED) as exc:
            is_away = is_alone and db.is_transient(exc)
            if isinstance(exc, Error) and (is_away or connections[self.alias].in_atomic_block):
                raise
            self._status.failed(exc)

    def _commit(self, tasks: Sequence[TaskNews], workers: Sequence[WorkerNews]) -> None:
        connection = connections[self.alias]
        instants, tallies = statements.Instants(connection), Tallies(time.time())
        with transaction.atomic(using=self.alias):
            statements.pass_gate(connection, self._gate, instants)
            keys = self._write_workers(connection, instants, tasks, workers)
            self._write_tasks(connection, instants, tasks, keys, tallies)
            add_to_history(connection, instants, tallies)

    # workers

    def _write_workers(
        self,
        connection: BaseDatabaseWrapper,
        instants: statements.Instants,
        tasks: Sequence[TaskNews],
        workers: Sequence[WorkerNews],
    ) -> dict[str, int]:
        """Write *workers*, and a row for each that *tasks* name; return the keys by node name."""
        news = {one.hostname: one for one in workers}
        names = list(news.keys() | {task.worker for task in tasks if task.worker})
        known = self._read_workers(connection, rows.worker_columns(connection), names)
        changed = []
        for name in names:
            row = known.get(name)
            if row is not None and name not in news:
                continue
            values = rows.worker(row, news.get(name) or WorkerNews(name, "", 0.0, 0.0), instants)
            if values is not None:
                changed.append(values)
        statements.upsert(connection, self._worker_table, changed)
        if len(known) < len(names):
            known |= self._read_workers(connection, "id, hostname", names)
        return {name: row[0] for name, row in known.items()}

    def _read_workers(
        self, connection: BaseDatabaseWrapper, picked: str, names: Sequence[str]
    ) -> dict[str, tuple[Any, ...]]:
        """Return the rows of the workers *names* by the name that was asked for."""
        table = self._worker_table.name
        found = statements.select_by(connection, table, picked, "hostname", names)
        same = statements.same_texts(connection, table, "hostname", [*names, *(row[1] for row in found)])
        by_key = {same[row[1]]: row for row in found}
        return {name: by_key[same[name]] for name in names if same[name] in by_key}

    # tasks

    def _write_tasks(
        self,
        connection: BaseDatabaseWrapper,
        instants: statements.Instants,
        tasks: Sequence[TaskNews],
        keys: dict[str, int],
        tallies: Tallies,
    ) -> None:
        ids = [task.task_id for task in tasks]
        picked = rows.picked(connection)
        name = self._new_table.name
        found = statements.select_by(connection, name, picked, "task_id", ids)
        same = statements.same_texts(connection, name, "task_id", [*ids, *(row[1] for row in found)])
        stored = {same[row[1]]: rows.task(row, instants) for row in found}
        new: dict[str, TaskNews] = {}
        known = []
        for news in tasks:
            key = same[news.task_id]
            if key in stored:
                pk, row = stored[key]
                before, marks = merging.before(row), rows.marks(row)
                merging.join(row, news)
                for increment in merging.increments(before, row):
                    tallies.add(increment)
                if rows.marks(row) != marks:
                    known.append((pk, *self._values(row, True, keys, instants)))
            elif key in new:
                merging.join(new[key], news)
            else:
                new[key] = news
        for news in new.values():
            for increment in merging.increments(None, news):
                tallies.add(increment)
        known.sort(key=itemgetter(0))
        added = [self._values(news, False, keys, instants) for news in new.values()]
        for table, changed in ((self._new_table, added), (self._known_table, known)):
            statements.upsert(connection, table, changed, partial(rows.narrowed, table=table))

    def _values(
        self, news: TaskNews, is_stored: bool, keys: dict[str, int], instants: statements.Instants
    ) -> tuple[Any, ...]:
        worker_id = keys.get(news.worker) if news.worker else None
        hidden = self.redactor.names(news.name)
        return rows.values(news, is_stored=is_stored, worker_id=worker_id, instants=instants, hidden=hidden)


def _parts(tasks: Sequence[TaskNews], size: int) -> Iterator[Sequence[TaskNews]]:
    for start in range(0, len(tasks), size):
        yield tasks[start : start + size]
