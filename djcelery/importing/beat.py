"""The schedule of django-celery-beat as periodic tasks and schedules of ours.

Called by ``manage.py celeryimport beat``. Schedules that are equal become one row; a task keeps its last run,
from which it goes on. Writes through the models, so that a running beat notices.
Next: ``docs/coming-from-results-and-beat.rst``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.exceptions import ValidationError
from django.db import Error, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from djcelery import db, utils
from djcelery.importing.reading import Row, Table, Unreadable, instant
from djcelery.importing.runs import (
    IMPORTED,
    LEFT_OUT,
    MERGED,
    PRESENT,
    UPDATED,
    Import,
    LeftOut,
    Summary,
    reason_of,
    words,
)
from djcelery.importing.schedules import KINDS, Times
from djcelery.models import PeriodicTask
from djcelery.models.periodic import SCHEDULES
from djcelery.schedulers.loading import check_json, max_known

__all__ = ("BeatImport",)

TASKS = "django_celery_beat_periodictask"
PERIODIC_TASKS = "periodic tasks"

_NEED = ("name", "task", "interval_id", "crontab_id", "args", "kwargs", "enabled", "last_run_at", "total_run_count")
_COLUMNS = (
    *_NEED, "solar_id", "clocked_id", "queue", "exchange", "routing_key", "headers", "priority", "expires",
    "expire_seconds", "one_off", "start_time", "date_changed", "description",
)  # fmt: skip
_REFERENCES = {f"{name}_id": name for name in SCHEDULES}
_JSON = {"args": list, "kwargs": dict, "headers": dict}
#: What an update never sets back: our beat may have run the task since.
_GROWING = ("last_run_at", "scheduled_from", "total_run_count")


class BeatImport(Import):
    """Copies schedules, by what they say, and periodic tasks, by their unique name.

    Args:
        is_update: Whether tasks of ours take the values of theirs of the same name.
    """

    def __init__(self, app: Any, database: str | None = None, *, is_update: bool = False, **options: Any) -> None:
        super().__init__(app, database, **options)
        self.is_update = is_update
        self.times: dict[str, Times] = {}

    def run(self) -> Summary:
        """Import what isn't there yet, until all is done or ``should_stop`` says so.

        Raises:
            TableUnknown: There is no table of periodic tasks, or not of the shape that the releases made.
            django.db.Error: The database failed for longer than ``db.retry_transient`` waits.

        Database: an INSERT per schedule; per batch of tasks two SELECTs, one more for each kind of schedule in it and
            for the names, and one transaction.
        """
        alias = self.alias_of(PeriodicTask)
        tasks = self.table(alias, TASKS, _NEED)
        self.times = {kind.name: Times(kind, connections[alias], is_dry_run=self.is_dry_run) for kind in KINDS}
        tables = [times.theirs for times in self.times.values() if times.theirs.columns]
        if self.on_progress:
            self.summary.total = sum(table.count() for table in (*tables, tasks))
        for times in self.times.values():
            # Old releases have no table for some.
            batches = times.theirs.batches(times.kind.columns, self.batch_rows) if times.theirs.columns else ()
            for batch in batches:
                self._take_times(times, batch)
                if self.done(len(batch)):
                    return self.summary
        for batch in tasks.batches(_COLUMNS, self.batch_rows):
            self._take_tasks(alias, tasks, batch)
            if self.done(len(batch)):
                break
        return self.summary

    def _take_times(self, times: Times, batch: Sequence[Row | Unreadable]) -> None:
        what = times.kind.what
        for row in batch:
            try:
                definition = times.definition(row)
                if definition in times.before:
                    self.summary.add(what, PRESENT)
                elif definition in times.known:
                    self.summary.add(what, MERGED)
                else:
                    times.make(definition)
                    self.summary.add(what, IMPORTED)
            except (LeftOut, Error) as exc:
                if db.is_transient(exc):
                    raise
                pk = row.pk if isinstance(row, Unreadable) else row["id"]
                self.note(what, times.theirs, pk, f"{times.kind.name} {pk}", LEFT_OUT, reason_of(exc))

    # periodic tasks

    def _take_tasks(self, alias: str, table: Table, batch: Sequence[Row | Unreadable]) -> None:
        readable = [row for row in batch if not isinstance(row, Unreadable)]
        ours = {
            kind: times.of(row[f"{kind}_id"] for row in readable if row[f"{kind}_id"] is not None)
            for kind, times in self.times.items()
        }
        names = [row["name"] for row in readable]
        present = {row.name: row for row in PeriodicTask._base_manager.using(alias).filter(name__in=names)}
        new = []
        for row in batch:
            try:
                if isinstance(row, Unreadable):
                    raise LeftOut(str(row))
                if row["name"] in present and not self.is_update:
                    self._leave(table, row)
                    continue
                values = _values(connections[alias], row, ours)
                if row["name"] in present:
                    self._update(alias, table, row, present[row["name"]], values)
                else:
                    new.append((row, values))
            except Exception as exc:  # whatever is wrong with one row, the others are imported
                if db.is_transient(exc):
                    raise
                pk, name = (row.pk, f"row {row.pk}") if isinstance(row, Unreadable) else (row["id"], row["name"])
                self.note(PERIODIC_TASKS, table, pk, name, LEFT_OUT, reason_of(exc))
        self._create(alias, table, new)

    def _leave(self, table: Table, row: Row) -> None:
        self.note(PERIODIC_TASKS, table, row["id"], row["name"], PRESENT, "a task of this name is there already")

    def _update(self, alias: str, table: Table, row: Row, task: PeriodicTask, values: dict[str, Any]) -> None:
        for name in _GROWING:
            values[name] = max_known(getattr(task, name), values.get(name))
        if not values["enabled"]:
            # As the model does with a task that is switched off.
            values["last_run_at"] = None
        if all(getattr(task, name) == value for name, value in values.items()):
            self._leave(table, row)
            return
        for name, value in values.items():
            setattr(task, name, value)
        if not self.is_dry_run:
            task.save(using=alias)
        self.summary.add(PERIODIC_TASKS, UPDATED)

    def _create(self, alias: str, table: Table, rows: Sequence[tuple[Row, dict[str, Any]]]) -> None:
        """Create tasks in one transaction; if that fails, one by one."""
        if self.is_dry_run or not rows:
            self.summary.add(PERIODIC_TASKS, IMPORTED, len(rows))
            return

        def create(connection: BaseDatabaseWrapper) -> None:
            # Not save(), which would take the last run from tasks that are switched off.
            with transaction.atomic(using=alias):
                manager = PeriodicTask._default_manager.using(alias)
                manager.bulk_create([PeriodicTask(**values) for _, values in rows])

        try:
            described = f"import the periodic tasks {rows[0][0]['id']} to {rows[-1][0]['id']}"
            db.retry_transient(create, lambda: connections[alias], described)
        except Error as exc:
            if db.is_transient(exc):
                raise
            if len(rows) == 1:
                row = rows[0][0]
                self.note(PERIODIC_TASKS, table, row["id"], row["name"], LEFT_OUT, reason_of(exc))
                return
            for pair in rows:
                self._create(alias, table, [pair])
        else:
            self.summary.add(PERIODIC_TASKS, IMPORTED, len(rows))


def _values(connection: BaseDatabaseWrapper, row: Row, ours: dict[str, dict[int, Any]]) -> dict[str, Any]:
    """Return the columns of ``PeriodicTask`` for *row*; *ours* has our schedules by kind and by key of theirs.

    Raises:
        Exception: It can't be imported.
    """
    last_run, now = instant(connection, row, "last_run_at"), utils.now()
    values = {
        "name": row["name"],
        "task": row["task"],
        "args": row["args"] or "[]",
        "kwargs": row["kwargs"] or "{}",
        "headers": None if (row["headers"] or "").strip() in ("", "{}") else row["headers"],
        **{name: row[name] or None for name in ("queue", "exchange", "routing_key", "expire_seconds")},
        "priority": row["priority"],
        "expires": instant(connection, row, "expires"),
        "start_time": instant(connection, row, "start_time"),
        "one_off": bool(row["one_off"]),
        "enabled": bool(row["enabled"]),
        # A clock or zone that was wrong must not keep it from running.
        "last_run_at": last_run and min(last_run, now),
        "total_run_count": row["total_run_count"] or 0,
        "description": row["description"] or "",
        **_references(row, ours),
    }
    if values["enabled"]:
        # What was due since then, and not sent, is still to be sent.
        values["scheduled_from"] = values["last_run_at"] or instant(connection, row, "date_changed") or now
    try:
        for name, kind in _JSON.items():
            check_json(name, values[name], kind)
        PeriodicTask(**values).clean_fields(exclude=(*SCHEDULES, *_JSON))
    except ValidationError as exc:
        raise LeftOut(words(exc)) from exc
    except ValueError as exc:
        raise LeftOut(str(exc).rstrip(".")) from exc
    return values


def _references(row: Row, ours: dict[str, dict[int, Any]]) -> dict[str, Any]:
    chosen = [column for column in _REFERENCES if row[column] is not None]
    if len(chosen) != 1:
        named = " and ".join(_REFERENCES[column] for column in chosen)
        raise LeftOut(f"it has more than one schedule: {named}" if chosen else "it has no schedule")
    found = ours[_REFERENCES[chosen[0]]][row[chosen[0]]]
    if isinstance(found, LeftOut):
        raise found
    return {**dict.fromkeys(_REFERENCES), chosen[0]: found}
