"""Where the project commits by itself (``AUTOCOMMIT`` off), what djcelery writes is neither lost nor commits for it."""

from __future__ import annotations

import warnings
from datetime import timedelta

import pytest
from celery import states
from django.db import OperationalError, connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from djcelery import db, utils
from djcelery.backends.database import DatabaseBackend
from djcelery.managers import TxIsolationWarning
from djcelery.models import Chord, TaskMeta
from djcelery.schedulers import statements

pytestmark = pytest.mark.django_db(transaction=True)

servers_only = pytest.mark.skipif("connection.vendor == 'sqlite'", reason="SQLite has one writer")
sqlite_only = pytest.mark.skipif("connection.vendor != 'sqlite'", reason="Servers have many writers")


@pytest.fixture
def backend(celery_app):
    return DatabaseBackend(app=celery_app)


@pytest.fixture
def by_hand():
    """Let the project's connection be one that the project commits on."""
    connection.set_autocommit(False)
    yield
    connection.rollback()
    connection.set_autocommit(True)


@pytest.fixture
def worker(by_hand, monkeypatch):
    monkeypatch.setattr(db, "_is_worker", True)
    monkeypatch.setattr(db, "_kept", db._Kept())
    monkeypatch.setattr(type(connections["default"]), "is_in_memory_db", lambda self: False, raising=False)
    yield
    for kept in db._kept.by_alias.values():
        kept.close()


def seen(model=TaskMeta, column="task_id"):
    """Return the keys of the rows that other processes see."""
    other = connections.create_connection("default")
    other.settings_dict = {**other.settings_dict, "AUTOCOMMIT": True}
    with other.cursor() as cursor:
        cursor.execute(f"SELECT {column} FROM {model._meta.db_table} ORDER BY id")
        rows = cursor.fetchall()
    # SQLite's would leave one in memory open.
    BaseDatabaseWrapper.close(other)
    return [row[0] for row in rows]


@pytest.mark.parametrize("max_age", [0, 60])
def test_a_result_is_committed_where_nobody_else_would(worker, backend, monkeypatch, max_age):
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", max_age)
    assert list(TaskMeta.objects.all()) == []
    backend.store_result("id", 5, states.SUCCESS)
    assert seen() == ["id"]
    assert backend.get_result("id") == 5


@servers_only
def test_a_result_commits_nothing_of_the_task(worker, backend):
    TaskMeta.objects.create(task_id="own")
    backend.store_result("id", 5, states.FAILURE)
    assert seen() == ["id"]
    connection.rollback()
    assert seen() == ["id"]


@sqlite_only
def test_on_sqlite_a_result_goes_with_what_the_task_has_open(worker, backend):
    TaskMeta.objects.create(task_id="own")
    backend.store_result("id", 5, states.SUCCESS)
    connection.commit()
    assert seen() == ["own", "id"]
    # Nothing is open any more, so nobody is waited for.
    backend.store_result("next", 5, states.SUCCESS)
    assert seen() == ["own", "id", "next"]


def test_outside_a_worker_the_caller_commits_a_result(by_hand, backend):
    backend.store_result("id", 5, states.SUCCESS)
    assert not connection.get_autocommit()
    connection.rollback()
    assert seen() == []


@servers_only
def test_a_chord_is_begun_before_its_messages_are_sent(by_hand, backend):
    backend.apply_chord(("gid", []), None)
    assert seen(Chord, "group_id") == ["gid"]


@sqlite_only
def test_on_sqlite_a_chord_commits_nothing_of_the_caller(by_hand, backend):
    TaskMeta.objects.create(task_id="own")
    backend.apply_chord(("gid", []), None)
    connection.rollback()
    assert seen() == []


def test_expired_results_are_deleted_for_good(backend, settings):
    long_ago = utils.now() - timedelta(days=400)
    TaskMeta.objects.create(task_id="old")
    TaskMeta.objects.update(date_done=long_ago)
    Chord.objects.create(group_id="gid", changed_at=long_ago)
    connection.set_autocommit(False)
    # A transaction is open.
    assert TaskMeta.objects.count() == 1
    try:
        backend.cleanup()
        connection.rollback()
    finally:
        connection.set_autocommit(True)
    assert (seen(), seen(Chord, "group_id")) == ([], [])


def test_what_the_caller_deletes_commits_nothing_of_his(by_hand):
    TaskMeta.objects.create(task_id="own")
    TaskMeta.objects.delete_expired(1)
    Chord.objects.delete_expired(1)
    connection.rollback()
    assert not connection.get_autocommit()
    assert seen() == []


def test_nothing_is_tried_again_in_a_transaction_of_the_caller(by_hand):
    tries = []

    def work(used):
        tries.append(used)
        raise OperationalError("gone") from Exception(2006)

    TaskMeta.objects.create(task_id="own")
    with pytest.raises(OperationalError):
        db.retry_transient(work, lambda: connection, "test")
    assert tries == [connection]
    connection.rollback()


def test_a_connection_made_ready_commits_each_statement(by_hand):
    TaskMeta.objects.create(task_id="first")
    assert db.ready(connection) is connection
    TaskMeta.objects.create(task_id="second")
    assert seen() == ["first", "second"]
    connection.set_autocommit(False)


def test_polling_in_a_transaction_that_sees_nothing_new_is_warned_of(by_hand, backend):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        backend.on_first_pause()
    told = [warning.category for warning in caught]
    # What a project asks for that wants MySQL's own default.
    assert told == ([TxIsolationWarning] if connection.vendor == "sqlite" else [])


def test_beat_commits_what_it_writes(by_hand):
    statements.attempt("default", lambda used, again: TaskMeta.objects.create(task_id="id"), lambda: False)
    assert seen() == ["id"]
    connection.set_autocommit(False)
