"""Lost tasks are marked, and what is too old is deleted, in parts."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import OperationalError, connection

from djcelery import utils
from djcelery.models import CameraState, TaskHistory, TaskState, WorkerState
from djcelery.snapshot import upkeep
from djcelery.snapshot.upkeep import Upkeep
from tests.db.cameras import Feed

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def now():
    return utils.now()


@pytest.fixture
def keeper(now):
    """One that has been at it for long."""
    return Upkeep(now - 24 * HOUR)


def worker(name, now, **fields):
    defaults = {"last_heartbeat": now - HOUR, "frequency": 2.0, "pid": 1, "online_at": now - 10 * HOUR}
    return WorkerState.objects.create(hostname=name, **{**defaults, **fields})


def task(task_id, at, worker=None, state="STARTED", **fields):
    return TaskState.objects.create(
        task_id=task_id, state=state, name="shop.add", tstamp=at, worker=worker, started_at=at, **fields
    )


def states():
    return dict(TaskState.objects.values_list("task_id", "state"))


# -- lost tasks --------------------------------------------------------------------------------


def test_tasks_of_a_worker_that_is_gone_are_lost(keeper, now):
    silent = worker("silent", now)
    gone = worker("gone", now, last_heartbeat=now - HOUR, offline_at=now - HOUR, frequency=None)
    alive = worker("alive", now, last_heartbeat=now - MINUTE / 60)
    for name, where in (("t1", silent), ("t2", gone), ("t3", alive), ("t4", None)):
        task(name, now - 2 * HOUR, where)
    task("t5", now - MINUTE, silent)
    task("t6", now - 2 * HOUR, silent, "RECEIVED")
    task("t7", now - 2 * HOUR, silent, "SUCCESS")
    assert keeper.mark_lost(now) == 3
    assert states() == {
        "t1": "LOST",
        "t2": "LOST",
        "t3": "STARTED",
        "t4": "LOST",
        "t5": "STARTED",
        "t6": "RECEIVED",
        "t7": "SUCCESS",
    }
    assert Feed.counts() == {"LOST": 3}
    assert Feed.counts("minute") == {"LOST": 3}
    assert keeper.mark_lost(now) == 0
    assert Feed.counts() == {"LOST": 3}


def test_tasks_that_another_process_of_the_name_had_started_are_lost(keeper, now):
    again = worker("w1", now, last_heartbeat=now, online_at=now - HOUR, pid=2)
    task("before", now - 2 * HOUR, again)
    task("since", now - HOUR / 2, again)
    keeper.mark_lost(now)
    assert states() == {"before": "LOST", "since": "STARTED"}


def test_a_task_that_its_worker_has_started_at_once_is_not_lost_where_times_have_whole_seconds(keeper, now):
    online = now - HOUR
    again = worker("w1", now, last_heartbeat=now, online_at=online)
    task("t1", online + timedelta(milliseconds=200), again)
    TaskState.objects.update(tstamp=online - timedelta(milliseconds=300))
    assert keeper.mark_lost(now) == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"frequency": None},
        {"frequency": None, "last_heartbeat": None},
        {"offline_at": -HOUR, "last_heartbeat": timedelta(0)},
        {"last_heartbeat": -9 * MINUTE},
    ],
)
def test_of_some_workers_it_can_not_be_told_that_they_are_gone(keeper, now, fields):
    fields = {name: now + value if isinstance(value, timedelta) else value for name, value in fields.items()}
    task("t1", now - 2 * HOUR, worker("w1", now, **fields))
    assert keeper.mark_lost(now) == 0


@pytest.mark.parametrize(("age", "lost"), [(None, 0), (timedelta(minutes=30), 1), (2 * HOUR, 0), (1800, 1)])
def test_the_setting_says_how_long_a_worker_must_be_gone(keeper, now, settings, age, lost):
    settings.DJCELERY_LOST_AFTER = age
    task("t1", now - 5 * HOUR, worker("w1", now))
    assert keeper.mark_lost(now) == lost


def test_what_was_held_up_makes_no_task_lost(now):
    task("t1", now - 5 * HOUR, worker("w1", now))
    assert Upkeep(now).mark_lost(now) == 0
    keeper = Upkeep(now - 5 * HOUR)
    keeper.note_gap(now - MINUTE)
    assert keeper.mark_lost(now) == 0
    assert keeper.mark_lost(now + 10 * MINUTE) == 1


def test_more_than_one_batch_of_tasks_is_lost(keeper, now, monkeypatch):
    monkeypatch.setattr(upkeep, "BATCH_ROWS", 10)
    where = worker("w1", now)
    for number in range(25):
        task(f"t{number}", now - 2 * HOUR, where)
    assert keeper.mark_lost(now) == 25
    assert Feed.counts() == {"LOST": 25}


def test_a_lost_task_that_ends_after_all_has_ended(keeper, now):
    feed = Feed(utils.to_utc(now).timestamp() - 7200)
    feed.received("t1", 0)
    feed.send("task-started", "t1", 1)
    feed.send("worker-heartbeat", freq=2.0, at=2)
    feed.write()
    assert keeper.mark_lost(now) == 1
    # The broker delivers again what is known.
    feed.received("t1", 0)
    feed.send("task-started", "t1", 1)
    feed.write()
    assert states() == {"t1": "LOST"}
    feed.send("task-succeeded", "t1", 100, result="1", runtime=99)
    feed.write()
    assert states() == {"t1": "SUCCESS"}
    assert feed.counts() == {"RECEIVED": 1, "LOST": 1, "SUCCESS": 1}


def test_looking_for_lost_tasks_is_one_statement_when_there_are_none(keeper, now, django_assert_num_queries):
    with django_assert_num_queries(1):
        keeper.mark_lost(now)


# -- what is too old ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "age", "kept"),
    [
        ("SUCCESS", timedelta(hours=23), True),
        ("SUCCESS", timedelta(hours=25), False),
        ("FAILURE", timedelta(days=2), True),
        ("FAILURE", timedelta(days=4), False),
        ("REVOKED", timedelta(days=4), False),
        ("RETRY", timedelta(days=4), False),
        ("LOST", timedelta(days=2), True),
        ("LOST", timedelta(days=4), False),
        ("STARTED", timedelta(days=4), True),
        ("STARTED", timedelta(days=6), False),
        ("REJECTED", timedelta(days=6), False),
        ("PROGRESS", timedelta(days=4), True),
        ("PROGRESS", timedelta(days=6), False),
    ],
)
def test_rows_expire_by_their_state(keeper, now, state, age, kept):
    task("t1", now - age, state=state)
    assert keeper.clean_up(now=now) == (0 if kept else 1)
    assert TaskState.objects.exists() is kept


def test_none_keeps_rows_for_ever_and_zero_not_at_all(keeper, now, settings):
    settings.CELERYCAM_EXPIRE_SUCCESS = None
    settings.CELERYCAM_EXPIRE_ERROR = 0
    task("t1", now - timedelta(days=4000), state="SUCCESS")
    task("t2", now - MINUTE, state="FAILURE")
    assert keeper.clean_up(now=now) == 1
    assert states() == {"t1": "SUCCESS"}


def test_hidden_rows_go_too_whatever_their_age(keeper, now):
    task("t1", now, hidden=True)
    task("t2", now)
    assert keeper.clean_up(now=now) == 0
    assert states() == {"t2": "STARTED"}


def test_minutes_and_hours_have_ages_of_their_own_and_totals_none(keeper, now):
    for period, age in (("minute", 6), ("minute", 8), ("hour", 999), ("hour", 1001), ("total", 9000)):
        TaskHistory.objects.create(
            period=period, start=now - timedelta(days=age), name=f"{period} {age}", state="SUCCESS", count=1
        )
    keeper.clean_up(now=now)
    assert set(TaskHistory.objects.values_list("name", flat=True)) == {"minute 6", "hour 999", "total 9000"}


@pytest.mark.parametrize("name", ["DJCELERY_HISTORY_MINUTES", "DJCELERY_HISTORY_HOURS", "DJCELERY_WORKER_EXPIRES"])
def test_none_keeps_history_and_workers_for_ever(keeper, now, settings, name):
    setattr(settings, name, None)
    old = now - timedelta(days=5000)
    worker("w1", now, last_heartbeat=old)
    for period in ("minute", "hour"):
        TaskHistory.objects.create(period=period, start=old, name="x", state="SUCCESS", count=1)
    keeper.clean_up(now=now)
    kept = {f"DJCELERY_HISTORY_{period.upper()}S" for period in TaskHistory.objects.values_list("period", flat=True)}
    kept |= {"DJCELERY_WORKER_EXPIRES"} if WorkerState.objects.exists() else set()
    assert kept == {name}


def test_workers_that_are_gone_are_deleted_unless_tasks_name_them(keeper, now):
    old = now - timedelta(days=8)
    worker("old", now, last_heartbeat=old)
    worker("never heard", now, last_heartbeat=None)
    worker("young", now, last_heartbeat=now - timedelta(days=6))
    task("t1", now, worker("named", now, last_heartbeat=old))
    keeper.clean_up(now=now)
    assert set(WorkerState.objects.values_list("hostname", flat=True)) == {"young", "named"}
    assert states() == {"t1": "STARTED"}


def test_cameras_that_are_gone_are_deleted_with_the_workers(keeper, now):
    for name, days in (("old", 8), ("young", 6)):
        at = now - timedelta(days=days)
        CameraState.objects.create(name=name, hostname="h", pid=1, started_at=at, shutter_at=at, frequency=1)
    keeper.clean_up(now=now)
    assert CameraState.objects.get().name == "young"


def test_many_rows_are_deleted_in_bounded_statements(keeper, now):
    old = now - timedelta(days=9)
    TaskState.objects.bulk_create(
        TaskState(task_id=f"t{number}", state="SUCCESS", tstamp=old - number * MINUTE / 60) for number in range(2500)
    )
    statements = []

    def note(execute, sql, params, many, context):
        statements.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        assert keeper.clean_up(now=now) == 2500
    assert len([sql for sql in statements if sql.startswith("DELETE") and "taskstate" in sql]) >= 3


def test_old_names_of_the_manager_still_hide_and_purge(now):
    task("t1", now - timedelta(days=9), state="SUCCESS")
    task("t2", now, state="SUCCESS")
    assert TaskState.objects.expire_by_states({"SUCCESS"}, timedelta(days=1)) == 1
    assert TaskState.objects.expire_by_states({"SUCCESS"}, None) is None
    assert TaskState.objects.active().get().task_id == "t2"
    assert TaskState.objects.purge() == 1
    assert states() == {"t2": "SUCCESS"}


# -- what is due -------------------------------------------------------------------------------


def test_lost_tasks_are_looked_for_each_minute_and_old_rows_each_hour(now, monkeypatch):
    calls = []
    monkeypatch.setattr(Upkeep, "mark_lost", lambda self, now: calls.append("lost"))
    monkeypatch.setattr(Upkeep, "cleaning", lambda self, ages, now: iter(calls.append("clean") or ()))
    keeper = Upkeep(now)
    for minutes in (0, 0.5, 1, 1.5, 2, 3, 60, 61, 62):
        keeper.step(now + minutes * MINUTE)
    assert calls == ["lost", "clean", "lost", "lost", "lost", "lost", "clean", "lost"]


def test_a_clock_that_was_put_back_does_not_stop_the_upkeep(now, monkeypatch):
    calls = []
    monkeypatch.setattr(Upkeep, "mark_lost", lambda self, now: calls.append("lost"))
    keeper = Upkeep(now)
    keeper.step(now - 5 * HOUR)
    assert calls == ["lost"]


def test_cleaning_goes_on_in_the_next_step(now, monkeypatch):
    monkeypatch.setattr(upkeep, "STEP_S", 0.0)
    deleted = []

    def cleaning(self, ages, now):
        for number in range(3):
            deleted.append(number)
            yield number

    monkeypatch.setattr(Upkeep, "cleaning", cleaning)
    keeper = Upkeep(now)
    for expected in ([0], [0, 1], [0, 1, 2], [0, 1, 2], [0, 1, 2]):
        keeper.step(now + MINUTE)
        assert deleted == expected


def test_what_fails_is_logged_and_tried_again_later(now, monkeypatch, caplog):
    # All of it in one step, however slow this machine is.
    monkeypatch.setattr(upkeep, "STEP_S", 600.0)
    task("t1", now - 9 * 24 * HOUR, state="SUCCESS")
    keeper = Upkeep(now - HOUR)
    with monkeypatch.context() as broken:

        def away(self, *args):
            raise OperationalError("server is away")
            yield

        broken.setattr(Upkeep, "cleaning", away)
        broken.setattr(Upkeep, "mark_lost", lambda self, now: next(away(self)))
        keeper.step(now)
    assert "The camera could not mark lost tasks" in caplog.text
    assert "The camera could not delete what is too old" in caplog.text
    keeper.step(now + HOUR)
    assert states() == {}
