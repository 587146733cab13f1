"""``celeryimport results``: the rows of django-celery-results become rows of ours, on whichever engine is chosen."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import pickle
import signal
from datetime import timedelta

import pytest
from celery.result import AsyncResult, GroupResult
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from djcelery import models
from djcelery.backends.database import DatabaseBackend
from djcelery.importing import ResultImport, TableUnknown, reading, results
from tests.db import peer_tables
from tests.db.peer_tables import CHORD, GROUP, RESULT, WHEN

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def app(tables_of_peers, celery_app):
    return celery_app


def add(task_id, **values):
    return peer_tables.add(connection, RESULT, task_id=task_id, **values)


def add_group(group_id, **values):
    return peer_tables.add(connection, GROUP, group_id=group_id, **values)


def run(app, **options):
    return ResultImport(app, **options).run()


def row(task_id):
    return models.TaskMeta.objects.get(task_id=task_id)


def read(app, task_id):
    return AsyncResult(task_id, backend=DatabaseBackend(app=app), app=app)


def raw(table, key):
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {table}")
        names = [column[0] for column in cursor.description]
        return {found[names.index(key)]: dict(zip(names, found, strict=True)) for found in cursor.fetchall()}


# -- values ------------------------------------------------------------------------------------


def test_a_result_keeps_everything_that_is_known_of_it(app):
    children = [[["child", None], None]]
    add(
        "a",
        result={"total": 19.5, "names": ["é", None]},
        traceback="",
        meta={"children": children},
        task_name="shop.tasks.charge",
        periodic_task_name="every night",
        worker="celery@vm",
        date_created=WHEN,
        date_started=WHEN + timedelta(seconds=1),
        date_done=WHEN + timedelta(seconds=3),
    )
    summary = run(app)
    assert (dict(summary.counts["results"]), summary.left_out) == ({"imported": 1}, 0)
    stored = row("a")
    assert (stored.status, stored.result, stored.traceback) == ("SUCCESS", {"total": 19.5, "names": ["é", None]}, "")
    assert stored.to_dict()["children"] == children
    assert (stored.name, stored.periodic_task, stored.worker) == ("shop.tasks.charge", "every night", "celery@vm")
    assert (stored.created, stored.started) == (WHEN, WHEN + timedelta(seconds=1))
    assert stored.finished == stored.date_done == WHEN + timedelta(seconds=3)
    # Nobody measured it.
    assert (stored.runtime, stored.retries, stored.flags, stored.hidden) == (None, None, None, False)
    told = read(app, "a")
    assert (told.result, told.name, told.worker) == (stored.result, "shop.tasks.charge", "celery@vm")
    assert [child.id for child in told.children] == ["child"]


def test_a_value_is_taken_over_as_it_is_encoded_byte_for_byte(app):
    texts = {
        "json": ('{"a":  1 ,"b":"\\u00e9"}', "application/json", "utf-8"),
        "pickle": (base64.b64encode(pickle.dumps({1, 2}, 4)).decode(), "application/x-python-serialize", "binary"),
        "yaml": ("{a: 1}\n", "application/x-yaml", "utf-8"),
        "nothing": (None, "application/json", "utf-8"),
        "text that is none": ("not JSON", "application/json", "utf-8"),
    }
    for name, (text, content_type, encoding) in texts.items():
        add(name, result=text, content_type=content_type, content_encoding=encoding)
    assert run(app).left_out == 0
    ours = raw("celery_taskmeta", "task_id")
    found = {name: (ours[name]["result"], ours[name]["content_type"], ours[name]["content_encoding"]) for name in texts}
    assert found == texts
    assert read(app, "json").result == {"a": 1, "b": "é"}
    assert read(app, "pickle").result == {1, 2}


def test_a_failure_is_the_same_exception(app):
    add(
        "a",
        status="FAILURE",
        result={"exc_type": "KeyError", "exc_message": ["schlüssel"], "exc_module": "builtins"},
        traceback="Traceback (most recent call last) …",
    )
    add(
        "b",
        status="FAILURE",
        result=base64.b64encode(pickle.dumps(ValueError("a", 1), 4)).decode(),
        content_type="application/x-python-serialize",
        content_encoding="binary",
    )
    run(app)
    assert repr(read(app, "a").result) == "KeyError('schlüssel')"
    assert read(app, "a").traceback.startswith("Traceback")
    assert repr(read(app, "b").result) == "ValueError('a', 1)"


def test_a_hostile_pickle_is_taken_over_and_never_loaded(app):
    text = base64.b64encode(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.").decode()
    add("a", result=text, content_type="application/x-python-serialize", content_encoding="binary", task_args=text)
    assert run(app).left_out == 0
    assert "DJCELERY_UNPICKLE_ALLOW" in str(row("a").result)
    assert row("a").flags == "args_repr"


@pytest.mark.parametrize("state", ["PENDING", "STARTED", "RETRY", "PROGRESS"])
def test_what_is_not_finished_has_no_time_of_its_end(app, state):
    add("a", status=state)
    run(app)
    assert (row("a").status, row("a").finished, row("a").date_done) == (state, None, WHEN)


ARGUMENTS = {
    # What they store: JSON of Python's repr, of the repr's JSON, or of the values.
    "repr": ("\"(2, 'b', None, (1, 2.5))\"", [2, "b", None, [1, 2.5]], None),
    "encoded twice": ('"\\"(2, 3)\\""', [2, 3], None),
    "list": ("[1, [2]]", [1, [2]], None),
    "plain repr": ("(1, 2)", [1, 2], None),
    "none": ("()", [], None),
    "cut": ('"(1, ...)"', "(1, ...)", "args_repr"),
    "cut text": ("\"('aaaaaa...',)\"", "('aaaaaa...',)", "args_repr"),
    "no literal": ('"(<Order 7>,)"', "(<Order 7>,)", "args_repr"),
    "hidden by the sender": ('"(***)"', "(***)", "args_repr"),
    "set": ('"({1, 2},)"', "({1, 2},)", "args_repr"),
    "a call": ("\"__import__('os').abort()\"", "__import__('os').abort()", "args_repr"),
    "deep": (f'"{"(" * 5000}"', None, "args_repr"),
    "unknown": (None, None, None),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_become_values_where_nothing_is_lost_by_it(app, name):
    text, expected, flags = ARGUMENTS[name]
    add("a", task_args=text)
    run(app)
    assert row("a").flags == flags
    if name != "deep":
        assert row("a").args == expected


def test_keyword_arguments_become_an_object(app):
    add("a", task_kwargs="\"{'order': 7, 'express': True}\"")
    add("b", task_kwargs='"{1: 2}"')
    run(app)
    assert (row("a").kwargs, row("a").flags) == ({"order": 7, "express": True}, None)
    assert (row("b").kwargs, row("b").flags) == ("{1: 2}", "kwargs_repr")
    assert models.TaskMeta.objects.filter(kwargs__order=7).get().task_id == "a"


def test_what_the_project_hides_is_not_imported(app, settings):
    settings.DJCELERY_REDACT = ["args.0", "kwargs", "result", "traceback"]
    add("a", task_args='"(1, 2)"', task_kwargs="\"{'pin': 1}\"", result={"pin": 1}, traceback="pin 1")
    failure = {"exc_type": "ValueError", "exc_message": ["pin 1"], "exc_module": "builtins"}
    add("b", status="FAILURE", result=failure, traceback="pin 1")
    run(app)
    assert (row("a").args, row("a").kwargs, row("a").result, row("a").traceback) == (
        ["[redacted]", 2],
        None,
        None,
        None,
    )
    assert set(row("a").flags.split()) == {"args_redacted", "kwargs_redacted", "result_redacted", "traceback_redacted"}
    assert repr(read(app, "b").result) == "ValueError('[redacted]')"
    assert "pin" not in str(raw("celery_taskmeta", "task_id"))


@pytest.mark.parametrize("use_tz", [True, False])
def test_times_are_the_same_instants_with_and_without_time_zones(app, settings, use_tz):
    settings.USE_TZ = use_tz
    moment = WHEN if use_tz else WHEN.replace(tzinfo=None)
    add("a", date_done=moment)
    run(app)
    assert row("a").date_done == moment
    assert raw("celery_taskmeta", "task_id")["a"]["date_done"] == raw(RESULT, "task_id")["a"]["date_done"]


# -- groups ------------------------------------------------------------------------------------


def test_a_saved_group_restores(app):
    backend = DatabaseBackend(app=app)
    group = GroupResult("g", [AsyncResult("a"), GroupResult("inner", [AsyncResult("b")])])
    add_group("g", result=json.dumps(group.as_tuple()))
    summary = run(app)
    assert dict(summary.counts["saved groups"]) == {"imported": 1}
    assert backend.restore_group("g").as_tuple() == group.as_tuple()
    assert models.TaskSetMeta.objects.get().date_done == WHEN
    assert dict(run(app).counts["saved groups"]) == {"present": 1}


def test_a_group_without_members_is_left_out(app):
    add_group("g")
    summary = run(app)
    assert summary.left_out == 1
    assert list(summary.reasons) == ["it names no members"]


def test_chords_that_are_counted_are_told(app):
    peer_tables.add(connection, CHORD, group_id="c")
    out = io.StringIO()
    call_command("celeryimport", "results", stdout=out)
    assert "1 row of django_celery_results_chordcounter: chords that are not complete." in out.getvalue()


# -- the run -----------------------------------------------------------------------------------


def test_a_second_run_imports_what_is_new_and_lists_the_rest(app):
    for number in range(3):
        add(f"task {number}", result=number)
    add_group("g", result="[]")
    run(app)
    before = raw("celery_taskmeta", "task_id")
    add("task 3", result=3)
    listed = []
    summary = run(app, on_listed=listed.append)
    assert dict(summary.counts["results"]) == {"imported": 1, "present": 3}
    assert [(each.key, each.outcome) for each in listed] == [
        *((f"task {number}", "present") for number in range(3)),
        ("g", "present"),
    ]
    after = raw("celery_taskmeta", "task_id")
    assert {name: after[name] for name in before} == before


def test_a_row_of_ours_stays_unless_only_theirs_is_finished(app):
    backend = DatabaseBackend(app=app)
    for name, state in (("done", "SUCCESS"), ("failed", "FAILURE"), ("running", "STARTED"), ("both", "STARTED")):
        backend.store_result(name, "ours" if state != "FAILURE" else ValueError("ours"), state)
    created = row("running").created
    for name in ("done", "failed", "running"):
        add(name, result='"theirs"')
    add("both", status="STARTED", result='"theirs"')
    summary = run(app)
    assert dict(summary.counts["results"]) == {"present": 3, "updated": 1}
    assert row("done").result == "ours"
    assert row("failed").status == "FAILURE"
    assert row("both").result == "ours"
    assert (row("running").status, row("running").result, row("running").date_done) == ("SUCCESS", "theirs", WHEN)
    assert row("running").created == created


def test_a_result_that_a_worker_stores_meanwhile_is_left_to_it(app, monkeypatch):
    add("a", result='"theirs"')
    add("b", result='"theirs"')
    original = ResultImport._insert

    def insert(self, *args):
        DatabaseBackend(app=app).store_result("a", "ours", "SUCCESS")
        return original(self, *args)

    monkeypatch.setattr(ResultImport, "_insert", insert)
    summary = run(app)
    assert dict(summary.counts["results"]) == {"imported": 1, "present": 1}
    assert (row("a").result, row("b").result) == ("ours", "theirs")


def test_their_tables_are_not_changed(app):
    add("a", result="1")
    add_group("g", result="[]")
    before = raw(RESULT, "task_id"), raw(GROUP, "group_id")
    run(app)
    assert (raw(RESULT, "task_id"), raw(GROUP, "group_id")) == before


def test_a_dry_run_counts_the_same_and_writes_nothing(app):
    add("a", result="1")
    add("b", status="STARTED")
    add_group("g", result="[]")
    DatabaseBackend(app=app).store_result("c", None, "STARTED")
    add("c")
    dry = run(app, is_dry_run=True)
    assert models.TaskMeta.objects.count() == 1
    assert models.TaskSetMeta.objects.count() == 0
    assert run(app).counts == dry.counts


def test_a_batch_is_three_selects_and_one_transaction(app):
    def statements(batch_rows):
        models.TaskMeta.objects.all().delete()
        with CaptureQueriesContext(connection) as queries:
            run(app, batch_rows=batch_rows)
        return len(queries)

    for number in range(8):
        add(f"task {number}", result=number)
    # Here a transaction is a savepoint: two statements beside its INSERT.
    assert statements(2) - statements(4) == 2 * (3 + 3)


def test_large_values_are_read_few_at_a_time(app, monkeypatch):
    monkeypatch.setattr(reading, "BATCH_CHARACTERS", 1000)
    for number in range(4):
        add(f"task {number}", result=json.dumps("x" * 600))
    seen = []
    run(app, on_progress=lambda summary: seen.append(summary.seen))
    assert seen == [1, 2, 3, 4]


def test_a_bad_row_stops_no_other(app, monkeypatch):
    bad = add("bad", task_name="shop.bad")
    add("good")
    original = results._written

    def written(connection, row):
        if row["task_id"] == "bad":
            raise RuntimeError("no idea")
        return original(connection, row)

    monkeypatch.setattr(results, "_written", written)
    listed = []
    summary = run(app, on_listed=listed.append)
    assert dict(summary.counts["results"]) == {"imported": 1, "left out": 1}
    assert [(each.table, each.pk, each.key, each.reason) for each in listed] == [
        (RESULT, bad, "bad", "it can't be read (RuntimeError: no idea)")
    ]


def test_a_row_that_the_database_refuses_stops_no_other(app, monkeypatch):
    """SQLite takes any length, so there a status that is NULL stands for all that is refused."""
    add("long")
    add("good")
    original = ResultImport._task

    def task(self, connection, row):
        made = original(self, connection, row)
        return {**made, "status": None} if row["task_id"] == "long" else made

    monkeypatch.setattr(ResultImport, "_task", task)
    summary = run(app)
    assert dict(summary.counts["results"]) == {"imported": 1, "left out": 1}
    assert next(iter(summary.reasons)).startswith("the database refuses it (")
    assert row("good").status == "SUCCESS"


@pytest.mark.skipif(connection.vendor != "sqlite", reason="the other engines take no such value")
def test_a_value_that_sqlite_should_not_have_taken_stops_no_other(app):
    add("a")
    for name, value in (("31 February", "2026-02-31 10:00:00"), ("word", "soon")):
        pk = add(name)
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE {RESULT} SET date_done = %s WHERE id = %s", [value, pk])
    pk = add("bytes")
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {RESULT} SET result = CAST(X'ff' AS TEXT) WHERE id = %s", [pk])
    summary = run(app)
    assert dict(summary.counts["results"]) == {"imported": 1, "left out": 3}


def test_without_their_tables_the_command_says_where_to_look(app):
    with connection.cursor() as cursor:
        names = set(connection.introspection.table_names(cursor))
    assert RESULT in names
    with pytest.raises(TableUnknown, match=r"The database 'default' has no table nowhere\..*--database ALIAS"):
        ResultImport(app).table("default", "nowhere", ())
    with pytest.raises(TableUnknown, match=r"The table django_celery_results_taskresult has no column colour"):
        ResultImport(app).table("default", RESULT, ("colour",))


# -- the command -------------------------------------------------------------------------------


def command(*args):
    out = io.StringIO()
    call_command("celeryimport", "results", *args, stdout=out)
    return out.getvalue()


def test_the_command_says_what_it_did():
    add("a", result="1")
    assert command("--dry-run").splitlines() == [
        "           1  results: imported",
        "Nothing was written: this is a dry run.",
    ]
    assert command() == "           1  results: imported\n"
    assert command() == "           1  results: there already (a)\n"


def test_without_rows_there_is_nothing_to_import():
    assert command() == "There is nothing to import.\n"


def test_the_command_fails_and_lists_what_is_left_out(tmp_path):
    pk = add_group("g")
    add("a")
    models.TaskMeta.objects.create(task_id="a")
    models.TaskMeta.objects.filter(task_id="a").update(status="SUCCESS")
    path = tmp_path / "left.csv"
    out = io.StringIO()
    with pytest.raises(CommandError, match=r"^1 row left out\.$") as info:
        call_command("celeryimport", "results", "--report", str(path), stdout=out)
    assert info.value.returncode == 1
    assert f"           1  left out: it names no members: g (row {pk})\n" in out.getvalue()
    with path.open(newline="") as file:
        heading, there, left = csv.reader(file)
    assert heading == ["table", "row", "id", "outcome", "reason"]
    assert there[2:] == ["a", "present", "it is there already"]
    assert left == [GROUP, str(pk), "g", "left out", "it names no members"]
    with pytest.raises(CommandError, match="--report FILE lists all of them"):
        command()


def test_a_signal_ends_the_command_between_two_batches_and_the_next_run_goes_on(monkeypatch):
    for number in range(5):
        add(f"task {number}")
    original = ResultImport._insert

    def insert(self, *args):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(ResultImport, "_insert", insert)
        with pytest.raises(CommandError, match=r"Interrupted by SIGTERM. Run it again to go on.") as info:
            command("--batch-rows", "2")
    assert info.value.returncode == 143
    assert models.TaskMeta.objects.count() == 2
    command()
    assert models.TaskMeta.objects.count() == 5
