"""Check when a schedule fires, by the rules that beat computes with.

Called by ``testing``. Reads the row of a periodic task, if one is named; writes nothing.
Next: ``docs/testing.rst``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from celery import schedules
from django.utils.dateparse import parse_datetime
from django.utils.timezone import is_naive, make_aware

from djcelery import times, utils
from djcelery.app import project_app
from djcelery.models import PeriodicTask
from djcelery.models.upcoming import chosen_count, chosen_row, times_of, zone_of
from djcelery.schedulers import nexttime, settings_entries

TICK = timedelta(microseconds=1)


def assert_runs_at(
    entry: Any, expected: Iterable[datetime | str], *, after: Any = None, until: Any = None, app: Any = None
) -> None:
    """Check that *entry* fires at the instants *expected*, one after another, and at no other between them.

    Args:
        entry: A ``PeriodicTask``, saved or not; the name of one, or of an entry in ``CELERYBEAT_SCHEDULE``; such an
            entry itself; or a schedule: Celery's objects, a timedelta, seconds.
        expected: Datetimes, or texts such as ``"2026-03-29 02:30"``. Naive ones are of Django's current zone.
        after: The instant from which to look, itself left out; None is just before the first of *expected*.
            Intervals without a start time count from it.
        until: Nothing else may fire up to this instant; None is the last of *expected*.
        app: The Celery app whose zone crontabs follow and that has the settings; None is the project's.

    Raises:
        AssertionError: It fires at other instants; the message lists both, in the current zone.
        ValueError: Neither *expected* nor *after* and *until* says where to look.

    Database: the row of a task that is named, and those of its schedule.
    """
    wanted = [_instant(moment) for moment in expected]
    if not wanted and (after is None or until is None):
        raise ValueError("Give the instants that are expected, or 'after' and 'until'.")
    start = _instant(after) if after is not None else wanted[0] - TICK
    end = _instant(until) if until is not None else wanted[-1]
    app = app or project_app()
    schedule, over = _schedule_of(entry, start, app)
    firings = () if schedule is None else nexttime.upcoming(schedule, start, end)
    found = list(islice((moment for moment in firings if over is None or moment < over), len(wanted) + 10))
    if found != wanted:
        raise AssertionError(
            f"{entry!s} fires at other instants between {_text(start)} and {_text(end)}.\n"
            f"  expected: {_list(wanted)}\n  fires at: {_list(found)}"
        )


def _instant(moment: Any) -> datetime:
    if isinstance(moment, str):
        parsed = parse_datetime(moment)
        if parsed is None:
            raise ValueError(f"{moment!r} is no instant such as '2026-03-29 02:30' or '2026-03-29T00:30+00:00'.")
        moment = parsed
    return utils.to_utc(make_aware(moment) if is_naive(moment) else moment)


def _text(moment: datetime) -> str:
    return utils.correct_awareness(moment).isoformat(" ")


def _list(moments: list[datetime]) -> str:
    return ", ".join(map(_text, moments)) or "never"


def _schedule_of(entry: Any, start: datetime, app: Any) -> tuple[nexttime.Schedule | None, datetime | None]:
    """Return what *entry* fires by, and the instant at which it expires."""
    if isinstance(entry, str):
        found = PeriodicTask.objects.filter(name=entry).first()
        entry = found or (settings_entries.of_settings(app) or {}).get(entry) or _unknown(entry)
    if isinstance(entry, PeriodicTask):
        return _of_row(entry, start, app), utils.to_utc(entry.expires) if entry.expires else None
    if isinstance(entry, Mapping):
        entry = entry["schedule"]
    return _of_celerys(entry, start, app), None


def _unknown(name: str) -> Any:
    raise AssertionError(f"Neither the table of periodic tasks nor CELERYBEAT_SCHEDULE has an entry {name!r}.")


def _of_row(task: PeriodicTask, start: datetime, app: Any) -> nexttime.Schedule | None:
    if not task.enabled or chosen_count(task) > 1 or (row := chosen_row(task)) is None:
        # Beat holds them out.
        return None
    if row.change_kind == "interval" and not task.start_time:
        return nexttime.Interval(timedelta(**{row.period: row.every}), start)
    return times_of(task, row, app)


def _of_celerys(schedule: Any, start: datetime, app: Any) -> nexttime.Schedule:
    if isinstance(schedule, nexttime.Schedule):
        return schedule
    if isinstance(schedule, datetime):
        return nexttime.Clocked(_instant(schedule))
    if isinstance(schedule, bool) or not isinstance(schedule, (int, float, timedelta, schedules.BaseSchedule)):
        raise ValueError(f"{schedule!r} is no schedule that djcelery knows.")
    found = schedules.maybe_schedule(schedule)
    if isinstance(found, schedules.crontab):
        names = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")
        fields: dict[str, Any] = {name: _field(getattr(found, f"_orig_{name}")) for name in names}
        return nexttime.Crontab(**fields, zone=found.zone if isinstance(found, times.ZonedCrontab) else zone_of(app))
    if isinstance(found, schedules.solar):
        return nexttime.Solar(found.event, found.lat, found.lon)
    if isinstance(found, times.Clocked):
        return nexttime.Clocked(found.instant)
    if isinstance(found, schedules.schedule):
        return nexttime.Interval(found.run_every, start)
    raise ValueError(f"{schedule!r} is no schedule that djcelery knows.")


def _field(value: Any) -> str:
    """Return a field of Celery's crontab as text: it may be a number or a set of numbers."""
    return str(value) if isinstance(value, (str, int)) else ",".join(map(str, value))
