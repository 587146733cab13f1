"""What celerycam reads of its last run."""

from __future__ import annotations

from datetime import timedelta

import pytest

from djcelery import utils
from djcelery.models import TaskState, WorkerState
from djcelery.snapshot.missed import Account, Known
from djcelery.snapshot.program import known_workers

pytestmark = pytest.mark.django_db


def worker(hostname, age_s=0.0, **values):
    return WorkerState.objects.create(
        hostname=hostname, last_heartbeat=utils.now() - timedelta(seconds=age_s), **values
    )


def task(task_id, worker, state="STARTED"):
    TaskState.objects.create(task_id=task_id, worker=worker, state=state, tstamp=utils.now())


def test_a_camera_goes_on_with_no_more_workers_than_it_remembers(monkeypatch):
    monkeypatch.setattr("djcelery.snapshot.program.MAX_WORKERS", 2)
    for number in range(4):
        worker(f"w{number}@h", 60 - number, pid=1, processed=1, seen=1)
    assert set(known_workers("default")) == {"w2@h", "w3@h"}


def test_a_camera_goes_on_with_the_workers_that_were_watched(django_assert_num_queries):
    watched = worker("w1@h", pid=7, processed=12, seen=10, missed=2)
    worker("w2@h", pid=8, processed=3, seen=3)
    silent = worker("long ago@h", 2 * 86400, pid=9, processed=1, seen=1)
    without_events = worker("w3@h", pid=10, processed=5)
    for number, state in enumerate(("STARTED", "STARTED", "SUCCESS", "RECEIVED")):
        task(f"t{number}", watched, state)
    task("t8", silent)
    task("t9", without_events)
    with django_assert_num_queries(2):
        found = known_workers("default")
    first = found.pop("w1@h")
    assert first._replace(running=()) == Known(Account(7, 10, 2), 12)
    assert sorted(first.running) == ["t0", "t1"]
    assert found == {"w2@h": Known(Account(8, 3, 0), 3)}
