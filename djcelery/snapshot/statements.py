"""The SQL of the camera that differs from engine to engine: many rows in one statement, and instants in columns.

Called by ``writer`` and ``upkeep``. Statements are built by hand where the ORM would need several: it splits them for
SQLite, and binds every value by itself.
Next: ``docs/explain/life-of-a-task-event.rst``.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from django.conf import settings
from django.db import Error, NotSupportedError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.dateparse import parse_datetime

from djcelery import db, utils

#: What a column becomes when the row is there: the new value, that if there is one, or the sum of both.
REPLACE, FILL, ADD = "{new}", "COALESCE({new}, {old})", "{old} + {new}"
#: The same as ``FILL``, but an empty text is no value.
KEEP = "COALESCE(NULLIF({new}, ''), {old})"
#: The same as ``FILL``, but an empty text empties the column.
CLEAR = "NULLIF(COALESCE({new}, {old}), '')"
#: The type of a parameter on PostgreSQL, by the kind of a column.
_TYPES = {"text": "text", "int": "bigint", "float": "float8", "time": "timestamptz", "bool": "boolean"}
_NEW = {"postgresql": "excluded.{}", "sqlite": "excluded.{}", "mysql": "new.{}", "mariadb": "VALUES({})"}
#: Longest statement by engine: on MySQL every value is a part of it, and servers of any setting must take it; on
#: PostgreSQL the rows are one value, which may grow six times as JSON and ends at 1 GB.
_MOST_BYTES = {"mysql": db.SAFE_STATEMENT_BYTES * 3, "mariadb": db.SAFE_STATEMENT_BYTES * 3, "postgresql": 64_000_000}
#: Texts that no collation takes for each other, but for their case and a few letters of some languages.
_PLAIN = re.compile("[!-~]*")
_ALIKE = str.maketrans("jyuw", "iivv")


@dataclass(frozen=True)
class Table:
    """A table to write: kinds of columns (see ``_TYPES``), what becomes of each, and the columns of its unique key.

    A column that ``updates`` doesn't name stays as it is when the row is there.
    """

    name: str
    columns: Mapping[str, str]
    key: tuple[str, ...]
    updates: Mapping[str, str]

    def __hash__(self) -> int:
        return hash((self.name, tuple(self.columns)))


_built: dict[tuple[str, Table], str] = {}


def engine(connection: BaseDatabaseWrapper) -> str:
    """Return the key of *connection* in the tables of this module.

    Raises:
        NotSupportedError: djcelery has no statements for this engine.
    """
    name = connection.vendor
    if name == "mysql" and connection.mysql_is_mariadb:  # type: ignore[attr-defined]
        return "mariadb"
    if name not in _NEW:
        raise NotSupportedError(
            f"djcelery's camera writes to PostgreSQL, MySQL, MariaDB and SQLite, not to {connection.display_name}."
        )
    return name


def upsert(
    connection: BaseDatabaseWrapper,
    table: Table,
    rows: Sequence[tuple[Any, ...]],
    narrowed: Callable[[tuple[Any, ...]], tuple[Any, ...]] | None = None,
) -> None:
    """Insert *rows*, values in the order of the table's columns, or update those that are there.

    Instants are as ``Instants.stored`` returns them. No two rows may have the same key.

    Args:
        narrowed: Makes a row without letters of four bytes, for columns of old MySQL tables that refuse them.

    Database: one statement, none for no *rows*; on MySQL one per 3 MB, on PostgreSQL one per 64 MB.
    """
    if not rows:
        return
    try:
        _upsert(connection, table, rows)
    except Error as exc:
        if not db.is_bad_text(exc):
            raise
        # MySQL's transaction goes on.
        _upsert(connection, table, [(narrowed or _three_byte)(row) for row in rows])


def _three_byte(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(db.three_byte(value) for value in row)


def _upsert(connection: BaseDatabaseWrapper, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    kind = engine(connection)
    if (kind, table) not in _built:
        _built[kind, table] = _statement(connection, kind, table)
    sql = _built[kind, table]
    with connection.cursor() as cursor:
        if kind == "postgresql":
            for part in _parts(rows, _MOST_BYTES[kind]):
                # What is missing is NULL, and a shorter text is read faster.
                objects = [
                    {name: value for name, value in zip(table.columns, row, strict=True) if value is not None}
                    for row in part
                ]
                cursor.execute(sql, [_as_json(objects)])
        elif kind == "sqlite":
            cursor.executemany(sql, rows)
        else:
            marks = f"({', '.join(['%s'] * len(table.columns))})"
            head, _, tail = sql.partition("{rows}")
            for part in _parts(rows, _MOST_BYTES[kind]):
                values = ", ".join([marks] * len(part))
                cursor.execute(f"{head}{values}{tail}", [value for row in part for value in row])


def _statement(connection: BaseDatabaseWrapper, kind: str, table: Table) -> str:
    quote = connection.ops.quote_name
    target, columns = quote(table.name), ", ".join(map(quote, table.columns))
    insert = f"INSERT INTO {target} ({columns})"
    sets = ", ".join(
        f"{quote(column)} = " + rule.format(new=_NEW[kind].format(quote(column)), old=f"{target}.{quote(column)}")
        for column, rule in table.updates.items()
    )
    if kind in ("mysql", "mariadb"):
        alias = " AS new" if kind == "mysql" else ""
        return f"{insert} VALUES {{rows}}{alias} ON DUPLICATE KEY UPDATE {sets}"
    ending = f"ON CONFLICT ({', '.join(map(quote, table.key))}) DO UPDATE SET {sets}"
    if kind == "sqlite":
        return f"{insert} VALUES ({', '.join(['%s'] * len(table.columns))}) {ending}"
    types = ", ".join(f"{quote(column)} {_TYPES[kind_]}" for column, kind_ in table.columns.items())
    picked = ", ".join(f"r.{quote(column)}" for column in table.columns)
    return f"{insert} SELECT {picked} FROM json_to_recordset(%s::json) AS r({types}) {ending}"  # noqa: S608 - as above


def _as_json(rows: Any) -> str:
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"), check_circular=False)


def _parts(rows: Sequence[tuple[Any, ...]], most: int) -> Iterator[list[tuple[Any, ...]]]:
    """Yield *rows* in parts whose texts together are no longer than *most* bytes; one row at least."""
    part: list[tuple[Any, ...]] = []
    size = 0
    for row in rows:
        # Letters take up to four bytes, and some are escaped.
        length = sum(len(value) * 2 if isinstance(value, str) else 16 for value in row)
        if part and size + length > most:
            yield part
            part, size = [], 0
        part.append(row)
        size += length
    yield part


def select_by(
    connection: BaseDatabaseWrapper, table: str, picked: str, column: str, texts: Sequence[str]
) -> list[tuple[Any, ...]]:
    """Return *picked* (SQL) of the rows of *table* (its bare name) whose *column* is one of *texts*.

    Database: one SELECT, none for no *texts*.
    """
    if not texts:
        return []
    quote, kind = connection.ops.quote_name, engine(connection)
    sql = f"SELECT {picked} FROM {quote(table)} WHERE {quote(column)} "  # noqa: S608 - quoted names of the model
    if kind == "postgresql":
        return fetch(connection, f"{sql} = ANY(%s::text[])", [list(texts)])
    if kind == "sqlite":
        sql = f"{sql} IN (SELECT value FROM json_each(%s))"  # noqa: S608 - as above
        return fetch(connection, sql, [_as_json(list(texts))])
    return fetch(connection, f"{sql} IN ({', '.join(['%s'] * len(texts))})", list(texts))


def select_keys(
    connection: BaseDatabaseWrapper, table: Table, columns: Sequence[str], keys: Sequence[tuple[Any, ...]]
) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Return *columns* of the rows of *table* that have one of *keys*, by that key.

    Instants in keys are as ``Instants.stored`` returns them.

    Database: one SELECT, none for no *keys*; on MySQL see ``same_texts``.
    """
    if not keys:
        return {}
    quote, kind = connection.ops.quote_name, engine(connection)
    target, names = quote(table.name), [quote(name) for name in table.key]
    picked = ", ".join(f"t.{quote(column)}" for column in columns)
    if kind in ("mysql", "mariadb"):
        # In a list of values each keeps the column's collation, which in a joined table it would not.
        marks = f"({', '.join(['%s'] * len(names))})"
        sql = f"SELECT {', '.join(names)}, {picked} FROM {target} t WHERE ({', '.join(names)}) IN "  # noqa: S608
        rows = fetch(connection, f"{sql}({', '.join([marks] * len(keys))})", [value for key in keys for value in key])
        read = [row[: len(names)] for row in rows]
        same = _same_keys(connection, table, [*keys, *read])
        found = {same[key]: row[len(names) :] for key, row in zip(read, rows, strict=True)}
        return {key: found[same[key]] for key in keys if same[key] in found}
    joined = " AND ".join(f"t.{name} = k.{name}" for name in names)
    numbered = [[number, *key] for number, key in enumerate(keys)]
    if kind == "postgresql":
        types = ", ".join(f"{quote(name)} {_TYPES[table.columns[name]]}" for name in table.key)
        source = f"json_to_recordset(%s::json) AS k(number int, {types})"
        value = _as_json([dict(zip(("number", *table.key), key, strict=True)) for key in numbered])
    else:
        parts = ", ".join(f"json_extract(value, '$[{n}]') AS {name}" for n, name in enumerate(["number", *names]))
        source = f"(SELECT {parts} FROM json_each(%s)) AS k"  # noqa: S608 - quoted names of the model
        value = _as_json(numbered)
    sql = f"SELECT k.number, {picked} FROM {source} JOIN {target} t ON {joined}"  # noqa: S608 - as above
    return {keys[row[0]]: tuple(row[1:]) for row in fetch(connection, sql, [value])}


def _same_keys(
    connection: BaseDatabaseWrapper, table: Table, keys: Sequence[tuple[Any, ...]]
) -> dict[tuple[Any, ...], tuple[str, ...]]:
    columns = []
    for number, name in enumerate(table.key):
        texts = [str(key[number]) for key in keys]
        is_text = table.columns[name] == "text"
        same = same_texts(connection, table.name, name, texts) if is_text else {}
        columns.append([same.get(text, text) for text in texts])
    return dict(zip(keys, zip(*columns, strict=True), strict=True))


def same_texts(connection: BaseDatabaseWrapper, table: str, column: str, texts: Iterable[str]) -> dict[str, str]:
    """Return each of *texts* with the first of those that are the same key to *column* of *table* (its bare name).

    MySQL's collations ignore case, accents and blanks at the end, each in its own way.

    Database: none, but on MySQL, if not all texts are plain and apart: two SELECTs.
    """
    distinct = list(dict.fromkeys(texts))
    if connection.vendor != "mysql" or _are_apart(distinct):
        return {text: text for text in distinct}
    known = fetch(
        connection,
        "SELECT character_set_name, collation_name FROM information_schema.columns "
        "WHERE table_schema = DATABASE() AND table_name = %s AND column_name = %s",
        [table, column],
    )
    charset, collation = known[0] if known else (None, None)
    if not collation:
        return {text: text for text in distinct}
    row = "ROW(%s, %s)" if engine(connection) == "mysql" else "(%s, %s)"
    sql = (
        f"WITH k (n, t) AS (VALUES {', '.join([row] * len(distinct))}) "  # noqa: S608 - the server's own names
        f"SELECT n, MIN(n) OVER (PARTITION BY CONVERT(t USING {charset}) COLLATE {collation}) FROM k"
    )
    rows = fetch(connection, sql, [value for pair in enumerate(distinct) for value in pair])
    return {distinct[number]: distinct[first] for number, first in rows}


def _are_apart(texts: Sequence[str]) -> bool:
    if not all(map(_PLAIN.fullmatch, texts)):
        return False
    return len({text.lower().translate(_ALIKE) for text in texts}) == len(texts)


def fetch(connection: BaseDatabaseWrapper, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Return all rows that *sql* selects."""
    with connection.cursor() as cursor:
        cursor.execute(sql, list(values))
        return cursor.fetchall()


def execute(connection: BaseDatabaseWrapper, sql: str, values: Sequence[Any] = ()) -> int:
    """Execute *sql* and return how many rows it changed."""
    with connection.cursor() as cursor:
        cursor.execute(sql, list(values))
        return cursor.rowcount


def pass_gate(connection: BaseDatabaseWrapper, gate: str, instants: Instants) -> None:
    """Lock the one row of the table *gate* until the transaction ends: then no other camera writes.

    It is the first statement of a transaction: SQLite says "locked" to one that reads and then begins to write.

    Database: one UPDATE; the very first time an INSERT after it.
    """
    now = instants.stored(time.time())
    sql = f"UPDATE {connection.ops.quote_name(gate)} SET written_at = %s WHERE id = 1"  # noqa: S608 - a quoted name
    if not execute(connection, sql, [now]):
        columns = {"id": "int", "written_at": "time"}
        upsert(connection, Table(gate, columns, ("id",), {"written_at": REPLACE}), [(1, now)])


class Instants:
    """How a database holds instants: from seconds since the epoch, and back. Made per transaction."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection
        self._zone = connection.timezone if settings.USE_TZ else None
        self.stored: Callable[[float | None], Any] = self._any
        if connection.vendor == "postgresql":
            self.stored = self._aware
        elif self._zone is timezone.utc:
            self.stored = self._naive

    def of(self, value: Any) -> float | None:
        """Return an instant that was read by hand, in seconds since the epoch."""
        return None if value is None else self.moment(value).timestamp()

    def moment(self, value: Any) -> datetime:
        """Return an instant that was read by hand, aware."""
        if isinstance(value, str):
            value = parse_datetime(value)
        if value.tzinfo is None:
            value = utils.to_utc(value) if self._zone is None else value.replace(tzinfo=self._zone)
        return value

    def _aware(self, at: float | None) -> str | None:
        return None if at is None else datetime.fromtimestamp(at, timezone.utc).isoformat()

    def _naive(self, at: float | None) -> str | None:
        return None if at is None else datetime.fromtimestamp(at, timezone.utc).replace(tzinfo=None).isoformat(" ")

    def _any(self, at: float | None) -> Any:
        if at is None:
            return None
        moment = utils.correct_awareness(datetime.fromtimestamp(at, timezone.utc))
        return self._connection.ops.adapt_datetimefield_value(moment)
