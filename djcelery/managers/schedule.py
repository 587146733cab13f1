"""Managers of the schedule tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import models

from djcelery.managers.base import ExtendedManager, ExtendedQuerySet


class PeriodicTaskQuerySet(ExtendedQuerySet):
    """Periodic tasks; changes made through it reach a running beat."""

    def enabled(self) -> models.QuerySet:
        """Return the tasks that are switched on."""
        return self.filter(enabled=True)

    def update(self, **kwargs: Any) -> int:
        """Update as Django does, and tell a running beat."""
        rows = super().update(**kwargs)
        if rows:
            self.model.notify_changed(using=self.db)
        return rows

    def bulk_create(self, objs: Iterable[Any], *args: Any, **kwargs: Any) -> list[Any]:
        """Create as Django does, and tell a running beat."""
        created = super().bulk_create(objs, *args, **kwargs)
        if created:
            self.model.notify_changed(using=self.db)
        return created


class PeriodicTaskManager(ExtendedManager.from_queryset(PeriodicTaskQuerySet)):  # type: ignore[misc]
    """Periodic tasks, by their unique name."""

    def get_by_natural_key(self, name: str) -> Any:
        """Return the task *name*.

        Raises:
            PeriodicTask.DoesNotExist: There is none.
        """
        return self.get(name=name)
