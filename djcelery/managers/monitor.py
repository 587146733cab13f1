"""Managers of the monitor tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from celery import states
from django.db import models, router

from djcelery import utils
from djcelery.managers import retention
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
        return self.filter(state__in=states, tstamp__lte=retention.before(nowfun(), expires))

    def expire_by_states(self, states: Iterable[str], expires: timedelta | float | None) -> int | None:
        """Hide the rows in *states* older than *expires*; return how many, or None if *expires* is None.

        Hidden rows stay in the table until ``purge()``.
        """
        if expires is None:
            return None
        return self.expired(states, expires).update(hidden=True)

    def purge(self, batch_rows: int = 5000) -> int:
        """Delete the hidden rows, and return how many they were; no signals are sent.

        Database: a SELECT and a DELETE per *batch_rows* rows, each in its own transaction; on the alias for writing.
        """
        return sum(self.purging(batch_rows))

    def purging(self, batch_rows: int = 5000) -> Iterator[int]:
        """Delete the hidden rows batch by batch, and yield how many each time."""
        # "hidden = true" becomes "WHERE hidden", for which MariaDB and SQLite use no index.
        hidden = self.using(router.db_for_write(self.model)).filter(hidden__in=[True])
        yield from retention.delete_along(hidden, "pk", batch_rows)

    def expiring(
        self,
        ages: Mapping[frozenset[str], timedelta | float | None],
        now: datetime | None = None,
        batch_rows: int = 5000,
    ) -> Iterator[int]:
        """Delete the rows that are older than *ages* say, by their states; yield how many each time.

        Args:
            ages: By groups of states; None is for ever, and of two groups with one state the younger age counts. A
                lost task goes with those that failed, a state that no group has with those that have started.
            now: Aware or naive as ``USE_TZ`` says; None is the present.

        Database: a SELECT per distinct state; a SELECT and a DELETE per *batch_rows* rows, each in its own transaction.
        """
        rows, now = self.using(router.db_for_write(self.model)), now or utils.now()
        for state in retention.distinct(rows, "state"):
            age = _age(ages, state)
            # No age at all is at once.
            limit = now if age == timedelta(0) else retention.cutoff(now, age)
            if limit is not None:
                yield from retention.delete_along(rows.filter(state=state, tstamp__lt=limit), "tstamp", batch_rows)


def _age(ages: Mapping[frozenset[str], timedelta | float | None], state: str) -> timedelta | None:
    """Return the age of rows in *state*; None is for ever."""
    if not any(state in group for group in ages):
        state = states.FAILURE if state == "LOST" else states.STARTED
    found = [utils.as_timedelta(age) for group, age in ages.items() if state in group and age is not None]
    return min(found) if found else None


class WorkerStateManager(ExtendedManager):
    """What the camera saw of workers, one row per hostname."""
