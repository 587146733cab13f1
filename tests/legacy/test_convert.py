"""Databases that the real django-celery wrote, converted: what a person reads is the same before and after."""

from __future__ import annotations

import sys

import pytest
from celery import states
from celery.result import AsyncResult, GroupResult, result_from_tuple

from djcelery import models
from djcelery.backends.database import DatabaseBackend
from djcelery.management.results_rows import Conversion
from tests.legacy.test_databases import COUNTS, WRITTEN
from tests.legacy.test_values import shop
from tests.migrations import databases

__all__ = ("shop",)


@pytest.fixture(params=WRITTEN)
def adopted(request, make_database, tmp_path):
    """Each of the databases, upgraded."""
    release, vendor = request.param.split("-")
    url = databases.legacy_file(tmp_path, release) if vendor == "sqlite" else None
    database = make_database(vendor, url)
    if url is None:
        database.load_dump(databases.DATA / f"django-celery-{release}.{vendor}.sql")
    database.migrate()
    database.name = request.param
    return database


@pytest.fixture
def backend(adopted, celery_app, monkeypatch):
    """The backend on that database."""
    monkeypatch.setattr("django.db.router.db_for_write", lambda model, **hints: adopted.alias)
    return DatabaseBackend(app=celery_app)


def contents(database):
    """Return the rows of results by task id."""
    return {row["task_id"]: row for row in database.contents()["celery_taskmeta"]}


def read(backend, task_ids):
    """Return what ``AsyncResult`` tells of each task."""
    told = {}
    for task_id in task_ids:
        result = AsyncResult(task_id, backend=backend, app=backend.app)
        # Celery makes results of them once the task has ended.
        children = [result_from_tuple(child).as_tuple() for child in result.children or ()]
        told[task_id] = (result.state, result.result, result.traceback, result.date_done, children)
    return told


def shape(value):
    """Return *value* with lists for tuples, and an exception or instance as its class and what it holds."""
    if hasattr(value, "__dict__"):
        return type(value), shape(getattr(value, "args", None)), vars(value)
    if isinstance(value, (list, tuple)):
        return [shape(item) for item in value]
    return value


def test_all_but_a_report_with_a_set_and_an_instance_is_converted_and_all_reads_the_same(adopted, backend, shop):
    stored = contents(adopted)
    before = read(backend, stored)
    (report, *_), basket = [
        [name for name, (_, value, *_) in before.items() if isinstance(value, kind)] for kind in (dict, shop.Basket)
    ]
    rows = []

    summary = Conversion(on_skipped=rows.append).run()

    assert sorted(row.key for row in rows) == sorted([report, *basket])
    assert summary.converted == COUNTS[adopted.name][0] + COUNTS[adopted.name][1] - 2
    after = read(backend, stored)
    assert {name: shape(value) for name, value in after.items()} == {n: shape(value) for n, value in before.items()}
    assert [type(value[1]) for value in after.values()] == [type(value[1]) for value in before.values()]

    now = contents(adopted)
    for name, row in stored.items():
        changed = {column for column in row if row[column] != now[name][column]}
        if name in (report, *basket):
            assert changed == set()
        else:
            assert {"content_type", "content_encoding"} <= changed
            assert changed <= {"content_type", "content_encoding", "result", "meta"}
            assert not str(now[name]["result"]).startswith(("gA", "eJ"))


def test_failures_keep_their_class_and_arguments(adopted, backend, shop):
    failed = [name for name, row in contents(adopted).items() if row["status"] in states.EXCEPTION_STATES]
    before = {name: read(backend, [name])[name][1] for name in failed}
    assert {type(error) for error in before.values()} == {KeyError, ValueError, shop.StockError}
    Conversion().run()
    after = {name: read(backend, [name])[name][1] for name in failed}
    for name in failed:
        assert type(after[name]) is type(before[name])
        assert (after[name].args, vars(after[name])) == (before[name].args, vars(before[name]))
    # A process that has not imported the class makes one up by the same name.
    for name in ("shop.tasks", "shop"):
        del sys.modules[name]
    (stock,) = [error for name in failed for error in [read(backend, [name])[name][1]] if "Stock" in repr(error)]
    assert (type(stock).__name__, stock.args) == ("StockError", ("SKU-1", "out of stock"))


def test_without_their_permission_the_projects_classes_stay_and_the_reason_names_the_setting(adopted, backend):
    before = contents(adopted)
    rows = []
    Conversion(on_skipped=rows.append).run()
    refused = {row.key for row in rows if "DJCELERY_UNPICKLE_ALLOW" in row.reason}
    assert len(refused) == 2
    after = contents(adopted)
    assert all(after[name] == before[name] for name in refused)


def test_a_saved_group_restores_before_and_after(adopted, backend):
    (row,) = models.TaskSetMeta.objects.using(adopted.alias).all()
    before = GroupResult.restore(row.taskset_id, backend=backend, app=backend.app)
    Conversion().run()
    stored = adopted.contents()["celery_tasksetmeta"][0]
    assert stored["result"].startswith("[[")
    after = GroupResult.restore(row.taskset_id, backend=backend, app=backend.app)
    assert isinstance(after, GroupResult)
    assert after.as_tuple() == before.as_tuple()
    assert backend.restore_group(row.taskset_id, cache=False).id == row.taskset_id
    assert models.TaskSetMeta.objects.using(adopted.alias).get().date_done == row.date_done


def test_the_command_on_an_upgraded_project(adopted):
    before = adopted.contents()
    printed = adopted.manage("celeryresults", "convert", "--dry-run", check=False)
    assert "this is a dry run" in printed
    assert adopted.contents() == before
    printed = adopted.manage("celeryresults", "convert", "--report", "left.csv", check=False)
    assert "results converted to JSON" in printed
    assert "can't be converted." in printed
    left = (adopted.folder / "left.csv").read_text().splitlines()
    assert len(left) == 1 + sum(row["content_type"] is None for row in contents(adopted).values())
    after = adopted.contents()
    for table in before.keys() - {"celery_taskmeta", "celery_tasksetmeta"}:
        assert after[table] == before[table]
