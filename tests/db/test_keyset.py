"""Lists by key: every row on exactly one page, in both directions, whatever is written meanwhile; and no counting."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from django.contrib.admin.options import IncorrectLookupParameters
from django.db import connection
from django.test.utils import CaptureQueriesContext

from djcelery import utils
from djcelery.admin import TaskMonitor
from djcelery.admin.keyset import Cursor, Order, page
from djcelery.models import TaskMeta, TaskState, WorkerState

pytestmark = pytest.mark.django_db

TASKS = "/admin/djcelery/taskstate/"
NEWEST = Order("tstamp", True)


def make(count, **fields):
    at = datetime(2026, 11, 21, tzinfo=timezone.utc)
    values = {"state": "SUCCESS", "name": "shop.tasks.add", **fields}
    # Pairs have the same time, so that the key has to part them.
    rows = [
        TaskState(task_id=f"id-{number:03}", tstamp=at + timedelta(seconds=number // 2), **values)
        for number in range(count)
    ]
    return TaskState.objects.bulk_create(rows)


def ids(rows):
    return [row.task_id for row in rows]


def walk(order, size, rows):
    """Return the ids of each page from the first to the last."""
    found, cursor = [], None
    while True:
        shown = page(rows, order, size, after=cursor)
        found.append(ids(shown.rows))
        if not shown.has_after:
            return found
        cursor = Cursor.of(shown.rows[-1], order)


@pytest.mark.parametrize(
    "order",
    [NEWEST, Order("tstamp", False), Order("pk", True), Order("task_id", False)]
    + [Order("tstamp", is_descending, is_filtered=True) for is_descending in (True, False)],
)
@pytest.mark.parametrize("size", [1, 3, 7, 10])
def test_every_row_is_on_one_page_in_order(order, size):
    make(9)
    pages = walk(order, size, TaskState.objects.all())
    assert [task_id for found in pages for task_id in found] == ids(TaskState.objects.order_by(*order.fields))
    assert all(len(shown) == size for shown in pages[:-1])


def test_going_back_shows_the_same_pages():
    make(10)
    rows = TaskState.objects.all()
    pages = walk(NEWEST, 4, rows)
    last = page(rows, NEWEST, 4, after=Cursor.of(TaskState.objects.get(task_id=pages[1][-1]), NEWEST))
    before = page(rows, NEWEST, 4, before=Cursor.of(last.rows[0], NEWEST))
    assert (ids(before.rows), before.has_before, before.has_after) == (pages[1], True, True)
    first = page(rows, NEWEST, 4, before=Cursor.of(before.rows[0], NEWEST))
    assert (ids(first.rows), first.has_before, first.has_after) == (pages[0], False, True)


def test_what_is_before_a_row_near_the_top_is_the_whole_first_page():
    make(10)
    second = TaskState.objects.order_by(*NEWEST.fields)[2]
    shown = page(TaskState.objects.all(), NEWEST, 4, before=Cursor.of(second, NEWEST))
    assert ids(shown.rows) == ["id-009", "id-008", "id-007", "id-006"]
    assert not shown.has_before


def test_rows_that_come_meanwhile_move_no_page():
    make(6)
    rows = TaskState.objects.all()
    first = page(rows, NEWEST, 2)
    cursor = Cursor.of(first.rows[-1], NEWEST)
    TaskState.objects.create(task_id="new", state="STARTED", tstamp=utils.now())
    assert ids(page(rows, NEWEST, 2, after=cursor).rows) == ["id-003", "id-002"]
    TaskState.objects.filter(pk=first.rows[-1].pk).delete()
    assert ids(page(rows, NEWEST, 2, after=cursor).rows) == ["id-003", "id-002"]


@pytest.mark.parametrize("use_tz", [True, False])
def test_a_cursor_is_read_back_to_the_microsecond(settings, use_tz):
    settings.USE_TZ = use_tz
    at = datetime(2026, 10, 25, 2, 30, 0, 123456, tzinfo=timezone.utc if use_tz else None)
    cursor = Cursor.of(TaskState(pk=7, tstamp=at), NEWEST)
    assert Cursor.parse(str(cursor), TaskState, NEWEST) == cursor
    assert Cursor.parse("7~a~b", TaskState, Order("task_id", True)) == Cursor("a~b", 7)


@pytest.mark.parametrize(
    "text",
    ["x", "7", "7~", "~", "x~2026-11-21T00:00:00+00:00", "7~2026-11-21T00:00:00", "7~0001-01-01T00:00:00+00:00",
     f"{2**70}~2026-11-21T00:00:00+00:00", "-1~2026-11-21T00:00:00+00:00", "7~\x00"],
)  # fmt: skip
def test_what_is_no_cursor_is_refused(text):
    with pytest.raises(IncorrectLookupParameters):
        Cursor.parse(text, TaskState, NEWEST)


# -- the list --------------------------------------------------------------------------------------


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(TaskMonitor, "list_per_page", 3)


def shown(client, url=TASKS, **params):
    response = client.get(url, params)
    assert response.status_code == 200, response
    changelist = response.context["cl"]
    return ids(changelist.result_list), changelist, response.content.decode()


def test_the_list_is_walked_by_its_links_with_filter_search_and_order_kept(admin_client, short):
    make(8)
    make_others = [TaskState(task_id=f"x-{n}", state="FAILURE", name="shop.x", tstamp=utils.now()) for n in range(5)]
    TaskState.objects.bulk_create(make_others)
    url, seen = f"{TASKS}?state__exact=SUCCESS&q=name%3Ashop.tasks.add", []
    while url:
        found, changelist, text = shown(admin_client, url)
        seen += found
        assert text.count('rel="prev"') == (1 if changelist.before_url else 0)
        url = changelist.after_url and f"{TASKS}{changelist.after_url}"
    assert seen == [f"id-{number:03}" for number in reversed(range(8))]
    assert "First page" in text
    # The links of the filters start at the first page.
    assert "after=" not in changelist.filter_specs[0].choices(changelist).__next__()["query_string"]


def test_going_to_newer_rows_by_the_link(admin_client, short):
    make(8)
    _found, first, _text = shown(admin_client)
    _found, second, _text = shown(admin_client, f"{TASKS}{first.after_url}")
    found, back, _text = shown(admin_client, f"{TASKS}{second.before_url}")
    assert found == ["id-007", "id-006", "id-005"]
    assert not back.before_url


def test_the_oldest_come_first_if_the_header_is_clicked(admin_client, short):
    make(4)
    column = list(TaskMonitor.list_display).index(TaskMonitor.sortable_by[0]) + 1
    found, _changelist, text = shown(admin_client, o=str(column))
    assert found == ["id-000", "id-001", "id-002"]
    assert 'rel="next">Newer' in text


@pytest.mark.parametrize("column", ["4", "1", "99", "x", "-4.2"])
def test_no_column_without_an_index_orders_the_list(admin_client, short, column):
    make(4)
    assert shown(admin_client, o=column)[0] == ["id-003", "id-002", "id-001"]


@pytest.mark.parametrize("cursor", [{"after": "x"}, {"before": "7~"}, {"after": "7~2026-11-21\x00"}])
def test_a_broken_address_leads_to_the_first_page(admin_client, cursor):
    assert admin_client.get(TASKS, cursor).status_code == 302
    assert admin_client.get(TASKS, cursor, follow=True).status_code == 200


@pytest.mark.parametrize("name", ["q", "name", "state__exact", "worker__id__exact", "within", "eta", "tstamp__gte"])
@pytest.mark.parametrize("value", ["a\x00b", "'", "%", "9" * 40, "\U0001f600"])
def test_no_value_in_the_address_breaks_the_list(admin_client, name, value):
    make(1)
    assert admin_client.get(TASKS, {name: value}, follow=True).status_code == 200


def test_no_list_counts_or_reads_distinct_values_or_skips_rows(admin_client, short):
    make(8)
    TaskMeta.objects.create(task_id="a", status="SUCCESS")
    urls = [TASKS, f"{TASKS}?q=shop", f"{TASKS}?state__exact=SUCCESS", "/admin/djcelery/taskmeta/"]
    urls += [f"{TASKS}{shown(admin_client)[1].after_url}", "/admin/djcelery/tasksetmeta/", "/admin/djcelery/chord/"]
    for url in urls:
        with CaptureQueriesContext(connection) as queries:
            assert admin_client.get(url).status_code == 200
        for query in queries:
            words = query["sql"].upper()
            assert "COUNT(" not in words
            assert "DISTINCT" not in words
            assert "OFFSET" not in words


def test_old_addresses_of_filters_still_work(admin_client):
    worker = WorkerState.objects.create(hostname="w@h", last_heartbeat=utils.now())
    make(2, worker=worker)
    for params in (
        {"state__exact": "SUCCESS"}, {"name": "shop.tasks.add"}, {"name__exact": "shop.tasks.add"},
        {"worker__id__exact": worker.pk}, {"tstamp__gte": "2026-11-20 00:00:00+00:00"},
    ):  # fmt: skip
        assert len(shown(admin_client, **params)[0]) == 2, params


@pytest.mark.parametrize("lookup", ["args__contains", "result__startswith", "traceback__isnull", "name__icontains"])
def test_nothing_else_can_filter_a_list(admin_client, person, lookup):
    make(1)
    assert admin_client.get(TASKS, {lookup: "1"}).status_code == 400
    assert admin_client.get("/admin/djcelery/taskmeta/", {lookup: "1"}).status_code == 400
    assert person("view_taskstate").get(TASKS, {lookup: "1"}).status_code == 400


@pytest.mark.parametrize(
    ("params", "index"),
    [
        ({"state": "FAILURE"}, "djcelery_task_state"),
        ({"name": "shop.tasks.t7"}, "djcelery_task_name"),
        ({"worker": 3}, "djcelery_task_worker"),
        ({"name": "shop.tasks.t7", "state": "FAILURE"}, "djcelery_task_name_state"),
        ({"worker": 3, "state": "FAILURE"}, "djcelery_task_worker_state"),
        ({"worker": 3, "name": "shop.tasks.t7"}, "djcelery_task_name_worker"),
        ({"eta__isnull": False}, "djcelery_task_eta"),
        ({"retried_as": "x"}, "djcelery_task_again"),
        ({"root_id": "x", "parent_id": "y"}, "djcelery_task_root"),
    ],
)
def test_an_index_serves_each_filter_in_the_order_of_the_list(params, index):
    workers = WorkerState.objects.bulk_create(WorkerState(hostname=f"w{number}") for number in range(10))
    if "worker" in params:
        params = {**params, "worker": workers[3].pk}
    at = utils.now()
    TaskState.objects.bulk_create(
        TaskState(
            task_id=f"{number:05}", name=f"shop.tasks.t{number % 50}", worker=workers[number % 10],
            tstamp=at - timedelta(seconds=number),
            state="FAILURE" if number % 100 == 3 else "SUCCESS",
        )
        for number in range(2000)
    )  # fmt: skip
    if connection.vendor != "mysql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE djcelery_taskstate")
            if connection.vendor == "postgresql":
                # What a small table is read by says nothing of a large one.
                cursor.execute("SET LOCAL enable_sort = off")
                cursor.execute("SET LOCAL enable_bitmapscan = off")
    order = Order("eta", True) if "eta__isnull" in params else NEWEST._replace(is_filtered=True)
    plan = order.applied(TaskState.objects.filter(**params).only("pk"))[:100].explain()
    assert index in plan or connection.vendor == "mysql", plan
