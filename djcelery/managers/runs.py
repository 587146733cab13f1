"""Managers of the run history and of the notes of changes.

Called by beat, by the models of the schedule, the admin and user code; no model is imported here.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.apps import apps
from django.db import router
from django.db.models import Count, DurationField, Exists, ExpressionWrapper, F, Max, OuterRef, Q, Subquery

from djcelery import utils
from djcelery.managers import retention
from djcelery.managers.base import ExtendedManager, ExtendedQuerySet

#: Seconds after which a run that is not known to be done counts as lost, unless its task says otherwise.
OVERLAP_TIMEOUT_S = 24 * 3600
#: More changed rows than this at once are noted as "all".
MAX_NOTES = 100


class PeriodicRunQuerySet(ExtendedQuerySet):
    """Runs of periodic tasks."""

    def for_task(self, task: Any) -> PeriodicRunQuerySet:
        """Return the runs of *task*, a periodic task or its key, the latest first."""
        return self.filter(periodic_task_id=getattr(task, "pk", task)).order_by("-scheduled_at")

    def unsent(self) -> PeriodicRunQuerySet:
        """Return the runs that were claimed and not sent, the oldest first."""
        return self.filter(outcome=None).order_by("scheduled_at")

    def with_state(self) -> PeriodicRunQuerySet:
        """Annotate ``state``: that of the task in the result table; None if it has none there.

        Database: no query of its own.
        """
        results = apps.get_model("djcelery", "TaskMeta")._base_manager.filter(task_id=OuterRef("task_id"))
        return self.annotate(state=Subquery(results.values("status")[:1]))

    def with_lateness(self) -> PeriodicRunQuerySet:
        """Annotate ``late_by``: how long after its instant a run was sent, a timedelta; None while it isn't."""
        return self.annotate(late_by=ExpressionWrapper(F("sent_at") - F("scheduled_at"), DurationField()))


class PeriodicRunManager(ExtendedManager.from_queryset(PeriodicRunQuerySet)):  # type: ignore[misc]
    """Runs of periodic tasks, and the end of their history."""

    def delete_expired(
        self, age: timedelta | float | None, batch_rows: int = 1000, max_batches: int | None = None
    ) -> int:
        """Delete the runs whose instant is longer than *age* ago (timedelta or seconds); return how many.

        Runs that are claimed and not sent stay, and of a task with ``no_overlap`` the latest that was sent, as long
        as it may count as running. None deletes nothing.

        Args:
            max_batches: End after so many batches; the next call goes on. None: until all are deleted.

        Database: a SELECT of the tasks, and a SELECT and a DELETE per *batch_rows* rows and outcome, each in its own
            transaction.
        """
        if age is None:
            return 0
        rows, now = self.using(router.db_for_write(self.model)), utils.now()
        before = retention.before(now, age)
        needed = self._needed(rows, now)
        deleted = batches = 0
        # One outcome at a time, so that the index on it and the instant serves.
        for outcome, _ in self.model.OUTCOMES:
            expired = rows.filter(outcome=outcome, scheduled_at__lt=before).order_by("scheduled_at")
            if outcome == self.model.SENT and needed is not None:
                expired = expired.exclude(needed)
            while max_batches is None or batches < max_batches:
                keys = list(expired.values_list("pk", flat=True)[:batch_rows])
                batches += 1 if keys else 0
                deleted += rows.filter(pk__in=keys)._raw_delete(rows.db) if keys else 0
                if len(keys) < batch_rows:
                    break
        return deleted

    def _needed(self, rows: Any, now: datetime) -> Q | None:
        """Return the condition of sent runs by which beat knows that a task must not overlap; None: there are none.

        They are kept for the longest timeout of any task: one statement can't count from each task's own.
        """
        tasks = apps.get_model("djcelery", "PeriodicTask")._base_manager.using(rows.db).filter(no_overlap=True)
        # A row with more than the column should hold, as SQLite lets pass, is held out.
        longest = Max("overlap_timeout", filter=Q(overlap_timeout__lt=2**31))
        careful = tasks.aggregate(number=Count("pk"), longest_s=longest)
        if not careful["number"]:
            return None
        limit = retention.before(now, max(OVERLAP_TIMEOUT_S, careful["longest_s"] or 0))
        later = rows.filter(periodic_task_id=OuterRef("periodic_task_id"), scheduled_at__gt=OuterRef("scheduled_at"))
        # Beat asks for the latest of these.
        later = later.filter(Q(outcome=self.model.SENT) | Q(outcome=None))
        return Q(claimed_at__gt=limit) & Exists(tasks.filter(pk=OuterRef("periodic_task_id"))) & ~Exists(later)


class ScheduleChangeManager(ExtendedManager):
    """Notes of changes."""

    def note(self, kind: str, keys: Iterable[int | None], using: str) -> None:
        """Note that the rows *keys* of *kind* have changed; more than ``MAX_NOTES``, or an unknown key, as "all".

        Must run in the transaction of the change.

        Database: one INSERT; none if there are no *keys*.
        """
        found = list(dict.fromkeys(keys))
        if not found:
            return
        if len(found) > MAX_NOTES or None in found or kind == self.model.ALL:
            kind, found = self.model.ALL, [None]
        now = utils.now()
        notes = [self.model(kind=kind, key=key, created=now) for key in found]
        self.using(using).bulk_create(notes)
