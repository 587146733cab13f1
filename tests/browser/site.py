"""What the site of the browser tests has before they begin: people, a schedule, and an hour that has passed.

Runs inside ``manage.py shell`` of the test project, not in the process of the tests.
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta, timezone

from django.contrib.auth.models import Permission, User

from djcelery.managers.history import Histogram
from djcelery.managers.history_reads import EPOCH
from djcelery.models import CrontabSchedule, IntervalSchedule, PeriodicTask, TaskHistory, WorkerState
from tests.browser import PASSWORD

#: Staff, by name, and which of djcelery's permissions they have; "view" stands for all that begin so.
STAFF = {
    "viewer": ("view", "arguments_taskstate"),
    "operator": ("view", "revoke_taskstate", "inspect_workerstate"),
    "stranger": (),
}
#: Name of a task: tasks per minute, seconds that one takes, share of failures.
USUAL = {
    "shop.tasks.report": (5, 1.8, 0.02),
    "shop.tasks.add": (14, 0.02, 0.0),
    "shop.tasks.count_rows": (6, 0.06, 0.0),
    "shop.tasks.charge_card": (4, 0.5, 0.035),
    "shop.tasks.flaky": (1, 0.2, 0.0),
}
RETRIED = ("shop.tasks.flaky",)


def make() -> None:
    """Fill the database."""
    _people()
    _schedule()
    _history(datetime.now(timezone.utc).replace(second=0, microsecond=0))
    ended = datetime.now(timezone.utc) - timedelta(hours=2)
    known = {"software": "py-celery", "version": "5.7.0", "processed": 4711, "missed": 0, "load": "0.2 0.3 0.3"}
    WorkerState.objects.create(hostname="celery@import1", last_heartbeat=ended, offline_at=ended, **known)


def _people() -> None:
    User.objects.create_superuser("admin", password=PASSWORD)
    ours = Permission.objects.filter(content_type__app_label="djcelery")
    for name, codenames in STAFF.items():
        user = User.objects.create_user(name, password=PASSWORD, is_staff=True)
        for codename in codenames:
            which = {"codename__startswith": "view_"} if codename == "view" else {"codename": codename}
            user.user_permissions.add(*ours.filter(**which))


def _schedule() -> None:
    def every(seconds: int) -> IntervalSchedule:
        return IntervalSchedule.objects.get_or_create(every=seconds, period="seconds")[0]

    def add(name: str, task: str, **fields) -> None:
        PeriodicTask.objects.create(name=name, task=task, **fields)

    night, _ = CrontabSchedule.objects.get_or_create(minute="30", hour="3")
    workdays, _ = CrontabSchedule.objects.get_or_create(minute="0", hour="7", day_of_week="mon-fri")
    IntervalSchedule.objects.get_or_create(every=1, period="seconds")
    add("count rows", "shop.tasks.count_rows", interval=every(15))
    add("hourly report", "shop.tasks.report", interval=every(3600), args='["hourly"]')
    add("nightly clean-up", "shop.tasks.noop", crontab=night)
    add("report of the day", "shop.tasks.report", crontab=workdays, args='["daily"]', enabled=False)
    add("seldom", "shop.tasks.add", interval=every(86400), args="[20, 22]")


def _history(now: datetime) -> None:
    """Write what a camera would have of the last hour of a shop, the same at each run."""
    dice = random.Random(5)
    rows: dict[tuple[str, datetime, str, str], TaskHistory] = {}
    for back in range(1, 60):
        minute = now - timedelta(minutes=back)
        for name, (rate, seconds, failing) in USUAL.items():
            ran: dict[str, list[float]] = {"SUCCESS": [], "FAILURE": []}
            for _ in range(max(0, round(dice.gauss(rate, rate**0.5)))):
                ran["FAILURE" if dice.random() < failing else "SUCCESS"].append(dice.lognormvariate(0, 0.5) * seconds)
            counts = {"RECEIVED": sum(map(len, ran.values())), "RETRY": int(name in RETRIED and not back % 7)}
            counts |= {state: len(lengths) for state, lengths in ran.items()}
            for state, count in counts.items():
                for key in (("minute", minute), ("hour", minute.replace(minute=0)), ("total", EPOCH)):
                    place = {"period": key[0], "start": key[1], "name": name, "state": state}
                    row = rows.setdefault((*key, name, state), TaskHistory(count=0, **place))
                    row.count += count
                    _add(row, "runtime", ran.get(state, []))
                    _add(row, "waiting", [dice.expovariate(20) for _ in ran.get(state, [])])
    TaskHistory.objects.bulk_create(row for row in rows.values() if row.count)


def _add(row: TaskHistory, kind: str, lengths: list[float]) -> None:
    """Add lengths of time to one kind of them in *row*."""
    if not lengths:
        return
    histogram = Histogram.load(getattr(row, f"{kind}_histogram"))
    for length in lengths:
        histogram.add(length)
    setattr(row, f"{kind}_histogram", histogram.dump())
    setattr(row, f"{kind}_count", getattr(row, f"{kind}_count") + len(lengths))
    setattr(row, f"{kind}_sum", getattr(row, f"{kind}_sum") + sum(lengths))
    setattr(row, f"{kind}_max", max(getattr(row, f"{kind}_max") or 0.0, *lengths))
