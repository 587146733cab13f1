"""One periodic task as beat sees it.

Made by ``scheduler`` from a row of ``PeriodicTask``; writes the row's last run and its count, and
turns the entries of ``CELERYBEAT_SCHEDULE`` into rows.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from celery import schedules
from celery.beat import ScheduleEntry
from celery.utils.time import maybe_make_aware
from django.db import router
from django.db.models import F, ObjectDoesNotExist

from djcelery import utils
from djcelery.exceptions import ArgumentsInvalid, ScheduleError, ScheduleMissing
from djcelery.models import CrontabSchedule, IntervalSchedule, PeriodicTask

DEFAULT_MAX_INTERVAL = 5  # seconds

#: Shorter periods would keep beat busy with nothing but one entry.
SHORTEST_PERIOD = timedelta(seconds=1)
#: The header that tells the worker which entry has sent the task; the result's row keeps it.
NAME_HEADER = "periodic_task_name"
#: The options of an entry that are columns of ``PeriodicTask``.
STORED_OPTIONS = ("queue", "exchange", "routing_key")


class ModelEntry(ScheduleEntry):
    """One periodic task as beat sees it: a copy of its row, and when it last ran.

    Raises:
        ScheduleError: The row can't be run as it stands; the message names it and says why.
    """

    model_schedules = (
        (schedules.crontab, CrontabSchedule, "crontab"),
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
        headers = {**(self.extra_options.get("headers") or {}), NAME_HEADER: model.name}
        self.options = {**self.extra_options, **_options_of(model, self.extra_options), "headers": headers}
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
        """Return the saved row for *schedule* (seconds, timedelta, schedule or crontab) and its field's name.

        Raises:
            ValueError: There is no table for such a schedule.
        """
        if not isinstance(schedule, (int, float, timedelta, schedules.BaseSchedule)):
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
        options = entry.get("options") or {}
        values |= {key: options[key] or None for key in STORED_OPTIONS if key in options}
        if "schedule" in entry:
            row, chosen = cls.to_model_schedule(entry["schedule"])
            values |= {field: row if field == chosen else None for _, _, field in cls.model_schedules}
        return values

    @classmethod
    def from_entry(cls, name: str, app: Any = None, **entry: Any) -> ModelEntry:
        """Create or update the row *name* from an entry of ``CELERYBEAT_SCHEDULE`` and return it as an entry.

        ``enabled``, ``description`` and the counters of an existing row stay as they are. A row that is
        as it should be is not written.

        Raises:
            KeyError: There is no ``schedule``.
            ValueError: A key is unknown, or the schedule has no table.
        """
        if "schedule" not in entry:
            raise KeyError("schedule")
        values = {"args": "[]", "kwargs": "{}", **dict.fromkeys(STORED_OPTIONS), **cls.fields_of(**entry)}
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
    return f"Periodic task {model.pk} {model.name!r}"


def _schedule_of(model: PeriodicTask, app: Any) -> Any:
    try:
        schedule = model.schedule
    except ObjectDoesNotExist:
        schedule = None
    except (ValueError, TypeError) as exc:
        raise ScheduleError(f"{row_name(model)}: its crontab can't be read ({exc}). Correct it in the admin.") from exc
    if schedule is None:
        gone = model.interval_id or model.crontab_id
        why = "its schedule was removed from the database" if gone else "it has no schedule"
        raise ScheduleMissing(f"{row_name(model)}: {why}. Set an interval or a crontab, or disable the task.")
    if not isinstance(schedule, schedules.crontab) and schedule.run_every < SHORTEST_PERIOD:
        raise ScheduleError(
            f"{row_name(model)}: a period of {schedule.run_every} is shorter than a second. Set a longer interval."
        )
    schedule.app = app
    return schedule


def _arguments(model: PeriodicTask, field: str, kind: type) -> Any:
    text = getattr(model, field)
    try:
        value = json.loads(text) if text else kind()
        # Legacy encoded arguments that were given as text twice.
        value = json.loads(value) if isinstance(value, str) else value
    except ValueError as exc:
        raise ArgumentsInvalid(
            f"{row_name(model)}: {field} is not JSON ({exc}). Correct it in the admin, or disable the task."
        ) from exc
    if not isinstance(value, kind):
        wanted = "a JSON array, like [1, 2]" if kind is list else 'a JSON object, like {"a": 1}'
        raise ArgumentsInvalid(f"{row_name(model)}: {field} must be {wanted}, not {text!r}.")
    return value


def _options_of(model: PeriodicTask, extra: dict[str, Any]) -> dict[str, Any]:
    options = {name: getattr(model, name) or None for name in STORED_OPTIONS}
    expires = model.expires or extra.get("expires")
    return {**options, "expires": utils.to_utc(model.expires) if model.expires else expires}


def unstored_options(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a settings entry for which ``PeriodicTask`` has no column."""
    options = entry.get("options") or {}
    return {key: value for key, value in options.items() if key not in STORED_OPTIONS}


def _anchor(model: PeriodicTask, entry: ModelEntry) -> Any:
    """Return when a task that never ran begins to count: an interval with its row, a crontab now.

    An interval that is longer than the time between two starts of beat would never fire otherwise.
    """
    is_crontab = isinstance(entry.schedule, schedules.crontab)
    return entry._default_now() if is_crontab or model.date_changed is None else model.date_changed
