"""``celeryresults convert``: pickles become JSON wherever nothing is lost, on whichever engine is chosen."""

from __future__ import annotations

import base64
import collections
import csv
import datetime
import io
import os
import pickle
import signal
import uuid
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from celery.exceptions import MaxRetriesExceededError, TaskRevokedError
from celery.result import AsyncResult, EagerResult, GroupResult
from celery.utils.serialization import UnpickleableExceptionWrapper
from django.core.management import CommandError, call_command
from django.db import connection

from djcelery.backends.database import DatabaseBackend
from djcelery.management import results_rows
from djcelery.management.results_rows import Conversion
from djcelery.models import TaskMeta, TaskSetMeta
from djcelery.picklefield import PickledObject, encode

pytestmark = pytest.mark.django_db

LONG_AGO = datetime.datetime(2015, 3, 1, 12, 30, tzinfo=datetime.timezone.utc)
#: An instance of ``shop.tasks.Basket`` with its state, as django-celery stored it.
BASKET = "gAJjc2hvcC50YXNrcwpCYXNrZXQKcQEpgXECfXEDVQVpdGVtc3EEXXEFKFUDdGVhcQZVBG1pbGtxB2VzYi4="


def pickled(name, *args, state=None):
    """Return the pickle of a call of the class *name*, which need not exist."""
    module, _, cls = name.rpartition(".")
    parts = [b"\x80\x02c", module.encode(), b"\n", cls.encode(), b"\n"]
    parts += [pickle.dumps(args, 2)[2:-1], b"R"]
    if state is not None:
        parts += [pickle.dumps(state, 2)[2:-1], b"b"]
    return base64.b64encode(b"".join([*parts, b"."])).decode()


def add(task_id, value, status="SUCCESS", meta=None, **columns):
    """Store a row as django-celery did; *value* is pickled unless it is encoded already."""
    text = value if isinstance(value, str) else encode(value)
    row = TaskMeta.objects.create(task_id=task_id, status=status, traceback="tb", hidden=True, **columns)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE celery_taskmeta SET result = %s, meta = %s, date_done = %s WHERE id = %s",
            [text, meta, connection.ops.adapt_datetimefield_value(LONG_AGO), row.pk],
        )
    return row.pk


def stored():
    """Return result, meta and content type as they are in the database, by task id."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT task_id, result, meta, content_type FROM celery_taskmeta")
        return {task_id: tuple(rest) for task_id, *rest in cursor.fetchall()}


def reasons_of(summary):
    """Return the reason by id."""
    return {name.split(" ")[0]: reason for reason, (_, named) in summary.reasons.items() for name in named}


SAME = {
    "number": 42,
    "float": -0.0,
    "nan": float("nan"),
    "infinite": float("inf"),
    "long": 10**30,
    "flag": True,
    "text": encode("grüße \x00 \udc80 😀"),
    "empty text": encode(""),
    "list": [1, "a", None, [2.5, {"b": False}]],
    "bytes": b"\xff\x00",
    "utf-8 bytes": "ü".encode(),
    "date": datetime.date(2015, 3, 1),
    "moment": datetime.datetime(2015, 3, 1, 12, 30, 1, 5),
    "utc": LONG_AGO,
    "offset": LONG_AGO.astimezone(datetime.timezone(datetime.timedelta(hours=2))),
    "time": datetime.time(1, 2),
    "decimal": Decimal("12.50"),
    "decimal nan": Decimal("NaN"),
    "uuid": uuid.UUID(int=7),
    "mixed": {"a": [Decimal("1.0"), LONG_AGO], "type": "__type__"},
}


@pytest.mark.parametrize("name", SAME)
def test_a_value_that_json_gives_back_is_converted(name):
    add("a", SAME[name])
    before = TaskMeta.objects.get().result
    summary = Conversion().run()
    assert (summary.converted, summary.skipped, summary.with_tuples) == (1, 0, 0)
    text, meta, content_type = stored()["a"]
    assert (meta, content_type, TaskMeta.objects.get().content_encoding) == (None, "application/json", "utf-8")
    assert not text.startswith(("gA", "e"))
    after = TaskMeta.objects.get().result
    assert (type(after), repr(after)) == (type(before), repr(before))


def test_no_other_column_changes():
    add("a", [1], name="shop.tasks.add", worker="w1", runtime=1.5)
    before = TaskMeta.objects.values().get()
    Conversion().run()
    after = TaskMeta.objects.values().get()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"content_type", "content_encoding"}
    assert after["date_done"] == LONG_AGO


def test_nothing_becomes_no_value_as_the_backend_writes_it():
    add("a", encode(None))
    Conversion().run()
    assert stored()["a"] == (None, None, "application/json")


def test_tuples_become_lists_and_are_counted():
    add("a", {"point": (1, (2, 3))})
    add("b", [1])
    summary = Conversion().run()
    assert (summary.converted, summary.with_tuples) == (2, 1)
    assert TaskMeta.objects.get(task_id="a").result == {"point": [1, [2, 3]]}


LOSSY = {
    "set": ({1, 2}, "JSON can't carry the type set"),
    "timedelta": ([datetime.timedelta(1)], "JSON can't carry the type datetime.timedelta"),
    "complex": (1j, "JSON can't carry the type complex"),
    "exception": (ValueError("returned, not raised"), "JSON can't carry the type ValueError"),
    "int keys": ({"a": {1: 2}}, "texts of the keys of a dict, which are of type int"),
    "none key": ({None: 2}, "which are of type NoneType"),
    "ordered": (collections.OrderedDict(a=1), "would make the type dict of collections.OrderedDict"),
    "zone": (LONG_AGO.astimezone(ZoneInfo("Europe/Berlin")), "would change a value of type datetime.datetime"),
    "fold": (
        encode(datetime.datetime(2015, 10, 25, 2, 30, fold=1), pickle_protocol=4),
        "would change a value of type datetime.datetime",
    ),
    "surrogates": (encode("\ud83d\ude00"), "back as another value"),
    "marker": ({"__type__": "decimal", "__value__": "1"}, "back as another value"),
    "unknown marker": ({"__type__": "basket", "__value__": "1"}, "back as another value"),
    "result": (AsyncResult("b"), "JSON can't carry the type celery.result.AsyncResult"),
    "refused": (BASKET, "shop.tasks.Basket is not on the list of what may be loaded"),
    "refused name": ("gAJjb3MKc3lzdGVtCi4=", "os.system is not on the list"),
    "refused name inside": ("gAJdY29zCnN5c3RlbQphLg==", "os.system is not on the list"),
    "broken": ("gAJLKg==", "the pickle is broken"),
    "too long": (encode(10**5000), "it can't be looked at (ValueError"),
}


@pytest.mark.parametrize("name", LOSSY)
def test_a_value_that_json_would_change_stays_and_is_reported(name, celery_app):
    value, reason = LOSSY[name]
    add("a", value)
    before = stored()
    rows = []
    summary = Conversion(on_skipped=rows.append).run()
    assert stored() == before
    assert (summary.converted, summary.skipped) == (0, 1)
    assert reason in rows[0].reason
    assert (rows[0].table, rows[0].key) == ("celery_taskmeta", "a")


def test_the_children_are_converted_with_the_result():
    add("a", 1, meta=encode({"children": [(("b", None), None)]}, True))
    add("b", 1, meta=encode({"children": None}))
    add("c", 1, meta="")
    add("d", 1, meta=encode({"children": {1, 2}}))
    add("e", encode(None), meta=encode(None))
    summary = Conversion().run()
    found = stored()
    assert found["a"] == ("1", '{"children": [[["b", null], null]]}', "application/json")
    assert found["b"] == ("1", '{"children": null}', "application/json")
    assert found["c"] == ("1", '""', "application/json")
    assert found["d"][2] is None
    assert reasons_of(summary) == {"d": "in the column meta: JSON can't carry the type set"}
    # The tuples of children are not what anybody sees.
    assert (summary.with_tuples, summary.converted) == (0, 4)


# -- exceptions --------------------------------------------------------------------------------

FAILED = {
    "plain": KeyError("schlüssel"),
    "no arguments": ValueError(),
    "several": ValueError("a", 1, [2], None),
    "not found": FileNotFoundError(2, "No such file", "a.txt"),
    "decoding": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    "celery": MaxRetriesExceededError("again and again"),
    "revoked": TaskRevokedError("revoked"),
}


@pytest.mark.parametrize("name", FAILED)
@pytest.mark.parametrize("state", ["FAILURE", "RETRY", "REVOKED"])
def test_a_failure_is_the_same_exception_before_and_after(name, state, celery_app):
    backend = DatabaseBackend(app=celery_app)
    add("a", FAILED[name], state)
    before = AsyncResult("a", backend=backend, app=celery_app).result
    assert Conversion().run().converted == 1
    assert '"exc_type"' in stored()["a"][0]
    after = AsyncResult("a", backend=backend, app=celery_app).result
    assert type(after) is type(before) is type(FAILED[name])
    assert (after.args, str(after)) == (before.args, str(before))
    assert after.__reduce__() == before.__reduce__()


def test_an_exception_with_attributes_beside_its_arguments_stays():
    error = ValueError("a")
    error.code = 5
    add("a", error, "FAILURE")
    add("b", ValueError({1, 2}), "FAILURE")
    summary = Conversion().run()
    assert summary.converted == 0
    assert reasons_of(summary) == {
        "a": "a ValueError is more than its name and arguments; JSON has no place for the rest",
        "b": "JSON can't carry the type set",
    }


def test_tuples_in_the_arguments_of_an_exception_count():
    add("a", ValueError((1, 2)), "FAILURE")
    add("b", ValueError(1, 2), "FAILURE")
    assert Conversion().run().with_tuples == 1


def test_a_refused_exception_that_is_a_name_and_arguments_is_converted(celery_app):
    backend = DatabaseBackend(app=celery_app)
    add("a", pickled("shop.tasks.StockError", "SKU-1", 3), "FAILURE")
    add("b", encode(UnpickleableExceptionWrapper("shop.tasks", "Gone", ("x",), "Gone('x')")), "FAILURE")
    before = [AsyncResult(name, backend=backend, app=celery_app).result for name in "ab"]
    assert Conversion().run().converted == 2
    assert '"exc_module": "shop.tasks"' in stored()["a"][0]
    after = [AsyncResult(name, backend=backend, app=celery_app).result for name in "ab"]
    assert [type(error).__name__ for error in after] == ["StockError", "Gone"]
    assert [(type(e).__name__, e.args) for e in after] == [(type(e).__name__, e.args) for e in before]


def test_a_refused_exception_with_attributes_stays_until_it_may_be_loaded():
    add("a", pickled("shop.tasks.StockError", "SKU-1", state={"sku": "SKU-1"}), "FAILURE")
    assert "DJCELERY_UNPICKLE_ALLOW" in reasons_of(Conversion().run())["a"]


def test_what_is_refused_and_no_exception_stays_even_in_a_failed_row():
    add("a", pickled("os.system", "true"), "FAILURE")
    add("b", BASKET, "FAILURE")
    before = stored()
    assert reasons_of(Conversion().run())["a"] == "os.system is no exception"
    assert stored() == before


# -- groups ------------------------------------------------------------------------------------


def add_group(group_id, value):
    TaskSetMeta.objects.create(taskset_id=group_id, result=[])
    with connection.cursor() as cursor:
        cursor.execute("UPDATE celery_tasksetmeta SET result = %s WHERE taskset_id = %s", [encode(value), group_id])


def test_a_saved_group_restores_before_and_after(celery_app):
    backend = DatabaseBackend(app=celery_app)
    inner = GroupResult("inner", [AsyncResult("c"), AsyncResult("d", parent=AsyncResult("p"))])
    add_group("g", GroupResult("g", [AsyncResult("a"), inner]))
    add_group("empty", GroupResult("empty", []))
    before = [backend.restore_group(name) for name in ("g", "empty")]
    summary = Conversion().run()
    assert (summary.converted, summary.skipped, summary.with_tuples) == (2, 0, 0)
    after = [backend.restore_group(name) for name in ("g", "empty")]
    assert [group.as_tuple() for group in after] == [group.as_tuple() for group in before]
    assert [type(group) for group in after] == [type(group) for group in before]
    assert after[0].results[1].results[1].parent.id == "p"
    with connection.cursor() as cursor:
        cursor.execute("SELECT result, content_type FROM celery_tasksetmeta ORDER BY id")
        (text, content_type), _ = cursor.fetchall()
    assert text.startswith('[["g", null], [[["a", null], null]')
    assert content_type == "application/json"


def test_a_group_that_would_lose_results_stays(celery_app):
    add_group("g", GroupResult("g", [EagerResult("a", 42, "SUCCESS")]))
    summary = Conversion().run()
    assert reasons_of(summary) == {"g": "the group would be restored with other members"}


# -- the run -----------------------------------------------------------------------------------


def test_rows_that_name_a_content_type_are_not_looked_at(celery_app, django_assert_num_queries):
    DatabaseBackend(app=celery_app).store_result("a", 1, "SUCCESS")
    with django_assert_num_queries(2):
        summary = Conversion().run()
    assert summary == results_rows.Summary()


def test_rows_without_values_are_not_looked_at():
    TaskMeta.objects.create(task_id="a")
    assert Conversion().run() == results_rows.Summary()
    assert stored() == {"a": (None, None, None)}


def test_a_batch_is_two_selects_and_one_transaction(django_assert_num_queries):
    for number in range(5):
        add(f"task {number}", number)
    # Two batches, the look for a third, and one at the other table; a savepoint's two statements count as well.
    with django_assert_num_queries(2 * (2 + 3) + 2):
        assert Conversion(batch_rows=3).run().converted == 5


def test_large_values_are_read_few_at_a_time(monkeypatch):
    monkeypatch.setattr(results_rows, "BATCH_BYTES", 1000)
    for number in range(6):
        add(f"task {number}", "gAJ" + encode("x" * 500)[3:])
    seen = []
    assert Conversion(on_progress=lambda summary: seen.append(summary.seen)).run().converted == 6
    assert seen == [1, 2, 3, 4, 5, 6]


def test_a_dry_run_reports_the_same_and_writes_nothing():
    add("a", (1, 2))
    add("b", {1, 2})
    before = stored()
    dry = Conversion(is_dry_run=True).run()
    assert stored() == before
    assert Conversion().run() == dry
    assert stored() != before


def test_a_second_run_goes_on_with_what_is_left():
    add("a", 1)
    add("b", {1, 2})
    Conversion().run()
    add("c", 3)
    summary = Conversion().run()
    assert (summary.seen, summary.converted, summary.skipped) == (2, 1, 1)


def test_a_run_that_is_stopped_keeps_the_batches_that_are_done():
    for number in range(5):
        add(f"task {number}", number)
    conversion = Conversion(batch_rows=2, on_progress=lambda summary: None)
    conversion.should_stop = lambda: conversion.summary.seen == 4
    summary = conversion.run()
    assert (summary.converted, summary.total) == (4, 5)
    assert TaskMeta.objects.filter(content_type=None).count() == 1
    assert Conversion().run().converted == 1


def write_between(monkeypatch, *writes):
    """Make each of *writes* happen between a look at the rows and the next write."""
    pending = list(writes)
    original = Conversion._write

    def write(self, model, rows):
        if pending:
            pending.pop(0)()
        return original(self, model, rows)

    monkeypatch.setattr(Conversion, "_write", write)


def test_a_row_that_a_worker_writes_meanwhile_is_left_to_it(monkeypatch, celery_app):
    add("a", 1, "STARTED")
    add("b", 2)
    write_between(monkeypatch, lambda: DatabaseBackend(app=celery_app).store_result("a", "new", "SUCCESS"))
    summary = Conversion().run()
    assert (summary.converted, summary.contested, summary.skipped) == (1, 0, 0)
    assert {row.task_id: row.result for row in TaskMeta.objects.all()} == {"a": "new", "b": 2}


def test_a_pickle_that_an_old_worker_writes_meanwhile_is_looked_at_again(monkeypatch):
    first, second = 42, 146
    # MySQL's collations take the two for the same.
    assert encode(first).lower() == encode(second).lower()
    pk = add("a", first)

    def overwrite():
        with connection.cursor() as cursor:
            cursor.execute("UPDATE celery_taskmeta SET result = %s WHERE id = %s", [encode(second), pk])

    write_between(monkeypatch, overwrite)
    summary = Conversion().run()
    assert (summary.converted, summary.seen) == (1, 1)
    assert TaskMeta.objects.get().result == second


def test_a_row_that_others_write_all_the_time_is_given_up(monkeypatch):
    pk = add("a", 0)

    def overwrite(value):
        with connection.cursor() as cursor:
            cursor.execute("UPDATE celery_taskmeta SET result = %s WHERE id = %s", [encode(value), pk])

    write_between(monkeypatch, *[lambda value=value: overwrite(value) for value in (1, 2, 3, 4)])
    summary = Conversion().run()
    assert (summary.converted, summary.contested) == (0, 1)


def test_a_summary_names_few_rows_and_few_reasons():
    summary = results_rows.Summary()
    for number in range(200):
        summary.add(results_rows.Skipped("celery_taskmeta", number, f"id{number}", f"reason {number % 100}"))
    for number in range(200):
        summary.add(results_rows.Skipped("celery_taskmeta", number, f"id{number}", "reason 1"))
    assert summary.skipped == 400
    assert len(summary.reasons) == results_rows.MAX_REASONS + 1
    assert summary.reasons["reason 1"] == (
        202,
        ["id1 (row 1)", "id101 (row 101)", "id0 (row 0)", "id1 (row 1)", "id2 (row 2)"],
    )
    assert summary.reasons["other reasons"][0] == 100


# -- the command -------------------------------------------------------------------------------


def command(*args):
    out = io.StringIO()
    call_command("celeryresults", "convert", *args, stdout=out)
    return out.getvalue()


def test_the_command_says_what_it_did():
    add("a", (1, 2))
    add("b", 2)
    line = "2 results converted to JSON, 1 of them with tuples, which are lists now."
    assert command("--dry-run") == f"{line} Nothing was written: this is a dry run.\n"
    assert command() == f"{line}\n"
    assert command() == "There is nothing to convert.\n"


def test_the_command_fails_and_lists_what_can_not_be_converted(tmp_path):
    pk = add("a", {1, 2})
    add("b", {3})
    add("c", 3)
    path = tmp_path / "left.csv"
    out = io.StringIO()
    with pytest.raises(CommandError, match=r"2 results can't be converted\.$") as info:
        call_command("celeryresults", "convert", "--report", str(path), stdout=out)
    assert info.value.returncode == 1
    assert "1 result converted to JSON.\n" in out.getvalue()
    assert f" 2  JSON can't carry the type set: a (row {pk}), b (row {pk + 1})\n" in out.getvalue()
    with path.open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["table", "row", "id", "reason"],
            ["celery_taskmeta", str(pk), "a", "JSON can't carry the type set"],
            ["celery_taskmeta", str(pk + 1), "b", "JSON can't carry the type set"],
        ]
    with pytest.raises(CommandError, match="--report FILE lists all of them"):
        command()


def test_a_signal_ends_the_command_between_two_batches_with_a_status_that_says_so(monkeypatch):
    for number in range(5):
        add(f"task {number}", number)
    write_between(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGINT))
    out = io.StringIO()
    with pytest.raises(CommandError, match=r"Interrupted by SIGINT. Run it again to go on.") as info:
        call_command("celeryresults", "convert", "--batch-rows", "2", stdout=out)
    assert info.value.returncode == 130
    assert out.getvalue() == "2 results converted to JSON.\n"
    assert command() == "3 results converted to JSON.\n"


def test_the_command_fails_if_old_workers_go_on_writing(monkeypatch):
    pk = add("a", 0)

    def overwrite(value):
        TaskMeta.objects.filter(pk=pk).update(result=PickledObject(encode(value)))

    write_between(monkeypatch, *[lambda value=value: overwrite(value) for value in (1, 2, 3)])
    with pytest.raises(CommandError, match="1 result changed while"):
        command()


def test_a_report_that_can_not_be_written_stops_the_command_before_it_begins(tmp_path):
    add("a", 1)
    with pytest.raises(CommandError, match=r"no/such/left\.csv"):
        command("--report", str(tmp_path / "no/such/left.csv"))
    assert stored()["a"][2] is None


@pytest.mark.parametrize("rows", ["0", "-1", "many", "20000"])
def test_a_batch_has_a_sensible_number_of_rows(rows):
    with pytest.raises(CommandError, match="batch-rows"):
        command(f"--batch-rows={rows}")


def test_an_unknown_database_is_refused():
    with pytest.raises(CommandError, match="invalid choice: 'nowhere'"):
        command("--database", "nowhere")
