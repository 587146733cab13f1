"""A table of another app, read without its code: the columns that it has, and its rows in batches by primary key.

Called by ``results`` and ``beat``. Reads only; bad values of one row never hide the others.
Next: ``docs/coming-from-results-and-beat.rst``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import Error
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.dateparse import parse_datetime
from django.utils.timezone import is_naive, make_aware

from djcelery.texts import fitting

__all__ = ("Row", "Table", "Unreadable", "instant")

#: How many characters of long texts are in memory at once, but for a single row that has more.
BATCH_CHARACTERS = 16 * 1024 * 1024
#: What a driver, or Django's converter in it, raises for a value that can't be one.
_BAD_VALUE = (ValueError, TypeError, OverflowError, AttributeError)

#: The values of a row by column, those of columns that the table lacks as None.
Row = dict[str, Any]


class Unreadable(ValueError):
    """A value can't be read; the text says which and why. ``pk`` is the row's, if that is known."""

    def __init__(self, text: str, pk: Any = None) -> None:
        super().__init__(text)
        self.pk = pk


class Table:
    """The table *name* behind *connection*, with an integer primary key ``id``.

    ``columns`` are the names of its columns, none if there is no such table.
    """

    def __init__(self, connection: BaseDatabaseWrapper, name: str) -> None:
        self.connection = connection
        self.name = name
        with connection.cursor() as cursor:
            exists = name in connection.introspection.table_names(cursor)
            described = connection.introspection.get_table_description(cursor, name) if exists else []
        self.columns = frozenset(column.name for column in described)

    def count(self) -> int:
        """Return the number of rows."""
        with self.connection.cursor() as cursor:
            cursor.execute(f"SELECT COUNT(*) FROM {self._quoted}")  # noqa: S608 - a quoted name
            return cursor.fetchone()[0]

    def batches(
        self, columns: Iterable[str], batch_rows: int, long_texts: Iterable[str] = ()
    ) -> Iterator[list[Row | Unreadable]]:
        """Yield all rows, so many at a time as memory allows; see ``rows``.

        Args:
            long_texts: Columns whose lengths count.

        Database: two SELECTs per batch, by ranges of the primary key.
        """
        columns, long_texts, last = tuple(columns), tuple(long_texts), None
        while keys := self._keys(last, batch_rows, long_texts):
            yield self.rows(columns, keys)
            last = keys[-1]

    def rows(self, columns: Sequence[str], keys: Sequence[int]) -> list[Row | Unreadable]:
        """Return the rows of *keys*, in their order; one that can't be read is an ``Unreadable``.

        Database: one SELECT; if a value can't be read, one per row.
        """
        if not keys:
            return []
        try:
            return list(self._selected(columns, keys))
        except _BAD_VALUE:
            return [row for key in keys for row in self._one(columns, key)]
        except Error:
            # SQLite alone lets bytes into a text that are none, and says so when they are read.
            if self.connection.vendor != "sqlite":
                raise
            return [row for key in keys for row in self._one(columns, key)]

    def _one(self, columns: Sequence[str], key: int) -> Iterator[Row | Unreadable]:
        try:
            yield from self._selected(columns, [key])
        except (Error, *_BAD_VALUE) as exc:
            yield Unreadable(f"its row can't be read ({exc})", key)

    def _selected(self, columns: Sequence[str], keys: Sequence[int]) -> Iterator[Row]:
        quote = self.connection.ops.quote_name
        present = ["id", *(name for name in columns if name in self.columns)]
        empty = dict.fromkeys(columns)
        marks = ", ".join(["%s"] * len(keys))
        with self.connection.cursor() as cursor:
            cursor.execute(
                f"SELECT {', '.join(map(quote, present))} FROM {self._quoted} "  # noqa: S608 - quoted names
                f"WHERE id IN ({marks}) ORDER BY id",
                list(keys),
            )
            for values in cursor.fetchall():
                yield {**empty, **dict(zip(present, values, strict=True))}

    def _keys(self, last: int | None, batch_rows: int, long_texts: Sequence[str]) -> list[int]:
        quote = self.connection.ops.quote_name
        lengths = [f"COALESCE(LENGTH({quote(name)}), 0)" for name in long_texts if name in self.columns]
        where = "" if last is None else "WHERE id > %s "
        with self.connection.cursor() as cursor:
            cursor.execute(
                f"SELECT id, {' + '.join(lengths) or '0'} FROM {self._quoted} "  # noqa: S608 - quoted names
                f"{where}ORDER BY id LIMIT {batch_rows:d}",
                [] if last is None else [last],
            )
            found = cursor.fetchall()
        return fitting(found, BATCH_CHARACTERS)

    @property
    def _quoted(self) -> str:
        return self.connection.ops.quote_name(self.name)


def instant(connection: BaseDatabaseWrapper, row: Row, column: str) -> datetime | None:
    """Return the instant in *column* as Django's own fields give it: aware if ``USE_TZ`` is on.

    Raises:
        Unreadable: It is none; Django of whatever settings would have written it otherwise.
    """
    value = row[column]
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = parse_datetime(value)
        except ValueError:
            value = None
    if not isinstance(value, datetime):
        raise Unreadable(f"its {column} is no time: {row[column]!r}")
    if settings.USE_TZ and is_naive(value):
        return make_aware(value, connection.timezone)
    return value
