"""Which results are deleted at which age, and how: many short statements instead of one long one.

Called by the managers of the result tables and by ``celeryresults cleanup``. ``Retention`` is pure; ``batches``
deletes, and sends no signals. No statement reads, locks or deletes more than one batch of rows.
Next: ``docs/explain/life-of-a-result.rst``.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db import connections
from django.db.models import Q, QuerySet

from djcelery import ages, db, utils
from djcelery.ages import LONGEST, RetentionRule
from djcelery.conf import conf
from djcelery.exceptions import SettingError

#: Seconds that one DELETE should take at most; batches shrink and grow to that.
BATCH_S = 0.1
_FIRST_ROWS, _LEAST_ROWS = 1000, 500


class Selection(NamedTuple):
    """Rows that one rule decides: of one task in some states, or of one state and all tasks but some."""

    rule: RetentionRule
    column: str
    value: str
    states: tuple[str, ...] = ()
    other_than: tuple[str, ...] = ()


@dataclass(frozen=True)
class Retention:
    """The age at which each row is deleted; make one with ``of``. *rules* stand in order, the first that fits wins."""

    rules: tuple[RetentionRule, ...]

    @classmethod
    def of(cls, rules: Collection[RetentionRule], expires: timedelta | float | None) -> Retention:
        """Return the retention of *rules*, and *expires* (timedelta or seconds) for what they don't name.

        None and 0 are for ever.

        Raises:
            ValueError: *expires* can't be used.
        """
        try:
            rest = RetentionRule("", "", ages.age(expires) or None)
        except (TypeError, ValueError) as exc:
            raise ValueError(f"The age {expires!r} after which results expire is wrong: {exc}.") from exc
        return cls((*sorted(rules, key=_specific_first), rest))

    @classmethod
    def from_settings(cls, expires: timedelta | float | None) -> Retention:
        """Return the retention of ``DJCELERY_RETENTION``, and *expires* for what it doesn't name.

        Raises:
            SettingError: One of them can't be used.
        """
        rules = conf.DJCELERY_RETENTION
        try:
            return cls.of(rules, expires)
        except ValueError as exc:
            raise SettingError(f"CELERY_RESULT_EXPIRES: {exc}") from exc

    def rule(self, name: str | None, state: str) -> RetentionRule:
        """Return the rule for a row of task *name* (None: unknown) in *state*."""
        return next(rule for rule in self.rules if rule.state in ("", state) and matches(rule.task, name))

    def names(self, name: str) -> bool:
        """Tell whether a rule names task *name*, by itself or by a prefix."""
        return any(rule.task and matches(rule.task, name) for rule in self.rules)

    @property
    def deletes(self) -> bool:
        """Whether there is any age at all."""
        return any(rule.age for rule in self.rules)

    def selections(self, states: Collection[str], names: Collection[str], *, rest: bool = True) -> list[Selection]:
        """Return disjoint selections that cover every row in *states*, each with its one rule.

        Args:
            names: The tasks that get selections of their own: at least those that a rule names.
            rest: Whether the rows of all other tasks are covered, too.
        """
        found = []
        for name in names:
            by_rule: dict[RetentionRule, list[str]] = {}
            for state in states:
                by_rule.setdefault(self.rule(name, state), []).append(state)
            found += [Selection(rule, "name", name, states=tuple(some)) for rule, some in by_rule.items()]
        if rest:
            found += [Selection(self.rule(None, s), "status", s, other_than=tuple(names)) for s in states]
        return found


def matches(pattern: str, name: str | None) -> bool:
    """Tell whether task *name* is the one that *pattern* names; ``*`` at its end is a prefix, "" fits all."""
    if not pattern:
        return True
    if name is None:
        return False
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _specific_first(rule: RetentionRule) -> tuple[bool, int, bool]:
    exact = bool(rule.task) and not rule.task.endswith("*")
    return (not exact, -len(rule.task), not rule.state)


def chord_age(configured: Any, expires: timedelta | float | None) -> timedelta | float | None:
    """Return the age of chords by Celery's configuration *configured*, else *expires*; None and 0 are for ever."""
    # Celery before 5.7 doesn't know this setting.
    age = configured.get("result_chord_expires")
    return expires if age is None else age


# -- the rows ----------------------------------------------------------------------------------


class Expired(NamedTuple):
    """Expired rows: those of *group* that also meet *rest*; an index on *column* leads through the group.

    *rule* is None for rows that are hidden.
    """

    rule: RetentionRule | None
    group: QuerySet
    column: str
    rest: Q

    def number(self) -> int:
        """Return how many there are. Database: one statement, which takes no locks."""
        return self.group.filter(self.rest).count()


def expired(
    rows: QuerySet, retention: Retention, *, states: Collection[str] = (), tasks: Collection[str] = ()
) -> list[Expired]:
    """Return what *retention* says is expired in *rows*, the whole of a result table on the alias for writing.

    Args:
        states: Only rows in these states. Empty: in all states.
        tasks: Only rows of these tasks; ``*`` at the end is a prefix. Empty: of all tasks, and unknown ones.

    Hidden rows are always expired if *retention* has any age and nothing is narrowed.

    Database: one statement per distinct state, and per distinct task name if there are rules for tasks.
    """
    if not retention.deletes:
        return []
    now = utils.now()
    # "hidden = true" becomes "WHERE hidden", for which MariaDB and SQLite use no index.
    hidden = Q(hidden__in=[True])
    # Saved groups have neither, nor have tables that a project has made for django-celery.
    if not {"status", "name"} <= {field.name for field in rows.model._meta.fields}:
        limit = cutoff(now, retention.rules[-1].age)
        return [Expired(retention.rules[-1], rows, "pk", hidden | Q(date_done__lt=limit))] if limit else []
    found = [] if states or tasks else [Expired(None, rows.filter(hidden), "pk", Q())]
    present = [state for state in _distinct(rows, "status") if not states or state in states]
    named: list[str] = []
    if tasks:
        named = [name for name in _distinct(rows, "name") if any(matches(task, name) for task in tasks)]
    elif any(rule.task for rule in retention.rules):
        named = [name for name in _distinct(rows, "name") if retention.names(name)]
    for selection in retention.selections(present, named, rest=not tasks):
        limit = cutoff(now, selection.rule.age)
        if limit is not None:
            group = rows.filter(**{selection.column: selection.value, "date_done__lt": limit})
            rest = Q(status__in=selection.states) if selection.states else ~Q(name__in=selection.other_than)
            found.append(Expired(selection.rule, group, "date_done", rest))
    return found


def cutoff(now: datetime, age: timedelta | None) -> datetime | None:
    """Return the instant before which a row must have been written to be older than *age*; None if no row is."""
    return before(now, age) if age and age < LONGEST else None


def before(now: datetime, age: timedelta | float) -> datetime:
    """Return the instant *age* (timedelta or seconds) before *now*, at most ``LONGEST``.

    Raises:
        ValueError: *age* is below 0: everything is older than the future.
    """
    seconds = age.total_seconds() if isinstance(age, timedelta) else age
    if seconds < 0:
        raise ValueError(f"The age {age} is below 0.")
    if not isinstance(age, timedelta):
        age = timedelta(seconds=min(age, LONGEST.total_seconds()))
    return now - min(age, LONGEST)


def _distinct(rows: QuerySet, column: str) -> Iterator[str]:
    """Yield the distinct values of *column*, the first of an index, one look into it for each."""
    values = rows.filter(**{f"{column}__isnull": False}).order_by(column).values_list(column, flat=True)
    value = _read(values[:1])
    while value is not None:
        yield value
        value = _read(values.filter(**{f"{column}__gt": value})[:1])


def _read(values: QuerySet) -> Any:
    """Return the first of *values*, or None."""
    return db.retry_transient(
        lambda _: next(iter(values.all()), None), lambda: connections[values.db], "look for expired rows"
    )


# -- deleting ----------------------------------------------------------------------------------


class Batch(NamedTuple):
    """What one statement has deleted: how many rows, by which rule (None: they were hidden)."""

    rule: RetentionRule | None
    rows: int


def batches(
    rows: QuerySet,
    retention: Retention,
    batch_rows: int = 5000,
    *,
    states: Collection[str] = (),
    tasks: Collection[str] = (),
) -> Iterator[Batch]:
    """Delete what is expired, and yield after each batch; whoever stops iterating stops the deleting.

    Args as for ``expired``; *batch_rows* is the most rows that one statement looks at.

    Raises:
        django.db.Error: A batch could not be deleted; those before it are.

    Database: a SELECT and a DELETE per batch, in autocommit, with retries; see also ``expired``.
    """
    pace = _Pace(batch_rows)
    for part in expired(rows, retention, states=states, tasks=tasks):
        for deleted in _walk(part.group, part.rest, part.column, pace):
            yield Batch(part.rule, deleted)


def delete_along(rows: QuerySet, column: str, batch_rows: int = 5000) -> Iterator[int]:
    """Delete *rows* window by window along *column*, which an index should lead through; yield how many each time.

    Whoever stops iterating stops the deleting.

    Raises:
        django.db.Error: A batch could not be deleted; those before it are.

    Database: a SELECT and a DELETE per batch, in autocommit, with retries.
    """
    yield from _walk(rows, Q(), column, _Pace(batch_rows))


def distinct(rows: QuerySet, column: str) -> list[str]:
    """Return the distinct values of *column*, the first of an index. Database: one SELECT for each, and one more."""
    return list(_distinct(rows, column))


def _walk(group: QuerySet, rest: Q, column: str, pace: _Pace) -> Iterator[int]:
    """Delete the rows of *group* that meet *rest*, window by window along *column*; yield how many each time.

    A window ends where it holds a batch of rows of the group, whether they meet *rest* or not: so it bounds
    what is locked, too. The DELETE repeats every condition; a row written since the window was laid stays.
    """
    low, compare = None, "gte"
    while True:
        window = group if low is None else group.filter(**{f"{column}__{compare}": low})
        high = _read(window.order_by(column).values_list(column, flat=True)[pace.rows : pace.rows + 1])
        if high is None:
            yield pace.delete(window.filter(rest))
            return
        if low is not None and high <= low:
            # More than a batch were written at one instant, or SQLite's texts compare otherwise than what they say.
            yield from _walk(window.filter(**{column: low}) if compare == "gte" else window, rest, "pk", pace)
            if compare == "gt":
                return
            compare = "gt"
            continue
        yield pace.delete(window.filter(rest, **{f"{column}__lt": high}))
        low, compare = high, "gte"


class _Pace:
    """How many rows a batch may have, so that none takes much longer than ``BATCH_S``."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.rows = min(most, _FIRST_ROWS)

    def delete(self, rows: QuerySet) -> int:
        """Delete *rows*, a window of at most ``self.rows``, in one statement, and return how many they were."""
        started = time.monotonic()
        # Django's internal name for a DELETE without signals and cascades; delete() loads rows if there are receivers.
        deleted = db.retry_transient(
            lambda connection: rows._raw_delete(connection.alias),
            lambda: connections[rows.db],
            "delete expired rows",
        )
        taken_s = time.monotonic() - started
        connection = connections[rows.db]
        if connection.vendor == "sqlite" and not connection.in_atomic_block:
            # Who waits for SQLite's one lock only looks now and then whether it is free.
            time.sleep(min(taken_s / 2, 0.01))
        if taken_s > BATCH_S:
            self.rows = max(self.rows // 2, min(_LEAST_ROWS, self.most))
        elif taken_s < BATCH_S / 4:
            self.rows = min(self.rows * 2, self.most)
        return deleted
