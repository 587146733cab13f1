"""What storing does when the database fails: errors that pass, errors that stay; neither may stop a worker."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager

import pytest
from celery import states
from celery.app.task import Context
from django.db import OperationalError, ProgrammingError, connection, connections, transaction
from django.db.backends.sqlite3.base import DatabaseWrapper as Sqlite

from djcelery import db, eventloop
from djcelery.backends import outcomes
from djcelery.backends.database import DatabaseBackend
from djcelery.managers.results import TaskManager
from djcelery.models import TaskMeta
from tests.checking import said
from tests.services import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

servers_only = pytest.mark.skipif("connection.vendor == 'sqlite'", reason="SQLite has one lock for all rows")


@pytest.fixture
def backend(celery_app):
    return DatabaseBackend(app=celery_app)


@pytest.fixture
def in_loop(monkeypatch):
    """Let this process look like the main one of a worker."""
    monkeypatch.setattr(eventloop, "_pid", os.getpid())
    monkeypatch.setattr(eventloop, "STORE_WAITS_S", (0.0, 0.0))
    later = outcomes._Later()
    monkeypatch.setattr(outcomes, "_later", later)
    monkeypatch.setattr("atexit.register", lambda function: None)
    return later


@contextmanager
def row_locked(task_id):
    """Hold the lock of a row on a second connection; yield a function that lets it go."""
    other = connections.create_connection("default")
    other.set_autocommit(False)
    with other.cursor() as cursor:
        cursor.execute("UPDATE celery_taskmeta SET hidden = hidden WHERE task_id = %s", [task_id])
        # MySQL locks nothing by an update that changes nothing.
        cursor.execute("SELECT task_id FROM celery_taskmeta WHERE task_id = %s FOR UPDATE", [task_id])
    try:
        yield other.rollback
    finally:
        other.close()


def wait_briefly_for_locks():
    variable = "lock_timeout = '50ms'" if connection.vendor == "postgresql" else "innodb_lock_wait_timeout = 1"
    with connection.cursor() as cursor:
        cursor.execute(f"SET {variable}")


@servers_only
def test_a_lock_timeout_is_tried_again(backend, monkeypatch, caplog):
    backend.store_result("locked", None, states.STARTED)
    wait_briefly_for_locks()
    with row_locked("locked") as let_go:
        monkeypatch.setattr("djcelery.db.time.sleep", lambda seconds: let_go())
        backend.store_result("locked", 1, states.SUCCESS)
    connection.close()
    assert TaskMeta.objects.get(task_id="locked").status == "SUCCESS"
    assert [record.levelname for record in said(caplog)] == ["WARNING"]
    assert "Could not store the result of locked" in caplog.text


@servers_only
def test_a_lock_that_stays_is_an_error_after_bounded_tries_and_in_the_log(backend, monkeypatch, caplog):
    backend.store_result("locked", None, states.STARTED)
    wait_briefly_for_locks()
    monkeypatch.setattr(db, "RETRY_WAITS_S", (0.0,))
    with row_locked("locked"), pytest.raises(OperationalError):
        backend.store_result("locked", 1, states.SUCCESS)
    connection.close()
    assert [record.levelname for record in said(caplog)] == ["WARNING", "ERROR"]
    assert "Task locked is in state SUCCESS, but that could not be stored" in caplog.text


def test_tries_that_take_long_are_few(monkeypatch):
    monkeypatch.setattr(db, "LAST_TRY_S", 0.0)
    tries = Away(99)
    with pytest.raises(OperationalError):
        db.retry_transient(lambda conn: tries({"task_id": conn.alias}), lambda: connections["default"], "do it")
    assert tries.errors == 98


@servers_only
def test_nothing_is_tried_again_inside_the_callers_transaction(backend, monkeypatch, caplog):
    backend.store_result("locked", None, states.STARTED)
    wait_briefly_for_locks()
    monkeypatch.setattr("djcelery.db.time.sleep", lambda seconds: pytest.fail("it waited"))
    with row_locked("locked"), pytest.raises(OperationalError), transaction.atomic():
        backend.store_result("locked", 1, states.SUCCESS)
    connection.close()
    assert "trying again" not in caplog.text


@servers_only
def test_of_two_transactions_in_a_deadlock_both_succeed_in_the_end(backend):
    for task_id in ("a", "b"):
        backend.store_result(task_id, None, states.STARTED)
    both_have_one = threading.Barrier(2)
    tries, errors = [], []

    def update(first, second):
        def work(conn):
            tries.append(first)
            with db.short_transaction(conn), conn.cursor() as cursor:
                cursor.execute("UPDATE celery_taskmeta SET worker = %s WHERE task_id = %s", [first, first])
                if len(tries) <= 2:
                    both_have_one.wait(60)
                cursor.execute("UPDATE celery_taskmeta SET queue = %s WHERE task_id = %s", [first, second])

        try:
            db.retry_transient(work, lambda: connections["default"], f"update {first}, then {second}")
        except Exception as exc:  # noqa: BLE001 - handed to the main thread
            errors.append(exc)
        finally:
            connection.close()

    threads = [threading.Thread(target=update, args=pair) for pair in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(tries) == 3
    assert list(TaskMeta.objects.order_by("task_id").values_list("worker", "queue")) == [("a", "b"), ("b", "a")]


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="others wait instead")
def test_a_serialisation_failure_is_tried_again(backend):
    backend.store_result("a", None, states.STARTED)
    tries = []

    def work(conn):
        with db.short_transaction(conn), conn.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SELECT worker FROM celery_taskmeta")
            if not tries:
                other = connections.create_connection("default")
                with other.cursor() as others:
                    others.execute("UPDATE celery_taskmeta SET worker = 'other'")
                other.close()
            tries.append(1)
            cursor.execute("UPDATE celery_taskmeta SET worker = 'own'")

    db.retry_transient(work, lambda: connections["default"], "update all", (0.0,))
    assert len(tries) == 2
    assert TaskMeta.objects.get().worker == "own"


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_a_busy_sqlite_file_is_tried_again(tmp_path, monkeypatch, mode):
    def connected():
        defaults = {
            "NAME": tmp_path / "file",
            "OPTIONS": {"timeout": 0},
            "TIME_ZONE": None,
            "CONN_HEALTH_CHECKS": False,
        }
        return Sqlite({**connection.settings_dict, "ENGINE": "django.db.backends.sqlite3", **defaults}, "file")

    first, second = connected(), connected()
    with first.cursor() as cursor:
        cursor.execute(f"PRAGMA journal_mode = {mode}")
        cursor.execute("CREATE TABLE t (n integer)")
        cursor.execute("BEGIN IMMEDIATE")

    def work(conn):
        with conn.cursor() as cursor:
            cursor.execute("INSERT INTO t VALUES (1)")

    with pytest.raises(OperationalError):
        db.retry_transient(work, lambda: second, "insert", (0.0, 0.0))
    monkeypatch.setattr("djcelery.db.time.sleep", lambda seconds: first.connection.rollback())
    db.retry_transient(work, lambda: second, "insert", (0.0,))
    for conn in (first, second):
        conn.close()


# -- the worker's main process ------------------------------------------------------------------


class Away:
    """In place of ``TaskManager.write``: raises so many times, then notes what was written."""

    def __init__(self, errors, error=None):
        self.errors, self.rows = errors, []
        self.error = error or OperationalError("the database is away")
        if error is None:
            self.error.__cause__ = type("Lost", (Exception,), {"sqlstate": None})()

    def __call__(self, row, eager=False):
        if self.errors:
            self.errors -= 1
            raise self.error
        self.rows.append((row["task_id"], row["status"], threading.current_thread().name))


@pytest.fixture
def away(monkeypatch):
    def install(errors, error=None):
        made = Away(errors, error)
        monkeypatch.setattr(TaskManager, "write", staticmethod(made))
        return made

    return install


@pytest.mark.parametrize(
    ("mark", "state"),
    [("mark_as_revoked", "REVOKED"), ("mark_as_failure", "FAILURE"), ("mark_as_retry", "RETRY")],
)
def test_what_the_event_loop_cant_store_a_thread_stores(backend, in_loop, away, caplog, mark, state):
    database = away(1)
    getattr(backend, mark)("x", ValueError("reason"), request=Context(id="x"))
    wait_until(lambda: database.rows, 60, "the row")
    assert database.rows == [("x", state, "djcelery-outcomes")]
    in_loop.waiting.join()
    assert [record.levelname for record in said(caplog)] == ["WARNING"]


def test_what_the_thread_cant_store_is_in_the_log_and_the_next_is_stored(backend, in_loop, away, caplog):
    database = away(3)
    backend.mark_as_revoked("x", "revoked")
    wait_until(lambda: "Task x is in state REVOKED, but that could not be stored: the database" in caplog.text, 60)
    database.errors = 0
    backend.mark_as_revoked("y", "revoked")
    assert database.rows == [("y", "REVOKED", "MainThread")]


def test_what_belongs_together_is_tried_again_together(backend, in_loop, away, monkeypatch):
    """The errback of a chord's callback, say, is stored while its part is."""
    database = away(1)
    calls = []

    def part_returned(request, state, result):
        calls.append(threading.current_thread().name)
        backend.mark_as_failure("callback", ValueError("a part failed"))

    monkeypatch.setattr(backend, "on_chord_part_return", part_returned)
    backend.mark_as_revoked("part", "revoked", request=Context(id="part", chord={"task": "t"}), store_result=False)
    wait_until(lambda: database.rows, 60, "the row")
    assert calls == ["MainThread", "djcelery-outcomes"]
    assert database.rows == [("callback", "FAILURE", "djcelery-outcomes")]


def test_an_error_that_stays_ends_no_worker(backend, in_loop, away, caplog):
    away(1, ProgrammingError("no such table"))
    backend.mark_as_revoked("x", "revoked")
    assert "Task x is in state REVOKED, but that could not be stored: ProgrammingError: no such table" in caplog.text
    assert in_loop.waiting.empty()


def test_a_tasks_own_errors_are_raised_as_ever(backend, away, caplog):
    away(1)
    with pytest.raises(OperationalError):
        backend.mark_as_done("x", 1)
    assert "Task x is in state SUCCESS, but that could not be stored" in caplog.text


def test_so_many_outcomes_wait_and_no_more(backend, in_loop, away, monkeypatch, caplog):
    monkeypatch.setattr(in_loop.waiting, "maxsize", 1)
    monkeypatch.setattr(threading.Thread, "start", lambda thread: None)
    away(2)
    backend.mark_as_revoked("x", "revoked")
    backend.mark_as_revoked("y", "revoked")
    assert [record.levelname for record in said(caplog)] == ["WARNING", "ERROR"]
    assert "Task y is in state REVOKED" in caplog.text


def test_in_the_event_loop_tries_are_few_and_celerys_are_none(celery_app, in_loop, monkeypatch):
    celery_app.conf.result_backend_always_retry = True
    backend = DatabaseBackend(app=celery_app)
    assert backend.always_retry is False
    waits = []
    monkeypatch.setattr("djcelery.db.time.sleep", waits.append)
    with pytest.raises(OperationalError):
        db.retry_transient(Away(99), lambda: connections["default"], "store", (1.0,) * 50)
    assert sum(waits) < 0.3
    monkeypatch.setattr(eventloop, "_pid", 0)
    assert backend.always_retry is True


def test_a_task_in_the_main_process_is_no_event_loop(celery_app, in_loop):
    """As in the pools ``solo`` and ``threads``."""
    seen = []

    @celery_app.task(shared=False)
    def look():
        seen.append(eventloop.runs_here())

    look.apply()
    assert (seen, eventloop.runs_here()) == ([False], True)


# -- routers ------------------------------------------------------------------------------------


class ReplicaRouter:
    """Reads would go to an alias that lags behind; this one isn't even there."""

    def db_for_read(self, model, **hints):
        return "replica"

    def db_for_write(self, model, **hints):
        return "default"


def test_results_are_read_where_they_are_written(backend, settings):
    settings.DATABASE_ROUTERS = ["tests.db.test_result_failures.ReplicaRouter"]
    backend.store_result("x", 7, states.SUCCESS)
    assert backend.wait_for("x", timeout=1)["result"] == 7
    assert [meta["task_id"] for meta in backend.get_metas(["x"])] == ["x"]
    backend.forget("x")
    assert backend.get_state("x") == "PENDING"
