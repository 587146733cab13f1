"""What changed in the schedule: the notes that editors leave, and a comparison that finds the rest.

Called by the leading beat in each tick. Deletes the notes that it has read and applied; writes nothing
else. The comparison is for changes that leave no note (raw SQL): it reads a slice of the rows at a time and
compares each with the digest that beat took when it loaded the row.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

import functools
import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import QuerySet

from djcelery.models import PeriodicTask, ScheduleChange
from djcelery.schedulers import statements, unreadable
from djcelery.schedulers.lease import Lease, monotonic

#: Notes that are read at once; the rest is read in the next tick, which follows at once.
NOTES_AT_ONCE = 1000
#: Rows that could not be read and are tried again in one step of the comparison.
MOST_BAD = 100
#: Columns of a periodic task that change nothing of what beat does with it.
_IGNORED = frozenset(
    {"last_run_at", "total_run_count", "date_changed", "description", "last_error", "origin", "origin_digest"}
)


@dataclass
class Seen:
    """The notes that were read: the keys of what changed, by kind. ``everything``: read all rows again."""

    ids: list[int] = field(default_factory=list)
    tasks: set[int] = field(default_factory=set)
    intervals: set[int] = field(default_factory=set)
    crontabs: set[int] = field(default_factory=set)
    solars: set[int] = field(default_factory=set)
    clockeds: set[int] = field(default_factory=set)
    everything: bool = False

    def __bool__(self) -> bool:
        return bool(self.ids)

    @property
    def has_more(self) -> bool:
        """Whether there may be notes that were not read, for so many are read at once."""
        return len(self.ids) >= NOTES_AT_ONCE


def read(alias: str) -> Seen:
    """Return what changed since the notes were last forgotten, the 1,000 oldest notes at most.

    Read the rows after the notes, never before: a change in between is then seen twice, never missed.

    Database: one SELECT.
    """

    def work(connection: BaseDatabaseWrapper, is_retry: bool) -> list[tuple[Any, ...]]:
        key = connection.ops.quote_name("key")
        table = statements.table(connection, ScheduleChange)
        sql = f"SELECT id, kind, {key} FROM {table} ORDER BY id LIMIT {NOTES_AT_ONCE}"  # noqa: S608 - quoted names
        return statements.fetch(connection, sql)

    seen = Seen()
    for pk, kind, key in statements.attempt(alias, work, lambda: True):
        seen.ids.append(pk)
        keys = getattr(seen, f"{kind}s", None)
        if isinstance(keys, set) and key is not None:
            keys.add(key)
        else:
            # "all", or a kind of a later release.
            seen.everything = True
    return seen


def forget(alias: str, seen: Seen, lease: Lease | None = None) -> int:
    """Delete exactly the notes that were *seen*, once what they say is applied; return how many.

    Args:
        lease: Delete only while it is mine: a beat that has slept through a takeover must not take the notes
            of its successor away.

    Database: one DELETE, none if there were no notes.
    """
    if not seen.ids:
        return 0

    def work(connection: BaseDatabaseWrapper, is_retry: bool) -> int:
        table = statements.table(connection, ScheduleChange)
        sql = f"DELETE FROM {table} WHERE id IN ({statements.numbers(seen.ids)})"  # noqa: S608 - whole numbers
        condition, values = lease.condition(connection) if lease else ("", [])
        return statements.execute(connection, f"{sql} AND {condition}" if condition else sql, values)

    return statements.attempt(alias, work, lambda: True)


# -- digests -----------------------------------------------------------------------------------


@functools.cache
def columns() -> tuple[str, ...]:
    """Return the fields of which a digest is made, as ``values_list()`` takes them: a task's and its schedules'."""
    names = []
    for column in PeriodicTask._meta.concrete_fields:
        if column.related_model:
            names += [
                f"{column.name}__{other.attname}"
                for other in column.related_model._meta.concrete_fields
                if not other.primary_key
            ]
        if column.name not in _IGNORED and not column.primary_key:
            names.append(column.attname)
    return tuple(names)


def digest(row_values: Iterable[Any]) -> int:
    """Return 64 bits that stand for the values of ``columns()``; the same in this process only."""
    values = tuple(row_values)
    # -1 and -2 have the same hash.
    return hash(values) ^ values.count(-1)


class Digests(MutableMapping[int, int]):
    """Digests by the key of the task, in 16 bytes each; ordered by key."""

    def __init__(self, known: Mapping[int, int] | None = None) -> None:
        pairs = sorted(known.items()) if known else []
        self._keys = array("q", [key for key, _ in pairs])
        self._values = array("q", [value for _, value in pairs])

    def _find(self, key: int) -> int:
        index = bisect_left(self._keys, key)
        if index == len(self._keys) or self._keys[index] != key:
            raise KeyError(key)
        return index

    def __getitem__(self, key: int) -> int:
        return self._values[self._find(key)]

    def __setitem__(self, key: int, value: int) -> None:
        index = bisect_left(self._keys, key)
        if index < len(self._keys) and self._keys[index] == key:
            self._values[index] = value
        else:
            self._keys.insert(index, key)
            self._values.insert(index, value)

    def __delitem__(self, key: int) -> None:
        index = self._find(key)
        del self._keys[index], self._values[index]

    def __iter__(self) -> Iterator[int]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


class Comparison:
    """Compares all enabled rows with what is known of them, every *period_s* seconds, a slice per call.

    Args:
        slice_rows: Rows that one call reads.
        clock: Seconds that never go back.
    """

    def __init__(
        self, alias: str, period_s: float, slice_rows: int = 2000, clock: Callable[[], float] = monotonic
    ) -> None:
        self.alias = alias
        self.period_s = period_s
        self.slice_rows = slice_rows
        self._clock = clock
        self._next_mono = clock() + period_s
        # Where the next slice begins; None between two passes.
        self._after: float | None = None
        self._pass_keys = array("q")
        self._passes = 0

    @property
    def is_running(self) -> bool:
        """Whether a pass has begun and is not at its end."""
        return self._after is not None

    def wait_s(self) -> float:
        """Return the seconds until a call has something to do; 0 within a pass."""
        return 0.0 if self.is_running else max(0.0, self._next_mono - self._clock())

    def step(self, known: Mapping[int, int]) -> set[int]:
        """Return the keys of tasks in the next slice that are new, gone, disabled, or have another digest.

        Args:
            known: The digest of each row that is loaded, held-out ones included, 0 for one that can't be read. Only
                enabled rows are looked at.

        Raises:
            django.db.Error: The slice could not be read; the next call reads it again.

        Database: one SELECT, none between two passes. For rows that can't be read four more, and one for each that
            is *known*, about 20 for one that isn't.
        """
        if self._after is None:
            if self._clock() < self._next_mono:
                return set()
            self._after = -math.inf
            self._passes += 1
            self._next_mono = self._clock() + self.period_s
            self._pass_keys = array("q", sorted(known))
        rows = self._rows(self._after, known)
        found = {pk: 0 if values is None else digest(values) for pk, values in rows}
        is_last = len(rows) < self.slice_rows
        start = bisect_right(self._pass_keys, self._after)
        end = len(self._pass_keys) if is_last else bisect_right(self._pass_keys, rows[-1][0])
        gone = {pk for pk in self._pass_keys[start:end] if pk not in found and pk in known}
        self._after = None if is_last else rows[-1][0]
        if is_last:
            self._pass_keys = array("q")
        return gone | {pk for pk, value in found.items() if known.get(pk) != value}

    def _rows(self, after: float, known: Mapping[int, int]) -> list[tuple[int, tuple[Any, ...] | None]]:
        """Return the keys and values of the next rows; None are values that Django can't convert."""

        def work(connection: BaseDatabaseWrapper, is_retry: bool) -> list[tuple[int, tuple[Any, ...] | None]]:
            rows = PeriodicTask._base_manager.using(self.alias).filter(enabled=True).order_by("pk")
            if after > -math.inf:
                rows = rows.filter(pk__gt=after)
            try:
                return _pairs(rows, self.slice_rows)
            except unreadable.ERRORS:
                return self._pick(list(rows.values_list("pk", flat=True)[: self.slice_rows]), known)

        return statements.attempt(self.alias, work, lambda: True)

    def _pick(self, keys: list[int], known: Mapping[int, int]) -> list[tuple[int, tuple[Any, ...] | None]]:
        """Return the same of the rows *keys*, of which some can't be read."""
        bad = [pk for pk in keys if known.get(pk) == 0]
        # Very many are looked at by turns, so that nothing due has to wait.
        turns = -(-len(bad) // MOST_BAD) or 1
        tried, likely = bad[self._passes % turns :: turns], sorted(set(keys).difference(bad))
        each = PeriodicTask._base_manager.using(self.alias)
        found: dict[int, tuple[Any, ...] | None] = dict.fromkeys(bad)
        for part in (likely, *([pk] for pk in tried)):
            for one in unreadable.by_halves(part, lambda pks: _pairs(each.filter(pk__in=pks))):
                found[one[0]] = None if isinstance(one, unreadable.Failure) else one[1]
        return sorted(found.items(), key=lambda pair: pair[0])


def _pairs(rows: QuerySet, most: int | None = None) -> list[tuple[int, tuple[Any, ...] | None]]:
    return [(pk, tuple(values)) for pk, *values in rows.values_list("pk", *columns())[:most]]
