"""One periodic task as beat sees it.

Made by ``scheduler`` from a row of ``PeriodicTask``; writes the row's last run and its count, and
turns the entries of ``CELERYBEAT_SCHEDULE`` into rows.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from celery import schedules
from celery.beat import ScheduleEntry
from celery.utils.time import maybe_make_aware
from django.core.exceptions import ImproperlyConfigured
from django.db import router
from django.db.models import F, ObjectDoesNotExist

from djcelery import times, utils
from djcelery.exceptions import ArgumentsInvalid, ScheduleError, ScheduleMissing
from djcelery.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule
from djcelery.models.periodic import SCHEDULES
from djcelery.schedulers.loading import SHORTEST_PERIOD, check_headers, check_json

DEFAULT_MAX_INTERVAL = 5  # seconds

#: The options of an entry that are columns of ``PeriodicTask``; ``expires`` is one of two columns, by its type.
STORED_OPTIONS = ("queue", "exchange", "routing_key", "priority", "headers", "expires", "expire_seconds")


class ModelEntry(ScheduleEntry):
    """One periodic task as beat sees it: a copy of its row, and when it last ran.

    Raises:
        ScheduleError: The row can't be run as it stands; the message names it and says why.
    """

    model_schedules = (
        (schedules.crontab, CrontabSchedule, "crontab"),
        (schedules.solar, SolarSchedule, "solar"),
        (times.Clocked, ClockedSchedule, "clocked"),
        (schedules.schedule, IntervalSchedule, "interval"),
    )
    #: The only columns that beat writes to a row.
    save_fields = ("last_run_at", "total_run_count")

    def __init__(self, model: PeriodicTask, app: Any = None, options: dict[str, Any] | None = None) -> None:
        from celery import current_app

        self.app = app or current_app._get_current_object()
        self.model = model
        self.name = model.name
        self.task = model.task
        self.schedule = _schedule_of(model, self.app)
        self.args = _arguments(model, "args", list)
        self.kwargs = _arguments(model, "kwargs", dict)
        self.extra_options = options or {}
        self.options = {**self.extra_options, **_options_of(model, self.extra_options)}
        self.total_run_count = model.total_run_count
        self.last_run_at = utils.to_utc(model.last_run_at or _anchor(model, self))

    def _default_now(self) -> Any:
        return maybe_make_aware(self.app.now())

    default_now = _default_now

    def is_due(self) -> tuple[bool, float]:
        """Return whether to send now, and the seconds until the next look; never if disabled or expired."""
        if not self.model.enabled or (self.model.expires and utils.to_utc(self.model.expires) <= self._default_now()):
            return schedules.schedstate(False, float(DEFAULT_MAX_INTERVAL))
        return self.schedule.is_due(self.last_run_at)

    def __next__(self, last_run_at: Any = None) -> ModelEntry:
        """Return the entry after a run: the same row, with a new last run and one run more."""
        self.model.last_run_at = utils.correct_awareness(last_run_at or self._default_now())
        self.model.total_run_count += 1
        return type(self)(self.model, app=self.app, options=self.extra_options)

    next = _next_instance = __next__

    def save(self, runs: int = 1) -> None:
        """Write the last run of this entry, and nothing that people edit; count *runs* runs.

        Database: one UPDATE of ``save_fields``; a row that is gone or disabled stays as it is.
        """
        rows = PeriodicTask._base_manager.using(router.db_for_write(PeriodicTask))
        rows.filter(pk=self.model.pk, enabled=True).update(
            last_run_at=self.model.last_run_at, total_run_count=F("total_run_count") + runs
        )

    @classmethod
    def to_model_schedule(cls, schedule: Any) -> tuple[Any, str]:
        """Return the saved row for *schedule* and its field's name.

        Args:
            schedule: Seconds, a timedelta, an aware datetime, or a schedule object of Celery or ``djcelery.times``.

        Raises:
            ValueError: There is no table for such a schedule.
        """
        if isinstance(schedule, datetime):
            schedule = times.Clocked(utils.to_utc(schedule))
        if isinstance(schedule, bool) or not isinstance(schedule, (int, float, timedelta, schedules.BaseSchedule)):
            raise ValueError(f"Cannot convert schedule type {schedule!r} to model")
        schedule = schedules.maybe_schedule(schedule)
        for kind, model, field in cls.model_schedules:
            if isinstance(schedule, kind):
                row = model.from_schedule(schedule)
                if row.pk is None:
                    row.save()
                return row, field
        raise ValueError(f"Cannot convert schedule type {schedule!r} to model")

    @classmethod
    def fields_of(cls, **entry: Any) -> dict[str, Any]:
        """Return column values for the keys of an entry in the form of ``CELERYBEAT_SCHEDULE``.

        Raises:
            ValueError: A key is unknown, or the schedule has no table.
        """
        unknown = set(entry) - {field.name for field in PeriodicTask._meta.get_fields()}
        unknown -= {"schedule", "options", "relative"}
        if unknown:
            raise ValueError(
                f"A schedule entry has no key {', '.join(sorted(unknown))}; see PeriodicTask for its keys."
            )
        values = {key: value for key, value in entry.items() if key not in ("schedule", "options", "relative")}
        for key, empty in (("args", []), ("kwargs", {})):
            if key in values:
                values[key] = json.dumps(values[key] or empty)
        values |= _columns_of(entry.get("options") or {})
        if "schedule" in entry:
            row, chosen = cls.to_model_schedule(entry["schedule"])
            values |= {field: row if field == chosen else None for _, _, field in cls.model_schedules}
        return values

    @classmethod
    def values_of(cls, known_times: dict[str, Any] | None = None, /, **entry: Any) -> dict[str, Any]:
        """Return the values of all columns that an entry decides; those of which it says nothing are empty.

        Args:
            known_times: The rows of the entry's schedule, by field, if they need not be looked for.

        Raises:
            KeyError: There is no ``schedule``.
            ValueError: A key is unknown, or the schedule has no table.
        """
        if "schedule" not in entry:
            raise KeyError("schedule")
        if known_times is not None:
            del entry["schedule"]
        empty = {"args": "[]", "kwargs": "{}", **dict.fromkeys(STORED_OPTIONS)}
        return {**empty, **cls.fields_of(**entry), **(known_times or {})}

    @classmethod
    def from_entry(
        cls, name: str, skip_fields: Iterable[str] = ("relative", "options"), app: Any = None, **entry: Any
    ) -> ModelEntry:
        """Create or update the row *name* from an entry of ``CELERYBEAT_SCHEDULE`` and return it as an entry.

        ``enabled``, ``description`` and the counters of an existing row stay as they are. A row that is
        as it should be is not written.

        Args:
            skip_fields: Keys of the entry that are left out; of ``options``, those that have columns never are.

        Raises:
            KeyError: There is no ``schedule``.
            ValueError: A key is unknown, or the schedule has no table.
        """
        entry = {key: value for key, value in entry.items() if key == "options" or key not in skip_fields}
        values = cls.values_of(**entry)
        row, created = PeriodicTask.objects.get_or_create(name=name, defaults=values)
        if not created and any(getattr(row, key) != value for key, value in values.items()):
            for key, value in values.items():
                setattr(row, key, value)
            row.save()
        return cls(row, app=app, options=unstored_options(entry))

    def __repr__(self) -> str:
        arguments = f"*{_positional(self.args)}, **{self.kwargs!r}"
        return f"<ModelEntry: {self.name} {self.task}({arguments}) {self.schedule}>"


def _positional(args: Any) -> str:
    """Return positional arguments as text."""
    return repr(tuple(args))


def row_name(model: PeriodicTask) -> str:
    """Return what the log calls the row."""
    return f"Periodic task {model.pk} {model.name!r}"


def _schedule_of(model: PeriodicTask, app: Any) -> Any:
    kinds = [kind for kind in SCHEDULES if getattr(model, f"{kind}_id") is not None]
    if len(kinds) > 1:
        raise ScheduleError(
            f"{row_name(model)}: it has more than one schedule: {' and '.join(kinds)}. Keep one of them."
        )
    try:
        schedule = model.schedule
    except ObjectDoesNotExist:
        schedule = None
    except (ValueError, TypeError, OverflowError, ImproperlyConfigured) as exc:
        raise ScheduleError(f"{row_name(model)}: its times can't be read ({exc}). Correct them in the admin.") from exc
    if schedule is None:
        why = "its schedule was removed from the database" if kinds else "it has no schedule"
        raise ScheduleMissing(f"{row_name(model)}: {why}. Set an interval or a crontab, or disable the task.")
    period = schedule.run_every if kinds == ["interval"] else None
    if period is not None and period < SHORTEST_PERIOD:
        raise ScheduleError(f"{row_name(model)}: a period of {period} is shorter than a second. Set a longer interval.")
    schedule.app = app
    return schedule


def _arguments(model: PeriodicTask, field: str, kind: type) -> Any:
    text = getattr(model, field)
    try:
        return check_headers(text) if field == "headers" else check_json(field, text, kind)
    except ArgumentsInvalid as exc:
        raise ArgumentsInvalid(f"{row_name(model)}: {exc}") from exc


def _options_of(model: PeriodicTask, extra: dict[str, Any]) -> dict[str, Any]:
    options = {name: getattr(model, name) or None for name in ("queue", "exchange", "routing_key")}
    if model.priority is not None:
        options["priority"] = model.priority
    headers = {**(extra.get("headers") or {}), **_arguments(model, "headers", dict)}
    # The result's row names the periodic task by it.
    options["headers"] = {**headers, "periodic_task_name": model.name}
    expires = utils.to_utc(model.expires) if model.expires else model.expire_seconds
    return {**options, "expires": extra.get("expires") if expires is None else expires}


def _columns_of(options: dict[str, Any]) -> dict[str, Any]:
    """Return the column values of the options that have columns."""
    values: dict[str, Any] = {
        key: options[key] or None for key in ("queue", "exchange", "routing_key") if key in options
    }
    if "priority" in options:
        values["priority"] = options["priority"]
    if "headers" in options:
        values["headers"] = json.dumps(options["headers"]) if options["headers"] else None
    if "expires" in options:
        seconds, instant = _expiry_of(options["expires"])
        values |= {"expire_seconds": seconds, "expires": instant}
    return values


def _expiry_of(expires: Any) -> tuple[int | None, datetime | None]:
    """Return the option ``expires`` as seconds or as an instant, whichever it is; both None for a text."""
    if isinstance(expires, timedelta):
        expires = expires.total_seconds()
    if isinstance(expires, (int, float)):
        return math.ceil(expires), None
    return None, utils.correct_awareness(expires) if isinstance(expires, datetime) else None


def is_entry(entry: Any) -> bool:
    """Tell whether *entry* has the form of an entry of ``CELERYBEAT_SCHEDULE``, whatever it holds."""
    return isinstance(entry, Mapping) and isinstance(entry.get("options") or {}, Mapping)


def unstored_options(entry: Any) -> dict[str, Any]:
    """Return the options of a settings entry for which ``PeriodicTask`` has no column; none of what is no entry."""
    options = entry.get("options") or {} if is_entry(entry) else {}
    return {
        key: value
        for key, value in options.items()
        if key not in STORED_OPTIONS or (key == "expires" and isinstance(value, str))
    }


def _anchor(model: PeriodicTask, entry: ModelEntry) -> Any:
    """Return when a task that never ran begins to count: an interval with its row, a crontab now.

    An interval that is longer than the time between two starts of beat would never fire otherwise.
    """
    is_crontab = isinstance(entry.schedule, schedules.crontab)
    known = model.scheduled_from or model.date_changed
    return entry._default_now() if is_crontab or known is None else known
