"""The row of one task: its columns, by which write they change, and what they can hold."""

from __future__ import annotations

import datetime
import itertools
import json
import math
import re
import threading
import uuid
from decimal import Decimal

import pytest
from celery import states
from celery.app.task import Context
from celery.exceptions import Retry, SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded, WorkerLostError
from celery.result import AsyncResult, ResultSet
from django.core.exceptions import ValidationError
from django.db import connection
from django.test import override_settings
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from kombu.exceptions import EncodeError
from kombu.utils import json as kombu_json

from djcelery import db, utils
from djcelery.backends import columns
from djcelery.backends.database import DatabaseBackend
from djcelery.exceptions import ResultTooLarge
from djcelery.managers import may_replace
from djcelery.models import TaskMeta
from tests.strategies import anything, quick

pytestmark = pytest.mark.django_db

STATES = ["PENDING", "RECEIVED", "STARTED", "RETRY", "PROGRESS", "FAILURE", "REVOKED", "SUCCESS"]
SENT = 1_690_000_000.25
FINAL_MOMENT = datetime.timedelta(seconds=30)


@pytest.fixture
def backend(celery_app):
    return DatabaseBackend(app=celery_app)


def request(**told):
    """Return a request as a worker makes it from a message."""
    known = {
        "id": "id",
        "task": "shop.tasks.charge",
        "args": [1],
        "kwargs": {"order_id": 5},
        "hostname": "worker@host",
        "retries": 0,
        "root_id": "root",
        "parent_id": "parent",
        "group": "group",
        "delivery_info": {"exchange": "", "routing_key": "payments"},
        "periodic_task_name": "every night",
        columns.SENT_HEADER: SENT,
    }
    return Context({**known, **told})


def started(seconds_ago, **told):
    import time

    made = request(**told)
    made.djcelery_started = (time.time() - seconds_ago, time.monotonic() - seconds_ago)
    return made


def row():
    return TaskMeta.objects.get(task_id="id")


def raw():
    """Return the row as the database holds it, every column."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM celery_taskmeta WHERE task_id = 'id'")
        return dict(zip([column[0] for column in cursor.description], cursor.fetchone(), strict=True))


def failed(state, text):
    return ValueError(text) if state in states.EXCEPTION_STATES else text


# columns


def test_one_write_fills_every_column(backend):
    backend.store_result("id", 42, "SUCCESS", request=started(2.5))
    found = row()
    assert (found.name, found.args, found.kwargs) == ("shop.tasks.charge", [1], {"order_id": 5})
    assert (found.worker, found.queue, found.periodic_task) == ("worker@host", "payments", "every night")
    assert (found.retries, found.root_id, found.parent_id, found.group_id) == (0, "root", "parent", "group")
    assert found.created.timestamp() == pytest.approx(SENT, abs=0.001)
    assert found.created <= found.started <= found.finished
    assert found.finished - found.started >= datetime.timedelta(seconds=2.4)
    # More on a busy machine, but never less.
    assert 2.49 <= found.runtime < 60
    assert (found.progress, found.flags, found.result) == (None, None, 42)


@pytest.mark.parametrize(("old", "new"), list(itertools.product(STATES, STATES)))
def test_an_ignored_write_changes_no_column_and_another_all_it_knows(backend, old, new):
    backend.store_result(
        "id", failed(old, "old"), old, traceback="old", request=started(9, **{columns.SENT_HEADER: 1e9})
    )
    before = raw()
    later = started(
        1,
        task="other",
        args=["other"],
        kwargs={"other": 1},
        hostname="other",
        retries=3,
        root_id="other",
        parent_id="other",
        group="other",
        delivery_info={"exchange": "", "routing_key": "other"},
        periodic_task_name="other",
    )
    backend.store_result("id", failed(new, "new"), new, traceback="new", request=later)
    after = raw()
    changed = {name for name in after if after[name] != before[name]}
    if not may_replace(old, new):
        assert changed == set()
        return
    known = {
        "name",
        "args",
        "kwargs",
        "worker",
        "queue",
        "periodic_task",
        "retries",
        "root_id",
        "parent_id",
        "group_id",
    }
    assert changed >= known | {"result", "traceback", "date_done", "started"}
    assert after["created"] == before["created"]
    assert ("finished" in changed) is (new in ("SUCCESS", "FAILURE", "REVOKED"))
    assert ("progress" in changed) is (new == "PROGRESS")


def test_columns_that_a_later_write_does_not_know_stay(backend):
    backend.store_result("id", {"done": 3}, "PROGRESS", request=started(1, args=["x" * 100_000]))
    before = raw()
    backend.store_result("id", 1, "SUCCESS")
    after = raw()
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"status", "result", "date_done", "finished"}
    assert after["flags"] == "args_cut"


def test_progress_outlives_the_end_of_the_task(backend):
    backend.store_result("id", {"done": 3, "of": 10}, "PROGRESS", request=request())
    assert AsyncResult("id", backend=backend).info == {"done": 3, "of": 10}
    backend.store_result("id", "ready", "SUCCESS", request=request())
    assert (row().progress, row().result) == ({"done": 3, "of": 10}, "ready")
    assert TaskMeta.objects.filter(progress__done=3).count() == 1


def test_a_retry_keeps_when_it_was_sent_and_tells_when_it_ran_last(backend):
    backend.store_result("id", ValueError("1"), "RETRY", request=started(100))
    first = row()
    assert (first.finished, first.runtime) == (None, None)
    backend.store_result("id", 1, "SUCCESS", request=started(1, retries=1, **{columns.SENT_HEADER: SENT + 50}))
    assert row().created == first.created
    assert row().started - first.started > datetime.timedelta(seconds=90)
    assert row().retries == 1
    # Of the last run alone; the first began a minute and a half before.
    assert 0.99 <= row().runtime < 60


def test_a_task_that_writes_the_state_of_another_does_not_lend_it_its_name(backend):
    backend.store_result("id", {"done": 1}, "PROGRESS", request=request(id="mine"))
    assert (row().name, row().args, row().progress) == (None, None, {"done": 1})


def test_a_result_without_a_request_has_times_all_the_same(backend):
    backend.store_result("id", 1, "SUCCESS")
    assert row().created == row().finished
    assert utils.now() - row().finished < FINAL_MOMENT
    assert (row().started, row().name) == (None, None)


def test_storing_with_every_column_is_one_statement(backend, django_assert_num_queries):
    for state in ("STARTED", "PROGRESS", "SUCCESS"):
        with django_assert_num_queries(1):
            backend.store_result("id", {"a": 1}, state, request=started(1))


@pytest.mark.parametrize(
    ("zone", "use_tz"),
    [("Europe/Brussels", True), ("Europe/Brussels", False), ("UTC", False), ("Pacific/Auckland", True)],
)
def test_instants_are_the_same_whatever_the_zone_and_use_tz(backend, zone, use_tz):
    with override_settings(USE_TZ=use_tz, TIME_ZONE=zone):
        backend.store_result("id", 1, "SUCCESS", request=started(60))
        found = row()
        instants = [found.created, found.started, found.finished, found.date_done]
        assert {instant.tzinfo is not None for instant in instants} == {use_tz}
        assert utils.to_utc(found.created).timestamp() == pytest.approx(SENT, abs=0.001)
        now = datetime.datetime.now(datetime.timezone.utc)
        assert abs(now - utils.to_utc(found.finished)) < FINAL_MOMENT
        assert now - utils.to_utc(found.started) > datetime.timedelta(seconds=59)
        done = AsyncResult("id", backend=backend).date_done
        assert abs(now - utils.to_utc(done)) < FINAL_MOMENT


# eager mode


@pytest.fixture
def eager_app(celery_app):
    celery_app.conf.update(task_always_eager=True, task_store_eager_result=True, result_backend="database")
    return celery_app


def test_an_eager_result_has_the_same_columns(eager_app):
    @eager_app.task(name="shop.charge", shared=False, bind=True)
    def charge(self, order_id, *, currency):
        self.update_state(state="PROGRESS", meta={"percent": 50})
        return f"{order_id} {currency}"

    sent = charge.delay(5, currency="EUR")
    found = TaskMeta.objects.get(task_id=sent.id)
    assert (found.name, found.args, found.kwargs, found.result) == ("shop.charge", [5], {"currency": "EUR"}, "5 EUR")
    assert found.progress == {"percent": 50}
    assert found.created <= found.started <= found.finished
    assert 0 <= found.runtime < 10
    assert (found.retries, found.root_id) == (0, sent.id)
    assert found.worker


def test_an_eager_failure_has_the_same_columns(eager_app):
    @eager_app.task(name="shop.fail", shared=False)
    def fail(*, sku):
        raise KeyError(sku)

    found = TaskMeta.objects.get(task_id=fail.delay(sku="A1").id)
    assert (found.name, found.kwargs, found.status) == ("shop.fail", {"sku": "A1"}, "FAILURE")
    assert "KeyError: 'A1'" in found.traceback
    assert found.started <= found.finished


def test_an_eager_result_that_is_too_large_fails_the_task(eager_app, settings):
    settings.DJCELERY_RESULT_MAX_BYTES = 100

    @eager_app.task(name="shop.large", shared=False)
    def large():
        return "x" * 200

    sent = large.delay()
    assert sent.state == "FAILURE"
    assert AsyncResult(sent.id).state == "FAILURE"
    with pytest.raises(ResultTooLarge, match=r"takes 202 bytes; 100 may be stored"):
        AsyncResult(sent.id).get(disable_sync_subtasks=False)


# arguments


def test_rows_are_found_by_what_was_in_the_arguments(backend):
    backend.store_result(
        "id", 1, "SUCCESS", request=request(args=["EUR", [2, 3]], kwargs={"order_id": 5, "to": {"zip": "1000"}})
    )
    backend.store_result("other", 1, "SUCCESS", request=request(id="other", args=["USD"], kwargs={"order_id": 6}))
    for lookup in (
        {"kwargs__order_id": 5},
        {"kwargs__order_id__lt": 6},
        {"kwargs__to__zip": "1000"},
        {"kwargs__has_key": "to"},
        {"args__0": "EUR"},
        {"args__1__0": 2},
        {"args": ["EUR", [2, 3]]},
    ):
        assert [found.task_id for found in TaskMeta.objects.filter(**lookup)] == ["id"], lookup
    assert TaskMeta.objects.filter(kwargs__order_id=7).count() == 0


ARGUMENTS = [
    10**30,
    -(2**63),
    1.5,
    "é😀",
    datetime.datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=datetime.timezone.utc),
    datetime.datetime(2026, 1, 2),
    datetime.date(2026, 1, 2),
    datetime.time(1, 2, 3),
    Decimal("19.90"),
    uuid.UUID(int=5),
    b"bytes",
    b"\xff\xfe",
    {"nested": [1, {"a": None}]},
]


def test_arguments_can_be_used_to_run_the_task_again(backend):
    backend.store_result("id", 1, "SUCCESS", request=request(args=ARGUMENTS, kwargs={"all": ARGUMENTS}))
    result = AsyncResult("id", backend=backend)
    assert result.args == ARGUMENTS
    assert result.kwargs == {"all": ARGUMENTS}
    assert kombu_json.loads(json.dumps(row().args)) == ARGUMENTS
    assert row().flags is None


def test_any_arguments_and_progress_can_be_stored_on_this_database(backend):
    # The same ones each time: what else there may be, tests/unit looks for.
    @hypothesis_settings(quick, derandomize=True)
    @given(anything, anything)
    def check(value, other):
        with override_settings(DJCELERY_ARGS_MAX_BYTES=2000):
            found = columns.Columns()
            args = columns.arguments(found, "args", [value], None, frozenset())
            progress = columns.capped(found, "progress", other)
        wanted = {"task_id": "id", "status": "PROGRESS", "date_done": utils.now(), "hidden": False}
        TaskMeta.objects.write({**wanted, "args": args, "progress": progress, "flags": " ".join(found.flags)})
        row()
        backend.get_task_meta("id", cache=False)

    check()


def test_arguments_that_are_too_long_are_cut_and_flagged(backend, settings):
    settings.DJCELERY_ARGS_MAX_BYTES = 500
    long = request(args=["x" * 1000, 7], kwargs={"order_id": 5, "body": "y" * 1000})
    backend.store_result("id", 1, "SUCCESS", request=long)
    assert row().args[1] == 7
    assert row().kwargs["order_id"] == 5
    assert TaskMeta.objects.filter(kwargs__order_id=5).exists()
    assert set(row().flags.split()) == {"args_cut", "kwargs_cut"}


def test_the_flags_of_every_column_fit(backend, settings):
    settings.DJCELERY_ARGS_MAX_BYTES = 300
    settings.DJCELERY_RESULT_MAX_BYTES = 100
    hostile = ["\x00", {object()}, "x" * 1000]
    bad = request(args=hostile, kwargs={"a": hostile})
    backend.store_result("id", ValueError("x" * 9999), "FAILURE", traceback="\x00" * 999, request=bad)
    flags = row().flags.split()
    assert set(flags) >= {"args_cut", "args_repr", "args_escaped", "kwargs_cut", "result_cut", "traceback_cut"}
    assert len(flags) == len(set(flags))


# results


def test_a_result_that_is_too_large_is_refused_by_name_size_and_limit(backend, settings):
    settings.DJCELERY_RESULT_MAX_BYTES = 100
    backend.store_result("id", "x" * 98, "SUCCESS")
    with pytest.raises(EncodeError, match=r"The result of task other takes 101 bytes; 100 may be stored"):
        backend.store_result("other", "x" * 99, "SUCCESS")
    assert not TaskMeta.objects.filter(task_id="other").exists()


def test_a_result_that_is_too_large_is_cut_if_the_project_says_so(backend, settings):
    settings.DJCELERY_RESULT_MAX_BYTES = 100
    settings.DJCELERY_RESULT_TOO_LARGE = "cut"
    backend.store_result("id", {"a": "x" * 999}, "SUCCESS", request=request())
    assert row().result.startswith("{'a': 'xxx")
    assert len(raw()["result"]) <= 100
    assert row().flags == "result_cut"


@pytest.mark.parametrize("setting", ["refuse", "cut"])
def test_an_exception_that_is_too_large_is_cut_never_refused(backend, settings, setting):
    settings.DJCELERY_RESULT_MAX_BYTES = 2000
    settings.DJCELERY_RESULT_TOO_LARGE = setting
    backend.store_result("id", KeyError("x" * 9999), "FAILURE", traceback="x" * 9999 + " the end", request=request())
    error = AsyncResult("id", backend=backend).result
    assert type(error) is KeyError
    assert error.args[0].startswith("xxx")
    assert len(raw()["result"]) <= 2000
    assert row().traceback.endswith("x the end")
    assert set(row().flags.split()) == {"result_cut", "traceback_cut"}


def test_what_the_server_would_not_take_is_refused_before_it_is_sent(backend, monkeypatch):
    monkeypatch.setattr(db, "SAFE_STATEMENT_BYTES", 1000)
    monkeypatch.setattr(db, "largest_text", lambda connection: 2000)
    backend.store_result("id", "x" * 1500, "SUCCESS")
    with pytest.raises(ResultTooLarge, match="2000 may be stored"):
        backend.store_result("other", "x" * 2500, "SUCCESS")


@pytest.mark.skipif("connection.vendor != 'mysql'")
def test_the_largest_text_passes_the_largest_packet(backend):
    largest = db.largest_text(connection)
    # Each of these characters is doubled on its way to the server.
    backend.store_result("id", "'" * (largest - 2), "SUCCESS")
    assert len(raw()["result"]) == largest
    with pytest.raises(ResultTooLarge):
        backend.store_result("other", "'" * largest, "SUCCESS")


@pytest.mark.parametrize("value", [math.nan, math.inf, "\x00", "\udc80", "😀", ["\x00", {"\udc80": 1}], 10**400])
def test_results_that_a_json_column_refuses_are_stored_as_they_are(backend, value):
    backend.store_result("id", value, "SUCCESS", request=request())
    found = backend.get_task_meta("id")["result"]
    assert found == value or (math.isnan(value) and math.isnan(found))


@pytest.mark.parametrize("text", ["nul \x00", "lone \udc80", "emoji 😀"])
def test_state_and_traceback_are_stored_whatever_text_there_is(backend, text):
    odd = request(
        task=text,
        args=[text],
        kwargs={text: text},
        hostname=text,
        root_id=text * 99,
        group=text,
        periodic_task_name=text,
    )
    backend.store_result("id", ValueError(text), "FAILURE", traceback=text, request=odd)
    escaped = db.storable(text)
    assert (row().status, row().traceback, row().name) == ("FAILURE", escaped, escaped)
    assert row().kwargs == {escaped: escaped}


@pytest.mark.skipif("connection.vendor != 'mysql'")
def test_emoji_everywhere_are_stored_in_the_three_byte_columns_of_old_databases(backend):
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE celery_taskmeta CONVERT TO CHARACTER SET utf8mb3")
    try:
        odd = request(task="😀", args=["😀"], kwargs={"😀": 1}, hostname="😀" * 100)
        backend.store_result("id", ValueError("😀"), "FAILURE", traceback="emoji 😀", request=odd)
        assert (row().status, row().traceback, row().name) == ("FAILURE", "emoji \\U0001f600", "\\U0001f600")
        assert (row().args, row().kwargs) == (["😀"], {"😀": 1})
        assert AsyncResult("id", backend=backend).result.args == ("😀",)
        assert row().flags == "traceback_escaped"
    finally:
        TaskMeta.objects.all().delete()
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE celery_taskmeta CONVERT TO CHARACTER SET utf8mb4")


# what Celery shows of it


class Odd(Exception):
    """Its arguments are not those of its constructor."""

    def __init__(self, sku, *, message):
        super().__init__(f"{sku}: {message}")


class TwoArguments(Exception):
    def __init__(self, sku, message):
        super().__init__(sku, message)


class Outer:
    class Inner(Exception):
        pass


EXCEPTIONS = [
    KeyError("key"),
    ValueError(),
    ValueError("a", 2, None),
    OSError(2, "No such file", "name"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    ZeroDivisionError("é😀\x00"),
    Odd("A1", message="gone"),
    TwoArguments("A1", "gone"),
    Outer.Inner("inner"),
    ValueError(object()),
    ValueError(threading.Lock()),
    ValueError(lambda: None),
    ValueError({1, 2}, datetime.date(2026, 1, 1)),
    ValidationError("invalid"),
    Retry("again", ValueError("why"), 5),
    TaskRevokedError("terminated"),
    TimeLimitExceeded(5),
    SoftTimeLimitExceeded(5),
    WorkerLostError("signal 9"),
    type("Local", (Exception,), {})("local"),
]


@pytest.mark.parametrize("serializer", ["json", "pickle"])
@pytest.mark.parametrize("number", range(len(EXCEPTIONS)), ids=[type(exc).__name__ for exc in EXCEPTIONS])
def test_exceptions_are_rebuilt_as_by_celerys_own_backends(celery_app, number, serializer):
    from celery.backends.cache import CacheBackend

    exc = EXCEPTIONS[number]
    found = []
    for backend in (
        DatabaseBackend(app=celery_app, serializer=serializer, accept=[serializer]),
        CacheBackend(celery_app, backend="memory://", serializer=serializer, accept=[serializer]),
    ):
        # The memory of Celery's backend is that of the process.
        task_id = f"{serializer}-{number}"
        backend.store_result(task_id, exc, "FAILURE", traceback="Traceback")
        meta = backend.get_task_meta(task_id)
        found.append(
            (
                type(meta["result"]).__qualname__,
                type(meta["result"]).__module__,
                re.sub("0x[0-9a-f]+", "", repr(meta["result"].args)),
            )
        )
        assert meta["traceback"] == "Traceback"
    ours, celerys = found
    if serializer == "pickle" and ours[0] != celerys[0]:
        # A pickle of a class that the project has not allowed keeps its name and arguments.
        assert ours[0].endswith(celerys[0].rpartition(".")[2])
        return
    assert ours == celerys


def test_async_result_shows_the_row(celery_app, backend):
    celery_app.conf.result_extended = False
    made = started(1, retries=2)
    made._children = [celery_app.AsyncResult("child")]
    backend.store_result("id", {"a": 1}, "SUCCESS", request=made)
    backend.store_result("child", "b", "SUCCESS", request=request(id="child"))
    result = AsyncResult("id", backend=backend, app=celery_app)
    assert (result.state, result.info, result.result, result.traceback) == ("SUCCESS", {"a": 1}, {"a": 1}, None)
    assert (result.name, result.args, result.kwargs) == ("shop.tasks.charge", [1], {"order_id": 5})
    assert (result.worker, result.queue, result.retries) == ("worker@host", "payments", 2)
    assert [child.id for child in result.children] == ["child"]
    assert [value for _, value in result.collect()] == [{"a": 1}, "b"]
    assert utils.now() - result.date_done < FINAL_MOMENT
    result.forget()
    assert AsyncResult("id", backend=backend).state == "PENDING"


def test_get_raises_what_the_task_raised_or_returns_it(backend):
    backend.store_result("id", KeyError("gone"), "FAILURE", traceback="Traceback …", request=request())
    result = AsyncResult("id", backend=backend)
    with pytest.raises(KeyError, match="gone"):
        result.get()
    assert isinstance(result.get(propagate=False), KeyError)
    assert result.traceback == "Traceback …"
    with pytest.raises(KeyError):
        ResultSet([result]).get()


def test_fetching_all_of_it_is_one_statement(backend, django_assert_num_queries):
    backend.store_result("id", 1, "SUCCESS", request=started(1))
    with django_assert_num_queries(1):
        result = AsyncResult("id", backend=backend)
        assert (result.state, result.name, result.args, result.worker, result.result) == (
            "SUCCESS",
            "shop.tasks.charge",
            [1],
            "worker@host",
            1,
        )


# querysets


@pytest.fixture
def many():
    """A thousand rows: 900 of them succeeded, one in a hundred is of one task. ANALYZE commits on MySQL."""
    names = {True: "shop.rare", False: "shop.common"}
    long_ago = utils.now() - datetime.timedelta(days=100)
    rows = [
        TaskMeta(
            task_id=f"task{n:04}",
            name=names[n % 100 == 0],
            status=("FAILURE", "STARTED", "REVOKED", "PROGRESS")[n // 10 % 4] if n % 10 == 0 else "SUCCESS",
        )
        for n in range(1000)
    ]
    TaskMeta.objects.bulk_create(rows)
    TaskMeta.objects.filter(task_id__lt="task0010").update(date_done=long_ago)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE TABLE celery_taskmeta" if connection.vendor == "mysql" else "ANALYZE")
        yield
    if connection.vendor == "sqlite":
        # The plans of the next tests are not those of this table.
        with connection.cursor() as cursor:
            for name in ("sqlite_stat1", "sqlite_stat4"):
                cursor.execute(f"DROP TABLE IF EXISTS {name}")


@pytest.mark.django_db(transaction=True)
def test_querysets_name_what_people_ask_for(many):
    rows = TaskMeta.objects
    assert rows.succeeded().count() == 900
    assert set(rows.failed().values_list("status", flat=True)) == {"FAILURE"}
    assert set(rows.finished().values_list("status", flat=True)) == {"SUCCESS", "FAILURE", "REVOKED"}
    assert set(rows.unfinished().values_list("status", flat=True)) == {"STARTED", "PROGRESS"}
    assert rows.finished().count() + rows.unfinished().count() == 1000
    assert rows.for_task("shop.rare").count() == 10
    assert rows.for_task("shop.rare").failed().count() == rows.failed().for_task("shop.rare").count()
    old = rows.finished_before(utils.now() - datetime.timedelta(days=50))
    assert sorted(old.values_list("task_id", flat=True)) == [f"task{n:04}" for n in range(10)]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("narrowed", "index"),
    [
        (lambda rows: rows.failed(), "state_done"),
        (lambda rows: rows.succeeded().filter(date_done__lt=utils.now() - datetime.timedelta(days=50)), ""),
        (lambda rows: rows.finished_before(utils.now() - datetime.timedelta(days=50)), ""),
        (lambda rows: rows.for_task("shop.rare"), "name_"),
        (lambda rows: rows.for_task("shop.rare").order_by("-date_done")[:5], "name_"),
    ],
)
def test_narrowing_uses_an_index(many, narrowed, index):
    plan = narrowed(TaskMeta.objects.all()).explain()
    assert f"djcelery_taskmeta_{index}" in plan, plan
