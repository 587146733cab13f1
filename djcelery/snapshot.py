"""The camera: writes what the events say of tasks and workers to the monitor's tables.

Called by ``celerycam`` and ``celery events -c djcelery.snapshot.Camera``, which feed events to
``state`` and call ``capture`` every few seconds, in a thread of its own. Writes the tasks that have
changed since the last time, in bulk; deletes old rows once an hour.
Next: ``docs/explain/life-of-a-task-event.rst``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime
from typing import Any, TypeVar

import django
from celery import states
from celery.events.snapshot import Polaroid
from celery.utils.time import maybe_iso8601
from django.apps import apps
from django.db import DatabaseError, Error, models, router
from django.utils.functional import classproperty

from djcelery import db, utils
from djcelery.conf import conf
from djcelery.managers import may_replace

__all__ = ("Camera",)

logger = logging.getLogger(__name__)

#: Write the heartbeat of one worker at most once in this many seconds.
WORKER_UPDATE_FREQ = 1
SUCCESS_STATES = frozenset({states.SUCCESS})
#: Rows per statement.
BATCH_ROWS = 500

# What a late event may still add to a row that it doesn't replace.
_DESCRIPTION = ("name", "args", "kwargs", "eta", "expires")
_TASK_FIELDS = (*_DESCRIPTION, "state", "tstamp", "result", "traceback", "runtime", "retries", "worker_id")

T = TypeVar("T")


def _batches(items: list[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


class Camera(Polaroid):
    """Celery's snapshot camera with a memory: the tables ``TaskState`` and ``WorkerState``."""

    # Looked up on use: "celery events" imports this module before anybody has set Django up.
    @classproperty
    def TaskState(cls) -> Any:
        """The model of tasks; an override point."""
        from djcelery.models import TaskState

        return TaskState

    @classproperty
    def WorkerState(cls) -> Any:
        """The model of workers; an override point."""
        from djcelery.models import WorkerState

        return WorkerState

    clear_after = True
    worker_update_freq = WORKER_UPDATE_FREQ

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not apps.ready:
            django.setup()
        # What was last written of a task or worker in memory; the rest is to be written.
        self._written: dict[str, tuple[Any, ...]] = {}
        self._heartbeats: dict[str, float] = {}
        self._worker_ids: dict[str, int] = {}

    @property
    def expire_states(self) -> dict[frozenset[str], Any]:
        """The ages after which rows are deleted, by their states; None keeps them."""
        return {
            SUCCESS_STATES: conf.CELERYCAM_EXPIRE_SUCCESS,
            frozenset(states.EXCEPTION_STATES): conf.CELERYCAM_EXPIRE_ERROR,
            frozenset(states.UNREADY_STATES): conf.CELERYCAM_EXPIRE_PENDING,
        }

    # taking a snapshot

    def capture(self) -> None:
        """Take a snapshot. Called by the camera's timer; the events go on arriving while it is written."""
        self.shutter()

    def on_shutter(self, state: Any, commit_every: int = 100) -> None:
        """Write what has changed in *state* since the last time, and forget the tasks that have finished.

        Raises:
            django.db.Error: The database can't be written; everything is kept for the next time.

        Database: 3 statements per 500 workers or tasks that changed, none if nothing did.
        """
        workers, tasks = state.freeze_while(self._changed, state)
        try:
            self._write_workers(workers)
            for batch in _batches(tasks, BATCH_ROWS):
                self._write_tasks(batch)
        except Error:
            for model in (self.TaskState, self.WorkerState):
                db.close_broken(db.connections[router.db_for_write(model)])
            raise
        if self.clear_after:
            state.freeze_while(self._forget_finished, state)

    def _changed(self, state: Any) -> tuple[dict[str, float | None], list[dict[str, Any]]]:
        """Return the heartbeats and tasks to write. Called under the lock of *state*: no database here."""
        beats = {}
        for hostname, worker in list(state.workers.items()):
            last = worker.heartbeats[-1] if worker.heartbeats else None
            known = self._heartbeats.get(hostname)
            is_new = hostname not in self._worker_ids if last is None else known is None
            if hostname and (is_new or (last and known and last - known >= self.worker_update_freq)):
                beats[hostname] = last
        tasks = []
        for uuid, task in list(state.tasks.items()):
            if self._written.get(uuid) == _signature(task):
                continue
            try:
                tasks.append(self.task_fields(uuid, task))
            except Exception:
                logger.exception("Task %r has an event that can't be read; it is left out.", uuid)
                self._written[uuid] = _signature(task)
        return beats, tasks

    def task_fields(self, uuid: str, task: Any) -> dict[str, Any]:
        """Return what the events say of a task, by column. An override point."""
        worker = task.worker
        return {
            "task_id": uuid,
            "state": task.state,
            "tstamp": utils.fromtimestamp(task.timestamp),
            "name": task.name[:200] if task.name else None,
            "args": db.storable(task.args),
            "kwargs": db.storable(task.kwargs),
            "eta": utils.correct_awareness(maybe_iso8601(task.eta)),
            "expires": utils.correct_awareness(maybe_iso8601(task.expires)),
            "result": db.storable(task.result or task.exception),
            "traceback": db.storable(task.traceback),
            "runtime": task.runtime,
            "retries": task.retries,
            "hostname": worker.hostname if worker else None,
            "signature": _signature(task),
        }

    def _forget_finished(self, state: Any) -> None:
        for uuid, task in list(state.tasks.items()):
            if task.state in states.READY_STATES and self._written.get(uuid) == _signature(task):
                state.tasks.pop(uuid, None)
        for uuid in set(self._written) - set(state.tasks):
            del self._written[uuid]

    # writing

    def _write_workers(self, beats: dict[str, float | None]) -> None:
        for batch in _batches(list(beats.items()), BATCH_ROWS):
            rows = [
                self.WorkerState(
                    hostname=hostname[:255], last_heartbeat=None if beat is None else utils.fromtimestamp(beat)
                )
                for hostname, beat in batch
            ]
            self._upsert(rows, "hostname", ["last_heartbeat"])
            known = self.WorkerState.objects.using(router.db_for_write(self.WorkerState))
            self._worker_ids.update(
                known.filter(hostname__in=[row.hostname for row in rows]).values_list("hostname", "pk")
            )
            self._heartbeats.update({hostname: beat for hostname, beat in batch if beat is not None})

    def _write_tasks(self, batch: list[dict[str, Any]]) -> None:
        limit = self.TaskState._meta.get_field("task_id").max_length
        too_long = [fields for fields in batch if len(fields["task_id"]) > limit]
        for fields in too_long:
            logger.error("Task id %.80r is longer than %d characters; the task is left out.", fields["task_id"], limit)
        batch = [fields for fields in batch if len(fields["task_id"]) <= limit]
        known = self.TaskState.objects.using(router.db_for_write(self.TaskState)).in_bulk(
            [fields["task_id"] for fields in batch], field_name="task_id"
        )
        rows = [row for fields in batch if (row := self._merged(fields, known.get(fields["task_id"]))) is not None]
        self._upsert(rows, "task_id", list(_TASK_FIELDS))
        for fields in (*batch, *too_long):
            self._written[fields["task_id"]] = fields["signature"]

    def _merged(self, fields: dict[str, Any], row: Any) -> Any | None:
        """Return *row* (None: a new one) with *fields* merged into it, or None if there is nothing to write.

        A task whose name is not known yet gets no row. A finished row is not reopened: a late event
        adds at most what is not known of it.
        """
        if row is None:
            if not fields["name"]:
                return None
            row = self.TaskState(task_id=fields["task_id"], state=fields["state"])
        elif not may_replace(row.state, fields["state"]):
            missing = {n: fields[n] for n in _DESCRIPTION if getattr(row, n) is None and fields[n] is not None}
            for name, value in missing.items():
                setattr(row, name, value)
            return row if missing else None
        for name in ("state", "tstamp", "result", "traceback", "runtime"):
            setattr(row, name, fields[name])
        for name in (*_DESCRIPTION, "retries"):
            if fields[name] is not None:
                setattr(row, name, fields[name])
        if fields["hostname"]:
            row.worker_id = self._worker_ids.get(fields["hostname"][:255])
        return row

    def _upsert(self, rows: list[Any], key: str, columns: list[str]) -> None:
        """Insert or update *rows* in one statement; if one of them is refused, one by one without it."""
        if not rows:
            return
        model = type(rows[0])
        manager = model._base_manager.using(router.db_for_write(model))
        with_target = db.connections[manager.db].features.supports_update_conflicts_with_target
        options: dict[str, Any] = {"update_conflicts": True, "update_fields": columns}
        if with_target:
            options["unique_fields"] = [key]
        for row in rows:
            # The key decides which row is meant; an id would be a second one.
            row.pk = None
            row._state.adding = True
        try:
            manager.bulk_create(rows, **options)
        except DatabaseError as exc:
            if db.is_transient(exc):
                raise
            for row in rows:
                self._upsert_alone(manager, row, options)

    def _upsert_alone(self, manager: Any, row: Any, options: dict[str, Any]) -> None:
        try:
            manager.bulk_create([row], **options)
        except DatabaseError as exc:
            if db.is_transient(exc):
                raise
            try:
                for field in row._meta.get_fields():
                    if isinstance(field, models.TextField):
                        setattr(row, field.attname, db.three_byte(getattr(row, field.attname)))
                manager.bulk_create([row], **options)
            except DatabaseError as again:
                if db.is_transient(again):
                    raise
                logger.error("%r can't be written and is left out: %s", row, again)

    # one at a time, for code that calls the camera of django-celery by its methods

    def get_heartbeat(self, worker: Any) -> datetime | None:
        """Return the last heartbeat of an event worker, or None."""
        return utils.fromtimestamp(worker.heartbeats[-1]) if worker.heartbeats else None

    def handle_worker(self, hostname_worker: tuple[str, Any]) -> Any:
        """Write one worker and return its row."""
        hostname, worker = hostname_worker
        self._write_workers({hostname: worker.heartbeats[-1] if worker.heartbeats else None})
        return self.WorkerState.objects.get(hostname=hostname[:255])

    def handle_task(self, uuid_task: tuple[str, Any], worker: Any = None) -> Any | None:
        """Write one task, its worker first, and return its row; None if its name is not known."""
        uuid, task = uuid_task
        if task.worker and task.worker.hostname and task.worker.hostname not in self._worker_ids:
            self.handle_worker((task.worker.hostname, task.worker))
        self._write_tasks([self.task_fields(uuid, task)])
        return self.TaskState.objects.filter(task_id=uuid).first()

    # expiry

    def on_cleanup(self) -> int:
        """Delete the rows that are older than the settings say; return how many were expired.

        Called every hour.
        """
        expired = [self.TaskState.objects.expire_by_states(names, age) for names, age in self.expire_states.items()]
        self.TaskState.objects.purge()
        return sum(count or 0 for count in expired)


def _signature(task: Any) -> tuple[Any, ...]:
    """Return what differs whenever an event has changed *task*."""
    return (task.state, task.timestamp, task.clock, task.name, task.retries)
