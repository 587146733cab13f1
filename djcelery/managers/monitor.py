"""Managers of the monitor tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from django.db import models

from djcelery import utils
from djcelery.managers.base import ExtendedManager


class TaskStateManager(ExtendedManager):
    """What the camera saw of tasks, one row per task id."""

    def active(self) -> models.QuerySet:
        """Return the rows that are not hidden."""
        return self.filter(hidden=False)

    def expired(
        self, states: Iterable[str], expires: timedelta | float, nowfun: Callable[[], Any] = utils.now
    ) -> models.QuerySet:
        """Return the rows in *states* whose last event is older than *expires* (timedelta or seconds)."""
        return self.filter(state__in=states, tstamp__lte=nowfun() - utils.as_timedelta(expires))

    def expire_by_states(self, states: Iterable[str], expires: timedelta | float | None) -> int | None:
        """Hide the rows in *states* older than *expires*; return how many, or None if *expires* is None.

        Hidden rows stay in the table until ``purge()``.
        """
        if expires is None:
            return None
        return self.expired(states, expires).update(hidden=True)

    def purge(self) -> None:
        """Delete the hidden rows."""
        self.filter(hidden=True).delete()
