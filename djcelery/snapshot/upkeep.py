"""What the camera does beside writing: marks tasks lost whose worker is gone, and deletes what is too old.

Called by ``program`` between shutters, which therefore get their turn: each step does a bounded part. ``camera`` calls
``clean_up`` once an hour.
Next: ``docs/explain/life-of-a-task-event.rst``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from celery import states
from django.db import Error, connections, router, transaction
from django.db.models import Exists, F, OuterRef, Q

from djcelery import db, utils
from djcelery.conf import conf
from djcelery.managers.retention import cutoff, delete_along
from djcelery.snapshot.history import add_to_history
from djcelery.snapshot.merging import LOST, Increment
from djcelery.snapshot.statements import Instants, pass_gate
from djcelery.snapshot.tally import HOUR, MINUTE, Tallies

logger = logging.getLogger(__name__)

#: Between two looks for lost tasks, and two cleanings; the first of each comes a minute after the start.
LOST_EVERY, CLEAN_EVERY = timedelta(minutes=1), timedelta(hours=1)
#: Seconds of one step.
STEP_S = 0.5
#: Rows per transaction.
BATCH_ROWS = 1000

Ages = Mapping[frozenset[str], timedelta | float | None]


def expire_states() -> dict[frozenset[str], timedelta | None]:
    """Return the ages after which rows of tasks are deleted, by their states; None keeps them."""
    return {
        frozenset({states.SUCCESS}): conf.CELERYCAM_EXPIRE_SUCCESS,
        frozenset(states.EXCEPTION_STATES): conf.CELERYCAM_EXPIRE_ERROR,
        frozenset(states.UNREADY_STATES): conf.CELERYCAM_EXPIRE_PENDING,
    }


class Upkeep:
    """Does what is due.

    Args:
        now: When it was made, aware or naive as ``USE_TZ`` says; None: the present.
        task_model, worker_model: As the ``Writer`` has them.
    """

    def __init__(self, now: datetime | None = None, *, task_model: Any = None, worker_model: Any = None) -> None:
        # Models are there only after Django's setup, and this module may be imported before.
        from djcelery import models

        self._models = models
        self.task_model, self.worker_model = task_model or models.TaskState, worker_model or models.WorkerState
        self.alias = router.db_for_write(self.task_model)
        self._quiet_since = now or utils.now()
        self._lost_at = self._clean_at = self._quiet_since + LOST_EVERY
        self._cleaning: Iterator[int] | None = None

    def step(self, now: datetime | None = None) -> None:
        """Do what is due at *now* (None: the present). Logs what fails, and never raises a database error."""
        now = now or utils.now()
        self.step_lost(now)
        if now >= self._clean_at or self._clean_at > now + CLEAN_EVERY:
            self._clean_at = now + CLEAN_EVERY
            self._cleaning = self.cleaning(expire_states(), now)
        if self._cleaning is not None:
            self._guarded(self._clean_a_part, "delete what is too old")

    def step_lost(self, now: datetime | None = None) -> None:
        """Mark lost tasks if it is time, as ``step`` does."""
        now = now or utils.now()
        if now >= self._lost_at or self._lost_at > now + LOST_EVERY:
            self._lost_at = now + LOST_EVERY
            self._guarded(lambda: self.mark_lost(now), "mark lost tasks")

    def note_gap(self, now: datetime | None = None) -> None:
        """Note that events were held up until *now*: ``DJCELERY_LOST_AFTER`` begins anew for all tasks.

        To be called when the broker or the database was away: what was held up makes workers look silent.
        """
        self._quiet_since = now or utils.now()

    def _guarded(self, work: Callable[[], Any], what: str) -> None:
        try:
            work()
        except Error as exc:
            logger.error("The camera could not %s, and tries again later: %s", what, exc)
            db.close_broken(connections[self.alias])
            self._cleaning = None

    def _clean_a_part(self) -> None:
        until_mono = time.monotonic() + STEP_S
        while self._cleaning is not None:
            if next(self._cleaning, None) is None:
                self._cleaning = None
            elif time.monotonic() >= until_mono:
                break

    # lost tasks

    def mark_lost(self, now: datetime) -> int:
        """Mark the tasks that have started on a worker that is gone; return how many.

        It is gone if it said good-bye, if its heartbeats have stopped, or if another process has its name, each for
        ``DJCELERY_LOST_AFTER``. Of a worker without heartbeats that can't be told. What is marked counts in the
        history, once.

        Raises:
            django.db.Error: Some are not marked.

        Database: one SELECT if there are none; else a transaction of five statements per 1,000 tasks.
        """
        age = conf.DJCELERY_LOST_AFTER
        limit = cutoff(now, age)
        if limit is None or limit < self._quiet_since:
            return 0
        marked = 0
        while self._lost(limit).exists():
            found = self._mark_some(limit, now)
            marked += found
            if not found:
                break
        if marked:
            logger.warning("%d tasks are marked as lost: they have started on workers that are gone.", marked)
        return marked

    def _lost(self, limit: datetime) -> Any:
        said_goodbye = Q(worker__offline_at__lte=limit) & (
            Q(worker__last_heartbeat=None) | Q(worker__offline_at__gte=F("worker__last_heartbeat"))
        )
        is_silent = Q(worker__frequency__isnull=False, worker__last_heartbeat__lte=limit)
        # In the MySQL tables of django-celery tstamp has whole seconds: an instant before.
        since = F("worker__online_at")
        is_older = Q(started_at__lt=since) | Q(started_at=None, tstamp__lt=since)
        is_another = Q(worker__online_at__lte=limit) & is_older
        tasks = self.task_model._base_manager.using(self.alias)
        started = tasks.filter(state=states.STARTED, hidden=False, tstamp__lte=limit)
        return started.filter(Q(worker=None) | said_goodbye | is_silent | is_another)

    def _mark_some(self, limit: datetime, now: datetime) -> int:
        connection = connections[self.alias]
        instants, now_s = Instants(connection), utils.to_utc(now).timestamp()
        tallies = Tallies(now_s)
        with transaction.atomic(using=self.alias):
            pass_gate(connection, self._models.MonitorGate._meta.db_table, instants)
            names = dict(self._lost(limit).values_list("pk", "name")[:BATCH_ROWS])
            tasks = self.task_model._base_manager.using(self.alias)
            tasks.filter(pk__in=list(names)).update(state=LOST)
            for name in names.values():
                tallies.add(Increment(now_s, name or "", LOST))
            add_to_history(connection, instants, tallies)
        return len(names)

    # what is too old

    def clean_up(self, ages: Ages | None = None, now: datetime | None = None) -> int:
        """Delete all that is too old; return how many tasks expired. Takes its time.

        Args:
            ages: Of tasks, see ``TaskStateManager.expiring``; None: what the settings say.

        Raises:
            django.db.Error: Some of it is not deleted.
        """
        tasks = self.task_model.objects
        expired: int = sum(tasks.expiring(expire_states() if ages is None else ages, now))
        for _ in self.cleaning({}, now):
            pass
        return expired

    def cleaning(self, ages: Ages, now: datetime | None = None) -> Iterator[int]:
        """Delete all that is too old batch by batch, and yield the number of rows after each.

        Database: see ``retention``; a transaction for workers.
        """
        now = now or utils.now()
        db.ready(connections[self.alias])
        yield from self.task_model.objects.expiring(ages, now)
        yield from self.task_model.objects.purging()
        history = self._models.TaskHistory.objects.using(self.alias)
        for period, age in ((MINUTE, conf.DJCELERY_HISTORY_MINUTES), (HOUR, conf.DJCELERY_HISTORY_HOURS)):
            limit = cutoff(now, age)
            if limit is not None:
                yield from delete_along(history.filter(period=period, start__lt=limit), "start")
        limit = cutoff(now, conf.DJCELERY_WORKER_EXPIRES)
        if limit is not None:
            yield self._delete_workers(limit)
            cameras = self._models.CameraState.objects.using(self.alias)
            yield cameras.filter(shutter_at__lt=limit).delete()[0]

    def _delete_workers(self, limit: datetime) -> int:
        """Delete the workers that were not heard of since *limit* and that no task names."""
        connection = connections[self.alias]
        workers = self.worker_model._base_manager.using(self.alias)
        silent = workers.filter(Q(last_heartbeat__lt=limit) | Q(last_heartbeat=None))
        named = self.task_model._base_manager.using(self.alias).filter(worker=OuterRef("pk"))
        # Behind the gate no camera writes a task of a worker that is about to be deleted.
        with transaction.atomic(using=self.alias):
            pass_gate(connection, self._models.MonitorGate._meta.db_table, Instants(connection))
            keys = list(silent.filter(~Exists(named)).values_list("pk", flat=True)[:BATCH_ROWS])
            return workers.filter(pk__in=keys)._raw_delete(self.alias) if keys else 0
