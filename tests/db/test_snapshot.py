"""The camera on Celery's State: events in, rows out. What it shares with celerycam is in ``test_camera_writer``."""

from __future__ import annotations

import time
from datetime import timedelta
from itertools import count

import pytest
from celery.events.state import State
from django.db import DataError, OperationalError
from django.test.utils import isolate_apps

from djcelery import utils
from djcelery.managers import TaskStateManager
from djcelery.models import CameraState, TaskHistory, TaskState, WorkerState
from djcelery.snapshot import Camera, statements
from djcelery.snapshot.writer import Writer

pytestmark = pytest.mark.django_db


class Events:
    """Feeds events of one worker to a camera."""

    def __init__(self, app):
        self.state = State()
        self.camera = Camera(self.state, app=app)
        self.clock = count(1)
        self.now = time.time() - 10

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
    # The very first shutter makes the rows of the gate, the worker and the camera, too.
    with django_assert_max_num_queries(16):
        events.shoot()
    for number in range(1000):
        events.send("task-started", f"t{number}")
    # Two of them begin and end the transaction.
    with django_assert_max_num_queries(10):
        events.shoot()
    assert TaskState.objects.filter(state="STARTED").count() == 1000


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


def test_a_task_whose_name_is_unknown_has_a_row_without_one(events):
    # django-celery wrote none, and its end was lost.
    events.send("task-failed", "t1", exception="KeyError()", traceback="tb")
    events.shoot()
    row = TaskState.objects.get()
    assert (row.state, row.name, row.result) == ("FAILURE", None, "KeyError()")


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
    assert caplog.text.count("its uuid is no text of up to 36 characters") == 1


def test_one_event_that_cannot_be_read_does_not_stop_the_others(events, caplog):
    received(events, "bad", eta="tomorrow, perhaps")
    received(events, "good")
    events.shoot()
    assert [row.task_id for row in TaskState.objects.all()] == ["good"]
    assert "Task 'bad' has an event that can't be read" in caplog.text


def test_a_row_that_the_database_refuses_does_not_stop_the_others(events, monkeypatch, caplog):
    received(events, "bad")
    received(events, "good")
    original = statements.upsert

    def refusing(connection, table, rows, *args):
        if any("bad" in row for row in rows):
            raise DataError("no")
        return original(connection, table, rows, *args)

    monkeypatch.setattr(statements, "upsert", refusing)
    events.shoot()
    assert [row.task_id for row in TaskState.objects.all()] == ["good"]
    assert "can't be written and is left out" in caplog.text


def test_a_shutter_that_cannot_write_keeps_everything_for_the_next(events, monkeypatch):
    received(events)
    events.send("task-succeeded", "t1", result="1", runtime=1)

    def away(*args):
        raise OperationalError("server is away")

    with monkeypatch.context() as broken:
        broken.setattr(Writer, "_commit", away)
        with pytest.raises(OperationalError):
            events.shoot()
    assert "t1" in events.state.tasks
    events.shoot()
    assert TaskState.objects.get().state == "SUCCESS"


def test_what_celerys_state_has_forgotten_is_forgotten_whatever_a_camera_keeps(celery_app):
    class Keeping(Camera):
        clear_after = False

    events = Events(celery_app)
    events.state = State(max_tasks_in_memory=5, max_workers_in_memory=3)
    events.camera = Keeping(events.state, app=celery_app)
    for number in range(20):
        received(events, f"t{number}", hostname=f"w{number}")
        events.send("worker-heartbeat", hostname=f"w{number}", freq=2)
        events.shoot()
    assert TaskState.objects.count() == WorkerState.objects.count() == 20
    assert set(events.camera._written) == set(events.state.tasks)
    assert set(events.camera._heartbeats) == set(events.state.workers)
    # As before, it keeps what Celery keeps.
    assert len(events.camera._written) == 5


def test_another_process_is_online_since_the_first_of_what_it_says(events):
    events.send("worker-heartbeat", pid=1, processed=50, freq=2)
    events.shoot()
    events.now += 2
    received(events, pid=2)
    events.send("task-started", "t1", pid=2)
    began = events.now + 0.003
    events.now += 3
    events.send("worker-heartbeat", pid=2, processed=1, freq=2)
    events.shoot()
    row = WorkerState.objects.get()
    assert row.pid == 2
    assert utils.to_utc(row.online_at).timestamp() == pytest.approx(began, abs=0.01)
    assert row.online_at <= TaskState.objects.get().tstamp


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


def test_what_the_camera_sees_counts_in_the_history_once(events):
    received(events)
    events.shoot()
    events.send("task-retried", "t1", exception="E()")
    received(events, retries=1)
    events.send("task-started", "t1")
    events.shoot()
    events.send("task-succeeded", "t1", result="1", runtime=0.5)
    events.shoot()
    events.restart()
    events.send("task-succeeded", "t1", result="1", runtime=0.5)
    events.shoot()
    totals = TaskHistory.objects.filter(period="total").values_list("name", "state", "count")
    assert set(totals) == {("shop.tasks.add", state, 1) for state in ("RECEIVED", "RETRY", "SUCCESS")}
    assert TaskState.objects.get().retries == 1


def test_new_columns_are_filled_as_far_as_celerys_state_knows(events):
    events.send("task-sent", "t1", name="x", args="()", kwargs="{}", hostname="gen1@web", queue="fast", routing_key="k")
    received(events, root_id="r", parent_id="p")
    events.send("task-started", "t1")
    events.send("task-failed", "t1", exception="E()", traceback="tb")
    events.send("worker-heartbeat", freq=2.0, processed=3, active=1, loadavg=[1, 2, 3], sw_ident="py", sw_ver="5")
    events.shoot()
    row = TaskState.objects.get()
    assert (row.client, row.queue, row.routing_key, row.root_id, row.parent_id) == ("gen1@web", "fast", "k", "r", "p")
    assert row.sent_at < row.received_at < row.started_at < row.finished_at == row.tstamp
    assert (row.exception, row.result, row.traceback) == ("E()", "E()", "tb")
    worker = row.worker
    assert (worker.frequency, worker.processed, worker.active, worker.software) == (2.0, 3, 1, "py")


def test_an_event_of_the_projects_own_is_progress(events):
    received(events)
    events.send("task-started", "t1")
    events.send("task-progress", "t1", done=3)
    events.shoot()
    row = TaskState.objects.get()
    assert row.state == "STARTED"
    assert '"done": 3' in row.progress


def test_times_that_celerys_receiver_has_moved_by_hours_are_put_right(events):
    from celery.utils.time import adjust_timestamp

    sent = time.time() - 10
    events.send(
        "task-received", "t1", name="x", timestamp=adjust_timestamp(sent, -9), utcoffset=-9, local_received=sent
    )
    events.shoot()
    assert utils.to_utc(TaskState.objects.get().received_at).timestamp() == pytest.approx(sent, abs=0.001)


def test_a_camera_with_methods_of_its_own_is_asked_for_each_row(celery_app):
    called = []

    class Own(Camera):
        def handle_worker(self, hostname_worker):
            called.append(hostname_worker[0])
            return super().handle_worker(hostname_worker)

        def update_task(self, state, **kwargs):
            called.append((state, kwargs["task_id"], sorted(kwargs["defaults"])))
            return super().update_task(state, **kwargs)

    events = Events(celery_app)
    events.camera = Own(events.state, app=celery_app)
    received(events)
    events.send("task-succeeded", "t1", result="1", runtime=0.5)
    events.shoot()
    assert called[0] == "w1@host"
    assert called[-1] == (
        "SUCCESS",
        "t1",
        ["args", "expires", "kwargs", "name", "result", "runtime", "state", "traceback", "tstamp", "worker"],
    )
    row = TaskState.objects.get()
    assert (row.state, row.result, row.runtime, row.worker.hostname) == ("SUCCESS", "1", 0.5, "w1@host")


def test_update_task_writes_what_it_is_given_and_nothing_without_a_name(events):
    now = utils.now()
    assert events.camera.update_task("STARTED", task_id="t1", defaults={"tstamp": now}) is None
    assert not TaskState.objects.exists()
    row = events.camera.update_task("SUCCESS", task_id="t1", defaults={"name": "x", "result": "1", "tstamp": now})
    assert (row.state, row.result, row.name) == ("SUCCESS", "1", "x")
    row = events.camera.update_task("STARTED", task_id="t1", defaults={"name": "x", "args": "()", "tstamp": now})
    assert (row.state, row.result, row.args) == ("SUCCESS", "1", "()")


def test_ages_of_a_camera_of_ones_own_count(celery_app):
    class Own(Camera):
        expire_states = {frozenset({"SUCCESS"}): timedelta(hours=1), frozenset({"FAILURE"}): None}

    for state in ("SUCCESS", "FAILURE", "STARTED"):
        TaskState.objects.create(task_id=state, state=state, tstamp=utils.now() - timedelta(days=100))
    assert Own(State(), app=celery_app).on_cleanup() == 1
    assert set(TaskState.objects.values_list("state", flat=True)) == {"FAILURE", "STARTED"}


def test_a_camera_with_models_of_its_own_cleans_up_and_looks_for_lost_tasks_by_them(celery_app, monkeypatch):
    asked = []

    class Manager(TaskStateManager):
        def expiring(self, *args, **kwargs):
            asked.append("expiring")
            return super().expiring(*args, **kwargs)

        def purging(self, *args, **kwargs):
            asked.append("purging")
            return super().purging(*args, **kwargs)

    with isolate_apps("djcelery"):

        class OwnTask(TaskState):
            objects = Manager()

            class Meta:
                proxy = True
                app_label = "djcelery"

        class OwnWorker(WorkerState):
            class Meta:
                proxy = True
                app_label = "djcelery"

    class Own(Camera):
        TaskState, WorkerState = OwnTask, OwnWorker

    old = utils.now() - timedelta(days=400)
    TaskState.objects.create(task_id="t1", state="SUCCESS", tstamp=old)
    WorkerState.objects.create(hostname="gone", last_heartbeat=old)
    events = Events(celery_app)
    events.camera = Own(events.state, app=celery_app)
    assert events.camera.on_cleanup() == 1
    assert "expiring" in asked
    assert "purging" in asked
    assert not WorkerState.objects.exists()
    assert (events.camera._upkeep.task_model, events.camera._upkeep.worker_model) == (OwnTask, OwnWorker)
    assert events.camera._upkeep._lost(old).model is OwnTask


def test_the_end_of_the_camera_is_written(events):
    received(events)
    with events.camera:
        pass
    row = CameraState.objects.get()
    assert row.name.startswith("celeryev@")
    assert row.events == 1
    assert row.stopped_at is not None


def test_names_of_django_celery_are_there():
    from djcelery import snapshot

    assert snapshot.WORKER_UPDATE_FREQ == 1
    assert {"SUCCESS"} == snapshot.SUCCESS_STATES
    assert {"name", "args", "kwargs", "eta"} == snapshot.NOT_SAVED_ATTRIBUTES
    assert snapshot.aware_tstamp(0).isoformat() == "1970-01-01T00:00:00+00:00"
