"""Managers of the schedule tables: each change made through them leaves a note for beat.

Called by people's code, the admin and beat; no model is imported here. The notes are written by
``note_changes`` of the model, in the transaction of the change.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from django.apps import apps
from django.db import models, transaction
from django.db.models import Case, F, OuterRef, Subquery, Value, When

from djcelery import utils
from djcelery.managers.base import ExtendedManager, ExtendedQuerySet
from djcelery.managers.runs import MAX_NOTES


class NotedQuerySet(ExtendedQuerySet):
    """Rows of the schedule; changes made through it reach a running beat."""

    _is_quiet = False

    def without_notes(self) -> NotedQuerySet:
        """Return the same rows; what is changed through them is neither noted nor stamped. For beat itself."""
        quiet = self._chain()
        quiet._is_quiet = True
        return quiet

    def _clone(self) -> Any:
        clone = super()._clone()  # type: ignore[misc]
        clone._is_quiet = self._is_quiet
        return clone

    def update(self, **kwargs: Any) -> int:
        """Update as Django does, and leave a note per row, or one for all of many.

        Columns of the definition move the instant from which the rows count; see ``stamp_field`` of the model.

        Database: SELECT of up to 101 keys, UPDATE, INSERT of the notes, in one transaction. Columns that
            beat keeps for itself are updated by one UPDATE and leave no note.
        """
        columns = {self._column(name) for name in kwargs}
        if self._is_quiet or columns <= self.model.bookkeeping:
            return super().update(**kwargs)
        stamps = self._stamps(columns, kwargs)
        with transaction.atomic(using=self._writer(), savepoint=False):
            keys, rows = self._keys_and_rows()
            changed = models.QuerySet.update(rows, **stamps, **kwargs)
            if changed:
                self.model.note_changes(keys, using=rows.db)
        return changed

    def bulk_create(self, objs: Iterable[Any], *args: Any, **kwargs: Any) -> list[Any]:
        """Create as Django does, and leave a note per row, or one for all of many (or of unknown key)."""
        rows = list(objs)
        if self._is_quiet:
            return super().bulk_create(rows, *args, **kwargs)
        for row in rows:
            row.stamp(is_new=True)
        updated = kwargs.get("update_fields") or ()
        if self.model.definition & {self._column(name) for name in updated}:
            kwargs["update_fields"] = list(dict.fromkeys([*updated, self.model.stamp_field]))
        # Nothing uses a row of a schedule yet that is only now made.
        is_noted = self.model.is_noted_when_new or bool(kwargs.get("update_conflicts"))
        with transaction.atomic(using=self._writer(), savepoint=False):
            created = super().bulk_create(rows, *args, **kwargs)
            if is_noted:
                self.model.note_changes([row.pk for row in created], using=self.db)
        for row in created:
            row.remember()
        return created

    def bulk_update(self, objs: Iterable[Any], fields: Iterable[str], batch_size: int | None = None) -> int:
        """Update as Django does; notes and stamps are those of ``update()``, a stamp only for what has changed."""
        rows, names = list(objs), list(fields)
        if not self._is_quiet and self.model.definition & {self._column(name) for name in names}:
            for row in rows:
                row.stamp(is_new=False)
            names = [*names, self.model.stamp_field] if self.model.stamp_field not in names else names
        updated = super().bulk_update(rows, names, batch_size)
        for row in rows:
            row.remember(self._column(name) for name in names)
        return updated

    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete as Django does, and leave a note per row, or one for all of many."""
        if self._is_quiet or self._fields is not None:
            return super().delete()
        with transaction.atomic(using=self._writer()):
            keys, rows = self._keys_and_rows()
            deleted = models.QuerySet.delete(rows)
            self.model.note_changes(keys, using=rows.db)
        self._result_cache = None
        return deleted

    delete.queryset_only = True  # type: ignore[attr-defined]

    def _writer(self) -> str:
        self._for_write = True
        return self.db

    def _column(self, name: str) -> str:
        return "pk" if name == "pk" else self.model._meta.get_field(name).attname

    def _keys_and_rows(self) -> tuple[list[int | None], NotedQuerySet]:
        """Return the keys of the rows to note, and the queryset that holds no row but those."""
        if self.query.is_sliced or self.query.combinator or self.query.distinct_fields:
            # Django refuses to change those, in its own words.
            return [], self._chain()
        keys = list(self.using(self.db).order_by().values_list("pk", flat=True)[: MAX_NOTES + 1])
        if len(keys) > MAX_NOTES:
            return [None], self._chain()
        # A row that another transaction adds in between would have no note.
        return list(keys), self.filter(pk__in=keys)

    def _stamps(self, columns: Collection[str], values: dict[str, Any]) -> dict[str, Any]:
        """Return what to set beside *values*, first: MySQL assigns from left to right."""
        field, moving = self.model.stamp_field, self.model.definition & set(columns)
        if not moving or field in columns:
            return {}
        if moving == {"enabled"} and isinstance(values["enabled"], (bool, int)):
            if not values["enabled"]:
                return {}
            return {field: Case(When(enabled=False, then=Value(utils.now())), default=F(field))}
        return {field: utils.now()}


class NotedManager(ExtendedManager.from_queryset(NotedQuerySet)):  # type: ignore[misc]
    """Rows of the schedule."""


class PeriodicTaskQuerySet(NotedQuerySet):
    """Periodic tasks; changes made through it reach a running beat."""

    def enabled(self) -> models.QuerySet:
        """Return the tasks that are switched on."""
        return self.filter(enabled=True)

    def with_last_run(self) -> PeriodicTaskQuerySet:
        """Annotate what is known of the last run that was sent.

        ``last_scheduled_at``, ``last_sent_at``, ``last_task_id``, ``last_late_by`` (a timedelta) and
        ``last_state`` (of the result table); None where nothing is known.

        Database: no query of its own.
        """
        runs = apps.get_model("djcelery", "PeriodicRun").objects.with_lateness()
        sent = runs.filter(periodic_task_id=OuterRef("pk"), outcome="sent").order_by("-scheduled_at")
        columns = ("scheduled_at", "sent_at", "task_id", "late_by")
        found = self.annotate(**{f"last_{name}": Subquery(sent.values(name)[:1]) for name in columns})
        results = apps.get_model("djcelery", "TaskMeta")._base_manager.filter(task_id=OuterRef("last_task_id"))
        return found.annotate(last_state=Subquery(results.values("status")[:1]))

    def with_latest_run(self) -> PeriodicTaskQuerySet:
        """Annotate ``latest_at`` and ``latest_outcome``: of the latest run, whatever became of it.

        ``PeriodicTask.overdue_since()`` reads them. Both are None if there is none; ``latest_outcome`` alone is, if the
        run is claimed and not sent.

        Database: no query of its own.
        """
        runs = apps.get_model("djcelery", "PeriodicRun").objects.filter(periodic_task_id=OuterRef("pk"))
        latest = runs.order_by("-scheduled_at")
        columns = {"latest_at": "scheduled_at", "latest_outcome": "outcome"}
        return self.annotate(**{name: Subquery(latest.values(column)[:1]) for name, column in columns.items()})


class PeriodicTaskManager(ExtendedManager.from_queryset(PeriodicTaskQuerySet)):  # type: ignore[misc]
    """Periodic tasks, by their unique name."""

    def get_by_natural_key(self, name: str) -> Any:
        """Return the task *name*.

        Raises:
            PeriodicTask.DoesNotExist: There is none.
        """
        return self.get(name=name)
