"""The manager of the chords that wait for their parts.

Called by the database result backend. Writes ``Chord``, one row per chord, and ``ChordPart``, one
per task of its header. Every step is one statement or one short transaction that begins by
locking the chord's row, so steps of the same chord happen one after the other on every engine.
Next: ``docs/explain/chords.rst``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from django.apps import apps
from django.db import models, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from djcelery import db, utils
from djcelery.managers import retention
from djcelery.managers.base import ExtendedManager

T = TypeVar("T")

#: The position of a part that has none: after all others.
LAST = 2**31 - 1


@dataclass(frozen=True)
class Turn:
    """The right of one part to send the callback of its chord.

    ``disputed``: an earlier delivery of the same part has it; it is sending, or died before it could.
    """

    group_id: str
    task_id: str
    claimed_at: datetime
    disputed: bool = False


class ChordManager(ExtendedManager):
    """Chords, one row per group id."""

    def start(self, group_id: str, header: dict[str, str] | None = None) -> None:
        """Note that a chord is about to be sent; one whose callback is claimed begins again.

        Args:
            header: The encoded shape of a nested header as ``header``, ``content_type``, ``content_encoding``.

        Database: one transaction of two statements.
        """
        values = {"header": None, "content_type": None, "content_encoding": None, **(header or {})}

        def write(connection: BaseDatabaseWrapper) -> None:
            with db.short_transaction(connection), connection.cursor() as cursor:
                self._upsert(connection, group_id, values, begin=True)
                cursor.execute(
                    f"DELETE FROM {self._part_table} WHERE group_id = %s "  # noqa: S608
                    f"AND (SELECT done FROM {self._table} WHERE group_id = %s) = 0",
                    [group_id, group_id],
                )

        self._retried(write, group_id)

    def set_size(self, group_id: str, size: int) -> None:
        """Note how many parts the header has. Database: one statement."""
        self._retried(lambda connection: self._upsert(connection, group_id, {"size": size}), group_id)

    def add_part(self, group_id: str) -> None:
        """Note that a running part of the header added another. Database: one statement."""
        self._retried(lambda connection: self._upsert(connection, group_id, {}, added=1), group_id)

    def part_returned(self, part: dict[str, Any], *, take_over: bool = False) -> Turn | None:
        """Store what a part of a header returned, once; tell whether the callback is now its to send.

        Args:
            part: The columns of ``ChordPart``.
            take_over: Take a disputed turn.

        Returns:
            None: Parts are missing, or the callback is another part's, or was sent.

        Database: one transaction of 3 statements, 4 for the last part, 3 for one that is delivered again.
        """
        return self._retried(lambda connection: self._record(connection, part, take_over), part["group_id"])

    def parts(self, group_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return the chord's header and the parts that returned, in the order of the header.

        Database: two SELECTs.
        """

        def read(connection: BaseDatabaseWrapper) -> tuple[dict[str, Any], list[dict[str, Any]]]:
            with connection.cursor() as cursor:
                header = _select(
                    cursor,
                    f"SELECT header, content_type, content_encoding FROM {self._table} WHERE group_id = %s",  # noqa: S608
                    [group_id],
                )
                parts = _select(
                    cursor,
                    f"SELECT task_id, state, value, content_type, content_encoding FROM {self._part_table} "  # noqa: S608
                    "WHERE group_id = %s ORDER BY position, id",
                    [group_id],
                )
            return header[0] if header else {"header": None}, parts

        return self._retried(read, group_id)

    def sent(self, turn: Turn) -> None:
        """Note that the callback was sent, and delete the parts; the row stays, so late parts do nothing.

        Does nothing if the chord began again meanwhile.

        Database: one transaction of two statements.
        """

        def write(connection: BaseDatabaseWrapper) -> None:
            now, claimed_at = (self._adapt(value, connection) for value in (utils.now(), turn.claimed_at))
            with db.short_transaction(connection), connection.cursor() as cursor:
                cursor.execute(
                    f"UPDATE {self._table} SET dispatched_at = %s, changed_at = %s, header = NULL "  # noqa: S608
                    "WHERE group_id = %s AND claimed_by = %s AND claimed_at = %s",
                    [now, now, turn.group_id, turn.task_id, claimed_at],
                )
                if cursor.rowcount:
                    cursor.execute(f"DELETE FROM {self._part_table} WHERE group_id = %s", [turn.group_id])  # noqa: S608

        self._retried(write, turn.group_id)

    def delete_expired(self, age: timedelta | float | None, batch_rows: int = 1000) -> int:
        """Delete the chords without activity for longer than *age*, and their parts; return how many chords.

        Args:
            age: timedelta or seconds; None or 0 deletes nothing.
            batch_rows: Chords per transaction.

        Database: per batch one SELECT and two DELETEs, on the alias for writing.
        """
        if not age:
            return 0
        alias = router.db_for_write(self.model)
        parts = self._part_model._default_manager.using(alias)
        expired = self.using(alias).filter(changed_at__lt=retention.before(utils.now(), age)).order_by("pk")
        deleted, last = 0, 0
        while batch := list(expired.filter(pk__gt=last).values_list("pk", "group_id")[:batch_rows]):
            last = batch[-1][0]
            with transaction.atomic(using=alias):
                # A part that returns meanwhile waits for this, and then begins a row that is never complete.
                deleted += expired.filter(pk__in=[pk for pk, _ in batch]).order_by()._raw_delete(alias)
                kept = self.using(alias).filter(group_id=models.OuterRef("group_id"))
                groups = [group_id for _, group_id in batch]
                parts.filter(~models.Exists(kept), group_id__in=groups)._raw_delete(alias)
        return deleted

    # how the rows are written

    @property
    def _part_model(self) -> Any:
        return apps.get_model(self.model._meta.app_label, "ChordPart")

    @property
    def _table(self) -> str:
        return self.model._meta.db_table

    @property
    def _part_table(self) -> str:
        return self._part_model._meta.db_table

    def _adapt(self, value: Any, connection: BaseDatabaseWrapper) -> Any:
        return self.model._meta.get_field("changed_at").get_db_prep_save(value, connection)

    def _retried(self, work: Callable[[BaseDatabaseWrapper], T], group_id: str) -> T:
        with db.outside_transaction(router.db_for_write(self.model)) as connection:
            return db.retry_transient(work, connection, f"count the parts of chord {group_id}")

    def _upsert(
        self,
        connection: BaseDatabaseWrapper,
        group_id: str,
        values: dict[str, Any],
        *,
        added: int = 0,
        done: int = 0,
        begin: bool = False,
    ) -> None:
        """Insert the row of *group_id*, or set *values* in it, add to its counters and forget an old run."""
        table = self._table
        row = {"group_id": group_id, **values, "added": added, "done": done}
        row["changed_at"] = self._adapt(utils.now(), connection)
        sets = [f"{column} = {_new(connection, column)}" for column in (*values, "changed_at")]
        if begin:
            fresh = {"size": "NULL", "added": "0", "done": "0", "claimed_at": "NULL", "dispatched_at": "NULL"}
            sets += [
                f"{column} = CASE WHEN {table}.claimed_by IS NULL THEN {table}.{column} ELSE {value} END"
                for column, value in fresh.items()
            ]
            # MySQL assigns from left to right, so the column that decides comes last.
            sets.append("claimed_by = NULL")
        else:
            sets += [f"{column} = {table}.{column} + {_new(connection, column)}" for column in ("added", "done")]
        mysql = connection.vendor == "mysql"
        conflict = "ON DUPLICATE KEY UPDATE" if mysql else "ON CONFLICT (group_id) DO UPDATE SET"
        alias = " AS new" if mysql and not connection.mysql_is_mariadb else ""
        marks = ", ".join(["%s"] * len(row))
        sql = f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks}){alias} {conflict} {', '.join(sets)}"  # noqa: S608
        with connection.cursor() as cursor:
            cursor.execute(sql, list(row.values()))

    def _record(self, connection: BaseDatabaseWrapper, part: dict[str, Any], take_over: bool) -> Turn | None:
        turn = Turn(part["group_id"], part["task_id"], utils.now())
        now = self._adapt(turn.claimed_at, connection)
        with db.short_transaction(connection), connection.cursor() as cursor:
            # The first statement locks the row until the end of the transaction.
            cursor.execute(
                f"UPDATE {self._table} SET done = done + 1, changed_at = %s WHERE group_id = %s",  # noqa: S608
                [now, turn.group_id],
            )
            if not cursor.rowcount:
                self._upsert(connection, turn.group_id, {}, done=1)
            (chord,) = _select(
                cursor,
                "SELECT size, added, done, claimed_by, dispatched_at IS NOT NULL AS sent, "  # noqa: S608
                f"(SELECT COUNT(*) FROM {self._part_table} WHERE group_id = %s AND task_id = %s AND position = %s) "
                f"AS known FROM {self._table} WHERE group_id = %s",
                [turn.group_id, turn.task_id, part["position"], turn.group_id],
            )
            if chord["sent"]:
                return None
            if chord["known"]:
                chord["done"] -= 1
                cursor.execute(f"UPDATE {self._table} SET done = done - 1 WHERE group_id = %s", [turn.group_id])  # noqa: S608
            else:
                marks = ", ".join(["%s"] * len(part))
                sql = f"INSERT INTO {self._part_table} ({', '.join(part)}) VALUES ({marks})"  # noqa: S608
                db.execute_text(cursor, sql, [db.storable(value) for value in part.values()])
            if chord["size"] is None or chord["done"] < chord["size"] + chord["added"]:
                return None
            if chord["claimed_by"] not in (None, turn.task_id):
                return None
            if chord["claimed_by"] and not take_over:
                return replace(turn, disputed=True)
            cursor.execute(
                f"UPDATE {self._table} SET claimed_by = %s, claimed_at = %s WHERE group_id = %s",  # noqa: S608
                [turn.task_id, now, turn.group_id],
            )
            return turn


def _new(connection: BaseDatabaseWrapper, column: str) -> str:
    """Return how an upsert names the value that it would have inserted."""
    if connection.vendor != "mysql":
        return f"excluded.{column}"
    return f"VALUES({column})" if connection.mysql_is_mariadb else f"new.{column}"


def _select(cursor: Any, sql: str, values: list[Any]) -> list[dict[str, Any]]:
    cursor.execute(sql, values)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
