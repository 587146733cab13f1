"""The schedule as the leading beat knows it, and how it follows the database.

Called by ``scheduler``: ``load()`` once, then ``follow()`` with what has changed and ``step()`` until all of that
is read again, a slice at a time, so that nothing due has to wait. Writes ``last_error`` of the rows, and
``scheduled_from`` of rows that django-celery left behind.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

import gc
import logging
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import Error
from django.db.models import Case, Q, QuerySet, TextField, Value, When

from djcelery import db, utils
from djcelery.exceptions import ScheduleError
from djcelery.models import PeriodicRun
from djcelery.schedulers import changes, loading, statements
from djcelery.schedulers.nexttime import DAY, Interval
from djcelery.schedulers.plans import Agenda, Plan

logger = logging.getLogger(__name__)

#: Rows that one step reads; about 30 ms.
SLICE_ROWS = 1000
#: While all rows are read, the lease is looked after once in so many.
KEEP_ROWS = 1000
#: Rows per statement that writes errors.
ERROR_ROWS = 400


@dataclass
class _Request:
    """Rows that are to be read again: those whose *column* is one of *keys*; None: all."""

    column: str
    keys: list[int] | None
    mark: datetime
    after: int = -(2**63)
    #: Of a request for all rows: what was known when it began.
    known: Any = None


class Book:
    """The plans of all enabled rows, what was held out, and what is still to be read again.

    Args:
        tasks: Makes a new queryset of the enabled rows.
        zone: The zone of crontabs that name none.
        troubles: What is wrong with which task, as it was logged; kept by whoever makes books.
        is_dry: Write nothing to the database, and log nothing.
    """

    def __init__(
        self, alias: str, tasks: Callable[[], QuerySet], zone: Any, troubles: dict[int, str], is_dry: bool = False
    ) -> None:
        self.alias = alias
        self.is_dry = is_dry
        self.tasks = tasks
        self.planner = loading.Planner(zone)
        self.agenda = Agenda()
        self.digests = changes.Digests()
        self.troubles = troubles
        self._errors: dict[int, str | None] = {}
        self._requests: deque[_Request] = deque()

    # everything at once

    def load(self, now: datetime, keep_lease: Callable[[], None] = lambda: None) -> None:
        """Read all enabled rows.

        Args:
            keep_lease: Called now and then: to read very many rows may take longer than the lease lasts.

        Database: one SELECT; two statements more where rows of django-celery are found, one if ``is_dry``.
        """
        digests: dict[int, int] = {}
        plans: list[Plan] = []
        adopted: list[Plan] = []
        with _without_gc():
            for number, row in enumerate(loading.read(self.tasks(), whole=True), start=1):
                # A row that can't be read has cost many statements.
                if number % KEEP_ROWS == 0 or isinstance(row, loading.Unreadable):
                    keep_lease()
                digests[row.pk] = loading.digest(row)
                if (plan := self._plan(row, now)) is not None:
                    plans.append(plan)
                    if loading.adopted_before(row, now - DAY):
                        adopted.append(plan)
            if adopted and not PeriodicRun.objects.using(self.alias).exists():
                self._adopt(adopted, now)
            self.digests = changes.Digests(digests)
            self.agenda = Agenda(plans)

    def _adopt(self, plans: list[Plan], now: datetime) -> None:
        """Have rows whose last run is long ago make up for nothing, but intervals for one run."""
        waiting = overdue = 0
        for plan in plans:
            if not isinstance(plan.schedule, Interval):
                plan.decided(now)
                waiting += 1
            elif plan.due is not None and plan.due <= now:
                period = plan.schedule.period
                plan.schedule, plan.since = Interval(period, now - period), now - period
                plan.decided(plan.since)
                overdue += 1
        if self.is_dry:
            return
        if waiting:
            long_ago, present = utils.correct_awareness(now - DAY), utils.correct_awareness(now)
            base_is_old = Q(last_run_at__lt=long_ago) | Q(last_run_at=None, date_changed__lt=long_ago)
            rows = self.tasks().filter(base_is_old, scheduled_from=None, interval=None)
            rows.without_notes().update(scheduled_from=present)
        if waiting or overdue:
            logger.info(
                "beat: the first start on this database. Of tasks that last ran over a day ago, %d wait for their next "
                "time, and %d intervals that are overdue are sent once.",
                waiting,
                overdue,
            )

    # what has changed

    @property
    def is_behind(self) -> bool:
        """Whether rows are still to be read again."""
        return bool(self._requests)

    def follow(self, seen: changes.Seen, mark: datetime) -> None:
        """Have the rows read again that *seen* names. What a change makes due before *mark* doesn't count."""
        if seen.everything:
            self.read_again(None, mark)
            return
        self.read_again(seen.tasks, mark)
        for kind in ("interval", "crontab", "solar", "clocked"):
            if keys := getattr(seen, f"{kind}s"):
                self._requests.append(_Request(f"{kind}_id", sorted(keys), mark))

    def read_again(self, keys: Iterable[int] | None, mark: datetime) -> None:
        """Have the rows *keys* read again; None: all."""
        if keys is None:
            self._requests.clear()
            self._requests.append(_Request("pk", None, mark))
        elif found := sorted(keys):
            self._requests.extend(
                _Request("pk", found[start : start + SLICE_ROWS], mark) for start in range(0, len(found), SLICE_ROWS)
            )

    def step(self, now: datetime) -> int:
        """Read a slice of what is to be read again, and take over what has changed; return how many rows have.

        Database: one SELECT, and what ``write_errors()`` needs.
        """
        request = self._requests[0]
        rows = self._read(request)
        is_last = len(rows) < SLICE_ROWS or (request.column == "pk" and request.keys is not None)
        changed = sum(self._take(row, request.mark, now) for row in rows)
        changed += sum(self.remove(pk) for pk in self._gone(request, rows, is_last))
        if is_last:
            self._requests.popleft()
        else:
            request.after = rows[-1].pk
        self.write_errors()
        return changed

    def _read(self, request: _Request) -> list[Any]:
        if request.keys is None and request.known is None:
            request.known = array("q", self.digests)

        def work(connection: Any, is_retry: bool) -> list[Any]:
            if request.column == "pk" and request.keys is not None:
                return list(loading.read(self.tasks().filter(pk__in=request.keys)))
            rows = self.tasks().filter(pk__gt=request.after).order_by("pk")
            if request.keys is not None:
                rows = rows.filter(**{f"{request.column}__in": request.keys})
            return list(loading.read(rows[:SLICE_ROWS]))

        return statements.attempt(self.alias, work, lambda: True)

    def _gone(self, request: _Request, rows: list[Any], is_last: bool) -> Iterable[int]:
        """Return the keys that should be among *rows* and are not: deleted or disabled."""
        if request.column != "pk":
            return ()
        wanted: Any = request.keys
        if wanted is None:
            start = bisect_right(request.known, request.after)
            end = len(request.known) if is_last else bisect_right(request.known, rows[-1].pk)
            wanted = request.known[start:end]
        found = {row.pk for row in rows}
        return [pk for pk in wanted if pk not in found]

    def _take(self, row: Any, mark: datetime, now: datetime) -> bool:
        """Plan *row* anew if it differs from what is known; tell whether it does."""
        value = loading.digest(row)
        if self.digests.get(row.pk) == value:
            return False
        before = self.agenda.plans.get(row.pk)
        self.digests[row.pk] = value
        plan = self._plan(row, now)
        if plan is None:
            self.agenda.remove(row.pk)
            return True
        if before is None or not plan.carry_on(before, loading.is_adrift(row)):
            # To enable or to edit never fires what was due before.
            plan.decided(mark)
        logger.debug("beat: %s is due %s", plan.name, plan.due)
        self.agenda.put(plan)
        return True

    def remove(self, pk: int) -> bool:
        """Forget task *pk*, which is gone or disabled; tell whether it was known."""
        self.agenda.remove(pk)
        self.troubles.pop(pk, None)
        return self.digests.pop(pk, None) is not None

    def plans_of(self, keys: Iterable[int], now: datetime) -> dict[int, tuple[Plan | None, bool]]:
        """Return, of tasks that have no plan here, one that is good for sending, and whether the row is enabled.

        The plan is None if the row can't be run; deleted rows are missing. Database: one SELECT.
        """
        model = self.tasks().model
        rows = loading.read(model._base_manager.using(self.alias).filter(pk__in=list(keys)))
        return {row.pk: (self._plan(row, now), row.enabled) for row in rows}

    # rows that can't be run

    def _plan(self, row: Any, now: datetime) -> Plan | None:
        try:
            plan = self.planner.plan(row, now)
        except Exception as exc:  # noqa: BLE001 - one bad row, whatever is wrong with it, is held out alone
            self.tell(row.pk, row.name, exc, stored=row.last_error)
            return None
        self.mended(row.pk, stored=row.last_error)
        return plan

    def tell(self, pk: int, name: str, problem: Exception, stored: str | None = None, what: str = "held out") -> None:
        """Log the problem of a task, once until it is another one, and have it written to its row."""
        is_known = isinstance(problem, ScheduleError)
        text = db.storable(str(problem) if is_known else f"{type(problem).__name__}: {problem}")
        if stored != text and not self.is_dry:
            self._errors[pk] = text
        is_new = self.troubles.get(pk) != text
        self.troubles[pk] = text
        if is_new and not self.is_dry:
            logger.error(
                "beat: %s. Periodic task %s %r: %s", what, pk, name, text, exc_info=None if is_known else problem
            )

    def mended(self, pk: int, stored: str | None = None) -> None:
        """Forget the problem of a task, and have it cleared in its row."""
        if (stored is not None or self.troubles.pop(pk, None) is not None) and not self.is_dry:
            self._errors[pk] = None

    def write_errors(self) -> None:
        """Write the errors that have changed. An error of the database keeps them for the next time.

        Database: one UPDATE per 400 rows, none if nothing has changed.
        """
        while self._errors:
            part = dict(list(self._errors.items())[:ERROR_ROWS])
            by_text: dict[str | None, list[int]] = {}
            for pk, text in part.items():
                by_text.setdefault(text, []).append(pk)
            cases = [When(pk__in=keys, then=Value(text)) for text, keys in by_text.items()]
            value = Case(*cases, output_field=TextField()) if len(cases) > 1 else Value(next(iter(by_text)))
            rows = self.tasks().model._base_manager.using(self.alias).filter(pk__in=list(part))
            try:
                rows.without_notes().update(last_error=value)
            except Error as exc:
                logger.warning("beat: can't write why tasks are held out: %s", exc)
                return
            for pk in part:
                self._errors.pop(pk, None)


@contextmanager
def _without_gc() -> Any:
    """Collect no garbage inside: a hundred thousand new objects would be looked through again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
