"""What the real django-celery stored reads back as a person expects it today."""

from __future__ import annotations

import datetime
import sys
import types
from collections import Counter
from contextlib import ExitStack
from decimal import Decimal

import pytest
from celery.result import AsyncResult, GroupResult

from djcelery import models
from djcelery.picklefield import Refused, StoredValueField
from tests.legacy.test_databases import WRITTEN
from tests.migrations import databases

REPORT = {
    "kind": "daily",
    "title": "Tagesbericht — übersicht",
    "bytes": "café",
    "when": datetime.datetime(2015, 3, 1, 12, 30),
    "total": Decimal("12.50"),
    "delta": datetime.timedelta(days=2),
    "set": {1, 2},
    "long": 10**30,
    "nested": [(1, 2.5), None, True],
}


@pytest.fixture(scope="module", params=WRITTEN)
def adopted(request, tmp_path_factory, django_db_blocker):
    """Each of the databases, upgraded."""
    release, vendor = request.param.split("-")
    folder = tmp_path_factory.mktemp("legacy")
    with ExitStack() as stack:
        stack.enter_context(django_db_blocker.unblock())
        url = databases.legacy_file(folder, release) if vendor == "sqlite" else None
        database = stack.enter_context(databases.new_database(vendor, folder, url))
        if url is None:
            database.load_dump(databases.DATA / f"django-celery-{release}.{vendor}.sql")
        database.migrate()
        database.release = release
        yield database


@pytest.fixture
def shop(monkeypatch, settings):
    """The project's module that the pickles name, as it is today, and trusted."""
    module = types.ModuleType("shop.tasks")

    class StockError(Exception):
        def __init__(self, sku, message):
            super().__init__(sku, message)
            self.sku = sku

    class Basket:
        def __init__(self, items):
            self.items = items

    for cls in (StockError, Basket):
        cls.__module__, cls.__qualname__ = "shop.tasks", cls.__name__
        setattr(module, cls.__name__, cls)
    monkeypatch.setitem(sys.modules, "shop", types.ModuleType("shop"))
    monkeypatch.setitem(sys.modules, "shop.tasks", module)
    settings.DJCELERY_UNPICKLE_ALLOW = ["shop.tasks"]
    return module


def results(database, **filters):
    return list(models.TaskMeta.objects.using(database.alias).filter(**filters).order_by("pk"))


def test_a_result_of_many_types_comes_back_whole(adopted):
    (report,) = [row.result for row in results(adopted) if isinstance(row.result, dict)]
    assert report == REPORT
    assert {name: type(value) for name, value in report.items()} == {name: type(v) for name, v in REPORT.items()}
    assert [type(part) for part in report["nested"]] == [tuple, type(None), bool]


def test_every_other_result_is_the_number_that_was_stored(adopted):
    numbers = Counter(row.result for row in results(adopted) if isinstance(row.result, int))
    expected = {
        "2.5.5": Counter({32: 5, 2: 2, 4: 2, 6: 2, 0: 2, 8: 1}),
        "3.1.17": Counter({4: 3, 2: 3, 0: 2, 6: 2, 8: 1, 7: 1, 32: 2 if adopted.vendor == "sqlite" else 1}),
    }
    assert numbers == expected[adopted.release]


def test_exceptions_come_back_as_exceptions(adopted):
    errors = [row.result for row in results(adopted) if isinstance(row.result, Exception)]
    assert sorted(map(repr, errors)) == ["KeyError('schlüssel')", "ValueError('later')"]
    (retry,) = results(adopted, status="RETRY")
    assert repr(retry.result) == "ValueError('later')"


def test_tracebacks_are_the_text_that_was_stored(adopted):
    rows = results(adopted, status="FAILURE")
    assert len(rows) == 2
    assert all(row.traceback.startswith("Traceback (most recent call last)") for row in rows)
    assert any("schl\\xfcssel" in row.traceback for row in rows)
    assert all(not row.traceback for row in results(adopted, status="SUCCESS"))


def test_the_projects_own_classes_come_back_when_they_are_allowed(adopted, shop):
    (error,) = [row.result for row in results(adopted) if isinstance(row.result, shop.StockError)]
    assert (error.sku, error.args) == ("SKU-1", ("SKU-1", "out of stock"))
    (basket,) = [row.result for row in results(adopted) if isinstance(row.result, shop.Basket)]
    assert basket.items == ["tea", "milk"]


def test_without_that_permission_the_value_says_what_is_missing_and_how_to_allow_it(adopted):
    refused = [row for row in results(adopted) if isinstance(row.result, Refused)]
    assert sorted(row.result.name for row in refused) == ["shop.tasks.Basket", "shop.tasks.StockError"]
    for row in refused:
        assert "DJCELERY_UNPICKLE_ALLOW" in str(row.result)
        assert row.to_dict()["result"] is row.result
    (error,) = [row.result for row in refused if row.status == "FAILURE"]
    assert error.args == ("SKU-1", "out of stock")


def test_children_are_there_from_celery_3_on(adopted):
    children = [row.to_dict()["children"] for row in results(adopted)]
    if adopted.release == "2.5.5":
        assert set(children) == {None}
        return
    with_children = [found for found in children if found]
    assert len(with_children) == 3 if adopted.vendor == "sqlite" else with_children
    assert all(len(found) == 1 and found[0][1] is None and len(found[0][0][0]) == 36 for found in with_children)
    assert all(isinstance(found, list) for found in children)


def test_dates_are_aware_and_near_each_other(adopted):
    dates = [row.date_done for row in results(adopted)]
    assert {date.utcoffset() for date in dates} == {datetime.timedelta(0)}
    assert max(dates) - min(dates) < datetime.timedelta(minutes=2)


def test_a_saved_group_restores_with_its_members(adopted):
    (row,) = models.TaskSetMeta.objects.using(adopted.alias).all()
    group = row.result
    assert isinstance(group, GroupResult)
    assert group.id == row.taskset_id
    assert [type(member) for member in group.results] == [AsyncResult] * 4
    ids = {stored.task_id for stored in results(adopted)}
    assert {member.id for member in group.results} <= ids
    assert row.to_dict()["result"] is group


def test_schedules_and_counters_are_what_beat_left(adopted):
    tasks = {task.name: task for task in models.PeriodicTask.objects.using(adopted.alias)}
    office = tasks["office hours"]
    assert (office.args, office.kwargs, office.queue, office.enabled) == ("[1, 2]", '{"z": 3}', "reports", False)
    assert office.schedule.day_of_week == {1, 2, 3, 4, 5}
    assert office.schedule.minute == {0, 15, 30, 45}
    assert str(tasks["celery.backend_cleanup"]) == "celery.backend_cleanup: 0 4 * * * (m/h/d/dM/MY)"
    assert tasks["sync stock"].description == "Legacy row"
    assert tasks["sync stock"].schedule.run_every == datetime.timedelta(minutes=5)
    (poll,) = [task for name, task in tasks.items() if name.startswith("poll")]
    assert poll.total_run_count > 0
    assert poll.last_run_at.tzinfo is not None
    assert adopted.release == "2.5.5" or "nächtlich" in tasks
    assert models.PeriodicTasks.objects.using(adopted.alias).get().ident == 1


def test_task_states_are_what_the_camera_saw(adopted):
    states = list(models.TaskState.objects.using(adopted.alias).select_related("worker"))
    assert {state.worker.hostname for state in states} == {"vm" if adopted.release == "2.5.5" else "celery@vm"}
    assert {state.hidden for state in states} == {False}
    succeeded = [state for state in states if state.state == "SUCCESS"]
    assert all(0 < state.runtime < 1 for state in succeeded)
    assert all(state.eta > state.tstamp for state in states if state.state == "RETRY")
    bad = {state.args for state in states if state.name == "shop.tasks.bad"}
    assert bad == {"(u'schl\\xfcssel',)"}


def test_the_meta_column_is_read_compressed_plain_empty_or_null(adopted):
    """Nothing writes all four in one database, so they are put in here."""
    values = {
        "eJxrYKotZIjgYGBgSM7IzEkpSs0rZPQr1gMASNQGew==": {"children": None},
        "gAJ9cQBYCAAAAGNoaWxkcmVucQFOcy4=": {"children": None},
        "": "",
        '{"children": []}': {"children": []},
        None: None,
    }
    field = StoredValueField(compress=True)
    for text, value in values.items():
        assert field.from_db_value(text, None, adopted.connection) == value
