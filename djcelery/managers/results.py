"""Managers of the result tables.

Called by the result backend and by user code through ``Model.objects``; no model is imported here.
Every write of a result is one statement on the row of its id, in which the database itself
applies the rule of ``may_replace``; no lock is held between reading and writing.
Next: ``docs/explain/life-of-a-result.rst``.
"""

from __future__ import annotations

import warnings
from datetime import timedelta
from typing import Any

from celery import states
from django.db import NotSupportedError, models, router
from django.db.backends.base.base import BaseDatabaseWrapper

from djcelery import db, utils
from djcelery.managers.base import ExtendedManager

#: States that only another of these may replace.
FINAL_STATES = (states.SUCCESS, states.FAILURE, states.REVOKED)
_QUOTED_FINAL = ", ".join(f"'{state}'" for state in FINAL_STATES)


class TxIsolationWarning(UserWarning):
    """A result is polled inside one REPEATABLE READ transaction, which can't see it change."""


def may_replace(old: str | None, new: str) -> bool:
    """Tell whether a write in state *new* replaces a row in state *old* (None: there is no row).

    SUCCESS is final. FAILURE and REVOKED give way to a final state only. PENDING replaces nothing.
    Among unfinished states, custom ones included, the later write wins.
    """
    if old is None:
        return True
    if old == states.SUCCESS or new == states.PENDING:
        return False
    return old not in FINAL_STATES or new in FINAL_STATES


def _upsert_sql(connection: BaseDatabaseWrapper, table: str, key: str, columns: tuple[str, ...], state: str | None):
    """Return the INSERT that updates the row of the same *key* instead, if ``may_replace`` allows it.

    *state* is the column that holds the state; None updates always.
    """
    quote = connection.ops.quote_name
    names, marks = ", ".join(map(quote, columns)), ", ".join(["%s"] * len(columns))
    insert = f"INSERT INTO {quote(table)} ({names}) VALUES ({marks})"  # noqa: S608 - quoted names of the model
    updated = [column for column in columns if column not in (key, "hidden", state)]
    if connection.vendor == "mysql":
        mariadb = connection.mysql_is_mariadb
        new = (lambda c: f"VALUES({quote(c)})") if mariadb else (lambda c: f"new.{quote(c)}")
        # MySQL assigns from left to right, so the state, which the condition reads, comes last.
        order = [*updated, state] if state else updated
        condition = _replace_condition(f"{quote(table)}.{quote(state)}", new(state)) if state else "1"
        sets = ", ".join(f"{quote(c)} = IF({condition}, {new(c)}, {quote(table)}.{quote(c)})" for c in order)
        return f"{insert}{'' if mariadb else ' AS new'} ON DUPLICATE KEY UPDATE {sets}"
    if connection.vendor not in ("postgresql", "sqlite"):
        raise NotSupportedError(
            f"djcelery stores results on PostgreSQL, MySQL, MariaDB and SQLite, not on {connection.display_name}."
        )
    order = [*updated, state] if state else updated
    sets = ", ".join(f"{quote(c)} = excluded.{quote(c)}" for c in order)
    sql = f"{insert} ON CONFLICT ({quote(key)}) DO UPDATE SET {sets}"
    if state:
        sql += f" WHERE {_replace_condition(f'{quote(table)}.{quote(state)}', f'excluded.{quote(state)}')}"
    return sql


def _replace_condition(old: str, new: str) -> str:
    """Return ``may_replace`` as SQL over the expressions *old* and *new*."""
    return (
        f"{old} <> '{states.SUCCESS}' AND {new} <> '{states.PENDING}' "
        f"AND ({old} NOT IN ({_QUOTED_FINAL}) OR {new} IN ({_QUOTED_FINAL}))"
    )


class ResultManager(ExtendedManager):
    """What the two result tables have in common: one-statement writes and expiry."""

    key_field = ""
    state_field: str | None = None

    def write(self, row: dict[str, Any], *, eager: bool = False) -> None:
        """Store *row* (column values by field name, the key among them) unless ``may_replace`` forbids it.

        Text that the database can't carry is escaped. Transient errors are tried again.

        Raises:
            django.db.Error: The row could not be written.

        Database: one statement, in autocommit on the worker's result connection (see
            ``db.result_connection``) or in the caller's transaction, on the alias for writing.
        """
        alias = router.db_for_write(self.model)
        fields = [self.model._meta.get_field(name) for name in row]
        columns = tuple(field.column for field in fields)

        def execute(connection: BaseDatabaseWrapper) -> None:
            sql = _upsert_sql(connection, self.model._meta.db_table, self.key_field, columns, self.state_field)
            values = [
                field.get_db_prep_save(db.storable(value), connection)
                for field, value in zip(fields, row.values(), strict=True)
            ]
            with connection.cursor() as cursor:
                db.execute_text(cursor, sql, values)

        key = row[self.key_field]
        db.retry_transient(execute, lambda: db.result_connection(alias, eager=eager), f"store the result of {key}")

    def get_all_expired(self, expires: timedelta | float) -> models.QuerySet:
        """Return the rows last written longer than *expires* (timedelta or seconds) ago."""
        return self.filter(date_done__lt=utils.now() - utils.as_timedelta(expires))

    def delete_expired(self, expires: timedelta | float | None, batch_rows: int = 5000) -> int:
        """Delete the rows last written longer than *expires* ago, and every hidden row; return how many.

        Args:
            expires: timedelta or seconds; None or 0 deletes nothing.
            batch_rows: Rows per statement, each a transaction of its own.

        Database: a SELECT of keys and a DELETE per batch, on the alias for writing.
        """
        if not expires:
            return 0
        age = utils.as_timedelta(expires)
        rows = self.using(router.db_for_write(self.model))
        expired = rows.filter(models.Q(hidden=True) | models.Q(date_done__lt=utils.now() - age))
        deleted = 0
        while True:
            keys = list(expired.order_by("pk").values_list("pk", flat=True)[:batch_rows])
            if not keys:
                return deleted
            deleted += expired.filter(pk__range=(keys[0], keys[-1]))._raw_delete(rows.db)


class TaskManager(ResultManager):
    """Results of tasks, one row per task id."""

    key_field = "task_id"
    state_field = "status"

    _last_id: str | None = None

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

        A finished row is not reopened; see ``may_replace``.
        """
        created = not self.filter(task_id=task_id).exists()
        self.write(
            {
                "task_id": task_id,
                "status": status,
                "result": result,
                "traceback": traceback,
                "meta": {"children": children},
                "date_done": utils.now(),
                "hidden": False,
                "content_type": "application/json",
                "content_encoding": "utf-8",
            }
        )
        return self.using(router.db_for_write(self.model)).get(task_id=task_id), created

    def warn_if_repeatable_read(self) -> None:
        """Emit ``TxIsolationWarning`` if a transaction on MySQL can't see other processes' results."""
        connection = self.connection_for_read()
        # In autocommit every SELECT has a snapshot of its own.
        if connection.vendor != "mysql" or not connection.in_atomic_block:
            return
        variable = "transaction_isolation" if _has_transaction_isolation(connection) else "tx_isolation"
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT @@{variable}")
            (level,) = cursor.fetchone()
        if level.upper() == "REPEATABLE-READ":
            warnings.warn(
                "Polling results with transaction isolation level repeatable-read within the same transaction "
                "may give outdated results. Be sure to commit the transaction for each poll iteration.",
                TxIsolationWarning,
                stacklevel=3,
            )


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
                "result": result,
                "date_done": utils.now(),
                "hidden": False,
                "content_type": "application/json",
                "content_encoding": "utf-8",
            }
        )
        return self.using(router.db_for_write(self.model)).get(taskset_id=taskset_id), created
