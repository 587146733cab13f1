"""The database result backend and its tables, on whichever engine is chosen."""

from __future__ import annotations

import itertools
import threading
from datetime import timedelta

import pytest
from celery import states
from celery.result import AsyncResult, GroupResult
from django.db import connection, transaction
from kombu.exceptions import EncodeError

from djcelery import managers, utils
from djcelery.backends.database import DatabaseBackend
from djcelery.exceptions import ResultUndecodable
from djcelery.managers import may_replace
from djcelery.models import TaskMeta, TaskSetMeta
from djcelery.picklefield import PickledObject, encode

pytestmark = pytest.mark.django_db


@pytest.fixture
def backend(celery_app):
    return DatabaseBackend(app=celery_app)


STATES = ["PENDING", "RECEIVED", "STARTED", "RETRY", "PROGRESS", "FAILURE", "REVOKED", "SUCCESS"]


@pytest.mark.parametrize(("old", "new"), list(itertools.product(STATES, STATES)))
def test_the_database_applies_the_state_rule(backend, old, new):
    exception = ValueError("old")
    backend.store_result("id", exception if old in states.EXCEPTION_STATES else "old", old)
    exception = ValueError("new")
    backend.store_result("id", exception if new in states.EXCEPTION_STATES else "new", new, traceback="new")
    row = TaskMeta.objects.get(task_id="id")
    if may_replace(old, new):
        assert (row.status, row.traceback) == (new, "new")
        assert "new" in str(row.result)
    else:
        assert (row.status, row.traceback) == (old, None)
        assert "old" in str(row.result)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (None, "PENDING", True),
        ("PENDING", "STARTED", True),
        ("STARTED", "PENDING", False),
        ("STARTED", "PROGRESS", True),
        ("PROGRESS", "STARTED", True),
        ("STARTED", "RETRY", True),
        ("FAILURE", "STARTED", False),
        ("FAILURE", "RETRY", False),
        ("FAILURE", "SUCCESS", True),
        ("REVOKED", "FAILURE", True),
        ("SUCCESS", "FAILURE", False),
        ("SUCCESS", "SUCCESS", False),
    ],
)
def test_the_state_rule(old, new, expected):
    assert may_replace(old, new) is expected


def test_storing_a_result_is_one_statement(backend, django_assert_num_queries):
    with django_assert_num_queries(1):
        backend.store_result("id", {"a": 1}, "STARTED")
    with django_assert_num_queries(1):
        backend.store_result("id", {"a": 1}, "SUCCESS")


def test_fetching_a_result_is_one_statement(backend, django_assert_num_queries):
    backend.store_result("id", {"a": 1}, "SUCCESS")
    with django_assert_num_queries(1):
        assert backend.get_task_meta("id")["result"] == {"a": 1}


def test_an_unknown_id_is_pending_and_writes_nothing(backend):
    meta = backend.get_task_meta("missing")
    assert (meta.pop("task_id"), meta.pop("status")) == ("missing", "PENDING")
    assert set(meta) >= {"result", "date_done", "traceback", "children", "name", "args", "kwargs"}
    assert set(meta.values()) == {None}
    assert TaskMeta.objects.get_task("missing").pk is None
    assert TaskMeta.objects.count() == 0


@pytest.mark.parametrize("value", [None, True, 0, "", "gA", "text", [1, [2]], {"ü": "é😀"}, 10**30, 1.5, "nul \x00"])
def test_json_values_come_back_as_they_were(backend, value):
    backend.store_result("id", value, "SUCCESS")
    assert backend.get_task_meta("id")["result"] == value
    assert TaskMeta.objects.get(task_id="id").result == value


def test_a_new_value_is_json_and_says_so(backend):
    backend.store_result("id", {"a": 1}, "SUCCESS")
    with connection.cursor() as cursor:
        cursor.execute("SELECT result, content_type, content_encoding FROM celery_taskmeta")
        assert cursor.fetchone() == ('{"a": 1}', "application/json", "utf-8")


def test_a_value_that_json_cannot_carry_is_an_error_that_names_its_type(backend):
    with pytest.raises(EncodeError, match="type object is not JSON serializable"):
        backend.store_result("id", object(), "SUCCESS")


@pytest.mark.parametrize("serializer", ["pickle", "msgpack", "yaml"])
def test_the_configured_serializer_is_used(celery_app, serializer):
    pytest.importorskip({"msgpack": "msgpack", "yaml": "yaml"}.get(serializer, "json"))
    backend = DatabaseBackend(app=celery_app, serializer=serializer, accept=[serializer])
    backend.store_result("id", {"a": [1, "é"]}, "SUCCESS")
    assert backend.get_task_meta("id")["result"] == {"a": [1, "é"]}
    assert serializer[:4] in TaskMeta.objects.get(task_id="id").content_type.replace("python-serialize", "pickle")


def test_exceptions_are_rebuilt(backend):
    backend.store_result("id", KeyError("missing key"), "FAILURE", traceback="Traceback …")
    meta = backend.get_task_meta("id")
    assert isinstance(meta["result"], KeyError)
    assert meta["result"].args == ("missing key",)
    assert meta["traceback"] == "Traceback …"


@pytest.mark.parametrize("stored", [KeyError("boom"), {"exc_type": "KeyError", "exc_message": "boom"}])
def test_exceptions_of_old_rows_are_rebuilt(backend, stored):
    TaskMeta.objects.create(task_id="old", status="FAILURE", result=PickledObject(encode(stored)))
    error = backend.get_task_meta("old")["result"]
    assert type(error).__name__ == "KeyError"
    assert "boom" in str(error)


def test_an_exception_class_that_may_not_be_loaded_keeps_its_name_and_arguments(backend):
    raw = "gAJjc2hvcC50YXNrcwpTdG9ja0Vycm9yCnEBVQVTS1UtMXECVQxvdXQgb2Ygc3RvY2txA4ZxBFJxBX1xBlUDc2t1cQdoAnNiLg=="
    TaskMeta.objects.create(task_id="old", status="FAILURE", result=PickledObject(raw))
    error = AsyncResult("old", backend=backend).result
    assert type(error).__name__ == "StockError"
    assert error.args == ("SKU-1", "out of stock")
    with pytest.raises(Exception, match="out of stock"):
        AsyncResult("old", backend=backend).get()


def test_a_failure_that_cannot_be_read_is_an_error_that_says_so(backend):
    TaskMeta.objects.create(task_id="old", status="FAILURE", result=PickledObject("gAJjZXhjZXB0aW9ucwo="))
    with pytest.raises(ResultUndecodable, match="the pickle is broken"):
        AsyncResult("old", backend=backend).get()


def test_text_that_no_database_can_hold_is_escaped(backend):
    backend.store_result("id", None, "FAILURE", traceback="nul \x00, surrogate \udc80, emoji 😀")
    assert backend.get_task_meta("id")["traceback"] == "nul \\x00, surrogate \\udc80, emoji 😀"


@pytest.mark.skipif("connection.vendor != 'mysql'")
def test_emoji_are_escaped_for_three_byte_columns_of_old_databases(backend):
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE celery_taskmeta CONVERT TO CHARACTER SET utf8mb3")
    try:
        backend.store_result("id", None, "FAILURE", traceback="emoji 😀")
        assert backend.get_task_meta("id")["traceback"] == "emoji \\U0001f600"
    finally:
        TaskMeta.objects.all().delete()
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE celery_taskmeta CONVERT TO CHARACTER SET utf8mb4")


def test_children_are_kept(backend):
    class Request:
        children = [AsyncResult("child")]
        is_eager = False

    backend.store_result("id", 1, "SUCCESS", request=Request())
    assert [child.id for child in AsyncResult("id", backend=backend).children] == ["child"]


def test_date_done_is_shown_for_final_states_only(backend):
    backend.store_result("id", None, "STARTED")
    assert AsyncResult("id", backend=backend).date_done is None
    backend.store_result("id", None, "SUCCESS")
    assert utils.now() - AsyncResult("id", backend=backend).date_done < timedelta(minutes=1)


def test_the_worker_prints_where_results_go(backend):
    assert backend.as_uri() == "database (celery_taskmeta)"


def test_forget_deletes_the_row(backend):
    backend.store_result("id", 1, "SUCCESS")
    backend.forget("id")
    backend.forget("never there")
    assert TaskMeta.objects.count() == 0


def test_groups_are_saved_restored_and_deleted(celery_app):
    group = celery_app.GroupResult("gid", [celery_app.AsyncResult("a"), celery_app.GroupResult("inner", [])])
    group.save()
    assert celery_app.GroupResult.restore("gid") == group
    group.delete()
    assert celery_app.GroupResult.restore("gid") is None
    celery_app.backend.delete_group("never there")


def test_pickled_groups_of_celery_2_are_restored(celery_app):
    raw = (
        "gAJjY2VsZXJ5LnJlc3VsdApUYXNrU2V0UmVzdWx0CnEBVQNnaWRxAl1xAyhjY2VsZXJ5LnJlc3VsdApfdW5waWNrbGVfcmVzdWx0CnEEVQJhMXEF"
        "VQNhZGRxBoZScQdlhlJxCC4="
    )
    TaskSetMeta.objects.create(taskset_id="gid", result=PickledObject(raw))
    restored = celery_app.GroupResult.restore("gid")
    assert isinstance(restored, GroupResult)
    assert [result.id for result in restored] == ["a1"]


def test_a_group_that_cannot_be_read_is_none_and_logged(celery_app, caplog):
    TaskSetMeta.objects.create(taskset_id="gid", result=PickledObject("gAJjb3MKc3lzdGVtCnEALg=="))
    assert celery_app.GroupResult.restore("gid") is None
    assert "os.system is not on the list" in caplog.text


@pytest.mark.parametrize("expires", [None, 0, timedelta(0)])
def test_cleanup_without_an_age_deletes_nothing(expires):
    TaskMeta.objects.create(task_id="id", hidden=True)
    assert TaskMeta.objects.delete_expired(expires) == 0
    assert TaskMeta.objects.count() == 1


def test_cleanup_deletes_old_and_hidden_rows_in_batches(celery_app, settings):
    settings.CELERY_TASK_RESULT_EXPIRES = timedelta(days=1)
    for number in range(7):
        TaskMeta.objects.create(task_id=f"old{number}")
    TaskMeta.objects.update(date_done=utils.now() - timedelta(days=2))
    TaskMeta.objects.create(task_id="hidden", hidden=True)
    TaskMeta.objects.create(task_id="new")
    assert TaskMeta.objects.get_all_expired(timedelta(days=1)).count() == 7
    assert TaskMeta.objects.delete_expired(timedelta(days=1), batch_rows=3) == 8
    celery_app.backend.cleanup()
    assert list(TaskMeta.objects.values_list("task_id", flat=True)) == ["new"]


def test_the_legacy_manager_method_returns_the_row_and_whether_it_is_new():
    row, created = TaskMeta.objects.store_result("id", {"a": 1}, "STARTED", children=[["c", None]])
    assert (row.status, row.result, created) == ("STARTED", {"a": 1}, True)
    assert row.to_dict()["children"] == [["c", None]]
    row, created = TaskMeta.objects.store_result("id", 5, "SUCCESS", traceback="tb")
    assert (row.result, row.traceback, created) == (5, "tb", False)
    row, created = TaskMeta.objects.store_result("id", 6, "STARTED")
    assert (row.result, row.status) == (5, "SUCCESS")


def test_the_legacy_methods_of_groups():
    _, created = TaskSetMeta.objects.store_result("gid", [1])
    assert created
    assert TaskSetMeta.objects.restore_taskset("gid").to_dict()["result"] == [1]
    TaskSetMeta.objects.delete_taskset("gid")
    TaskSetMeta.objects.delete_taskset("gid")
    assert TaskSetMeta.objects.restore_taskset("gid") is None


def test_a_result_written_inside_a_transaction_belongs_to_it(backend):
    with transaction.atomic():
        backend.store_result("id", 1, "SUCCESS")
        transaction.set_rollback(True)
    assert TaskMeta.objects.count() == 0


@pytest.mark.skipif("connection.vendor != 'mysql'")
def test_polling_inside_a_repeatable_read_transaction_is_warned_of():
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    try:
        TaskMeta.objects.get_task("id")
        with pytest.warns(managers.TxIsolationWarning):
            TaskMeta.objects.get_task("id")
    finally:
        # The next test has the same session.
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")


def test_transaction_retry_tries_as_often_as_it_is_told():
    calls = []

    @managers.transaction_retry(max_retries=2)
    def fails():
        calls.append(1)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    with pytest.raises(RuntimeError):
        fails(exception_retry_count=0)
    assert len(calls) == 4


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="the test database is in memory")
def test_two_writers_at_once_leave_one_final_row(backend):
    barrier = threading.Barrier(2)
    errors = []

    def write(state):
        try:
            for number in range(50):
                barrier.wait()
                backend.store_result(f"id{number}", state, state)
        except Exception as exc:  # noqa: BLE001 - handed to the main thread
            errors.append(exc)
        finally:
            connection.close()

    threads = [threading.Thread(target=write, args=(state,)) for state in ("STARTED", "SUCCESS")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert set(TaskMeta.objects.values_list("status", flat=True)) == {"SUCCESS"}
    assert TaskMeta.objects.count() == 50
