"""The beat scheduler whose entries are rows of ``PeriodicTask``.

Called by Celery's beat (``tick`` in a loop, ``close`` at the end). Reads the enabled rows, again
whenever the schedule has changed; writes ``last_run_at`` and ``total_run_count`` of the rows it sends, and the
entries of ``CELERYBEAT_SCHEDULE`` at start. One bad row is held out and logged; the rest runs.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

import json
import logging
import time
from datetime import timedelta
from typing import Any

from celery import schedules
from celery.beat import ScheduleEntry, Scheduler
from celery.utils.time import maybe_make_aware
from django.db import Error, router
from django.db.models import F, ObjectDoesNotExist

from djcelery import db, utils
from djcelery.exceptions import ArgumentsInvalid, ScheduleError, ScheduleMissing
from djcelery.models import CrontabSchedule, IntervalSchedule, PeriodicTask, PeriodicTasks

__all__ = ("DatabaseScheduler", "ModelEntry")

logger = logging.getLogger(__name__)

DEFAULT_MAX_INTERVAL = 5  # seconds
ADD_ENTRY_ERROR = "Couldn't add entry %r to database schedule: %r. Contents: %r"

#: Look for changes no more often than this, in seconds, however many entries are due.
CHECK_EVERY_S = 1.0
#: A crontab that was missed longer ago than this is not caught up with when beat starts.
CATCH_UP = timedelta(days=1)
#: Shorter periods would keep beat busy with nothing but one entry.
SHORTEST_PERIOD = timedelta(seconds=1)
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
        return cls(row, app=app, options=_unstored_options(entry))

    def __repr__(self) -> str:
        arguments = f"*{safe_args(self.args)}, **{self.kwargs!r}"
        return f"<ModelEntry: {self.name} {self.task}({arguments}) {self.schedule}>"


def safe_args(args: Any) -> str:
    """Return positional arguments as text."""
    return repr(tuple(args))


def _row(model: PeriodicTask) -> str:
    return f"Periodic task {model.pk} {model.name!r}"


def _schedule_of(model: PeriodicTask, app: Any) -> Any:
    try:
        schedule = model.schedule
    except ObjectDoesNotExist:
        schedule = None
    except (ValueError, TypeError) as exc:
        raise ScheduleError(f"{_row(model)}: its crontab can't be read ({exc}). Correct it in the admin.") from exc
    if schedule is None:
        gone = model.interval_id or model.crontab_id
        why = "its schedule was removed from the database" if gone else "it has no schedule"
        raise ScheduleMissing(f"{_row(model)}: {why}. Set an interval or a crontab, or disable the task.")
    if not isinstance(schedule, schedules.crontab) and schedule.run_every < SHORTEST_PERIOD:
        raise ScheduleError(
            f"{_row(model)}: a period of {schedule.run_every} is shorter than a second. Set a longer interval."
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
            f"{_row(model)}: {field} is not JSON ({exc}). Correct it in the admin, or disable the task."
        ) from exc
    if not isinstance(value, kind):
        wanted = "a JSON array, like [1, 2]" if kind is list else 'a JSON object, like {"a": 1}'
        raise ArgumentsInvalid(f"{_row(model)}: {field} must be {wanted}, not {text!r}.")
    return value


def _options_of(model: PeriodicTask, extra: dict[str, Any]) -> dict[str, Any]:
    options = {name: getattr(model, name) or None for name in STORED_OPTIONS}
    expires = model.expires or extra.get("expires")
    return {**options, "expires": utils.to_utc(model.expires) if model.expires else expires}


def _unstored_options(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a settings entry for which ``PeriodicTask`` has no column."""
    options = entry.get("options") or {}
    return {key: value for key, value in options.items() if key not in STORED_OPTIONS}


def _anchor(model: PeriodicTask, entry: ModelEntry) -> Any:
    """Return when a task that never ran begins to count: an interval with its row, a crontab now.

    An interval that is longer than the time between two starts of beat would never fire otherwise.
    """
    is_crontab = isinstance(entry.schedule, schedules.crontab)
    return entry._default_now() if is_crontab or model.date_changed is None else model.date_changed


class DatabaseScheduler(Scheduler):
    """Beat's scheduler on the database. The class attributes are override points."""

    Entry = ModelEntry
    Model = PeriodicTask
    Changes = PeriodicTasks
    max_interval = DEFAULT_MAX_INTERVAL
    #: Read every row again after this many seconds, for edits that no signal tells of (raw SQL).
    reload_every_s = 180

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._schedule: dict[str, ModelEntry] | None = None
        # Runs that are not written yet, by the name of their entry.
        self._dirty: dict[str, int] = {}
        self._last_change: Any = None
        self._loaded_mono = self._checked_mono = 0.0
        self._settings_options: dict[str, dict[str, Any]] = {}
        self._told: dict[Any, str] = {}
        super().__init__(*args, **kwargs)

    # the schedule

    def setup_schedule(self) -> None:
        """Write the default entries and those of ``CELERYBEAT_SCHEDULE``. Called once, at start."""
        self.install_default_entries(self.schedule)
        self.update_from_dict(self.app.conf.beat_schedule)

    def install_default_entries(self, data: dict[str, Any]) -> None:
        """Write the row of the daily result cleanup if there is none; an edited or disabled one stays."""
        wanted = self.app.conf.result_expires and not self.app.backend.supports_autoexpire
        name = "celery.backend_cleanup"
        if wanted and not self.Model.objects.filter(name=name).exists():
            entry = {"task": name, "schedule": schedules.crontab("0", "4", "*"), "options": {"expires": 12 * 3600}}
            self.update_from_dict({name: entry})

    def update_from_dict(self, mapping: dict[str, Any]) -> None:
        """Create or update a row per entry of *mapping*; one that fails is logged and skipped."""
        for name, entry in mapping.items():
            try:
                self._settings_options[name] = _unstored_options(entry)
                self.Entry.from_entry(name, app=self.app, **entry)
            except ScheduleError as exc:
                logger.error("%s", exc)
            except Exception as exc:
                logger.exception(ADD_ENTRY_ERROR, name, exc, entry)
        if mapping:
            self._schedule = None

    def all_as_schedule(self) -> dict[str, ModelEntry]:
        """Return an entry per enabled row, by name. Rows that can't be run are logged and left out.

        Database: one SELECT.
        """
        entries = {}
        for model in self.Model.objects.enabled().select_related("interval", "crontab"):
            try:
                entries[model.name] = self._entry(model)
            except Exception as exc:  # noqa: BLE001 - one bad row, whatever is wrong with it, is held out alone
                self._tell(model, exc)
            else:
                self._told.pop(model.pk, None)
        return entries

    def _entry(self, model: PeriodicTask) -> ModelEntry:
        entry = self.Entry(model, app=self.app, options=self._settings_options.get(model.name))
        if model.interval_id and model.crontab_id:
            self._tell(model, f"{_row(model)} has an interval and a crontab; the interval counts. Remove one of them.")
        return entry

    def _tell(self, model: PeriodicTask, problem: Any) -> None:
        """Log *problem* of a row, once until it is another one."""
        text = str(problem)
        if self._told.get(model.pk) != text:
            self._told[model.pk] = text
            unexpected = isinstance(problem, Exception) and not isinstance(problem, ScheduleError)
            logger.error("beat: held out. %s", text, exc_info=problem if unexpected else None)

    @property
    def schedule(self) -> dict[str, ModelEntry]:
        """The entries by name, loaded on first use; ``tick()`` keeps them up to date."""
        if self._schedule is None:
            self._load()
        return self._schedule or {}

    @schedule.setter
    def schedule(self, value: dict[str, ModelEntry]) -> None:
        self._schedule = value

    def _load(self) -> None:
        is_first = not self._loaded_mono
        # The mark is read before the rows: a change in between is seen twice, never missed.
        self._last_change = self.Changes.last_change()
        self._schedule = self.all_as_schedule()
        self._loaded_mono = time.monotonic()
        self._heap = None
        if is_first:
            self._skip_old_crontabs()

    def _skip_old_crontabs(self) -> None:
        now = utils.to_utc(utils.now())
        skipped = [
            entry
            for entry in self.schedule.values()
            if isinstance(entry.schedule, schedules.crontab) and now - entry.last_run_at > CATCH_UP
        ]
        for entry in skipped:
            entry.last_run_at = now
        if skipped:
            logger.info("beat: %d crontabs last ran over a day ago; they wait for their next time.", len(skipped))

    def schedule_changed(self) -> bool:
        """Tell whether the schedule has changed since it was loaded. A database error is logged and False.

        Database: one SELECT of one row.
        """
        try:
            changed = self.Changes.last_change() != self._last_change
        except Error as exc:
            logger.error("Database gave error: %r", exc, exc_info=True)
            db.close_broken(db.connections[router.db_for_read(self.Changes)])
            return False
        return changed or time.monotonic() - self._loaded_mono > self.reload_every_s

    # the loop

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send what is due, one entry a call, and return the seconds until the next call."""
        if self._schedule is not None and time.monotonic() - self._checked_mono >= CHECK_EVERY_S:
            self._checked_mono = time.monotonic()
            if self.schedule_changed():
                logger.info("DatabaseScheduler: Schedule changed.")
                self._reload()
        return super().tick(*args, **kwargs)

    def _reload(self) -> None:
        try:
            self.sync()
            self._load()
        except Error as exc:
            logger.error("Database gave error: %r; the schedule stays as it was.", exc, exc_info=True)
            db.close_broken(db.connections[router.db_for_read(self.Model)])

    def schedules_equal(self, old: Any, new: Any) -> bool:
        """Return True: ``_load`` drops the heap when the entries are others, so nothing need be compared."""
        return True

    def reserve(self, entry: ModelEntry) -> ModelEntry:
        """Count the run of *entry* in memory and in its row, before it is sent; return its next entry."""
        new_entry = super().reserve(entry)
        self._dirty[entry.name] = self._dirty.get(entry.name, 0) + 1
        self.sync()
        return new_entry

    def sync(self) -> None:
        """Write the last runs that are not written yet. After a database error they are kept for the next time."""
        if not self._dirty or self._schedule is None:
            return
        logger.debug("Writing entries (%s)...", len(self._dirty))
        for name in sorted(self._dirty):
            try:
                if name in self._schedule:
                    self._schedule[name].save(self._dirty[name])
            except Error as exc:
                logger.error("Database error while sync: %r", exc, exc_info=True)
                db.close_broken(db.connections[router.db_for_write(self.Model)])
                return
            del self._dirty[name]

    # helpers for user code

    @classmethod
    def create_or_update_task(cls, name: str, **schedule_dict: Any) -> None:
        """Create or update the task *name*; keys that are not given stay as they are.

        Raises:
            KeyError: The task is new and there is no ``schedule``.
        """
        if "schedule" not in schedule_dict and not cls.Model.objects.filter(name=name).exists():
            raise KeyError("schedule")
        cls.Model.objects.update_or_create(name=name, defaults=cls.Entry.fields_of(**schedule_dict))

    @classmethod
    def delete_task(cls, name: str) -> None:
        """Delete the task *name*.

        Raises:
            PeriodicTask.DoesNotExist: There is none.
        """
        cls.Model.objects.get(name=name).delete()
