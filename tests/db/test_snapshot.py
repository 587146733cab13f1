"""The camera: events in, rows out."""

from __future__ import annotations

import time
from datetime import timedelta
from itertools import count

import pytest
from celery.events.state import State
from django.db import DataError, OperationalError, connection
from django.db.models import QuerySet

from djcelery import utils
from djcelery.models import TaskState, WorkerState
from djcelery.snapshot import Camera

pytestmark = pytest.mark.django_db


class Events:
    """Feeds events of one worker to a camera."""

    def __init__(self, app):
        self.state = State()
        self.camera = Camera(self.state, app=app)
        self.clock = count(1)
        self.now = time.time()

    def send(self, kind, uuid=None, **fields):
        number = next(self.clock)
        event = {
            "type": kind,
            "hostname": "w1@host",
            "timestamp": self.now + number / 1000,
            "local_received": self.now + number / 1000,
            "clock": number,
            "utcoffset": 0,
            "pid": 1,
            **fields,
        }
        if uuid:
            event["uuid"] = uuid
        self.state.event(event)

    def shoot(self):
        self.camera.capture()

    def restart(self):
        """A new camera with an empty memory, as after a restart."""
        self.state = State()
        self.camera = Camera(self.state, app=self.camera.app)


@pytest.fixture
def events(celery_app):
    return Events(celery_app)


def received(events, uuid="t1", **fields):
    events.send(
        "task-received", uuid, **{"name": "shop.tasks.add", "args": "(1,)", "kwargs": "{}", "retries": 0, **fields}
    )


def test_a_whole_life_is_one_row(events):
    received(events)
    events.send("task-started", "t1")
    events.send("task-succeeded", "t1", result="'ok'", runtime=0.25)
    events.shoot()
    row = TaskState.objects.get()
    assert (row.state, row.name, row.args, row.kwargs) == ("SUCCESS", "shop.tasks.add", "(1,)", "{}")
    assert (row.result, row.runtime, row.worker.hostname) == ("'ok'", 0.25, "w1@host")
    assert abs(row.tstamp - utils.now()) < timedelta(minutes=1)
    assert row.worker.is_alive()


def test_unchanged_tasks_are_not_written_again(events, django_assert_num_queries):
    received(events)
    events.shoot()
    with django_assert_num_queries(0):
        events.shoot()


def test_a_thousand_changed_tasks_take_a_handful_of_statements(events, django_assert_max_num_queries):
    for number in range(1000):
        received(events, f"t{number}")
    # Django splits statements for SQLite, which takes fewer parameters.
    with django_assert_max_num_queries(25 if connection.vendor == "sqlite" else 10):
        events.shoot()
    assert TaskState.objects.count() == 1000


def test_finished_tasks_are_forgotten_and_unfinished_ones_kept_in_memory(events):
    received(events, "done")
    events.send("task-succeeded", "done", result="1", runtime=1)
    received(events, "waiting")
    events.shoot()
    assert list(events.state.tasks) == ["waiting"]
    assert list(events.camera._written) == ["waiting"]


@pytest.mark.parametrize("late", ["task-started", "task-received", "task-retried"])
def test_a_late_event_never_reopens_a_finished_task(events, late):
    received(events)
    events.send("task-succeeded", "t1", result="'ok'", runtime=0.5)
    events.shoot()
    events.restart()
    events.send(late, "t1", name="shop.tasks.add", args="()", kwargs="{}", exception="late")
    events.shoot()
    row = TaskState.objects.get()
    assert (row.state, row.result, row.runtime) == ("SUCCESS", "'ok'", 0.5)


def test_a_late_event_adds_what_is_not_known_yet(events):
    received(events)
    TaskState.objects.all().delete()
    TaskState.objects.create(task_id="t1", state="SUCCESS", name="shop.tasks.add", tstamp=utils.now(), result="'ok'")
    events.shoot()
    row = TaskState.objects.get()
    assert (row.state, row.result, row.args) == ("SUCCESS", "'ok'", "(1,)")


def test_a_later_event_without_arguments_does_not_erase_them(events):
    received(events, eta="2030-01-01T12:00:00+00:00")
    events.shoot()
    events.restart()
    events.send("task-started", "t1")
    events.shoot()
    row = TaskState.objects.get()
    assert (row.state, row.name, row.args) == ("STARTED", "shop.tasks.add", "(1,)")
    assert utils.to_utc(row.eta).isoformat() == "2030-01-01T12:00:00+00:00"


def test_a_task_whose_name_is_unknown_gets_no_row(events):
    events.send("task-failed", "t1", exception="KeyError()", traceback="tb")
    events.shoot()
    assert TaskState.objects.count() == 0


def test_a_sent_task_is_pending_without_a_worker(events):
    events.send("task-sent", "t1", name="shop.tasks.add", args="()", kwargs="{}", hostname="gen1@web")
    events.shoot()
    row = TaskState.objects.get()
    assert (row.state, row.worker) == ("PENDING", None)


def test_failures_keep_the_exception_and_retries_are_counted(events):
    events.send("task-received", "t1", name="x", args="()", kwargs="{}", retries=2)
    events.send("task-failed", "t1", exception="KeyError('x')", traceback="Traceback\n …")
    events.shoot()
    row = TaskState.objects.get()
    assert (row.state, row.result, row.traceback, row.retries) == ("FAILURE", "KeyError('x')", "Traceback\n …", 2)


def test_text_that_the_database_cannot_hold_is_escaped(events):
    events.send("task-received", "t1", name="x", args="('\x00\udc80',)", kwargs="{}")
    events.shoot()
    assert TaskState.objects.get().args == "('\\x00\\udc80',)"


def test_an_id_that_does_not_fit_is_left_out_alone(events, caplog):
    received(events, "x" * 40)
    received(events, "good")
    events.shoot()
    events.shoot()
    assert [row.task_id for row in TaskState.objects.all()] == ["good"]
    assert caplog.text.count("longer than 36 characters") == 1


def test_one_event_that_cannot_be_read_does_not_stop_the_others(events, caplog):
    received(events, "bad", eta="tomorrow, perhaps")
    received(events, "good")
    events.shoot()
    assert [row.task_id for row in TaskState.objects.all()] == ["good"]
    assert "Task 'bad' has an event that can't be read" in caplog.text


def test_a_row_that_the_database_refuses_does_not_stop_the_others(events, monkeypatch, caplog):
    received(events, "bad")
    received(events, "good")
    original = QuerySet.bulk_create

    def refusing(self, rows, *args, **options):
        if any(getattr(row, "task_id", "") == "bad" for row in rows):
            raise DataError("no")
        return original(self, rows, *args, **options)

    monkeypatch.setattr(QuerySet, "bulk_create", refusing)
    events.shoot()
    assert [row.task_id for row in TaskState.objects.all()] == ["good"]
    assert "can't be written and is left out" in caplog.text


def test_a_shutter_that_cannot_write_keeps_everything_for_the_next(events, monkeypatch):
    received(events)
    events.send("task-succeeded", "t1", result="1", runtime=1)

    def away(*args):
        raise OperationalError("server is away")

    with monkeypatch.context() as broken:
        broken.setattr(Camera, "_write_tasks", away)
        with pytest.raises(OperationalError):
            events.shoot()
    assert "t1" in events.state.tasks
    events.shoot()
    assert TaskState.objects.get().state == "SUCCESS"


def test_heartbeats_are_written_once_a_second_at_most(events, django_assert_num_queries):
    events.send("worker-heartbeat", freq=2)
    events.shoot()
    before = WorkerState.objects.get().last_heartbeat
    events.send("worker-heartbeat", freq=2)
    with django_assert_num_queries(0):
        events.shoot()
    events.now += 5
    events.send("worker-heartbeat", freq=2)
    events.shoot()
    assert WorkerState.objects.get().last_heartbeat - before >= timedelta(seconds=4)


def test_the_methods_that_legacy_cameras_had_write_one_row(events):
    received(events)
    (item,) = events.state.tasks.items()
    row = events.camera.handle_task(item)
    assert row.worker.hostname == "w1@host"
    (worker,) = events.state.workers.items()
    assert events.camera.handle_worker(worker).hostname == "w1@host"
    assert events.camera.get_heartbeat(worker[1]) is None or events.camera.get_heartbeat(worker[1]) <= utils.now()


@pytest.mark.parametrize(
    ("state", "setting", "age", "kept"),
    [
        ("SUCCESS", "SUCCESS", timedelta(hours=25), False),
        ("SUCCESS", "SUCCESS", timedelta(hours=23), True),
        ("FAILURE", "ERROR", timedelta(days=2), True),
        ("FAILURE", "ERROR", timedelta(days=4), False),
        ("STARTED", "PENDING", timedelta(days=4), True),
        ("STARTED", "PENDING", timedelta(days=6), False),
    ],
)
def test_rows_expire_by_their_state(events, state, setting, age, kept):
    TaskState.objects.create(task_id="t1", state=state, tstamp=utils.now() - age)
    assert events.camera.on_cleanup() == (0 if kept else 1)
    assert TaskState.objects.exists() is kept


def test_an_expiry_of_none_keeps_rows_for_ever(events, settings):
    settings.CELERYCAM_EXPIRE_SUCCESS = None
    TaskState.objects.create(task_id="t1", state="SUCCESS", tstamp=utils.now() - timedelta(days=4000))
    assert events.camera.on_cleanup() == 0
    assert TaskState.objects.count() == 1


@pytest.mark.parametrize("use_tz", [True, False])
def test_times_are_right_with_use_tz_on_and_off(events, settings, use_tz):
    settings.USE_TZ = use_tz
    received(events)
    events.shoot()
    row = TaskState.objects.get()
    assert abs(utils.to_utc(row.tstamp).timestamp() - time.time()) < 60
    assert WorkerState.objects.get().is_alive()
