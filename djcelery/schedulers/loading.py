"""From rows to plans: reads the enabled periodic tasks, and says what is wrong with those that can't be run.

Called by ``scheduler`` and ``refresh``. One statement joins the rows with their times; nothing is written.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

import functools
import json
import logging
from collections import namedtuple
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from sys import intern
from typing import Any, NamedTuple

from django.db.models import QuerySet

from djcelery import utils
from djcelery.exceptions import ArgumentsInvalid, ScheduleError, ScheduleMissing
from djcelery.models import rules
from djcelery.models.periodic import SCHEDULES
from djcelery.schedulers import changes, unreadable
from djcelery.schedulers.nexttime import Clocked, Crontab, Interval, Schedule, Solar, StartingAt, jitter_offset
from djcelery.schedulers.plans import Options, Plan, Rules

logger = logging.getLogger(__name__)

#: Shorter periods would keep beat busy with nothing but one entry.
SHORTEST_PERIOD = timedelta(seconds=1)
#: Rows per round trip when all are read.
CHUNK_ROWS = 2000
ZERO = timedelta(0)
#: Columns of seconds.
_SECONDS = tuple(name for name in rules.RANGES if name != "priority")
#: What beat reads beside the columns of which digests are made.
_MORE = ("last_run_at", "date_changed", "last_error")


@functools.cache
def row_type() -> Any:
    """Return the named tuple of a row as it is read: the key, the columns of the digest, and some more."""
    return namedtuple("Row", ("pk", *changes.columns(), *_MORE))  # type: ignore[misc]


class Unreadable(NamedTuple):
    """A row with a value that can't be read at all: 31 February, which SQLite lets pass, PostgreSQL's ``infinity``."""

    pk: int
    name: str
    problem: Exception
    last_error: str | None = None
    enabled: bool = True


def read(tasks: QuerySet, whole: bool = False) -> Iterator[Any]:
    """Yield the rows of *tasks*; *whole* reads in chunks, for very many.

    Database: one SELECT; if a row is ``Unreadable``, one more per 1,000 rows that are left and about 20 per such row.
    """
    names = ("pk", *changes.columns(), *_MORE)
    rows, make, done = tasks.values_list(*names), row_type()._make, set()
    try:
        for values in rows.iterator(chunk_size=CHUNK_ROWS) if whole else rows:
            done.add(values[0])
            yield make(values)
        return
    except unreadable.ERRORS as exc:
        logger.debug("beat: a row can't be read (%r); looking for it.", exc)
    each = tasks.model._base_manager.using(tasks.db)
    name_of = {pk: name for pk, name in tasks.values_list("pk", "name") if pk not in done}

    def part(keys: Sequence[int]) -> list[Any]:
        # In the order of the keys.
        found = {row[0]: make(row) for row in each.filter(pk__in=keys).values_list(*names)}
        return [found[pk] for pk in keys if pk in found]

    for found in unreadable.by_halves(list(name_of), part):
        if isinstance(found, unreadable.Failure):
            yield Unreadable(found.key, name_of[found.key], found.problem)
        else:
            yield found


def digest(row: Any) -> int:
    """Return the digest of *row*, by which a later change is noticed."""
    return 0 if isinstance(row, Unreadable) else changes.digest(row[1 : -len(_MORE)])


class Planner:
    """Makes plans of rows; equal parts are made once.

    Args:
        zone: The zone of crontabs that name none.
    """

    def __init__(self, zone: Any) -> None:
        self.zone = zone
        # Not lru_cache: these live and die with the schedule that is loaded.
        self._crontabs: dict[Any, Crontab] = {}
        self._shared: dict[Any, Any] = {}

    def plan(self, row: Any, now: datetime) -> Plan:
        """Return the plan of *row*; *now* counts if the row knows no instant from which it counts.

        Raises:
            ScheduleError: The row can't be run; the text says why, and what to do.
        """
        if isinstance(row, Unreadable):
            raise ScheduleError(f"a value of its row can't be read ({row.problem}). Correct it in the database.")
        check_json("args", row.args, list)
        check_json("kwargs", row.kwargs, dict)
        check_headers(row.headers)
        try:
            return self._plan(row, now)
        except ScheduleError:
            raise
        except (TypeError, ValueError, OverflowError, ArithmeticError) as exc:
            raise ScheduleError(f"its times can't be read ({exc}). Correct them.") from exc

    def _plan(self, row: Any, now: datetime) -> Plan:
        for name in _SECONDS:
            if (getattr(row, name) or 0) > rules.LARGEST:
                raise ScheduleError(f"its {name} are too many to be counted ({getattr(row, name)}). Correct them.")
        counts_from = utils.to_utc(max_known(_base(row), _changed_at(row)) or now)
        schedule = self._schedule(row, counts_from)
        delay = jitter_offset(row.name, row.jitter_seconds) if row.jitter_seconds else ZERO
        since = counts_from if row.last_run_at is None else max(counts_from, utils.to_utc(row.last_run_at))
        missed = Rules(
            row.missed_runs or None,
            None if row.grace_seconds is None else timedelta(seconds=row.grace_seconds),
            bool(row.no_overlap),
            row.overlap_timeout,
            row.jitter_seconds or 0,
            bool(row.one_off),
        )
        expires = utils.to_utc(row.expires) if row.expires else None
        options = Options(
            row.queue or None,
            row.exchange or None,
            row.routing_key or None,
            row.priority,
            row.headers or None,
            expires,
            row.expire_seconds,
        )
        texts = (intern(row.task), self._share(row.args or "[]"), self._share(row.kwargs or "{}"))
        return Plan(row.pk, row.name, *texts, schedule, since - delay, self._share(options), self._share(missed), delay)

    def _share(self, value: Any) -> Any:
        return self._shared.setdefault(value, value)

    def _schedule(self, row: Any, counts_from: datetime) -> Schedule:
        kind = _kind(row)
        start = utils.to_utc(row.start_time) if row.start_time else None
        if kind == "interval":
            period = self._share(timedelta(**{row.interval__period: row.interval__every}))
            if period < SHORTEST_PERIOD:
                raise ScheduleError(f"a period of {period} is shorter than a second. Set a longer interval.")
            return Interval(period, start or counts_from, at_anchor=start is not None)
        found: Schedule
        if kind == "crontab":
            found = self._crontab(row)
        elif kind == "solar":
            found = Solar(row.solar__event, float(row.solar__latitude), float(row.solar__longitude))
        else:
            found = Clocked(utils.to_utc(row.clocked__clocked_time))
        return StartingAt(found, start) if start else found

    def _crontab(self, row: Any) -> Crontab:
        fields = (
            row.crontab__minute,
            row.crontab__hour,
            row.crontab__day_of_week,
            row.crontab__day_of_month,
            row.crontab__month_of_year,
        )
        key = (*fields, row.crontab__timezone or None)
        found = self._crontabs.get(key)
        if found is None:
            found = Crontab(*fields, zone=row.crontab__timezone or self.zone)
            if found.never_fires:
                raise ScheduleError("its crontab names a day that no month has. Correct the day or the month.")
            self._crontabs[key] = found
        return found


def is_adrift(row: Any) -> bool:
    """Tell whether the row's interval counts from its last run, as in rows of django-celery."""
    return row.scheduled_from is None and row.start_time is None


def adopted_before(row: Any, moment: datetime) -> bool:
    """Tell whether *row* was written by django-celery, and neither ran nor was edited after *moment*."""
    base = _base(row)
    return row.scheduled_from is None and (base is None or utils.to_utc(base) < moment)


_JSON_KINDS = {
    dict: "an object",
    list: "an array",
    str: "a text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}


def check_json(field: str, text: str | None, kind: type) -> Any:
    """Return what *text* stands for; for an empty one, an empty *kind*.

    Raises:
        ArgumentsInvalid: It is no JSON, or of another type.
    """
    if not text or text in ("[]", "{}"):
        text = text or ""
        if not text or (text == "[]") is (kind is list):
            return kind()
    try:
        value = json.loads(text)
        # Legacy encoded arguments that were given as text twice.
        value = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as exc:
        raise ArgumentsInvalid(f"{field} is not JSON ({exc}). Correct it in the admin, or disable the task.") from exc
    if not isinstance(value, kind):
        wanted = "a JSON array, like [1, 2]" if kind is list else 'a JSON object, like {"a": 1}'
        # Not the text itself: who reads errors may not be allowed to see arguments.
        raise ArgumentsInvalid(f"{field} must be {wanted}, not {_JSON_KINDS[type(value)]}.")
    return value


def check_headers(text: str | None) -> dict[str, Any]:
    """Return the headers that *text* stands for.

    Raises:
        ArgumentsInvalid: They are no JSON object, or name what the message says itself.
    """
    headers = check_json("headers", text, dict)
    if taken := sorted(rules.OWN_HEADERS & headers.keys()):
        raise ArgumentsInvalid(
            f"headers must not have {' and '.join(map(repr, taken))}: with it another task, or the task under another "
            "id, would run than the history says. Remove it."
        )
    return headers


def max_known(*moments: datetime | None) -> datetime | None:
    """Return the latest of *moments* that are known."""
    return max((moment for moment in moments if moment is not None), default=None)


def _base(row: Any) -> datetime | None:
    return row.scheduled_from or row.last_run_at or row.date_changed


def _changed_at(row: Any) -> datetime | None:
    """Return when the times that *row* uses were last edited."""
    return row.interval__changed_at or row.crontab__changed_at or row.solar__changed_at or row.clocked__changed_at


def _kind(row: Any) -> str:
    """Return which of the schedules *row* has.

    Raises:
        ScheduleError: None, several, or one that is gone.
    """
    kinds = [kind for kind in SCHEDULES if getattr(row, f"{kind}_id") is not None]
    if not kinds:
        raise ScheduleMissing("it has no schedule. Set an interval or a crontab, or disable the task.")
    if len(kinds) > 1:
        raise ScheduleError(f"it has more than one schedule: {' and '.join(kinds)}. Keep one of them.")
    if all(getattr(row, name) is None for name in _NOT_NULL[kinds[0]]):
        gone = f"{kinds[0]} {getattr(row, kinds[0] + '_id')}"
        raise ScheduleMissing(f"its schedule was removed from the database ({gone}). Set another one.")
    return kinds[0]


#: Columns that no row of times has NULL: if they are, there is no such row.
_NOT_NULL = {
    "interval": ("interval__every", "interval__period"),
    "crontab": ("crontab__minute", "crontab__hour"),
    "solar": ("solar__event",),
    "clocked": ("clocked__clocked_time",),
}
