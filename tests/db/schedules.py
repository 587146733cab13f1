"""Rows of the schedule and of its runs, as the tests of the admin need them."""

from __future__ import annotations

import re
from datetime import datetime, timezone

from djcelery.models import IntervalSchedule, PeriodicRun, PeriodicTask

NOON = datetime(2026, 6, 1, 12, tzinfo=timezone.utc)
TIMES = ("interval", "crontab", "solar", "clocked")


def make(name="n", **fields):
    """Return a stored periodic task; every hour, unless the fields say else."""
    if not any(name in fields for name in TIMES):
        fields["interval"] = IntervalSchedule.objects.get_or_create(every=1, period="hours")[0]
    return PeriodicTask.objects.create(**{"name": name, "task": "shop.a", **fields})


def run(task, task_id="id-1", **fields):
    """Return a stored run of *task*, claimed at noon; sent, if the fields say when."""
    outcome = PeriodicRun.SENT if fields.get("sent_at") else None
    values = {"periodic_task_id": task.pk, "name": task.name, "scheduled_at": NOON, "claimed_at": NOON, "token": 1}
    return PeriodicRun.objects.create(**{**values, "task_id": task_id, "outcome": outcome, **fields})


def cells(client, name, **params):
    """Return the texts of one column of the list of periodic tasks."""
    text = client.get("/admin/djcelery/periodictask/", params).content.decode()
    found = re.findall(rf'<t[dh] class="field-{name}[^"]*">(.*?)</t[dh]>', text, re.DOTALL)
    return [re.sub("<[^>]*>", "", cell).strip() for cell in found]
