"""Batches of news in, rows out: in few statements, once, and whatever is wrong with one of them."""

from __future__ import annotations

import copy
import time
from datetime import timedelta

import pytest
from django.db import DataError, IntegrityError, OperationalError, connection

from djcelery import utils
from djcelery.models import CameraState, MalformedEvent, MonitorGate, TaskHistory, TaskState, WorkerState
from djcelery.snapshot import intake, statements
from djcelery.snapshot.dirty import Batch, Dirty
from djcelery.snapshot.writer import Writer
from tests.db.beats import end_session
from tests.db.cameras import SUMS, Feed, refuse

pytestmark = pytest.mark.django_db


@pytest.fixture
def feed():
    return Feed()


def columns(row):
    return {field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields}


def test_a_whole_life_is_one_row_with_all_that_events_say(feed):
    what = {"name": "shop.add", "args": "(1,)", "kwargs": "{}", "root_id": "root", "parent_id": "parent"}
    feed.send("task-sent", "t1", hostname="gen1@web", queue="fast", routing_key="fast.key", retries=0, **what)
    feed.received("t1", 1, expires="2030-01-01T00:00:00", **what)
    feed.send("task-started", "t1", 2)
    feed.send("task-progress", "t1", 3, done=0.5)
    feed.send("task-succeeded", "t1", 5, result="'ok'", runtime=2.5)
    feed.write()
    row = TaskState.objects.get()
    assert (row.state, row.name, row.args, row.kwargs) == ("SUCCESS", "shop.add", "(1,)", "{}")
    assert (row.result, row.runtime, row.exception, row.traceback) == ("'ok'", 2.5, None, None)
    assert (row.queue, row.routing_key, row.client, row.worker.hostname) == ("fast", "fast.key", "gen1@web", "w1@host")
    assert (row.root_id, row.parent_id, row.retries, row.hidden, row.flags) == ("root", "parent", 0, False, None)
    assert row.progress == '{"event": "progress", "done": 0.5}'
    times = [row.sent_at, row.received_at, row.started_at, row.finished_at, row.tstamp]
    assert [round(utils.to_utc(at).timestamp() - feed.now, 6) for at in times] == [0, 1, 2, 5, 5]
    assert utils.to_utc(row.expires).isoformat() == "2030-01-01T00:00:00+00:00"


@pytest.mark.parametrize("use_tz", [True, False])
def test_times_read_back_are_the_times_written(feed, settings, use_tz):
    settings.USE_TZ = use_tz
    feed.received("t1", 0.123456)
    feed.write()
    before = columns(TaskState.objects.get())
    assert abs(utils.to_utc(before["received_at"]).timestamp() - feed.now - 0.123456) < 1e-6
    feed.received("t1", 0.123456)
    feed.write()
    assert columns(TaskState.objects.get()) == before
    assert feed.counts() == {"RECEIVED": 1}
    feed.send("task-succeeded", "t1", 1, result="1", runtime=1)
    feed.write()
    assert feed.counts() == {"RECEIVED": 1, "SUCCESS": 1}


def test_each_state_of_a_life_is_written_over_the_one_before(feed):
    seen = []
    for kind, fields in (
        ("sent", {"name": "x", "hostname": "web"}),
        ("received", {"name": "x", "retries": 0}),
        ("started", {}),
        ("retried", {"exception": "E('x')", "traceback": "tb"}),
        ("received", {"name": "x", "retries": 1}),
        ("started", {}),
        ("failed", {"exception": "F('y')", "traceback": "tb2"}),
    ):
        feed.send(f"task-{kind}", "t1", len(seen), **fields)
        feed.write()
        row = TaskState.objects.get()
        seen.append((row.state, row.retries, row.result, row.exception, row.traceback))
    assert seen == [
        ("PENDING", 0, None, None, None),
        ("RECEIVED", 0, None, None, None),
        ("STARTED", 0, None, None, None),
        ("RETRY", 1, "E('x')", "E('x')", "tb"),
        ("RECEIVED", 1, "E('x')", "E('x')", "tb"),
        ("STARTED", 1, "E('x')", "E('x')", "tb"),
        ("FAILURE", 1, "F('y')", "F('y')", "tb2"),
    ]
    assert feed.counts() == {"RECEIVED": 1, "RETRY": 1, "FAILURE": 1}


def test_success_empties_what_a_retry_has_left(feed):
    feed.received("t1")
    feed.send("task-retried", "t1", 1, exception="E()", traceback="tb")
    feed.write()
    feed.send("task-succeeded", "t1", 2, result="1", runtime=1)
    feed.write()
    row = TaskState.objects.get()
    assert (row.result, row.exception, row.traceback, row.retries) == ("1", None, None, 1)


@pytest.mark.parametrize("state", ["SUCCESS", "FAILURE", "REVOKED"])
def test_a_row_of_django_celery_is_not_reopened(feed, state):
    TaskState.objects.create(
        task_id="t1", state=state, name="x", tstamp=utils.now(), result="'ok'", runtime=1.5, traceback="tb"
    )
    feed.received("t1", 5, args="(7,)")
    feed.send("task-started", "t1", 6)
    feed.write()
    row = TaskState.objects.get()
    assert (row.state, row.result, row.runtime, row.traceback) == (state, "'ok'", 1.5, "tb")
    assert row.args == "(7,)"


def test_an_unfinished_row_of_django_celery_is_taken_up(feed):
    worker = WorkerState.objects.create(hostname="w1@host", last_heartbeat=utils.fromtimestamp(feed.now - 60))
    TaskState.objects.create(
        task_id="t1", state="STARTED", name="x", tstamp=utils.fromtimestamp(feed.now), worker=worker
    )
    feed.send("task-succeeded", "t1", 5, result="1", runtime=1)
    feed.write()
    row = TaskState.objects.get()
    assert (row.state, row.worker, row.name) == ("SUCCESS", worker, "x")


def test_keys_of_rows_are_not_used_up_by_updates(feed):
    for number in range(5):
        feed.send("task-started", "t1", number)
        feed.write()
    feed.received("t2")
    feed.write()
    first, second = TaskState.objects.order_by("pk").values_list("pk", flat=True)
    assert second == first + 1


# -- how many statements -----------------------------------------------------------------------


def test_a_thousand_changed_tasks_take_ten_statements_at_most(feed, django_assert_max_num_queries):
    feed.received("warm")
    feed.write()
    ids = [f"t{number}" for number in range(1000)]
    for phase, kind in enumerate(("task-received", "task-started", "task-succeeded")):
        for task_id in ids:
            feed.send(kind, task_id, phase + 1, **({"name": f"shop.{task_id[-1]}"} if phase == 0 else {"result": "1"}))
        # Two of them begin and end the transaction.
        with django_assert_max_num_queries(12):
            feed.write()
    assert TaskState.objects.filter(state="SUCCESS").count() == 1000
    assert feed.counts() == {"RECEIVED": 1001, "SUCCESS": 1000}


def test_nothing_costs_nothing(feed, django_assert_num_queries):
    feed.received("t1")
    feed.write()
    with django_assert_num_queries(0):
        feed.write()


def test_what_changes_nothing_is_read_and_not_written(feed):
    feed.received("t1", 1)
    feed.send("task-succeeded", "t1", 2, result="1", runtime=1)
    batch = feed.dirty.take(10)
    feed.writer.write(copy.deepcopy(batch))
    statements = []

    def note(execute, sql, params, many, context):
        statements.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        feed.writer.write(batch)
    assert [sql for sql in statements if "taskstate" in sql and not sql.startswith("SELECT")] == []
    assert not any("taskhistory" in sql for sql in statements)


def test_more_tasks_than_one_transaction_takes_are_written_in_several(feed, monkeypatch):
    monkeypatch.setattr("djcelery.snapshot.writer.BATCH_ROWS", 10)
    for number in range(25):
        feed.received(f"t{number}", worker=f"w{number}")
    feed.write()
    assert TaskState.objects.count() == 25
    assert TaskState.objects.filter(worker=None).count() == 0
    assert WorkerState.objects.filter(last_heartbeat=None).count() == 0


# -- what is wrong with single rows ------------------------------------------------------------


def test_texts_that_databases_can_not_hold_are_escaped_and_flagged(feed):
    feed.received("t1", args="('\x00\udc80', '😀')")
    feed.send("task-failed", "t1", 1, exception="E('\x00')", traceback="tb \udc80")
    feed.write()
    row = TaskState.objects.get()
    assert row.exception == "E('\\x00')"
    assert row.traceback == "tb \\udc80"
    assert "args_escaped" in row.flags.split()
    assert "traceback_escaped" in row.flags.split()


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("connection.vendor != 'mysql'", reason="only there text columns may have three bytes")
def test_columns_of_three_bytes_get_escapes(feed):
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE djcelery_taskstate MODIFY args longtext CHARACTER SET utf8mb3")
    try:
        feed.received("t1", args="('😀',)")
        feed.received("t2", args="('ä',)")
        feed.write()
        rows = {row.task_id: (row.args, row.flags) for row in TaskState.objects.all()}
        assert rows == {"t1": ("('\\U0001f600',)", "args_escaped"), "t2": ("('ä',)", None)}
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE djcelery_taskstate MODIFY args longtext CHARACTER SET utf8mb4")


@pytest.mark.parametrize("error", [DataError, IntegrityError])
def test_a_row_that_the_database_refuses_does_not_stop_the_others(feed, monkeypatch, caplog, error):
    refuse(monkeypatch, ["t3", "t7"], error)
    for number in range(10):
        feed.received(f"t{number}", worker=f"w{number}")
    feed.write()
    assert set(TaskState.objects.values_list("task_id", flat=True)) == {f"t{n}" for n in range(10)} - {"t3", "t7"}
    assert feed.counts() == {"RECEIVED": 8}
    assert caplog.text.count("can't be written and is left out") == 2
    assert "Task t3 can't be written" in caplog.text
    assert WorkerState.objects.count() == 10
    feed.writer.stop()
    assert CameraState.objects.get().refused == 2


def test_a_worker_that_the_database_refuses_does_not_stop_the_others(feed, monkeypatch, caplog):
    original = statements.upsert

    def refusing(connection, table, rows, *args):
        if table.name.endswith("workerstate") and any("bad" in row for row in rows):
            raise DataError("no")
        return original(connection, table, rows, *args)

    monkeypatch.setattr(statements, "upsert", refusing)
    for name in ("good", "bad", "better"):
        feed.send("worker-heartbeat", hostname=name)
    feed.received("t1", worker="good")
    feed.write()
    assert set(WorkerState.objects.values_list("hostname", flat=True)) == {"good", "better"}
    assert TaskState.objects.get().worker.hostname == "good"
    assert "Worker bad can't be written" in caplog.text


def test_what_can_not_be_written_now_is_kept_and_counts_once(feed, monkeypatch):
    monkeypatch.setattr("djcelery.snapshot.writer.BATCH_ROWS", 2)
    for number in range(6):
        feed.received(f"t{number}", number)
    batch = feed.dirty.take(100)
    with monkeypatch.context() as broken:
        refuse(broken, ["t4"], OperationalError)
        with pytest.raises(OperationalError):
            feed.writer.write(batch)
    feed.dirty.give_back(batch)
    feed.send("task-succeeded", "t5", 9, result="1", runtime=1)
    feed.write()
    assert TaskState.objects.count() == 6
    assert feed.counts() == {"RECEIVED": 6, "SUCCESS": 1}


def test_two_records_of_one_task_in_a_batch_are_one_row(feed):
    one, other = feed.read("task-received", "t1", name="x"), feed.read("task-started", "t1", 1)
    feed.writer.write(Batch([one, other, feed.read("task-received", "t2", name="x")]))
    assert dict(TaskState.objects.values_list("task_id", "state")) == {"t1": "STARTED", "t2": "RECEIVED"}


@pytest.mark.skipif("connection.vendor != 'mysql'", reason="elsewhere these are two tasks")
def test_ids_that_the_database_takes_for_the_same_are_one_row(feed):
    for task_id in ("t1", "T1"):
        feed.received(task_id)
    feed.write()
    feed.send("task-started", "T1", 1)
    feed.write()
    assert TaskState.objects.get().state == "STARTED"


def test_a_batch_of_long_texts_is_written(feed):
    for number in range(12):
        feed.send("task-failed", f"t{number}", exception="E()", traceback="ä'\\\n" * 250_000)
    feed.write()
    assert {len(row.traceback) for row in TaskState.objects.all()} == {1_000_000}


def test_a_task_of_which_only_progress_came_has_a_row(feed):
    feed.send("task-progress", "t1", 1, done=1)
    feed.write()
    assert TaskState.objects.get().state == "PENDING"
    feed.received("t1", 2)
    feed.write()
    row = TaskState.objects.get()
    assert (row.state, row.progress) == ("RECEIVED", '{"event": "progress", "done": 1}')


# -- redaction ---------------------------------------------------------------------------------


def test_what_is_redacted_is_not_stored(feed, settings):
    settings.DJCELERY_REDACT = ["args", "kwargs.password", "result"]
    feed.received("t1", args="(1,)", kwargs="{'user': 'me', 'password': 'x'}")
    feed.send("task-failed", "t1", 1, exception="KeyError('secret')", traceback="secret")
    feed.received("t2", kwargs="{'password': <object>, ...}")
    feed.send("task-progress", "t2", 2, text="secret")
    feed.send("task-succeeded", "t2", 3, result="'secret'", runtime=1)
    feed.write()
    first, second = TaskState.objects.order_by("task_id")
    assert (first.args, first.kwargs) == (None, "{'user': 'me', 'password': '[redacted]'}")
    assert (first.result, first.exception, first.traceback) == ("KeyError", "KeyError", None)
    assert set(first.flags.split()) == {f"{n}_redacted" for n in ("args", "kwargs", "result", "exception", "traceback")}
    assert (second.kwargs, second.result, second.progress) == ("[redacted]", None, None)
    # What a retry has left is not kept in place of what is hidden.
    feed.received("t3")
    feed.send("task-retried", "t3", 1, exception="KeyError('secret')")
    feed.write()
    feed.send("task-succeeded", "t3", 2, result="'secret'", runtime=1)
    feed.write()
    third = TaskState.objects.get(task_id="t3")
    assert (third.state, third.result, third.exception) == ("SUCCESS", None, None)


def test_a_task_may_say_itself_what_is_hidden_even_when_only_its_end_is_seen(celery_app, feed):
    def nothing():
        """Do nothing."""

    celery_app.task(name="shop.hidden", shared=False, redact=["result"])(nothing)
    celery_app.task(name="shop.broken", shared=False, redact="args")(nothing)
    writer = Writer("cam", 1.0, celery_app)
    for task_id, name in (("t1", "shop.hidden"), ("t2", "shop.open"), ("t3", "shop.broken")):
        feed.received(task_id, name=name, args="(1,)")
    writer.write(feed.dirty.take(10))
    for task_id in ("t1", "t2", "t3"):
        feed.send("task-succeeded", task_id, 1, result="'x'", runtime=1)
    writer.write(feed.dirty.take(10))
    found = {row.task_id: (row.args, row.result) for row in TaskState.objects.all()}
    assert found == {"t1": ("(1,)", None), "t2": ("(1,)", "'x'"), "t3": (None, None)}


# -- workers -----------------------------------------------------------------------------------


def test_a_worker_has_what_its_heartbeat_says(feed):
    feed.send("worker-online", processed=0)
    feed.send("worker-heartbeat", at=2, freq=2.0, active=3, processed=10, loadavg=[1, 2, 3], sw_ident="py-celery",
              sw_ver="5.7", sw_sys="Linux")  # fmt: skip
    feed.write()
    row = WorkerState.objects.get()
    assert (row.hostname, row.pid, row.frequency, row.active, row.processed) == ("w1@host", 1, 2.0, 3, 10)
    assert (row.load, row.software, row.version, row.system) == ("1 2 3", "py-celery", "5.7", "Linux")
    assert (row.clock_skew, row.offline_at) == (0.0, None)
    assert utils.to_utc(row.online_at).timestamp() == pytest.approx(feed.now)
    assert utils.to_utc(row.last_heartbeat).timestamp() == pytest.approx(feed.now + 2)


def test_a_worker_that_says_good_bye_is_offline_until_it_is_heard_again(feed):
    feed.now = time.time() - 10
    feed.send("worker-heartbeat", freq=2.0)
    feed.write()
    assert WorkerState.objects.get().is_alive()
    feed.send("worker-offline", at=1)
    feed.write()
    assert not WorkerState.objects.get().is_alive()
    # Delivered again.
    feed.send("worker-heartbeat", freq=2.0)
    feed.write()
    assert not WorkerState.objects.get().is_alive()
    feed.send("worker-heartbeat", at=5, freq=2.0)
    feed.write()
    row = WorkerState.objects.get()
    assert row.is_alive()
    assert row.offline_at is None


def test_a_worker_whose_clock_is_wrong_is_not_offline(feed):
    now = time.time()
    for ahead, name in ((7200, "ahead"), (-7200, "behind")):
        for number in range(4):
            came = now - 8 + 2 * number
            news = feed.read(
                "worker-heartbeat", at=came + ahead - feed.now, came=came - feed.now, hostname=name, freq=2.0
            )
            feed.dirty.add(news)
    feed.write()
    for name, skew in (("ahead", 7200), ("behind", -7200)):
        row = WorkerState.objects.get(hostname=name)
        assert row.is_alive(), name
        assert row.clock_skew == pytest.approx(skew)


def test_another_process_of_the_same_name_is_online_since_it_began(feed):
    feed.send("worker-heartbeat", pid=1, processed=50)
    feed.write()
    assert WorkerState.objects.get().online_at is None
    feed.send("worker-heartbeat", at=10, pid=2, processed=3)
    feed.write()
    row = WorkerState.objects.get()
    assert (row.pid, row.processed) == (2, 3)
    assert utils.to_utc(row.online_at).timestamp() == pytest.approx(feed.now + 10)
    # In a container the process id is the same.
    feed.send("worker-heartbeat", at=20, pid=2, processed=0)
    feed.write()
    assert utils.to_utc(WorkerState.objects.get().online_at).timestamp() == pytest.approx(feed.now + 20)
    # Old news of the first.
    feed.send("worker-heartbeat", at=5, pid=1, processed=51)
    feed.write()
    row = WorkerState.objects.get()
    assert (row.pid, row.processed) == (2, 0)


def test_another_process_is_online_since_the_first_of_what_it_says(feed):
    feed.send("worker-heartbeat", pid=1, processed=50)
    feed.write()
    # Its worker-online was lost. What comes last must not make it younger than what it runs.
    feed.received("t1", 10, pid=2)
    feed.send("task-started", "t1", 10.5, pid=2)
    feed.send("worker-heartbeat", at=12, pid=2, processed=1)
    feed.send("task-started", "t2", 13, pid=2)
    feed.write()
    row = WorkerState.objects.get()
    assert row.pid == 2
    assert utils.to_utc(row.online_at).timestamp() == pytest.approx(feed.now + 10)
    assert row.online_at <= TaskState.objects.get(task_id="t1").tstamp
    feed.send("worker-heartbeat", at=20, pid=2, processed=2)
    feed.write()
    assert utils.to_utc(WorkerState.objects.get().online_at).timestamp() == pytest.approx(feed.now + 10)


def test_what_is_missed_only_grows_and_what_is_seen_begins_anew_with_the_process(feed):
    def say(at, pid, processed, seen, missed):
        feed.send("worker-heartbeat", at=at, pid=pid, processed=processed)
        batch = feed.dirty.take(10)
        for news in batch.workers:
            news.seen, news.missed = seen, missed
        feed.writer.write(batch)
        row = WorkerState.objects.get()
        return row.seen, row.missed

    assert say(1, 1, 10, 8, 2) == (8, 2)
    assert say(2, 1, 10, 7, 1) == (8, 2)
    assert say(3, 1, 12, None, None) == (8, 2)
    assert say(4, 2, 1, 1, 0) == (1, 2)


# -- cameras -----------------------------------------------------------------------------------


def test_two_cameras_of_the_same_events_count_nothing_twice(feed):
    other = Feed(feed.now, "other")
    ids = [f"t{number}" for number in range(30)]
    for phase, kind in enumerate(("received", "started", "retried", "received", "started", "succeeded")):
        for number, task_id in enumerate(ids):
            fields = {"name": "x", "retries": 0 if phase < 3 else 1} if kind == "received" else {}
            fields |= {"result": "1", "runtime": 0.5} if kind == "succeeded" else {}
            for camera in (feed, other):
                camera.send(f"task-{kind}", task_id, phase + number / 100, **fields)
            if number % 7 == phase:
                (feed if number % 2 else other).write()
    feed.write()
    other.write()
    assert TaskState.objects.filter(state="SUCCESS", retries=1).count() == 30
    assert feed.counts() == {"RECEIVED": 30, "RETRY": 30, "SUCCESS": 30}


def test_a_batch_that_is_written_again_after_a_crash_changes_nothing(feed):
    feed.received("t1", 1)
    feed.send("task-started", "t1", 2)
    feed.send("task-retried", "t1", 3, exception="E()")
    feed.received("t2", 1)
    feed.send("task-failed", "t2", 2, exception="F()", traceback="tb")
    feed.send("worker-heartbeat", at=3, processed=2)
    batch = feed.dirty.take(10)
    feed.writer.write(copy.deepcopy(batch))
    before = [columns(row) for model in (TaskState, TaskHistory, WorkerState) for row in model.objects.order_by("pk")]
    Writer("after the crash", 1.0).write(batch)
    after = [columns(row) for model in (TaskState, TaskHistory, WorkerState) for row in model.objects.order_by("pk")]
    assert after == before


def test_a_camera_says_how_it_does_and_sums_go_on_after_a_restart(feed):
    feed.writer.note(events=10, malformed=2, dropped=1, missed=3, waiting=7, event_at_s=feed.now, error="broker away")
    feed.writer.write(Batch())
    row = CameraState.objects.get()
    assert (row.name, row.frequency, row.waiting, row.error, row.stopped_at) == ("cam", 1.0, 7, "broker away", None)
    assert [getattr(row, name) for name in SUMS] == [10, 2, 1, 3]
    assert abs(utils.to_utc(row.shutter_at).timestamp() - time.time()) < 10
    assert utils.to_utc(row.event_at).timestamp() == pytest.approx(feed.now)
    feed.writer.note(events=12, missed=3, waiting=0, error=None)
    feed.writer.stop()
    row.refresh_from_db()
    assert [getattr(row, name) for name in SUMS] == [12, 2, 1, 3]
    assert (row.error, row.waiting) == (None, 0)
    assert row.stopped_at is not None
    again = Writer("cam", 2.0)
    again.note(events=5)
    again.write(Batch())
    row.refresh_from_db()
    assert (row.events, row.stopped_at, row.frequency) == (17, None, 2.0)
    assert abs(row.started_at - utils.now()) < timedelta(seconds=30)


def test_an_idle_camera_writes_its_heartbeat_every_few_seconds(feed, monkeypatch, django_assert_num_queries):
    clock = [time.monotonic()]
    monkeypatch.setattr("djcelery.snapshot.status.time.monotonic", lambda: clock[0])
    feed.writer.write(Batch())
    with django_assert_num_queries(0):
        feed.writer.write(Batch())
    clock[0] += 6
    with django_assert_num_queries(1):
        feed.writer.write(Batch())


def test_an_unknown_sum_of_a_camera_is_a_mistake(feed):
    with pytest.raises(TypeError, match="CameraState has no sum 'sheep'"):
        feed.writer.note(sheep=3)


def test_malformed_events_are_kept_apart_and_logged_once_a_minute(feed, caplog):
    for number in range(30):
        feed.dirty.add(intake.read({"type": "task-started", "number": number, "x": "\x00😀"}, feed.now))
    feed.dirty.add(intake.read("nothing", feed.now))
    feed.received("t1")
    feed.write()
    feed.dirty.add(intake.read({"type": "task-started"}, feed.now))
    feed.write()
    assert MalformedEvent.objects.count() == 32
    row = MalformedEvent.objects.order_by("pk").first()
    assert (row.reason, row.camera) == ("it has no uuid", "cam")
    assert '"number": 0' in row.body
    lines = [record.getMessage() for record in caplog.records if "can't be read" in record.getMessage()]
    assert len(lines) == 2
    assert lines[0].startswith("Events that can't be read: 30 since this was said last; it has no uuid.")
    assert TaskState.objects.count() == 1


def test_the_latest_thousand_malformed_events_are_kept(feed):
    for number in range(1600):
        feed.dirty.add(intake.read({"type": "task-started", "number": number}, feed.now))
        if number == 900:
            feed.write()
    feed.write()
    assert MalformedEvent.objects.count() <= 1000
    assert '"number": 1599' in MalformedEvent.objects.latest("pk").body


def test_the_gate_is_made_when_it_is_missing(feed):
    assert not MonitorGate.objects.exists()
    feed.received("t1")
    feed.write()
    assert MonitorGate.objects.get().pk == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="the test database in memory has one connection")
def test_a_connection_that_was_lost_is_replaced_at_once(feed):
    feed.received("t1")
    feed.write()
    end_session()
    feed.received("t2")
    feed.write()
    assert TaskState.objects.count() == 2
    assert feed.counts() == {"RECEIVED": 2}


def test_with_debug_on_statements_do_not_pile_up(feed, settings):
    settings.DEBUG = True
    feed.received("t1")
    feed.write()
    assert len(connection.queries_log) == 0


def test_a_writer_needs_no_more_than_the_tables(feed):
    assert Dirty(1).take(1).is_empty
    feed.writer.write(Batch())
    assert TaskState.objects.count() == 0
