"""Which texts a database takes: what none can hold, what old MySQL tables refuse, and how long one may be.

Reached as names of ``db``, whose callers write what tasks and events say.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import Error
from django.db.backends.base.base import BaseDatabaseWrapper

__all__ = ("execute_text", "fitting", "is_bad_text", "largest_text", "storable", "three_byte")

_MYSQL_BAD_TEXT = (1366, 3988)
_LARGEST_TEXT = {"sqlite": 900_000_000, "postgresql": 400_000_000}


def storable(value: Any) -> Any:
    """Return *value*, a text among them with what no database text can hold written as an escape.

    NUL becomes ``\\x00`` and a lone surrogate ``\\udc80``, both spelled out.
    """
    if not isinstance(value, str):
        return value
    if "\x00" in value:
        value = value.replace("\x00", "\\x00")
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        value = value.encode("utf-8", "backslashreplace").decode()
    return value


def execute_text(cursor: Any, sql: str, values: list[Any]) -> None:
    """Execute *sql*; a three-byte MySQL column refuses emoji, so there they are written as escapes."""
    try:
        cursor.execute(sql, values)
    except Error as exc:
        if not is_bad_text(exc):
            raise
        cursor.execute(sql, [three_byte(value) for value in values])


def is_bad_text(exc: BaseException) -> bool:
    """Tell whether MySQL refused a character: a three-byte column takes no emoji."""
    cause = exc.__cause__
    return bool(cause is not None and cause.args and cause.args[0] in _MYSQL_BAD_TEXT)


def three_byte(value: Any) -> Any:
    """Return *value*, the characters of a text beyond U+FFFF written as escapes like ``\\U0001f600``."""
    if not isinstance(value, str):
        return value
    return "".join(c if ord(c) <= 0xFFFF else f"\\U{ord(c):08x}" for c in value)


def largest_text(connection: BaseDatabaseWrapper) -> int | None:
    """Return how many characters one value of a statement may have on *connection*, None if that is no concern.

    Database: one query, on MySQL and MariaDB alone.
    """
    if connection.vendor != "mysql":
        return _LARGEST_TEXT.get(connection.vendor)
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@max_allowed_packet")
        # Quotes and backslashes are doubled on the way, and other columns take room, too.
        return cursor.fetchone()[0] * 2 // 5


def fitting(lengths: Iterable[tuple[Any, int]], most: int) -> list[Any]:
    """Return the first of the keys in *lengths* whose texts together are no longer than *most*; one at least."""
    keys: list[Any] = []
    total = 0
    for key, length in lengths:
        total += length
        if keys and total > most:
            break
        keys.append(key)
    return keys
