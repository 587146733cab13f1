"""Nothing that an event brings ends the camera, or keeps it from writing the rest."""

from __future__ import annotations

import pytest
from django.db import DataError, OperationalError, connection

from djcelery.models import CameraState, TaskState, WorkerState
from djcelery.snapshot import intake, statements
from djcelery.snapshot.dirty import Batch
from djcelery.snapshot.status import Status
from djcelery.snapshot.writer import Writer
from tests.db.cameras import Feed, refuse

pytestmark = pytest.mark.django_db


@pytest.fixture
def feed():
    return Feed()


@pytest.mark.parametrize("error", [ValueError, TypeError, OverflowError, UnicodeEncodeError("utf-8", "x", 0, 1, "no")])
def test_a_value_that_the_driver_refuses_is_a_refused_row(feed, monkeypatch, caplog, error):
    refuse(monkeypatch, ["t3"], lambda text: error if isinstance(error, Exception) else error(text))
    for number in range(10):
        feed.received(f"t{number}")
    feed.write()
    assert set(TaskState.objects.values_list("task_id", flat=True)) == {f"t{n}" for n in range(10)} - {"t3"}
    assert "Task t3 can't be written and is left out" in caplog.text
    feed.writer.stop()
    assert CameraState.objects.get().refused == 1


def test_no_text_of_a_heartbeat_stops_the_camera(feed):
    feed.send("worker-heartbeat", loadavg=["\ud800", "\x00"], sw_ident="\ud800", sw_ver="\x00", sw_sys="\udfff")
    feed.write()
    row = WorkerState.objects.get()
    assert (row.load, row.software, row.version, row.system) == ("\\ud800 \\x00", "\\ud800", "\\x00", "\\udfff")


@pytest.mark.parametrize("error", [DataError("no"), ValueError("no")])
def test_malformed_events_that_the_database_refuses_stop_nothing(feed, monkeypatch, caplog, error):
    def refusing(self, events):
        raise error

    monkeypatch.setattr("djcelery.snapshot.malformed.MalformedLog.write", refusing)
    feed.dirty.add(intake.read("x", feed.now))
    feed.received("t1")
    feed.write()
    assert TaskState.objects.count() == 1
    assert "1 events that can't be read can't be written either" in caplog.text
    feed.writer.stop()
    assert CameraState.objects.get().refused == 1


def test_workers_and_tasks_whose_names_look_alike_keep_each_other(feed):
    hosts = ["wörker@h", "worker@h", "Worker@h", "strasse", "straße"]
    ids = ["año", "ano", "ANO"]
    for _ in range(2):
        for number, host in enumerate(hosts):
            feed.send("worker-heartbeat", hostname=host, processed=1)
            feed.received(f"t{number}", worker=host)
        for task_id in ids:
            feed.received(task_id)
            feed.send("task-started", task_id, 1)
        feed.write()
    rows = {row.task_id: row for row in TaskState.objects.select_related("worker")}
    assert all(rows[f"t{number}"].worker is not None for number in range(len(hosts)))
    assert all(row.state == "STARTED" for task_id, row in rows.items() if not task_id.startswith("t"))
    alike = connection.vendor == "mysql"
    assert len(rows) == len(hosts) + (1 if alike else len(ids))
    assert feed.counts() == {"RECEIVED": len(rows)}
    if not alike:
        assert [rows[f"t{number}"].worker.hostname for number in range(len(hosts))] == hosts


def test_a_batch_is_written_in_statements_that_the_server_takes(feed, monkeypatch):
    monkeypatch.setattr(statements, "_MOST_BYTES", dict.fromkeys(statements._MOST_BYTES, 100_000))
    lengths = []

    def note(execute, sql, params, many, context):
        if "INSERT" in sql and "taskstate" in sql:
            lengths.append(sum(len(value) for value in params if isinstance(value, str)))
        return execute(sql, params, many, context)

    for number in range(20):
        feed.send("task-failed", f"t{number}", exception="E()", traceback="\x01" * 20_000)
    with connection.execute_wrapper(note):
        feed.write()
    assert TaskState.objects.filter(state="FAILURE").count() == 20
    if connection.vendor != "sqlite":
        assert len(lengths) == 10
        # As JSON such characters are six bytes.
        assert max(lengths) < 6 * 50_000


def test_sums_of_a_camera_end_where_the_column_does(feed):
    most = 2**63 - 1
    feed.writer.note(missed=10**30, events=5)
    feed.writer.write(Batch())
    feed.writer.stop()
    again = Writer("cam", 1.0)
    again.note(missed=7, events=most)
    again.stop()
    row = CameraState.objects.get()
    assert (row.missed, row.events) == (most, most)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("error", [OperationalError, DataError, OverflowError, ValueError])
def test_an_error_of_the_cameras_own_row_fails_no_shutter(feed, monkeypatch, caplog, error):
    commits = []
    commit, write = Writer._commit, Status.write

    def failing(self, has_stopped=False):
        raise error("no")

    monkeypatch.setattr(Writer, "_commit", lambda self, *args: (commits.append(1), commit(self, *args)))
    with monkeypatch.context() as broken:
        broken.setattr(Status, "write", failing)
        for number in range(3):
            feed.received(f"t{number}")
            feed.write()
        feed.writer.stop()
    assert (len(commits), TaskState.objects.count()) == (3, 3)
    assert caplog.text.count("How camera cam does can't be written: no.") == 1
    monkeypatch.setattr(Status, "write", write)
    feed.writer.write(Batch())
    assert CameraState.objects.get().name == "cam"


@pytest.mark.django_db(transaction=True)
def test_an_idle_camera_notices_that_the_database_is_away(feed, monkeypatch):
    monkeypatch.setattr("djcelery.snapshot.writer.db.is_transient", lambda exc: True)

    def away(self, has_stopped=False):
        raise OperationalError("away")

    monkeypatch.setattr(Status, "write", away)
    with pytest.raises(OperationalError):
        feed.writer.write(Batch())
