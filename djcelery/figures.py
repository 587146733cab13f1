"""How Celery does, in figures: workers, beat, the schedule, cameras and unfinished tasks.

Called by the overview, the metrics and the health command, which say it in words, numbers and exit codes. Reads only;
each function runs a fixed number of queries, of a bounded number of rows.
Next: ``docs/monitor.rst``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from celery import states
from django.db import connections, router
from django.db.models import Case, Exists, F, Max, OuterRef, Q, QuerySet, Subquery, When

from djcelery import utils
from djcelery.conf import conf
from djcelery.exceptions import ScheduleError
from djcelery.managers.retention import cutoff
from djcelery.models import (
    LOST,
    BeatLease,
    BeatStandby,
    CameraState,
    MalformedEvent,
    PeriodicRun,
    PeriodicTask,
    TaskHistory,
    TaskMeta,
    TaskState,
)
from djcelery.models import WorkerState as Worker
from djcelery.models.upcoming import OVERDUE_AFTER
from djcelery.schedulers import loading, statements

#: Rows of workers, cameras and leases that are read; the ones heard of last.
MAX_ROWS = 1000
#: Tasks, and results, that tell which queues there are.
LATEST_TASKS = 500
#: Enabled entries of the schedule that are looked at for being overdue.
MAX_ENTRIES = 1000
#: No count goes beyond this, so that none reads a whole table.
MAX_COUNT = 1000
#: Workers of which more seem missed than seen, and events of each, that are looked at to make sure.
MAX_LOSSY, MAX_HEARD = 20, 10_000
#: A beat that stands by says so every ten seconds.
STANDBY_AGE = timedelta(seconds=30)
#: A received task without an ETA that nobody has started by then waits too long.
STUCK_AFTER = timedelta(hours=1)
#: A camera that has written nothing for so many of its intervals, or seconds if that is more, is away.
CAMERA_INTERVALS, CAMERA_LEAST_S = 3, 30.0
#: A camera that no event came to for so long, or so many of its intervals if that is more, hears nothing.
SILENCE_S = 120.0
_WORKER_COLUMNS = (
    "hostname",
    "last_heartbeat",
    "online_at",
    "offline_at",
    "frequency",
    "active",
    "processed",
    "missed",
    "seen",
    "clock_skew",
)


def seconds_since(moment: datetime | None, now: datetime | None = None) -> float | None:
    """Return the seconds from *moment* to *now* (None: the present), at least 0; None if there is no *moment*."""
    if moment is None:
        return None
    return max(0.0, (utils.to_utc(now or utils.now()) - utils.to_utc(moment)).total_seconds())


# -- workers ---------------------------------------------------------------------------------------


def workers(hostname: str | None = None) -> list[Worker]:
    """Return the workers that were heard of last, 1,000 at most; *hostname* is the only one wanted.

    Database: 1 query.
    """
    rows = Worker.objects.only(*_WORKER_COLUMNS).order_by(F("last_heartbeat").desc(nulls_last=True))
    return list(rows.filter(hostname=hostname) if hostname else rows[:MAX_ROWS])


def said_goodbye(worker: Worker) -> bool:
    """Tell whether *worker* ended by itself: it said so, and was not heard of since."""
    return bool(worker.offline_at and (not worker.last_heartbeat or worker.offline_at >= worker.last_heartbeat))


def unheard(found: Sequence[Worker]) -> list[Worker]:
    """Return those of the workers *found* that are online and have run tasks, none of which sent an event.

    Database: 1 query, by an index; none if all of them were heard.
    """
    silent = [worker for worker in found if worker.processed and worker.seen is None and worker.is_alive()]
    if not silent:
        return []
    tasks = TaskState.objects.filter(worker=OuterRef("pk"))
    rows = Worker.objects.order_by().filter(Exists(tasks), pk__in=[worker.pk for worker in silent])
    heard = set(rows.values_list("pk", flat=True))
    return [worker for worker in silent if worker.pk not in heard]


def lossy(found: Sequence[Worker]) -> list[Worker]:
    """Return those of the workers *found* that are online, and of most of whose tasks no event came since they started.

    Of one that runs for longer than rows of tasks are kept that can't be told.

    Database: 1 query by an index, of a bounded number of rows; none if nothing much was missed.
    """
    suspects = [worker for worker in found if worker.is_alive() and (worker.missed or 0) * 2 > (worker.seen or 0) > 0]
    kept_since = cutoff(utils.now(), conf.CELERYCAM_EXPIRE_SUCCESS)
    suspects = [each for each in suspects if not (kept_since and each.online_at and each.online_at < kept_since)]
    suspects = suspects[:MAX_LOSSY]
    if not suspects:
        return []
    # What is missed is that of all processes that had the name, what is seen that of the present one: so look whether
    # events of half of its tasks came.
    halves = []
    for worker in suspects:
        tasks = TaskState.objects.filter(worker=worker.pk).order_by()
        tasks = tasks.filter(tstamp__gte=worker.online_at) if worker.online_at else tasks
        last = (min(worker.seen or 0, MAX_HEARD) - 1) // 2
        halves.append(When(pk=worker.pk, then=Subquery(tasks.values("pk")[last : last + 1])))
    rows = Worker.objects.order_by().filter(pk__in=[worker.pk for worker in suspects])
    half = dict(rows.annotate(half=Case(*halves)).values_list("pk", "half"))
    return [worker for worker in suspects if half.get(worker.pk) is None]


# -- beat and the schedule -------------------------------------------------------------------------


@dataclass(frozen=True)
class Lease:
    """Who sends, of the beats that share *name*; by the database's clock.

    ``left_s``: seconds until the lease runs out, below 0 if it has. ``held_s``: seconds since it was taken.
    """

    name: str
    holder: str
    token: int
    left_s: float
    held_s: float

    @property
    def is_held(self) -> bool:
        """Whether a beat leads."""
        return self.left_s > 0

    @property
    def age_s(self) -> float:
        """Seconds since the holder renewed the lease; after it was given up, since then."""
        return max(0.0, (conf.DJCELERY_BEAT_LEASE_S if self.is_held else 0.0) - self.left_s)

    @property
    def leader(self) -> str:
        """Host and process id of the holder."""
        return self.holder.rpartition(":")[0] or self.holder


def leases() -> list[Lease]:
    """Return the leases of beat, by name.

    Database: 1 query.
    """
    connection = connections[router.db_for_read(BeatLease)]
    until = statements.SECONDS_UNTIL[statements.engine(connection)]
    rows = statements.fetch(
        connection,
        f"SELECT name, holder, token, {until.format('expires_at')}, {until.format('acquired_at')} "  # noqa: S608
        f"FROM {statements.table(connection, BeatLease)} ORDER BY name LIMIT {MAX_ROWS}",
    )
    return [
        # SQLite counts from no instant at the end of its calendar: NULL.
        Lease(name, holder, token, float(left or 0), max(0.0, -float(taken or 0)))
        for name, holder, token, left, taken in rows
    ]


def standbys(now: datetime | None = None) -> list[BeatStandby]:
    """Return the beats that stand by, as they said within the last half a minute, by name of the lease and of the beat.

    Database: 1 query.
    """
    recent = (now or utils.now()) - STANDBY_AGE
    return list(BeatStandby.objects.filter(seen_at__gte=recent).order_by("name", "holder")[:MAX_ROWS])


@dataclass(frozen=True)
class Overdue:
    """An enabled entry of the schedule whose time has passed, and nothing was sent, passed over or claimed."""

    pk: int
    name: str
    due_at: datetime


@dataclass(frozen=True)
class Schedule:
    """What is wrong in the schedule. ``enabled`` and ``held_out`` are counted up to 1,000.

    ``looked_at``: so many entries were looked at for being overdue. ``unsent``: claimed runs that are not sent after a
    minute; ``unsent_error`` is that of the oldest.
    """

    enabled: int
    looked_at: int
    overdue: list[Overdue]
    held_out: list[tuple[int, str, str]]
    unsent: int
    unsent_error: str | None


def schedule(app: Any, now: datetime | None = None) -> Schedule:
    """Return the state of the schedule, as beat would plan it from its rows.

    Database: 4 queries; one more if entries seem overdue.
    """
    present = utils.to_utc(now or utils.now())
    enabled = PeriodicTask.objects.filter(enabled=True)
    held_out = enabled.exclude(last_error=None).exclude(last_error="").order_by("name")
    late = PeriodicRun.objects.filter(
        outcome=None, scheduled_at__lt=utils.correct_awareness(present - OVERDUE_AFTER)
    ).order_by("scheduled_at")
    errors = list(late.values_list("error", flat=True)[: MAX_COUNT + 1])
    overdue, looked_at = _overdue(enabled.filter(last_error=None), app, present)
    return Schedule(
        enabled=counted(enabled),
        looked_at=looked_at,
        overdue=overdue,
        held_out=list(held_out.values_list("pk", "name", "last_error")[:MAX_COUNT]),
        unsent=len(errors),
        unsent_error=next(iter(errors), None),
    )


def _overdue(enabled: QuerySet, app: Any, now: datetime) -> tuple[list[Overdue], int]:
    recently = utils.correct_awareness(now - OVERDUE_AFTER)
    # What ran within the last minute can't be overdue.
    rows = enabled.filter(Q(last_run_at=None) | Q(last_run_at__lt=recently)).order_by("pk")[:MAX_ENTRIES]
    planner, found, looked_at = loading.Planner(app.timezone), [], 0
    for row in loading.read(rows):
        looked_at += 1
        try:
            plan = planner.plan(row, now)
        except ScheduleError:
            # Beat holds it out, and writes why.
            continue
        # A firing is its jitter later than its instant.
        if plan.due and now - plan.due > OVERDUE_AFTER + plan.delay:
            found.append(Overdue(plan.pk, plan.name, plan.due))
    return _undecided(found), looked_at


def _undecided(found: list[Overdue]) -> list[Overdue]:
    """Return those of *found* that have no run since they were due: what was passed over is not overdue."""
    if not found:
        return []
    keys = [entry.pk for entry in found]
    latest = PeriodicRun.objects.order_by().filter(periodic_task_id__in=keys).values_list("periodic_task_id")
    decided = {pk: utils.to_utc(at) for pk, at in latest.annotate(at=Max("scheduled_at"))}
    left = [entry for entry in found if not (at := decided.get(entry.pk)) or at < entry.due_at]
    return sorted(left, key=lambda entry: entry.due_at)


# -- cameras ---------------------------------------------------------------------------------------


def cameras(name: str | None = None) -> list[CameraState]:
    """Return the cameras, the one that wrote last first, 1,000 at most; *name* (or host) is the only one wanted.

    Database: 1 query.
    """
    rows = CameraState.objects.order_by("-shutter_at")
    return list(rows.filter(Q(name=name) | Q(hostname=name)) if name else rows[:MAX_ROWS])


def is_running(camera: CameraState, now: datetime | None = None, max_age_s: float | None = None) -> bool:
    """Tell whether *camera* writes: it was not stopped, and its last shutter is recent.

    Recent is *max_age_s*, or else three of its intervals and 30 seconds at least.
    """
    if camera.stopped_at and camera.stopped_at >= camera.shutter_at:
        return False
    longest = max_age_s or max(CAMERA_LEAST_S, CAMERA_INTERVALS * camera.frequency)
    age = seconds_since(camera.shutter_at, now)
    return age is not None and age <= longest


def hears(camera: CameraState, now: datetime | None = None) -> bool:
    """Tell whether events come to *camera*."""
    age = seconds_since(camera.event_at, now)
    return age is not None and age <= max(SILENCE_S, CAMERA_INTERVALS * camera.frequency)


def malformed_since(since: datetime) -> int:
    """Return how many malformed events were kept apart since then; the camera keeps no more than 1,000.

    Database: 1 query.
    """
    return MalformedEvent.objects.filter(seen_at__gte=since).count()


# -- tasks -----------------------------------------------------------------------------------------


def counted(rows: QuerySet, limit: int = MAX_COUNT) -> int:
    """Return how many *rows* there are, counted up to ``limit + 1``.

    Database: 1 query.
    """
    return rows.order_by().values("pk")[: limit + 1].count()


def lost_since(since: datetime) -> int:
    """Return how many tasks were marked as lost in the hours since then, up to 1,001, without those heard of since.

    Database: 1 query; 2 if there are any.
    """
    # The rows keep the time of their last event, which of a task that ran for days is days ago.
    marked = TaskHistory.objects.hours(since).in_state(LOST).by_state().get(LOST, 0)
    return marked and min(marked, counted(TaskState.objects.filter(state=LOST)))


def stuck(now: datetime) -> QuerySet:
    """Return the tasks that were received long ago, without an ETA, and not started since; the latest week's only."""
    return TaskState.objects.filter(
        state="RECEIVED", eta=None, tstamp__lt=now - STUCK_AFTER, tstamp__gte=now - timedelta(days=7)
    )


def running() -> int:
    """Return how many tasks are started and not at their end, as far as events came; up to 1,001.

    Database: 1 query.
    """
    return counted(TaskState.objects.filter(state=states.STARTED))


def queues_seen(rows: int = LATEST_TASKS) -> tuple[list[str], bool]:
    """Return the names of the queues that tables know, and whether there is any task at all.

    That is: of the latest *rows* tasks, as many results, and the enabled entries of the schedule.

    Database: 3 queries.
    """
    latest = list(TaskState.objects.order_by("-pk").values_list("queue", flat=True)[:rows])
    results = TaskMeta.objects.order_by("-pk").values_list("queue", flat=True)[:rows]
    entries = PeriodicTask.objects.filter(enabled=True).order_by("-pk").values_list("queue", flat=True)
    return sorted({name for name in (*latest, *results, *entries[:MAX_ROWS]) if name}), bool(latest)
