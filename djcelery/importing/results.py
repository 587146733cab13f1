"""Results and saved groups of django-celery-results as rows of ``TaskMeta`` and ``TaskSetMeta``.

Called by ``manage.py celeryimport results``. Values are taken over as they are encoded; what is known of
the task beside them is brought into the columns that ``backends.database`` would have written.
Next: ``docs/coming-from-results-and-beat.rst``.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Sequence
from typing import Any

from django.db import Error, IntegrityError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from djcelery import db
from djcelery.backends import columns
from djcelery.backends.redaction import redacted_names
from djcelery.importing.reading import Row, Table, Unreadable, instant
from djcelery.importing.runs import IMPORTED, LEFT_OUT, PRESENT, UPDATED, Import, LeftOut, Summary, reason_of
from djcelery.managers import FINAL_STATES, statements
from djcelery.models import TaskMeta, TaskSetMeta
from djcelery.picklefield import Refused, decode_stored
from djcelery.picklefield import Unreadable as UnreadableValue

__all__ = ("ResultImport",)

TASKS, GROUPS, CHORDS = (f"django_celery_results_{name}" for name in ("taskresult", "groupresult", "chordcounter"))
#: What a summary calls them.
RESULTS, SAVED_GROUPS = "results", "saved groups"
#: Why a row is not imported that can be.
THERE = "it is there already"

_ENCODING = ("content_type", "content_encoding")
_TASK_COLUMNS = (
    "task_id", "status", "result", "date_done", "traceback", "meta", *_ENCODING, "task_name", "task_args",
    "task_kwargs", "worker", "periodic_task_name", "date_created", "date_started",
)  # fmt: skip
_TASKS_NEED = ("task_id", "status", "result", "date_done", *_ENCODING)
_GROUP_COLUMNS = ("group_id", "result", "date_done", *_ENCODING)
#: Longer texts than Celery writes for arguments are no literals of it.
_MAX_LITERAL = 100_000


class ResultImport(Import):
    """Copies results, by task id, and saved groups, by group id."""

    #: Chords that django-celery-results was counting when the run began.
    open_chords = 0

    def run(self) -> Summary:
        """Import what isn't there yet, until all is done or ``should_stop`` says so.

        A row of ours stays as it is, unless its task is unfinished in ours and finished in theirs.

        Raises:
            TableUnknown: There is no table of results, or not of the shape that the releases made.
            django.db.Error: The database failed for longer than ``db.retry_transient`` waits.

        Database: per batch three SELECTs and one transaction.
        """
        alias = self.alias_of(TaskMeta)
        tasks = self.table(alias, TASKS, _TASKS_NEED)
        groups, chords = Table(connections[alias], GROUPS), Table(connections[alias], CHORDS)
        if groups.columns:
            # Made by the releases from 2.1 on.
            groups = self.table(alias, GROUPS, _GROUP_COLUMNS)
        self.open_chords = chords.count() if chords.columns else 0
        if self.on_progress:
            self.summary.total = tasks.count() + (groups.count() if groups.columns else 0)
        for batch in tasks.batches(_TASK_COLUMNS, self.batch_rows, ("result", "traceback", "meta")):
            self._take(alias, tasks, batch)
            if self.done(len(batch)):
                return self.summary
        if groups.columns:
            for batch in groups.batches(_GROUP_COLUMNS, self.batch_rows, ("result",)):
                self._take(alias, groups, batch)
                if self.done(len(batch)):
                    break
        return self.summary

    def _take(self, alias: str, table: Table, batch: Sequence[Row | Unreadable]) -> None:
        """Import the rows of one batch."""
        what, model, key, convert = self._kind(table)
        rows = []
        for row in batch:
            try:
                if isinstance(row, Unreadable):
                    raise LeftOut(str(row))
                rows.append((row, convert(connections[alias], row)))
            except Exception as exc:  # noqa: BLE001 - whatever is wrong with one row, the others are imported
                pk, theirs = (row.pk, f"row {row.pk}") if isinstance(row, Unreadable) else (row["id"], row[key])
                self.note(what, table, pk, theirs, LEFT_OUT, reason_of(exc))
        name = model._default_manager.key_field
        known = self._known(alias, model, [converted[name] for _, converted in rows])
        new, later = [], []
        for row, converted in rows:
            state = known.get(converted[name])
            if state is None:
                new.append((row, converted))
            elif converted.get("status") in FINAL_STATES and state not in FINAL_STATES:
                later.append((row, converted))
            else:
                self.note(what, table, row["id"], row[key], PRESENT, THERE)
        self._insert(alias, table, new)
        for row, converted in later:
            self._write_one(alias, table, row, converted, UPDATED)

    def _kind(self, table: Table) -> tuple[str, Any, str, Any]:
        if table.name == TASKS:
            return RESULTS, TaskMeta, "task_id", self._task
        return SAVED_GROUPS, TaskSetMeta, "group_id", _group

    def _known(self, alias: str, model: Any, keys: Sequence[str]) -> dict[str, str]:
        """Return the states of those of *keys* that have a row; a group has the state ""."""
        name, state = model._default_manager.key_field, model._default_manager.state_field
        rows = model._base_manager.using(alias).filter(**{f"{name}__in": keys})
        found = rows.values_list(name, state) if state else ((key, "") for key in rows.values_list(name, flat=True))
        return dict(found)

    # one row

    def _task(self, connection: BaseDatabaseWrapper, row: Row) -> dict[str, Any]:
        """Return the columns of ``TaskMeta`` for *row*.

        Raises:
            Exception: It can't be imported.
        """
        out = columns.Columns()
        redacted = redacted_names(self.app, row["task_name"])
        out.update(task_id=row["task_id"], status=row["status"], **_written(connection, row))
        texts = {"name": row["task_name"], "worker": row["worker"], "periodic_task": row["periodic_task_name"]}
        out.update({column: value and columns.text(value) for column, value in texts.items()})
        for column in ("args", "kwargs"):
            out[column] = _shown_arguments(out, column, row[f"task_{column}"], redacted)
        out["created"] = instant(connection, row, "date_created")
        out["started"] = instant(connection, row, "date_started")
        out["finished"] = out["date_done"] if row["status"] in FINAL_STATES else None
        out["traceback"] = columns.shown_traceback(out, row["traceback"], redacted)
        out["result"], out["meta"] = self._shown_result(out, row, redacted), row["meta"]
        out["flags"] = " ".join(out.flags) or None
        # All rows of a batch have the same columns, in the same order.
        return dict(sorted(out.items()))

    def _shown_result(self, out: columns.Columns, row: Row, redacted: frozenset[str]) -> str | None:
        if "result" not in redacted:
            return row["result"]
        value = decode_stored(row["result"])
        shown = columns.shown_value(out, row["status"], value, redacted)
        # A value that this process can't look at may hold anything.
        kept = isinstance(shown, dict) and not isinstance(value, (Refused, UnreadableValue))
        out.update(content_type="application/json", content_encoding="utf-8")
        return json.dumps(shown) if kept else None

    # writing

    def _insert(self, alias: str, table: Table, rows: Sequence[tuple[Row, dict[str, Any]]]) -> None:
        """Insert *rows* in one transaction; if that fails, one by one."""
        what, model, *_ = self._kind(table)
        if self.is_dry_run or not rows:
            self.summary.add(what, IMPORTED, len(rows))
            return

        def insert(connection: BaseDatabaseWrapper) -> None:
            sql, values = _statement(connection, model, [converted for _, converted in rows])
            with transaction.atomic(using=alias), connection.cursor() as cursor:
                cursor.executemany(sql, values)

        try:
            described = f"import rows {rows[0][0]['id']} to {rows[-1][0]['id']} of {table.name}"
            db.retry_transient(insert, lambda: connections[alias], described)
        except Error as exc:
            if db.is_transient(exc):
                raise
            for row, converted in rows:
                self._write_one(alias, table, row, converted, IMPORTED)
        else:
            self.summary.add(what, IMPORTED, len(rows))

    def _write_one(self, alias: str, table: Table, row: Row, converted: dict[str, Any], outcome: str) -> None:
        what, model, key, _ = self._kind(table)
        if self.is_dry_run:
            self.summary.add(what, outcome)
            return

        def write(connection: BaseDatabaseWrapper) -> None:
            state = converted["status"] if outcome == UPDATED else None
            sql, (values,) = _statement(connection, model, [converted], state)
            with transaction.atomic(using=alias), connection.cursor() as cursor:
                cursor.execute(sql, values)

        try:
            db.retry_transient(write, lambda: connections[alias], f"import {row[key]}")
        except Error as exc:
            if db.is_transient(exc):
                raise
            if isinstance(exc, IntegrityError) and self._known(alias, model, [row[key]]):
                # A worker has stored it since it was looked for.
                self.note(what, table, row["id"], row[key], PRESENT, THERE)
            else:
                self.note(what, table, row["id"], row[key], LEFT_OUT, reason_of(exc))
        else:
            self.summary.add(what, outcome)


def _statement(
    connection: BaseDatabaseWrapper, model: Any, rows: Sequence[dict[str, Any]], state: str | None = None
) -> tuple[str, list[list[Any]]]:
    """Return a plain INSERT of *rows*, or one that may replace rows by those, all in *state*; and its parameters."""
    table, names, manager = model._meta.db_table, tuple(rows[0]), model._default_manager
    if state:
        rule = (manager.state_field, state)
        sql = statements.upsert(connection, table, names, manager.key_field, rule, manager.kept_fields)
    else:
        quote = connection.ops.quote_name
        marks = ", ".join(["%s"] * len(names))
        sql = f"INSERT INTO {quote(table)} ({', '.join(map(quote, names))}) VALUES ({marks})"  # noqa: S608 - quoted
    return sql, [statements.parameters(connection, row) for row in rows]


def _group(connection: BaseDatabaseWrapper, row: Row) -> dict[str, Any]:
    """Return the columns of ``TaskSetMeta`` for *row*.

    Raises:
        Exception: It can't be imported.
    """
    if row["result"] is None:
        raise LeftOut("it names no members")
    return {"taskset_id": row["group_id"], "result": row["result"], **_written(connection, row)}


def _written(connection: BaseDatabaseWrapper, row: Row) -> dict[str, Any]:
    """Return what both tables have: when the row was written, and how its values are encoded."""
    done = instant(connection, row, "date_done")
    if done is None:
        raise LeftOut("it has no date_done")
    return {
        "date_done": done,
        "hidden": False,
        # None would mean a pickle of django-celery.
        "content_type": row["content_type"] or "application/json",
        "content_encoding": row["content_encoding"] or "utf-8",
    }


def _shown_arguments(out: columns.Columns, column: str, text: str | None, redacted: frozenset[str]) -> str | None:
    """Return arguments as JSON text for *column*; flags say what is not what the task was called with."""
    if text is None:
        return None
    expected: tuple[type, ...] = (list, tuple) if column == "args" else (dict,)
    for value in _readings(text):
        if isinstance(value, expected) and _is_whole(value):
            return columns.arguments(out, column, value, None, redacted)
    # What Celery had cut, what is no literal, and what the sender wrote instead of them.
    out.flag(f"{column}_repr")
    return columns.arguments(out, column, str(decode_stored(text)), None, redacted)


def _readings(text: str) -> Iterator[Any]:
    """Yield what *text* may stand for: arguments are encoded as JSON or a pickle, mostly of Python's repr of them."""
    value = decode_stored(text)
    yield value
    for _ in range(2):
        if not isinstance(value, str) or len(value) > _MAX_LITERAL:
            return
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return
        yield value


def _is_whole(value: Any) -> bool:
    """Tell whether JSON carries *value*, and nothing in it looks as if Celery had cut it."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_whole(key) and _is_whole(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_whole, value))
    if isinstance(value, str):
        return "..." not in value
    return value is None or isinstance(value, (bool, int, float))
