"""Managers of the run history and of the notes of changes.

Called by beat, by the models of the schedule, the admin and user code; no model is imported here.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.apps import apps
from django.db import router
from django.db.models import DurationField, ExpressionWrapper, F, OuterRef, Subquery

from djcelery import utils
from djcelery.managers.base import ExtendedManager, ExtendedQuerySet

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

        Runs that are claimed and not sent stay. None deletes nothing.

        Args:
            max_batches: End after so many batches; the next call goes on. None: until all are deleted.

        Database: a SELECT and a DELETE per *batch_rows* rows and outcome, each in its own transaction.
        """
        if age is None:
            return 0
        rows = self.using(router.db_for_write(self.model))
        before = utils.now() - utils.as_timedelta(age)
        deleted = batches = 0
        # One outcome at a time, so that the index on it and the instant serves.
        for outcome, _ in self.model.OUTCOMES:
            expired = rows.filter(outcome=outcome, scheduled_at__lt=before).order_by("scheduled_at")
            while max_batches is None or batches < max_batches:
                keys = list(expired.values_list("pk", flat=True)[:batch_rows])
                batches += 1 if keys else 0
                deleted += rows.filter(pk__in=keys)._raw_delete(rows.db) if keys else 0
                if len(keys) < batch_rows:
                    break
        return deleted


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
