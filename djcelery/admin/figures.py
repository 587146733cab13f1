"""What the overview shows, gathered: throughput, task names, workers, queues, beat, cameras and the latest failures.

Called by ``overview``. Reads only: a fixed number of queries, whatever the number of rows, and the broker for less than
a second. ``problems`` judges what is gathered here.
Next: ``docs/monitor.rst``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import Any

from celery import states
from django.db.models import Q, Sum
from django.utils.translation import gettext_lazy

from djcelery import figures, queues, utils
from djcelery.managers.history_reads import FINISHED, NameFigures
from djcelery.models import LOST, BeatStandby, CameraState, TaskHistory, TaskState, WorkerState

#: The states of the chart, from the bottom up, and what they are called.
STACKED = {
    states.SUCCESS: gettext_lazy("Succeeded"),
    states.RETRY: gettext_lazy("Retried"),
    states.FAILURE: gettext_lazy("Failed"),
    states.REVOKED: gettext_lazy("Revoked"),
    states.REJECTED: gettext_lazy("Rejected"),
    LOST: gettext_lazy("Lost"),
}
RECEIVED = "RECEIVED"
LATEST_FAILURES = 6
#: Minutes over which "now" is averaged, the present one included.
NOW_MINUTES = 5


@dataclass(frozen=True)
class Period:
    """A time that the charts can show: ``key`` is what ``?period=`` says. An open page reads it every *refresh_s*."""

    key: str
    label: Any
    length: timedelta
    step: timedelta
    refresh_s: int = 10

    @property
    def count(self) -> int:
        """How many bins it has."""
        return self.length // self.step

    def starts(self, now: datetime) -> list[datetime]:
        """Return the starts of the bins, aware in UTC; the last one is that of *now*."""
        seconds = int(self.step.total_seconds())
        last = int(utils.to_utc(now).timestamp()) // seconds * seconds
        return [datetime.fromtimestamp(last - seconds * back, timezone.utc) for back in range(self.count - 1, -1, -1)]


_MINUTE, _HOUR = timedelta(minutes=1), timedelta(hours=1)
PERIODS = {
    "hour": Period("hour", gettext_lazy("Hour"), timedelta(hours=1), _MINUTE),
    "day": Period("day", gettext_lazy("Day"), timedelta(days=1), _HOUR),
    # The most rows, of which the fewest change.
    "week": Period("week", gettext_lazy("Week"), timedelta(days=7), _HOUR, refresh_s=30),
}


@dataclass(frozen=True)
class Figures:
    """All that the overview shows, as of ``now``. Database: what ``gather()`` says."""

    now: datetime
    period: Period
    starts: list[datetime]
    by_start: dict[datetime, dict[str, int]]
    last_minutes: dict[str, int]
    names: list[NameFigures]
    #: The name that failed most often in the period, and how often; None if none did.
    most_failed: tuple[str, int] | None
    workers: list[WorkerState]
    unheard: list[WorkerState]
    lossy: list[WorkerState]
    leases: list[figures.Lease]
    standbys: list[BeatStandby]
    schedule: figures.Schedule
    cameras: list[CameraState]
    malformed: int
    broker: queues.Broker
    failures: list[TaskState]
    lost: int
    stuck: int
    running: int
    has_tasks: bool

    def bins(self, state: str) -> list[int]:
        """Return how many tasks came to *state* in each bin."""
        return [self.by_start.get(start, {}).get(state, 0) for start in self.starts]

    @cached_property
    def totals(self) -> Counter[str]:
        """How many tasks came to each state in the period."""
        found: Counter[str] = Counter()
        for counts in self.by_start.values():
            found.update(counts)
        return found

    @property
    def finished(self) -> int:
        """How many tasks came to an end in the period."""
        return sum(self.totals[state] for state in FINISHED)

    @property
    def per_minute(self) -> float:
        """How many tasks came to an end per minute, over the last minutes and what has passed of the present one."""
        passed = NOW_MINUTES - 1 + utils.to_utc(self.now).second / 60
        return sum(self.last_minutes.get(state, 0) for state in FINISHED) / passed

    @cached_property
    def online(self) -> list[WorkerState]:
        """The workers that are online."""
        return [worker for worker in self.workers if worker.is_alive()]

    @cached_property
    def silent(self) -> list[WorkerState]:
        """The workers that were heard of within a day, are offline, and did not say good-bye."""
        return [
            worker
            for worker in self.workers
            if not worker.is_alive()
            and not figures.said_goodbye(worker)
            and (figures.seconds_since(worker.last_heartbeat, self.now) or 1e9) < 86400
        ]

    @cached_property
    def running_cameras(self) -> list[CameraState]:
        """The cameras that write."""
        return [camera for camera in self.cameras if figures.is_running(camera, self.now)]

    @property
    def leader(self) -> figures.Lease | None:
        """The lease that a beat holds, or else the one that was held last; None if no beat ever ran."""
        return max(self.leases, key=lambda lease: lease.left_s, default=None)

    @property
    def messages(self) -> int | None:
        """How many messages wait in all queues; None if the broker is away."""
        return None if self.broker.is_away else sum(queue.messages or 0 for queue in self.broker.queues)

    @property
    def oldest_s(self) -> float | None:
        """The age of the oldest message, in seconds; None if there is none, or it isn't known."""
        return max((queue.oldest_s for queue in self.broker.queues if queue.oldest_s is not None), default=None)

    @property
    def is_empty(self) -> bool:
        """Whether no event has ever been written."""
        return not (self.workers or self.has_tasks or self.by_start)


def gather(app: Any, period: Period, now: datetime | None = None) -> Figures:
    """Gather what the overview shows.

    Database: 24 queries at most. The broker is asked unless it has answered within some seconds.
    """
    now = now or utils.now()
    starts = period.starts(now)
    whole = utils.to_utc(now).replace(second=0, microsecond=0)
    minutes = TaskHistory.objects.minutes
    rows = minutes(starts[0]) if period.step == _MINUTE else TaskHistory.objects.hours(starts[0])
    by_start = rows.by_start()
    latest_minutes = minutes(whole - (NOW_MINUTES - 1) * _MINUTE)
    workers = figures.workers()
    queue_names, has_tasks = figures.queues_seen()
    return Figures(
        now=now,
        period=period,
        starts=starts,
        by_start=by_start,
        last_minutes=latest_minutes.by_state(),
        names=rows.in_state(*FINISHED, states.RETRY).by_name(),
        most_failed=_most_failed(rows),
        workers=workers,
        unheard=figures.unheard(workers),
        lossy=figures.lossy(workers),
        leases=figures.leases(),
        standbys=figures.standbys(now),
        schedule=figures.schedule(app, now),
        cameras=figures.cameras(),
        malformed=figures.malformed_since(now - _HOUR),
        broker=queues.look(app, queue_names),
        failures=list(latest_failures(now)[:LATEST_FAILURES]),
        lost=figures.lost_since(now - timedelta(days=1)),
        stuck=figures.counted(figures.stuck(now)),
        running=figures.running(),
        has_tasks=has_tasks,
    )


def _most_failed(rows: Any) -> tuple[str, int] | None:
    by_name = rows.order_by().in_state(states.FAILURE).values_list("name").annotate(number=Sum("count"))
    return by_name.order_by("-number", "name").first()


def latest_failures(now: datetime) -> Any:
    """Return the tasks that failed within a day, the latest first, without their wide columns."""
    wanted = Q(state=states.FAILURE, tstamp__gte=now - timedelta(days=1))
    columns = ("task_id", "state", "name", "tstamp", "exception", "worker__hostname")
    return TaskState.objects.filter(wanted).select_related("worker").only(*columns).order_by("-tstamp")
