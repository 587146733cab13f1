"""What people's code calls and overrides of the scheduler, beside its tick: entries by name, as rows and objects.

Base of ``DatabaseScheduler``; the tick itself uses none of the objects made here. Writes rows only when asked to,
and when beat leads: the entries of the settings.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from celery import schedules
from celery.beat import Scheduler
from django.db import Error, connections, router

from djcelery import db
from djcelery.conf import conf
from djcelery.exceptions import ScheduleError
from djcelery.models import PeriodicTask, PeriodicTasks
from djcelery.schedulers import settings_entries, unreadable
from djcelery.schedulers.entry import DEFAULT_MAX_INTERVAL, ModelEntry, row_name

logger = logging.getLogger(__name__)

ADD_ENTRY_ERROR = settings_entries.ADD_ENTRY_ERROR
#: What subclasses for django-celery may have of their own, and the tick doesn't ask.
UNASKED = frozenset({"all_as_schedule", "get_schedule", "is_due", "maybe_due", "reserve", "schedule", "should_sync"})
UNASKED_OF_ENTRIES = frozenset({"__next__", "_default_now", "default_now", "is_due", "next", "save"})
TIMES = ("interval", "crontab", "solar", "clocked")


class Entries(Mapping[str, ModelEntry]):
    """The enabled entries by name; each is made from its row when it is asked for."""

    def __init__(self, scheduler: EntriesScheduler) -> None:
        self._scheduler = scheduler

    def __getitem__(self, name: str) -> ModelEntry:
        found = self._scheduler._entries(name=name)
        if name not in found:
            raise KeyError(name)
        return found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._scheduler.all_as_schedule())

    def __len__(self) -> int:
        return len(self._scheduler.all_as_schedule())

    def values(self) -> Any:
        """Return the entries. Database: one SELECT."""
        return self._scheduler.all_as_schedule().values()

    def items(self) -> Any:
        """Return names and entries. Database: one SELECT."""
        return self._scheduler.all_as_schedule().items()


class EntriesScheduler(Scheduler):
    """The schedule as entries. The class attributes are override points."""

    Entry = ModelEntry
    Model = PeriodicTask
    Changes = PeriodicTasks
    max_interval = DEFAULT_MAX_INTERVAL

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Runs that are not written yet, by the name of their entry: of code that calls reserve() itself.
        self._dirty: dict[str, list[Any]] = {}
        self._last_change: Any = None
        self._settings_options: dict[str, dict[str, Any]] = {}
        self._told: dict[Any, str] = {}
        for own, base, names in ((type(self), EntriesScheduler, UNASKED), (self.Entry, ModelEntry, UNASKED_OF_ENTRIES)):
            _tell_unasked(own, base, names)
        super().__init__(*args, **kwargs)

    # entries from the settings

    def setup_schedule(self) -> None:
        """Write the default entries and those of ``CELERYBEAT_SCHEDULE``. Called when this beat begins to lead."""
        self.install_default_entries(self.schedule)
        entries = settings_entries.of_settings(self.app)
        if entries is None:
            wrong = self.app.conf.beat_schedule
            logger.error("beat: CELERYBEAT_SCHEDULE is no dictionary: %r. Its entries stay as they are.", wrong)
            return
        self.update_from_dict(entries)
        if conf.DJCELERY_SCHEDULE_POLICY == settings_entries.MIRROR:
            settings_entries.disable_removed(self.Model, set(entries))

    def install_default_entries(self, data: Mapping[str, Any]) -> None:
        """Write the row of the daily result cleanup if there is none; an edited or disabled one stays."""
        expires = self.app.conf.result_expires or any(rule.age for rule in conf.DJCELERY_RETENTION)
        wanted = expires and not self.app.backend.supports_autoexpire
        name = "celery.backend_cleanup"
        rows = self.Model.objects.using(router.db_for_write(self.Model))
        if wanted and not rows.filter(name=name).exists():
            entry = {"task": name, "schedule": schedules.crontab("0", "4", "*"), "options": {"expires": 12 * 3600}}
            settings_entries.install({name: entry}, self.Entry, self.Model, self.app, policy=None)

    def update_from_dict(self, mapping: Mapping[str, Any]) -> None:
        """Create or update a row per entry of *mapping* by ``DJCELERY_SCHEDULE_POLICY``; one that fails is logged."""
        options = settings_entries.install(
            mapping, self.Entry, self.Model, self.app, policy=conf.DJCELERY_SCHEDULE_POLICY
        )
        self._settings_options.update(options)

    # entries by name

    def all_as_schedule(self) -> dict[str, ModelEntry]:
        """Return an entry per enabled row, by name. Rows that can't be run are logged and left out.

        Database: one SELECT.
        """
        return self._entries()

    def _entries(self, **conditions: Any) -> dict[str, ModelEntry]:
        entries = {}
        for model in self._models(conditions):
            try:
                options = self._settings_options.get(model.name)
                entries[model.name] = self.Entry(model, app=self.app, options=options)
            except Exception as exc:  # noqa: BLE001 - one bad row, whatever is wrong with it, is held out alone
                self._tell(model, exc)
            else:
                self._told.pop(model.pk, None)
        return entries

    def _models(self, conditions: dict[str, Any]) -> Iterator[PeriodicTask]:
        rows = self.Model.objects.enabled().filter(**conditions).select_related(*TIMES)
        try:
            yield from list(rows)
            return
        except unreadable.ERRORS as exc:
            logger.debug("beat: a row can't be read (%r); looking for it.", exc)
        names = dict(rows.values_list("pk", "name"))
        for one in unreadable.by_halves(list(names), lambda part: list(rows.filter(pk__in=part))):
            if isinstance(one, unreadable.Failure):
                problem = ScheduleError(f"a value of its row can't be read ({one.problem}).")
                self._tell(self.Model(pk=one.key, name=names[one.key]), problem)
            else:
                yield one

    def _tell(self, model: PeriodicTask, problem: Exception) -> None:
        """Log *problem* of a row, once until it is another one."""
        text = str(problem)
        if self._told.get(model.pk) != text:
            self._told[model.pk] = text
            unexpected = not isinstance(problem, ScheduleError)
            logger.error(
                "beat: left out. %s",
                text if row_name(model) in text else f"{row_name(model)}: {text}",
                exc_info=problem if unexpected else None,
            )

    @property
    def schedule(self) -> Mapping[str, ModelEntry]:
        """The enabled entries by name. Database: a SELECT for each look."""
        return Entries(self)

    @schedule.setter
    def schedule(self, value: Any) -> None:
        raise AttributeError("The schedule is the table of periodic tasks: change its rows.")

    def get_schedule(self) -> Mapping[str, ModelEntry]:
        """Return ``schedule``; its name in django-celery 2."""
        return self.schedule

    def schedule_changed(self) -> bool:
        """Tell whether the schedule has changed since the last call; the first call is False.

        The tick doesn't ask: it reads the notes of what has changed. If a subclass says True, it reads all
        rows again. A database error is logged and False.

        Database: one SELECT.
        """
        try:
            change = self.Changes.last_change()
        except Error as exc:
            logger.error("Database gave error: %r", exc, exc_info=True)
            db.close_broken(connections[router.db_for_read(self.Changes)])
            return False
        last, self._last_change = self._last_change, change
        return last is not None and change is not None and change != last

    def reserve(self, entry: ModelEntry) -> ModelEntry:
        """Count a run of *entry* and return its next entry; ``sync()`` writes it. The tick doesn't call it."""
        new_entry = next(entry)
        self._dirty.setdefault(entry.name, []).append(new_entry)
        return new_entry

    def sync(self) -> None:
        """Write the runs that ``reserve()`` counted. After a database error they are kept for the next time."""
        for name in sorted(self._dirty):
            try:
                self._dirty[name][-1].save(len(self._dirty[name]))
            except Error as exc:
                logger.error("Database error while sync: %r", exc, exc_info=True)
                db.close_broken(connections[router.db_for_write(self.Model)])
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


def _tell_unasked(own: type, base: type, names: frozenset[str]) -> None:
    """Log which of *names* the class *own* has beside those of *base*."""
    kinds = own.__mro__[: own.__mro__.index(base)] if issubclass(own, base) else ()
    found = sorted(name for name in names if any(name in vars(kind) for kind in kinds))
    if found:
        logger.warning(
            "beat: %s has its own %s, which is not asked when entries are due. See docs/compatibility.rst.",
            own.__qualname__,
            " and ".join(f"{name}()" for name in found),
        )
