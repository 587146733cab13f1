"""Rows with a value that can't be read, told from those that can: by halves, so that one of them doesn't cost all.

Called where a SELECT of many rows has failed: by ``loading``, ``changes`` and ``settings_entries``. Writes nothing.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from django.db import DataError

#: What Django, or the driver below it, raises for a value that it can't convert: 31 February on SQLite, ``infinity``
#: or the year 12000 on PostgreSQL.
ERRORS = (ValueError, TypeError, AttributeError, OverflowError, DataError)
#: Keys in one condition.
MOST_KEYS = 1000


class Failure(NamedTuple):
    """A key of which nothing can be read, and why."""

    key: Any
    problem: Exception


def by_halves(keys: Sequence[Any], read: Callable[[Sequence[Any]], list[Any]]) -> Iterator[Any]:
    """Yield what *read* returns of *keys*, in their order, and a ``Failure`` for each key that can't be read.

    Args:
        read: Called with up to 1,000 keys; raises one of ``ERRORS`` if it can't read one of them.

    Database: a call of *read* per 1,000 keys, and about 20 more per key that can't be read.
    """
    for start in range(0, len(keys), MOST_KEYS):
        yield from _halves(keys[start : start + MOST_KEYS], read)


def _halves(keys: Sequence[Any], read: Callable[[Sequence[Any]], list[Any]]) -> Iterator[Any]:
    try:
        found = read(keys)
    except ERRORS as exc:
        if len(keys) == 1:
            yield Failure(keys[0], exc)
            return
    else:
        yield from found
        return
    middle = len(keys) // 2
    yield from _halves(keys[:middle], read)
    yield from _halves(keys[middle:], read)
