"""Old code beside new code, and after the way back: the statements of each old release on the upgraded tables."""

from __future__ import annotations

import base64
import pickle
import zlib
from contextlib import ExitStack
from datetime import datetime, timezone
from types import SimpleNamespace

import pytest
from django.db import Error, transaction

from djcelery import models
from djcelery.backends.database import DatabaseBackend
from tests.migrations import databases, legacy_schema
from tests.migrations.test_drift import NAMES

#: The tables into which each release can't insert on an upgraded database that a 3.x has made: their columns that
#: it doesn't know take no NULL. 3.x itself can insert everywhere.
REFUSED = {
    "2.1": {
        "celery_taskmeta", "celery_tasksetmeta", "djcelery_crontabschedule", "djcelery_periodictask",
        "djcelery_taskstate",
    },
    "2.3": {"celery_taskmeta", "celery_tasksetmeta", "djcelery_crontabschedule", "djcelery_periodictask"},
    "2.5-south": {"djcelery_crontabschedule"},
    "3.0": set(),
    "3.1.17": set(),
}  # fmt: skip
_UNIQUE = {"task_id", "taskset_id", "name", "hostname", "ident"}
_REFERENCES = {"interval_id", "crontab_id", "worker_id"}
_WHEN = datetime(2015, 6, 1, 12, 0, tzinfo=timezone.utc)


#: The servers take longer than ``make test`` has.
VENDORS = ("sqlite", *(pytest.param(vendor, marks=pytest.mark.long) for vendor in ("postgresql", "mysql")))


@pytest.fixture(scope="module", params=VENDORS)
def upgraded(request, tmp_path_factory, django_db_blocker):
    """A database of 3.1.17 on each engine, upgraded."""
    with ExitStack() as stack:
        stack.enter_context(django_db_blocker.unblock())
        database = stack.enter_context(databases.new_database(request.param, tmp_path_factory.mktemp("upgraded")))
        legacy_schema.fill(database, legacy_schema.BY_NAME["3.1.17"])
        database.migrate()
        yield database


@pytest.fixture
def backend(upgraded, celery_app, monkeypatch):
    """Our backend on that database."""
    monkeypatch.setattr("django.db.router.db_for_write", lambda model, **hints: upgraded.alias)
    return DatabaseBackend(app=celery_app)


def execute(database, sql, values=()):
    with transaction.atomic(using=database.alias), database.connection.cursor() as cursor:
        cursor.execute(sql, [legacy_schema._adapt(database, value) for value in values])
        return cursor.rowcount


def insert(database, release, table, mark, **changed):
    """Insert a row as *release* does: by naming all columns that it knows."""
    row = {**legacy_schema.ROWS[table][0], **changed}
    names = [name for name in legacy_schema.BY_NAME[release].columns()[table] if name != "id"]
    values = [
        (7 if name == "ident" else mark) if name in _UNIQUE and name not in changed else row[name] for name in names
    ]
    # Old references are to rows that other tests may have deleted.
    values = [None if name in _REFERENCES else value for name, value in zip(names, values, strict=True)]
    marks = ", ".join(["%s"] * len(names))
    return execute(database, f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", values)


def update(database, release, table, key, value, **changed):
    """Update a row as *release* does: by setting all columns that it knows."""
    row = {**legacy_schema.ROWS[table][0], **changed}
    names = [n for n in legacy_schema.BY_NAME[release].columns()[table] if n not in {"id", *_UNIQUE}]
    values = [None if name in _REFERENCES else row[name] for name in names]
    sets = ", ".join(f"{name} = %s" for name in names)
    return execute(database, f"UPDATE {table} SET {sets} WHERE {key} = %s", [*values, value])


def refused_inserts(database, release):
    refused = set()
    for table in legacy_schema.BY_NAME[release].columns():
        try:
            with transaction.atomic(using=database.alias):
                insert(database, release, table, f"by {release}")
                # Undone, so that the next may insert the same.
                raise InterruptedError
        except InterruptedError:
            pass
        except Error:
            refused.add(table)
    return refused


@pytest.mark.parametrize("release", REFUSED)
def test_what_an_old_release_can_still_insert(upgraded, release):
    assert refused_inserts(upgraded, release) == REFUSED[release]


def test_3_x_can_still_update_and_delete_every_row_that_ours_has_written(upgraded, backend):
    alias = upgraded.alias
    backend.store_result("ours", {"a": 1}, "SUCCESS")
    interval = models.IntervalSchedule.objects.using(alias).create(every=5, period="days")
    values = {"headers": '{"a": 1}', "priority": 3, "missed_runs": "all", "start_time": _WHEN}
    models.PeriodicTask.objects.using(alias).create(name="ours", task="t", interval=interval, **values)
    models.WorkerState.objects.using(alias).create(hostname="ours")
    models.TaskState.objects.using(alias).create(task_id="ours", state="SUCCESS", tstamp=_WHEN, client="web")
    written = (
        ("celery_taskmeta", "task_id"),
        ("djcelery_periodictask", "name"),
        ("djcelery_workerstate", "hostname"),
        ("djcelery_taskstate", "task_id"),
    )
    for table, key in written:
        assert update(upgraded, "3.1.17", table, key, "ours") == 1, table
    # What it doesn't know stays.
    kept = models.PeriodicTask.objects.using(alias).get(name="ours")
    assert {name: getattr(kept, name) for name in values} == values
    for table, key in reversed(written):
        assert execute(upgraded, f"DELETE FROM {table} WHERE {key} = %s", ["ours"]) == 1, table


# -- results -----------------------------------------------------------------------------------


def pickled(value):
    return base64.b64encode(pickle.dumps(value, 2)).decode()


def test_a_result_that_an_old_worker_stores_is_read(upgraded, backend):
    for release in ("2.5-south", "3.1.17"):
        insert(upgraded, release, "celery_taskmeta", f"stored by {release}", result=pickled({"sum": 5}))
        meta = backend.get_task_meta(f"stored by {release}")
        assert (meta["status"], meta["result"]) == ("SUCCESS", {"sum": 5})


def test_a_result_of_an_old_worker_is_read_where_the_row_was_ours(upgraded, backend):
    """Its UPDATE leaves our content type as it was."""
    backend.store_result("begun by ours", None, "STARTED")
    update(upgraded, "3.1.17", "celery_taskmeta", "task_id", "begun by ours", result=pickled([1, (2,)]))
    assert backend.get_task_meta("begun by ours")["result"] == [1, (2,)]


def test_a_new_worker_finishes_what_an_old_one_has_begun(upgraded, backend):
    insert(upgraded, "3.1.17", "celery_taskmeta", "begun by old", status="STARTED", result=pickled({"pid": 1}))
    backend.store_result("begun by old", 7, "SUCCESS")
    assert backend.get_task_meta("begun by old")["result"] == 7


def read_as_3_x_did(text, compressed=False):
    """Return what the field of django-celery 3.x made of a column: a value that it can't decode stays a text."""
    if text is None:
        return None
    try:
        raw = base64.b64decode(text)
        return pickle.loads(zlib.decompress(raw) if compressed else raw)
    except Exception:  # noqa: BLE001 - as it did
        return text


@pytest.fixture
def stored(upgraded, backend):
    """A function that stores a value in ours, and returns the texts of result and meta."""

    def store(value, request=None):
        backend.store_result("new", value, "SUCCESS", request=request)
        (texts,) = upgraded.rows("SELECT result, meta FROM celery_taskmeta WHERE task_id = 'new'")
        return texts

    yield store
    execute(upgraded, "DELETE FROM celery_taskmeta WHERE task_id = 'new'")


@pytest.mark.parametrize("value", [7, "abcd", [1, 2], {"a": 1}, None, True, 12.5])
def test_3_x_reads_our_results_as_the_text_of_their_json(stored, value):
    text, meta = stored(value)
    assert read_as_3_x_did(text) == text
    # It asks a dictionary for the children, or nothing.
    assert (read_as_3_x_did(meta, compressed=True) or {}) == {}


def test_3_x_can_not_ask_for_a_result_that_our_worker_has_stored(stored):
    """It wants a pickled dictionary of children, and finds a text. The page says so."""
    _, meta = stored(7, SimpleNamespace(id="new", children=[], task="t"))
    assert not hasattr(read_as_3_x_did(meta, compressed=True), "get")


def test_3_x_would_load_a_text_of_ours_that_looks_like_a_pickle(stored):
    """So the page has them deleted before the old code comes back."""
    text, _ = stored("gAJLKi4=")
    assert read_as_3_x_did(text) == 42


# -- the way back ------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("vendor", databases.VENDORS)
def test_after_the_way_back_3_x_inserts_and_updates_and_the_next_upgrade_keeps_it_all(make_database, vendor):
    database = make_database(vendor)
    legacy_schema.fill(database, legacy_schema.BY_NAME["3.1.17"])
    before = database.contents()
    database.migrate()
    models.TaskMeta.objects.using(database.alias).create(task_id="ours", status="SUCCESS", result=[1])
    database.migrate("djcelery", "0001", fake_initial=False)
    assert database.records() == NAMES[:1]
    assert refused_inserts(database, "3.1.17") == set()
    assert update(database, "3.1.17", "celery_taskmeta", "task_id", "ours", result=pickled([2])) == 1
    insert(database, "3.1.17", "celery_taskmeta", "written after the way back", result=pickled({1: 2}))
    database.migrate()
    after = database.contents()
    for table, rows in before.items():
        assert len(after[table]) >= len(rows)
    results = {row.task_id: row.result for row in models.TaskMeta.objects.using(database.alias)}
    assert results["ours"] == [2]
    assert results["written after the way back"] == {1: 2}
