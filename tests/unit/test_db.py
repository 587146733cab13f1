"""Which errors pass, retries, and which connection stores a result."""

from __future__ import annotations

import sqlite3
from types import MappingProxyType

import pytest
from django.db import DataError, IntegrityError, InterfaceError, OperationalError, connections

from djcelery import db


def wrapped(error, cause):
    error.__cause__ = cause
    return error


class Psycopg(Exception):
    def __init__(self, sqlstate):
        super().__init__("words that are not searched: deadlock detected")
        self.sqlstate = sqlstate


def sqlite_error(code):
    error = sqlite3.OperationalError("x")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (wrapped(OperationalError(), Psycopg("57P01")), True),
        (wrapped(OperationalError(), Psycopg("08006")), True),
        (wrapped(OperationalError(), Psycopg(None)), True),
        (wrapped(OperationalError(), Psycopg("40P01")), True),
        (wrapped(OperationalError(), Psycopg("40001")), True),
        (wrapped(OperationalError(), Psycopg("57014")), True),
        (wrapped(OperationalError(), Exception(1969, "max_statement_time exceeded")), True),
        (wrapped(IntegrityError(), Psycopg("23505")), False),
        (wrapped(DataError(), Psycopg("22001")), False),
        (wrapped(OperationalError(), Exception(2006, "gone away")), True),
        (wrapped(OperationalError(), Exception(1213, "deadlock")), True),
        (wrapped(OperationalError(), Exception(1927, "killed")), True),
        (wrapped(DataError(), Exception(1406, "too long")), False),
        (wrapped(OperationalError(), Exception(1366, "bad text")), False),
        (wrapped(OperationalError(), sqlite_error(5)), True),
        (wrapped(OperationalError(), sqlite_error(261)), True),
        (wrapped(OperationalError(), sqlite_error(1)), False),
        (wrapped(OperationalError(), Exception("database is locked")), True),
        (wrapped(OperationalError(), Exception("database table is locked: celery_taskmeta")), True),
        (wrapped(OperationalError(), Exception("no such table: x")), False),
        (InterfaceError(), True),
        (ValueError("database is locked"), False),
    ],
)
def test_transient_errors_are_judged_by_their_code(error, expected):
    assert db.is_transient(error) is expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (wrapped(OperationalError(), Psycopg("40P01")), True),
        (wrapped(OperationalError(), Exception(1213, "deadlock")), True),
        (wrapped(OperationalError(), Psycopg("40001")), False),
        (wrapped(OperationalError(), Exception(1205, "lock timeout")), False),
        (wrapped(OperationalError(), sqlite_error(5)), False),
        (OperationalError("deadlock"), False),
        (wrapped(ValueError(), Exception(1213, "deadlock")), False),
    ],
)
def test_a_deadlock_is_told_from_other_errors(error, expected):
    assert db.is_deadlock(error) is expected


class Fake:
    in_atomic_block = False
    connection = None
    settings_dict = MappingProxyType({"AUTOCOMMIT": True})


def test_transient_errors_are_retried_until_the_tries_are_used_up(caplog):
    calls = []

    def work(conn):
        calls.append(conn)
        raise wrapped(OperationalError("gone"), Psycopg("57P01"))

    with pytest.raises(OperationalError):
        db.retry_transient(work, Fake, "do it", waits_s=(0.0, 0.0))
    assert len(calls) == 3
    assert "Could not do it (gone); trying again" in caplog.text


def test_the_value_of_the_first_try_that_works_is_returned():
    outcomes = [wrapped(OperationalError(), Psycopg("40001")), "done"]

    def work(conn):
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    assert db.retry_transient(work, Fake, "do it", waits_s=(0.0,)) == "done"


@pytest.mark.parametrize(("error", "atomic"), [(DataError(), False), (InterfaceError(), True)])
def test_other_errors_and_open_transactions_are_not_retried(error, atomic):
    calls = []

    class Connection(Fake):
        in_atomic_block = atomic

    def work(conn):
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        db.retry_transient(work, Connection, "do it")
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("text", "stored"),
    [("plain é😀", "plain é😀"), ("a\x00b", "a\\x00b"), ("\udc80", "\\udc80"), (None, None), (5, 5)],
)
def test_what_no_database_can_hold_is_escaped(text, stored):
    assert db.storable(text) == stored


def test_three_byte_columns_get_escapes():
    assert db.three_byte("é😀") == "é\\U0001f600"


def project():
    """The project's own connection."""
    return connections["default"]


def test_outside_a_worker_results_use_the_projects_connection():
    assert db.result_connection("default") is project()


@pytest.fixture
def worker(monkeypatch):
    monkeypatch.setattr(db, "_is_worker", True)
    monkeypatch.setattr(db, "_kept", db._Kept())
    monkeypatch.setattr(type(project()), "is_in_memory_db", lambda self: False, raising=False)


def test_a_worker_keeps_one_connection_where_the_projects_would_be_closed(worker):
    kept = db.result_connection("default")
    assert kept is not project()
    assert db.result_connection("default") is kept
    assert db.result_connection("default", eager=True) is project()


@pytest.mark.parametrize(("key", "value"), [("CONN_MAX_AGE", 60), ("CONN_MAX_AGE", None), ("OPTIONS", {"pool": True})])
def test_a_connection_that_stays_open_serves_results_too(worker, monkeypatch, key, value):
    monkeypatch.setitem(project().settings_dict, key, value)
    assert db.result_connection("default") is project()


@pytest.mark.parametrize(
    "override", [{"DJCELERY_KEEP_RESULT_CONNECTION": False}, {"CELERY_DB_REUSE_MAX": 5}], ids=lambda o: next(iter(o))
)
def test_a_project_can_do_without_the_kept_connection(worker, settings, override):
    for name, value in override.items():
        setattr(settings, name, value)
    assert db.result_connection("default") is project()


@pytest.mark.parametrize("key", ["CONN_MAX_AGE", "CELERY_DB_REUSE_MAX", "greenlets"])
def test_where_the_project_commits_by_itself_results_always_have_a_connection_that_commits(
    worker, settings, monkeypatch, celery_app, key
):
    shared = connections.create_connection("default")
    shared.settings_dict = {
        **shared.settings_dict,
        "AUTOCOMMIT": False,
        "CONN_MAX_AGE": 60 if key == "CONN_MAX_AGE" else 0,
    }
    monkeypatch.setattr(db, "connections", Connections(shared))
    monkeypatch.setattr(db, "_has_greenlets", key == "greenlets")
    settings.CELERY_DB_REUSE_MAX = 5 if key == "CELERY_DB_REUSE_MAX" else None
    kept = db.result_connection("default")
    assert kept is not shared
    assert (kept.settings_dict["AUTOCOMMIT"], shared.settings_dict["AUTOCOMMIT"]) == (True, False)
    assert db.result_connection("default", eager=True) is shared
    # A greenlet ends with its task.
    monkeypatch.setattr(db, "close_old_connections", lambda: None)
    db.WorkerFixup(celery_app).close_database()
    assert (db.result_connection("default") is kept) is (key != "greenlets")


class Connections:
    """Django's connections, with another one as the project's own."""

    def __init__(self, shared):
        self.shared = shared

    def __getitem__(self, alias):
        return self.shared

    def all(self, initialized_only=False):
        return []

    def create_connection(self, alias):
        return connections.create_connection(alias)


@pytest.mark.parametrize(("pool", "greenlets"), [("default", False), ("gevent", True)])
def test_greenlets_keep_no_connection(worker, monkeypatch, celery_app, pool, greenlets):
    monkeypatch.setattr(db, "_has_greenlets", False)
    monkeypatch.setattr(db, "detect_environment", lambda: pool)
    monkeypatch.setattr(db.eventloop, "starts_here", lambda: None)
    monkeypatch.setattr(db.DjangoWorkerFixup, "install", lambda self: self)
    db.WorkerFixup(celery_app).install()
    assert (db.result_connection("default") is project()) is greenlets


@pytest.mark.django_db
def test_inside_a_testcase_the_kept_connection_is_not_used(worker):
    assert db.result_connection("default") is project()


def test_a_forked_process_never_uses_its_parents_connection(worker, monkeypatch):
    kept = db.result_connection("default")
    monkeypatch.setattr(db._kept, "pid", -1)
    assert db.result_connection("default") is not kept


def test_in_memory_databases_have_no_second_connection(worker, monkeypatch):
    if project().vendor != "sqlite":
        pytest.skip("only SQLite has databases in memory")
    monkeypatch.setattr(type(project()), "is_in_memory_db", lambda self: True)
    assert db.result_connection("default") is project()


def test_connections_are_closed_every_so_many_tasks_if_the_project_says_so(settings, celery_app, monkeypatch):
    settings.CELERY_DB_REUSE_MAX = 2
    fixup = db.WorkerFixup(celery_app)
    calls, closed = [], []
    monkeypatch.setattr(fixup, "_close_database", lambda: closed.append(len(calls)))
    # Celery calls before and after each task.
    for number in range(1, 14):
        calls.append(number)
        fixup.close_database()
    assert closed == [5, 9, 13]


def test_without_that_setting_django_decides_around_each_task(celery_app, monkeypatch):
    called = []
    monkeypatch.setattr(db, "close_old_connections", lambda: called.append(1))
    db.WorkerFixup(celery_app).close_database()
    assert called == [1]


def test_a_worker_replaces_the_fixup_of_its_own_app_only(celery_app):
    from types import SimpleNamespace

    from celery import Celery

    from djcelery import LOADER

    other = Celery("other", loader=LOADER, set_as_current=False)
    for app in (celery_app, other):
        assert app.loader
    db.use_worker_fixup(SimpleNamespace(app=celery_app))
    assert isinstance(celery_app._fixups[-1].worker_fixup, db.WorkerFixup)
    assert not isinstance(other._fixups[-1].worker_fixup, db.WorkerFixup)
