"""Rows of the monitor for tests of what reads them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from django.utils.timezone import now as present

from djcelery import utils
from djcelery.managers.history import Histogram
from djcelery.managers.history_reads import EPOCH
from djcelery.models import BeatLease, CameraState, IntervalSchedule, PeriodicTask, TaskHistory, TaskState, WorkerState


def histogram(*seconds):
    made = Histogram()
    for value in seconds:
        made.add(value)
    return made.dump()


def row(start, name="shop.add", state="SUCCESS", count=1, period="minute", runtime=(), waiting=()):
    """Return an unsaved row; *runtime* and *waiting* are seconds of single tasks."""
    lengths = {}
    for kind, values in (("runtime", runtime), ("waiting", waiting)):
        if values:
            lengths |= {
                f"{kind}_count": len(values),
                f"{kind}_sum": sum(values),
                f"{kind}_max": max(values),
                f"{kind}_histogram": histogram(*values),
            }
    start = utils.correct_awareness(start)
    return TaskHistory(period=period, start=start, name=name, state=state, count=count, **lengths)


def add(*args, **values):
    made = row(*args, **values)
    made.save()
    return made


def total(**values):
    return add(EPOCH, period="total", **values)


def minute(back=0, now=None):
    """Return the start of the minute so many minutes ago, aware in UTC."""
    moment = utils.to_utc(now or present()).replace(second=0, microsecond=0)
    return moment - timedelta(minutes=back)


def hour(back=0):
    return minute().replace(minute=0) - timedelta(hours=back)


def camera(**fields):
    now = utils.now()
    values = {"name": "cam@h", "hostname": "h", "pid": 1, "started_at": now, "shutter_at": now, "event_at": now}
    return CameraState.objects.create(**{**values, "frequency": 1.0, **fields})


def worker(hostname="celery@web1", ago_s=1.0, **fields):
    heartbeat = utils.now() - timedelta(seconds=ago_s)
    return WorkerState.objects.create(hostname=hostname, last_heartbeat=heartbeat, **{"frequency": 2.0, **fields})


def task(task_id="1", state="SUCCESS", ago_s=1.0, **fields):
    values = {"name": "shop.add", "tstamp": utils.now() - timedelta(seconds=ago_s), **fields}
    return TaskState.objects.create(task_id=task_id, state=state, **values)


def instant(*args):
    return datetime(*args, tzinfo=timezone.utc)


def lease(left_s=600.0, holder="web1:4711:abcd"):
    now = utils.to_utc(utils.now())
    # Leases are in the database's clock; what Django writes under USE_TZ is that.
    return BeatLease.objects.create(
        name="default",
        holder=holder,
        token=3,
        expires_at=now + timedelta(seconds=left_s),
        acquired_at=now - timedelta(hours=1),
    )


def entry(name="nightly", **fields):
    interval, _ = IntervalSchedule.objects.get_or_create(every=60, period="seconds")
    return PeriodicTask.objects.create(**{"name": name, "task": "shop.add", "interval": interval, **fields})


def overdue_entry(name="nightly", ago_s=600):
    made = entry(name)
    earlier = utils.now() - timedelta(seconds=ago_s)
    PeriodicTask.objects.filter(pk=made.pk).without_notes().update(scheduled_from=earlier, last_run_at=earlier)
    IntervalSchedule.objects.without_notes().update(changed_at=earlier)
    return made
