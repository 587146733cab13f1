"""The SQL of beat that differs from engine to engine, and the connection on which beat runs it.

Called by ``lease``, ``claims`` and ``changes``. Statements are built by hand where the ORM would need
several. Lists of any length go as one parameter, or as text where they are whole numbers: engines limit
the number of parameters.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from django.conf import settings
from django.db import Error, NotSupportedError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.dateparse import parse_datetime

from djcelery import db, utils

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: The present by the database's own clock. On MySQL and SQLite as text or naive, in UTC.
NOW = {
    "postgresql": "clock_timestamp()",
    "mysql": "UTC_TIMESTAMP(6)",
    "sqlite": "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now')",
}
#: The same, so many seconds (a parameter) later.
NOW_PLUS = {
    "postgresql": "clock_timestamp() + make_interval(secs => %s)",
    "mysql": "UTC_TIMESTAMP(6) + INTERVAL ROUND(%s * 1000000) MICROSECOND",
    "sqlite": "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', '+' || %s || ' seconds')",
}
#: How many seconds from now until the instant in a column.
SECONDS_UNTIL = {
    "postgresql": "EXTRACT(EPOCH FROM {} - clock_timestamp())",
    "mysql": "TIMESTAMPDIFF(MICROSECOND, UTC_TIMESTAMP(6), {}) / 1000000",
    "sqlite": "(julianday({}) - julianday('now')) * 86400",
}
#: An INSERT of rows that may be there already leaves those as they are.
INSERT_NEW = {
    "postgresql": ("INSERT INTO", " ON CONFLICT DO NOTHING"),
    "mysql": ("INSERT IGNORE INTO", ""),
    "sqlite": ("INSERT OR IGNORE INTO", ""),
}
#: Rows per INSERT where each value is a part of the statement.
_MYSQL_ROWS = 2000
#: How often work that was the victim of a deadlock is done again.
_DEADLOCK_TRIES = 5


def engine(connection: BaseDatabaseWrapper) -> str:
    """Return the key of *connection* in the tables of this module.

    Raises:
        NotSupportedError: djcelery has no statements for this engine.
    """
    if connection.vendor not in NOW:
        raise NotSupportedError(
            f"djcelery's beat runs on PostgreSQL, MySQL, MariaDB and SQLite, not on {connection.display_name}."
        )
    return connection.vendor


def attempt(alias: str, work: Callable[[BaseDatabaseWrapper, bool], T], may_retry: Callable[[], bool]) -> T:
    """Return ``work(connection, False)``; if the connection turns out to be broken, try once on a new one.

    Beat keeps its connection, so after a restart of the server the first statement fails. More than that
    one try would outlast the lease; beat's next tick is the next try. The victim of a deadlock, of whose work
    the server has kept nothing, goes on at once.

    Args:
        work: One statement or transaction. Its second argument is True in the second try, when the first
            one may have been committed for all that is known.
        may_retry: Asked before the second try.

    Raises:
        django.db.Error: It failed. A broken connection is closed.
    """
    connection = connections[alias]
    session = connection.connection
    try:
        return _despite_deadlocks(connection, lambda: work(db.ready(connection), False))
    except Error:
        if connection.in_atomic_block:
            raise
        db.close_broken(connection)
        # At the end of a transaction Django itself may have replaced it.
        if session is None or connection.connection is session or not may_retry():
            raise
    logger.info("beat: the database connection was lost; trying again on a new one.")
    try:
        return _despite_deadlocks(connection, lambda: work(db.ready(connection), True))
    except Error:
        db.close_broken(connection)
        raise


def _despite_deadlocks(connection: BaseDatabaseWrapper, work: Callable[[], T]) -> T:
    for _ in range(_DEADLOCK_TRIES - 1):
        try:
            return work()
        except Error as exc:
            if connection.in_atomic_block or not db.is_deadlock(exc):
                raise
    return work()


def table(connection: BaseDatabaseWrapper, model: Any) -> str:
    """Return the quoted name of the table of *model*."""
    return connection.ops.quote_name(model._meta.db_table)


def numbers(values: Iterable[int]) -> str:
    """Return whole numbers as the inside of ``IN (…)``; for none, a text that no row matches."""
    return ", ".join(str(int(value)) for value in values) or "NULL"


def is_one_of(connection: BaseDatabaseWrapper, column: str, texts: Sequence[str]) -> tuple[str, list[Any]]:
    """Return the condition that *column* is one of *texts*, and its parameters."""
    kind = engine(connection)
    if kind == "postgresql":
        return f"{column} = ANY(%s::text[])", [list(texts)]
    if kind == "sqlite":
        return f"{column} IN (SELECT value FROM json_each(%s))", [json.dumps(list(texts))]  # noqa: S608 - a column
    return f"{column} IN ({', '.join(['%s'] * len(texts)) or 'NULL'})", list(texts)


def insert_new(
    connection: BaseDatabaseWrapper,
    target: str,
    columns: dict[str, str],
    rows: Sequence[tuple[Any, ...]],
    constants: dict[str, Any],
) -> int:
    """Insert *rows*, but those of which a unique key is there already; return how many were inserted.

    Args:
        target: The quoted table.
        columns: Type on PostgreSQL by name, in the order of the values in each row.
        constants: Values that are the same in all rows, by column.

    Database: one statement; on MySQL one per 2,000 rows.
    """
    kind = engine(connection)
    verb, ending = INSERT_NEW[kind]
    head = f"{verb} {target} ({', '.join((*columns, *constants))})"
    fixed = list(constants.values())
    marks = ", %s" * len(fixed)
    if kind == "postgresql":
        arrays = ", ".join(f"%s::{type_}[]" for type_ in columns.values())
        sql = f"{head} SELECT v.*{marks} FROM unnest({arrays}) AS v{ending}"  # noqa: S608 - quoted names of the model
        return _count(connection, sql, fixed + [list(values) for values in zip(*rows, strict=True)])
    if kind == "sqlite":
        picked = ", ".join(f"json_extract(value, '$[{n}]')" for n in range(len(columns)))
        # "WHERE true" tells the parser that what follows is no join.
        sql = f"{head} SELECT {picked}{marks} FROM json_each(%s) WHERE true{ending}"  # noqa: S608 - as above
        return _count(connection, sql, [*fixed, json.dumps(rows, default=str)])
    inserted = 0
    for start in range(0, len(rows), _MYSQL_ROWS):
        part = rows[start : start + _MYSQL_ROWS]
        one = f"({', '.join(['%s'] * len(columns))}{marks})"
        inserted += _count(
            connection,
            f"{head} VALUES {', '.join([one] * len(part))}",
            [value for row in part for value in (*row, *fixed)],
        )
    return inserted


def _count(connection: BaseDatabaseWrapper, sql: str, values: list[Any]) -> int:
    with connection.cursor() as cursor:
        db.execute_text(cursor, sql, values)
        return cursor.rowcount


def execute(connection: BaseDatabaseWrapper, sql: str, values: Sequence[Any] = ()) -> int:
    """Execute *sql* and return how many rows it changed."""
    return _count(connection, sql, list(values))


def fetch(connection: BaseDatabaseWrapper, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Return all rows that *sql* selects."""
    with connection.cursor() as cursor:
        cursor.execute(sql, list(values))
        return cursor.fetchall()


# -- instants in columns -----------------------------------------------------------------------


def store_instant(connection: BaseDatabaseWrapper, value: datetime) -> Any:
    """Return the aware *value* as a parameter that Django's fields read back as the same instant.

    Under ``USE_TZ = False`` MySQL and SQLite hold local time, of which an hour in autumn comes twice: there
    the last bit of the microseconds tells the second one, else two firings would be one row.
    """
    if connection.vendor == "postgresql":
        return value
    if settings.USE_TZ:
        return connection.ops.adapt_datetimefield_value(value)
    local = utils.correct_awareness(value)
    if _comes_twice(local):
        local = local.replace(microsecond=local.microsecond & ~1 | local.fold)
    return connection.ops.adapt_datetimefield_value(local.replace(fold=0))


def read_instant(connection: BaseDatabaseWrapper, value: Any) -> datetime:
    """Return an instant that a statement by hand has selected, aware and in UTC."""
    if isinstance(value, str):
        value = parse_datetime(value)
    if value.tzinfo is None and settings.USE_TZ:
        value = value.replace(tzinfo=connection.timezone)
    elif value.tzinfo is None and connection.vendor != "postgresql" and _comes_twice(value):
        value = value.replace(fold=value.microsecond & 1, microsecond=value.microsecond & ~1)
    return utils.to_utc(value)


def _comes_twice(local: datetime) -> bool:
    first, second = (utils.to_utc(local.replace(fold=fold)) for fold in (0, 1))
    # In a gap the order is the other way round.
    return first < second
