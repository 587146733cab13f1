"""Managers of the result tables.

Called by the result backend and by user code through ``Model.objects``; no model is imported here.
Every write of a result is one statement on the row of its id, in which the database itself
applies the rule of ``may_replace``; no lock is held between reading and writing.
Next: ``docs/explain/life-of-a-result.rst``.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from celery import states
from django.db import Error, models, router
from django.db.backends.base.base import BaseDatabaseWrapper

from djcelery import db, eventloop, utils
from djcelery.managers import retention, statements
from djcelery.managers.base import ExtendedManager, ExtendedQuerySet

# SQLite takes 250,000 parameters by default, PostgreSQL 65,535.
_MAX_KEYS = 10_000


class TxIsolationWarning(UserWarning):
    """A result is polled inside one REPEATABLE READ transaction, which can't see it change."""


class ResultManager(ExtendedManager):
    """What the two result tables have in common: one-statement writes and expiry."""

    key_field = ""
    state_field: str | None = None
    kept_fields: tuple[str, ...] = ()

    def write(self, row: dict[str, Any], *, eager: bool = False, waits_s: tuple[float, ...] | None = None) -> None:
        """Store *row* unless ``may_replace`` forbids it.

        Text that the database can't carry is escaped. Transient errors are tried again.

        Args:
            row: By column, the key among them: values as the database takes them, but for instants.
            eager: Whether the task ran in the caller's process, so that the row belongs to its transaction.
            waits_s: See ``db.retry_transient``; None is about a minute in a worker, 9 s elsewhere.

        Raises:
            django.db.Error: The row could not be written.

        Database: one statement, in autocommit on the worker's result connection (see
            ``db.result_connection``) or in the caller's transaction, on the alias for writing.
        """
        alias = router.db_for_write(self.model)

        def execute(connection: BaseDatabaseWrapper) -> None:
            with connection.cursor() as cursor:
                try:
                    cursor.execute(*self._upsert(connection, row))
                except Error as exc:
                    if not db.is_bad_text(exc):
                        raise
                    cursor.execute(*self._upsert(connection, self._narrowed(row)))

        key = row[self.key_field]
        what, connection = f"store the result of {key}", lambda: db.result_connection(alias, eager=eager)
        db.retry_transient(execute, connection, what, eventloop.store_waits() if waits_s is None else waits_s)

    def _upsert(self, connection: BaseDatabaseWrapper, row: dict[str, Any]) -> tuple[str, list[Any]]:
        table, columns = self.model._meta.db_table, tuple(row)
        state = (self.state_field, row[self.state_field]) if self.state_field else None
        sql = statements.upsert(connection, table, columns, self.key_field, state, self.kept_fields)
        return sql, statements.parameters(connection, row)

    def _narrowed(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return *row* for the three-byte text columns of old MySQL tables, which refuse emoji."""
        narrow = {column: db.three_byte(value) for column, value in row.items()}
        for column in [column for column in row if narrow[column] != row[column]]:
            # Escapes are longer.
            narrow[column] = narrow[column][: self.model._meta.get_field(column).max_length]
        if "flags" in row and narrow.get("traceback") != row.get("traceback"):
            narrow["flags"] = " ".join(filter(None, [row["flags"], "traceback_escaped"]))
        return narrow

    def _encoded(self, column: str, value: Any) -> str | None:
        return self.model._meta.get_field(column).get_db_prep_value(value, None)

    def get_all_expired(self, expires: timedelta | float) -> models.QuerySet:
        """Return the rows last written longer than *expires* (timedelta or seconds) ago."""
        return self.filter(date_done__lt=retention.before(utils.now(), expires))

    def delete_expired(self, expires: timedelta | float | None, batch_rows: int = 5000) -> int:
        """Delete the rows last written longer than *expires* ago, and every hidden row; return how many.

        One age for all rows, whatever ``DJCELERY_RETENTION`` says; no signals are sent.

        Args:
            expires: timedelta or seconds; None or 0 deletes nothing.
            batch_rows: The most rows per statement, each a transaction of its own.

        Database: see ``retention.batches``; on the alias for writing.
        """
        return self.delete_by(retention.Retention.of((), expires), batch_rows)

    def delete_by(self, ages: retention.Retention, batch_rows: int = 5000) -> int:
        """Delete the rows that are expired by *ages*, and hidden rows, as ``delete_expired`` does."""
        rows = self.using(router.db_for_write(self.model))
        return sum(batch.rows for batch in retention.batches(rows, ages, batch_rows))


class TaskQuerySet(ExtendedQuerySet):
    """Results of tasks; each method narrows by columns that have an index."""

    def succeeded(self) -> TaskQuerySet:
        """Return the tasks in state SUCCESS."""
        return self.filter(status=states.SUCCESS)

    def failed(self) -> TaskQuerySet:
        """Return the tasks in state FAILURE."""
        return self.filter(status=states.FAILURE)

    def finished(self) -> TaskQuerySet:
        """Return the tasks in a final state: SUCCESS, FAILURE or REVOKED."""
        return self.filter(status__in=statements.FINAL_STATES)

    def unfinished(self) -> TaskQuerySet:
        """Return the tasks in any other state: sent, running, to be retried, or lost."""
        return self.exclude(status__in=statements.FINAL_STATES)

    def for_task(self, name: str) -> TaskQuerySet:
        """Return the tasks of this name, such as ``"shop.tasks.charge"``; rows of django-celery have none."""
        return self.filter(name=name)

    def finished_before(self, instant: datetime) -> TaskQuerySet:
        """Return the tasks in a final state whose row was last written before *instant*."""
        return self.finished().filter(date_done__lt=instant)


class TaskManager(ResultManager.from_queryset(TaskQuerySet)):  # type: ignore[misc]
    """Results of tasks, one row per task id."""

    key_field = "task_id"
    state_field = "status"
    kept_fields = ("created",)

    #: What ``fetch`` reads.
    fetched_fields = (
        "task_id",
        "status",
        "result",
        "date_done",
        "traceback",
        "meta",
        "content_type",
        "content_encoding",
        "name",
        "args",
        "kwargs",
        "worker",
        "retries",
        "queue",
        "parent_id",
        "group_id",
    )

    _last_id: str | None = None

    def fetch(self, task_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return the rows of *task_ids*, values as they are stored; ids without a row are left out.

        Database: one SELECT (one per 10,000 ids), tried again after transient errors, on the alias for
            writing, which a replica may lag behind; in a worker on its result connection.
        """
        alias, table = router.db_for_write(self.model), self.model._meta.db_table

        def execute(connection: BaseDatabaseWrapper) -> list[dict[str, Any]]:
            rows = []
            with connection.cursor() as cursor:
                for start in range(0, len(task_ids), _MAX_KEYS):
                    keys = task_ids[start : start + _MAX_KEYS]
                    cursor.execute(
                        statements.select(connection, table, self.fetched_fields, "task_id", len(keys)), keys
                    )
                    rows += [dict(zip(self.fetched_fields, row, strict=True)) for row in cursor.fetchall()]
            for row in rows:
                row["date_done"] = statements.instant(connection, row["date_done"])
            return rows

        return db.retry_transient(execute, lambda: db.result_connection(alias), "fetch results")

    def get_task(self, task_id: str) -> Any:
        """Return the row of *task_id*, or an unsaved one in state PENDING; nothing is written."""
        try:
            return self.get(task_id=task_id)
        except self.model.DoesNotExist:
            if self._last_id == task_id:
                self.warn_if_repeatable_read()
            self._last_id = task_id
            return self.model(task_id=task_id)

    def store_result(
        self, task_id: str, result: Any, status: str, traceback: str | None = None, children: list | None = None
    ) -> tuple[Any, bool]:
        """Store *result* (any value that JSON can carry) and return ``(row, created)``.

        A finished row is not reopened; see ``may_replace``. In a table of the project's own without ``content_type``
        values are stored as its fields do it, and the last write wins.
        """
        if not any(field.name == "content_type" for field in self.model._meta.concrete_fields):
            values = {"status": status, "result": result, "traceback": traceback, "meta": {"children": children}}
            return self.update_or_create(task_id=task_id, defaults=values)
        created = not self.filter(task_id=task_id).exists()
        self.write(
            {
                "task_id": task_id,
                "status": status,
                "result": self._encoded("result", result),
                "traceback": traceback,
                "meta": self._encoded("meta", {"children": children}),
                "date_done": utils.now(),
                "hidden": False,
                "content_type": "application/json",
                "content_encoding": "utf-8",
            }
        )
        return self.using(router.db_for_write(self.model)).get(task_id=task_id), created

    def warn_if_repeatable_read(self) -> None:
        """Emit ``TxIsolationWarning`` if the caller's transaction can't see other processes' results.

        Database: one query, inside ``atomic()`` on MySQL and PostgreSQL alone.
        """
        connection = db.result_connection(router.db_for_write(self.model))
        # In autocommit every SELECT has a snapshot of its own.
        if not db.is_callers(connection):
            return
        if isolation_level(connection).upper().replace(" ", "-") in ("REPEATABLE-READ", "SERIALIZABLE"):
            warnings.warn(
                "Polling results with transaction isolation level repeatable-read within the same transaction "
                "may give outdated results. Be sure to commit the transaction for each poll iteration.",
                TxIsolationWarning,
                stacklevel=3,
            )


def isolation_level(connection: BaseDatabaseWrapper) -> str:
    """Return the level of *connection*'s transactions, as its server spells it. Database: one query."""
    if connection.vendor == "sqlite":
        # Each of its transactions reads one snapshot.
        return "SERIALIZABLE"
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SHOW transaction_isolation")
        else:
            variable = "transaction_isolation" if _has_transaction_isolation(connection) else "tx_isolation"
            cursor.execute(f"SELECT @@{variable}")
        return cursor.fetchone()[0]


def _has_transaction_isolation(connection: BaseDatabaseWrapper) -> bool:
    return connection.mysql_version >= ((11, 1, 1) if connection.mysql_is_mariadb else (5, 7, 20))


class TaskSetManager(ResultManager):
    """Saved group results, one row per group id."""

    key_field = "taskset_id"

    def restore_taskset(self, taskset_id: str) -> Any | None:
        """Return the row of *taskset_id*, or None."""
        return self.filter(taskset_id=taskset_id).first()

    def delete_taskset(self, taskset_id: str) -> None:
        """Delete the row of *taskset_id*, if there is one."""
        self.using(router.db_for_write(self.model)).filter(taskset_id=taskset_id).delete()

    def store_result(self, taskset_id: str, result: Any) -> tuple[Any, bool]:
        """Store *result* (any value that JSON can carry) and return ``(row, created)``."""
        created = not self.filter(taskset_id=taskset_id).exists()
        self.write(
            {
                "taskset_id": taskset_id,
                "result": self._encoded("result", result),
                "date_done": utils.now(),
                "hidden": False,
                "content_type": "application/json",
                "content_encoding": "utf-8",
            }
        )
        return self.using(router.db_for_write(self.model)).get(taskset_id=taskset_id), created
