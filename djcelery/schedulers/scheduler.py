"""The loop that beat calls: it keeps the entries up to date and sends what is due.

Reads the enabled rows, again whenever the schedule has changed. One bad row is held out and
logged; the rest runs.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from typing import Any

from celery import schedules
from celery.beat import Scheduler
from django.db import Error, router

from djcelery import db, utils
from djcelery.exceptions import ScheduleError
from djcelery.models import PeriodicTask, PeriodicTasks
from djcelery.schedulers.entry import DEFAULT_MAX_INTERVAL, ModelEntry, row_name, unstored_options

logger = logging.getLogger(__name__)

ADD_ENTRY_ERROR = "Couldn't add entry %r to database schedule: %r. Contents: %r"

#: Look for changes no more often than this, in seconds, however many entries are due.
CHECK_EVERY_S = 1.0
#: A crontab that was missed longer ago than this is not caught up with when beat starts.
CATCH_UP = timedelta(days=1)


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
        self._is_ticking = False
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
                self._settings_options[name] = unstored_options(entry)
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
            problem = "has an interval and a crontab; the interval counts. Remove one of them."
            self._tell(model, f"{row_name(model)} {problem}")
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
        self._is_ticking = True
        try:
            return super().tick(*args, **kwargs)
        finally:
            self._is_ticking = False

    def close(self) -> None:
        """Write what is not written yet and close the connection to the broker.

        Celery calls it from its handler of SIGTERM, too, which may interrupt a tick that is writing to
        the broker or the database and holds their locks: to use them then would wait for ever. Beat
        leaves the tick and closes again at once, so the first call does nothing.
        """
        if not self._is_ticking:
            super().close()

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
