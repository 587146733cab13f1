"""When a periodic task runs next, and whether it is overdue, for people: from its row, as beat would compute it.

Called by ``PeriodicTask.next_run()`` and ``overdue_since()``, and by the admin; writes nothing.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from importlib import import_module
from typing import Any

from django.core.exceptions import ObjectDoesNotExist

from djcelery import utils

#: How late a run is before it counts as overdue: beat may have been restarted, or another one takes over.
OVERDUE_AFTER = timedelta(minutes=1)
#: What a row that can't be run raises when its times are read.
UNREADABLE = (ObjectDoesNotExist, ValueError, TypeError, OverflowError, ArithmeticError)


def chosen_row(task: Any) -> Any:
    """Return the row of times of *task*: the first in the order of ``SCHEDULES``; None if it has none.

    Raises:
        ObjectDoesNotExist: The row is gone.
    """
    return task.interval or task.crontab or task.solar or task.clocked


def chosen_count(task: Any) -> int:
    """Return how many schedules *task* has; beat runs only tasks that have one."""
    return sum(key is not None for key in (task.interval_id, task.crontab_id, task.solar_id, task.clocked_id))


def counts_from(task: Any, row: Any) -> datetime | None:
    """Return the instant up to which *task* has nothing to make up for, and from which its intervals count.

    That is when the task or its times (*row*) were last redefined; in rows of django-celery, which don't say
    that, the last run or else the last change. Aware in UTC; None if nothing is known.
    """
    base = task.scheduled_from or task.last_run_at or task.date_changed
    known = [utils.to_utc(moment) for moment in (base, getattr(row, "changed_at", None)) if moment]
    return max(known, default=None)


def next_run(task: Any, now: datetime | None = None, app: Any = None) -> datetime | None:
    """Return the first instant after *now* at which *task* is to run, without its jitter; see ``PeriodicTask``."""
    if not task.enabled or chosen_count(task) > 1:
        # Beat holds out what has several schedules.
        return None
    after = utils.to_utc(now or utils.now())
    try:
        row = chosen_row(task)
        found = None if row is None else times_of(task, row, app).next_after(_latest(after, counts_from(task, row)))
    except UNREADABLE:
        # Beat holds such a row out, and says why in last_error.
        return None
    return None if found is None or _is_over(task, found) else utils.correct_awareness(found)


def overdue_since(task: Any, now: datetime | None = None, app: Any = None) -> datetime | None:
    """Return the instant of *task* that should have run and did not; see ``PeriodicTask``."""
    if not task.enabled or chosen_count(task) > 1:
        return None
    latest = getattr(task, "latest_at", None)
    try:
        late = utils.to_utc(now or utils.now()) - OVERDUE_AFTER - timedelta(seconds=task.jitter_seconds or 0)
        if latest is not None and task.latest_outcome is None:
            return utils.correct_awareness(latest) if utils.to_utc(latest) <= late else None
        row = chosen_row(task)
        if row is None:
            return None
        known = (counts_from(task, row), task.last_run_at, latest)
        settled = max((utils.to_utc(moment) for moment in known if moment), default=None)
        due = None if settled is None else times_of(task, row, app).next_after(settled)
    except UNREADABLE:
        return None
    return None if due is None or due > late or _is_over(task, due) else utils.correct_awareness(due)


def _is_over(task: Any, instant: datetime) -> bool:
    return bool(task.expires) and instant >= utils.to_utc(task.expires)


def _latest(after: datetime, counted: datetime | None) -> datetime:
    return max(after, counted) if counted else after


def times_of(task: Any, row: Any, app: Any = None) -> Any:
    """Return the schedule of *task*, whose times are *row*, as an object of ``djcelery.schedulers.nexttime``.

    Args:
        app: The Celery app whose zone crontabs without one follow; None is the current one.

    Raises:
        ValueError, TypeError, ArithmeticError: It can't be read.
    """
    # The engines are a layer above; it is found by name at call time, as in utils.is_database_scheduler.
    nexttime = import_module("djcelery.schedulers.nexttime")
    start = utils.to_utc(task.start_time) if task.start_time else None
    if row.change_kind == "interval":
        anchor = start or counts_from(task, row) or utils.to_utc(utils.now())
        return nexttime.Interval(timedelta(**{row.period: row.every}), anchor, at_anchor=start is not None)
    if row.change_kind == "crontab":
        fields = (row.minute, row.hour, row.day_of_week, row.day_of_month, row.month_of_year)
        found = nexttime.Crontab(*fields, zone=row.timezone or zone_of(app))
    elif row.change_kind == "solar":
        found = nexttime.Solar(row.event, float(row.latitude), float(row.longitude))
    else:
        found = nexttime.Clocked(utils.to_utc(row.clocked_time))
    return nexttime.StartingAt(found, start) if start else found


def zone_of(app: Any = None) -> Any:
    """Return the zone of crontabs that name none."""
    from celery import current_app

    return (app or current_app).timezone
