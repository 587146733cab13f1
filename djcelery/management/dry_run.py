"""``manage.py celerybeat --dry-run``: what beat would send in the time to come, and what it would not, and why.

Called by the command. Reads the schedule as the leading beat does; writes nothing, and needs neither broker nor lease.
Next: ``docs/reference/commands.rst``.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

from celery.utils.imports import load_extension_class_names
from django.core.management.base import CommandError
from django.db import Error, router
from kombu.utils.imports import symbol_by_name

from djcelery.conf import conf
from djcelery.models import PeriodicRun
from djcelery.schedulers import DatabaseScheduler, loading, settings_entries
from djcelery.schedulers.book import Book
from djcelery.schedulers.claims import Firing
from djcelery.schedulers.dispatch import Decider
from djcelery.schedulers.entry import is_entry
from djcelery.schedulers.nexttime import StartingAt
from djcelery.schedulers.plans import Plan

#: Keys in one condition.
_KEYS = 400


def scheduler_class(name: str | None, app: Any) -> type[DatabaseScheduler]:
    """Return the class of the scheduler *name*; None is that of the settings.

    Raises:
        CommandError: There is none of that name, or it doesn't read the database.
    """
    chosen = name or app.conf.beat_scheduler
    try:
        found = symbol_by_name(chosen, dict(load_extension_class_names("celery.beat_schedulers")))
    except (ImportError, AttributeError) as exc:
        raise CommandError(f"The scheduler {chosen!r} can't be imported: {exc}") from exc
    if not (isinstance(found, type) and issubclass(found, DatabaseScheduler)):
        raise CommandError(
            f"--dry-run reads the schedule in the database; {chosen!r} keeps it elsewhere. Add -S djcelery, "
            "or set CELERYBEAT_SCHEDULER = 'djcelery.schedulers.DatabaseScheduler'."
        )
    return found


class DryRun:
    """The firings from *now* on, for *period*.

    Args:
        scheduler: Whose table of tasks is read.
        now: Aware; None is the present.
    """

    def __init__(
        self, scheduler: type[DatabaseScheduler], app: Any, period: timedelta, now: datetime | None = None
    ) -> None:
        self.app = app
        self.model = scheduler.Model
        self.alias = router.db_for_write(self.model)
        self.now = now or datetime.now(timezone.utc)
        try:
            self.until = self.now + period
        except OverflowError as exc:
            raise CommandError(f"--for: {period} from now is after the year 9999. Give a shorter time.") from exc
        self.book = Book(self.alias, self._enabled, app.timezone, {}, is_dry=True)
        self.decider = Decider(self.alias)

    def lines(self) -> Iterator[str]:
        """Yield what to print, the firings in order of time.

        Raises:
            CommandError: The database gave an error.

        Database: one SELECT of the enabled rows, one of the disabled, one of the runs, and one per 400 rows that are
            held out.
        """
        try:
            self.book.load(self.now)
            yield f"What beat sends from {_utc(self.now)} to {_utc(self.until)}, if nothing changes:"
            unsent = PeriodicRun.objects.using(self.alias).unsent().count()
            if unsent:
                yield f"{unsent} runs were claimed and are not sent yet; they go first."
            count = 0
            # Before the firings, which use the plans up.
            refused = [*self._expired(), *self._held_out(), *self._disabled(), *self._by_settings()]
            for line in self._firings():
                count += 1
                yield line
            yield f"{count} firings."
            refused = [*self._passed(), *refused]
        except Error as exc:
            raise CommandError(f"The schedule can't be read: {exc}") from exc
        if refused:
            yield "Not sent:"
            yield from refused

    # what is sent

    def _firings(self) -> Iterator[str]:
        agenda = self.book.agenda
        overdue = agenda.take_due(self.now, len(agenda.plans))
        plans = {plan.pk: plan for plan in overdue}
        fired = set()
        for firing in self.decider.decide(overdue, self.now):
            fired.add(firing.task_pk)
            yield self._line(plans[firing.task_pk], firing.scheduled_at, ["overdue, sent at once"])
        for plan in overdue:
            plan.decided(self.now - plan.delay)
            if not (plan.rules.one_off and plan.pk in fired):
                agenda.put(plan)
        while due := agenda.take_due(self.until, 1):
            plan = due[0]
            assert plan.due is not None
            notes = [f"{plan.delay.total_seconds():g} s later, by its jitter"] if plan.delay else []
            if plan.rules.no_overlap:
                notes.append("unless its run before is not done")
            yield self._line(plan, plan.due, notes)
            if not plan.rules.one_off:
                plan.decided(plan.due)
                agenda.put(plan)

    def _line(self, plan: Plan, instant: datetime, notes: list[str]) -> str:
        if plan.rules.one_off:
            notes.append("once")
        schedule = plan.schedule.schedule if isinstance(plan.schedule, StartingAt) else plan.schedule
        zone = getattr(schedule, "zone", None) or self.app.timezone
        text = f"{instant.astimezone(zone).isoformat(' ', 'seconds')} {zone}  {_utc(instant)}  {plan.name}  {plan.task}"
        return f"{text}  ({'; '.join(notes)})" if notes else text

    # what is not sent

    def _expired(self) -> Iterator[str]:
        for plan in self.book.agenda.plans.values():
            expires = plan.options.expires
            if plan.due is None and expires is not None:
                following = plan.schedule.next_after(max(plan.since, self.now - plan.delay))
                if following is not None and following <= self.until:
                    yield f"{plan.name}  {plan.task}  expired {_utc(expires)}"

    def _held_out(self) -> Iterator[str]:
        troubles = self.book.troubles
        keys = sorted(troubles)
        for start in range(0, len(keys), _KEYS):
            rows = self._enabled().filter(pk__in=keys[start : start + _KEYS]).order_by("pk")
            for pk, name, task in rows.values_list("pk", "name", "task"):
                yield f"{name}  {task}  held out: {troubles[pk]}"

    def _disabled(self) -> Iterator[str]:
        rows = self.model.objects.using(self.alias).filter(enabled=False).order_by("pk")
        for row in loading.read(rows, whole=True):
            try:
                plan = self.book.planner.plan(row, self.now)
            except Exception as exc:  # noqa: BLE001 - whatever is wrong with the row, it is disabled
                yield f"{row.name}  {getattr(row, 'task', '')}  disabled, and can't be run: {exc}"
                continue
            # To enable it would make up for nothing.
            plan.decided(self.now)
            if plan.due is not None and plan.due <= self.until:
                yield f"{plan.name}  {plan.task}  disabled (else {_utc(plan.due)})"

    def _by_settings(self) -> Iterator[str]:
        """Yield what the beat that leads next does about the entries of the settings."""
        entries = settings_entries.of_settings(self.app)
        if entries is None:
            yield "CELERYBEAT_SCHEDULE is no dictionary: beat leaves the entries of the settings as they are"
            return
        rows = settings_entries.known(self.model, list(entries))
        for name, entry in entries.items():
            if not is_entry(entry):
                yield f"{name}  its entry in the settings can't be read: beat logs an error and leaves it out"
            elif name not in rows:
                yield f"{name}  {entry.get('task', '')}  not in the table yet: beat adds it when it begins to lead"
        if conf.DJCELERY_SCHEDULE_POLICY == settings_entries.MIRROR:
            for _, name, task in settings_entries.removed(self.model, entries):
                yield f"{name}  {task}  removed from the settings: beat disables it when it begins to lead"

    def _passed(self) -> Iterator[str]:
        for why, firings in self.decider.passed.items():
            yield from (self._passed_line(firing, why) for firing in firings)

    def _passed_line(self, firing: Firing, why: str) -> str:
        plan = self.book.agenda.plans[firing.task_pk]
        return f"{plan.name}  {plan.task}  {_utc(firing.scheduled_at)} is passed over: {why}"

    def _enabled(self) -> Any:
        return self.model.objects.using(self.alias).filter(enabled=True)


def _utc(instant: datetime) -> str:
    return instant.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")
