"""Every change through the ORM leaves a note in its own transaction; what beat keeps for itself leaves none."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
from django.core import serializers
from django.core.management.sql import emit_post_migrate_signal
from django.db import IntegrityError, connection, connections, transaction
from django.db.migrations.loader import MigrationLoader
from django.db.models import F, ProtectedError

from djcelery import utils
from djcelery.managers.runs import MAX_NOTES
from djcelery.models import (
    BOOKKEEPING,
    BeatLease,
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    PeriodicTasks,
    ScheduleChange,
    SolarSchedule,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def every():
    return IntervalSchedule.objects.create(every=10, period="seconds")


@pytest.fixture
def row(every):
    made = PeriodicTask.objects.create(name="t", task="shop.a", interval=every)
    ScheduleChange.objects.all().delete()
    return made


def notes():
    """Return what is noted and can be seen, and delete it, as the leader does: by key, which waits for nobody."""
    found = list(ScheduleChange.objects.order_by("pk"))
    ScheduleChange.objects.filter(pk__in=[note.pk for note in found]).delete()
    return [(note.kind, note.key) for note in found]


def tasks(count, every, **values):
    return [PeriodicTask(name=f"n{number}", task="shop.a", interval=every, **values) for number in range(count)]


# -- tasks -----------------------------------------------------------------------------------------


def save(row):
    row.task = "shop.b"
    row.save()


def save_one_column(row):
    row.queue = "q"
    row.save(update_fields=["queue"])


def update(row):
    PeriodicTask.objects.filter(name="t").update(task="shop.b")


def update_by_an_expression(row):
    PeriodicTask.objects.filter(name="t").update(task=F("name"))


def bulk_update(row):
    row.args = "[1]"
    PeriodicTask.objects.bulk_update([row], ["args"])


def update_or_create(row):
    PeriodicTask.objects.update_or_create(name="t", defaults={"task": "shop.b"})


def get_or_create_anew(row):
    key = row.pk
    PeriodicTask.objects.without_notes().filter(pk=key).delete()
    PeriodicTask.objects.get_or_create(pk=key, name="t", task="x", interval_id=row.interval_id)


def through_the_interval(row):
    row.interval.periodictask_set.update(task="shop.b")


def add_to_an_interval(row):
    IntervalSchedule.objects.create(every=3, period="days").periodictask_set.add(row)


def clear_the_interval(row):
    row.interval.periodictask_set.clear()


def through_a_proxy(row):
    proxy = type("Mine", (PeriodicTask,), {"__module__": "djcelery", "Meta": type("Meta", (), {"proxy": True})})
    try:
        proxy.objects.get(pk=row.pk).save()
    finally:
        from django.apps import apps

        del apps.all_models["djcelery"]["mine"]
        apps.clear_cache()


def load_a_fixture(row):
    text = serializers.serialize("json", [row])
    for loaded in serializers.deserialize("json", text):
        loaded.save()


def delete(row):
    row.delete()


def delete_by_a_queryset(row):
    PeriodicTask.objects.filter(name="t").delete()


EDITS = [
    save, save_one_column, update, update_by_an_expression, bulk_update, update_or_create, get_or_create_anew,
    through_the_interval, add_to_an_interval, clear_the_interval, through_a_proxy, load_a_fixture, delete,
    delete_by_a_queryset,
]  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
def test_every_edit_of_a_task_is_noted_once_with_its_key(row, edit):
    key = row.pk
    edit(row)
    assert notes() == [("task", key)]


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_that_is_rolled_back_leaves_no_note(row, edit):
    with transaction.atomic():
        edit(row)
        assert ScheduleChange.objects.exists()
        transaction.set_rollback(True)
    assert notes() == []


def test_an_edit_whose_note_cannot_be_written_is_not_made(row, monkeypatch):
    def fails(*args, **kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr(type(ScheduleChange.objects), "note", fails)
    for edit in (save, update, delete, delete_by_a_queryset):
        found = PeriodicTask.objects.get(name="t")
        with pytest.raises(ZeroDivisionError):
            edit(found)
    assert PeriodicTask.objects.get().task == "shop.a"


def test_new_tasks_are_noted(every):
    made = PeriodicTask.objects.create(name="t", task="x", interval=every)
    assert notes() == [("task", made.pk)]
    made = PeriodicTask.objects.bulk_create(tasks(2, every))
    known = connection.features.can_return_rows_from_bulk_insert
    assert notes() == ([("task", row.pk) for row in made] if known else [("all", None)])


def test_new_tasks_whose_keys_the_database_does_not_tell_are_noted_as_all(every):
    PeriodicTask.objects.bulk_create(tasks(2, every), ignore_conflicts=True)
    assert notes() == [("all", None)]


def test_up_to_a_hundred_changed_rows_have_a_note_each_and_more_have_one(every, django_assert_num_queries):
    PeriodicTask.objects.bulk_create(tasks(MAX_NOTES + 1, every))
    assert notes() == [("all", None)]
    few = PeriodicTask.objects.exclude(name="n0")
    with django_assert_num_queries(5):  # BEGIN, SELECT of the keys, UPDATE, INSERT, COMMIT
        few.update(queue="q")
    assert len(notes()) == MAX_NOTES
    assert PeriodicTask.objects.update(queue="r") == MAX_NOTES + 1
    assert notes() == [("all", None)]
    few.delete()
    assert len(notes()) == MAX_NOTES


def test_what_changes_no_row_leaves_no_note(row):
    nobody = PeriodicTask.objects.filter(name="nobody")
    nobody.update(task="x")
    nobody.delete()
    PeriodicTask.objects.bulk_create([])
    PeriodicTask.objects.get_or_create(name="t", defaults={"task": "x"})
    row.save(update_fields=[])
    assert notes() == []


@pytest.mark.parametrize("columns", [["last_run_at"], ["total_run_count"], ["last_error"], sorted(BOOKKEEPING)])
def test_what_beat_keeps_for_itself_leaves_no_note(row, columns):
    values = {"last_run_at": utils.now(), "total_run_count": 7, "last_error": "why"}
    PeriodicTask.objects.filter(pk=row.pk).update(**{name: values[name] for name in columns})
    for name in columns:
        setattr(row, name, values[name])
    row.save(update_fields=columns)
    PeriodicTask.objects.bulk_update([row], columns)
    assert notes() == []


def test_a_one_off_is_switched_off_without_a_note(row, django_assert_num_queries):
    stamp = row.scheduled_from
    quiet = PeriodicTask.objects.without_notes().filter(pk=row.pk)
    with django_assert_num_queries(1):
        quiet.update(enabled=False, total_run_count=F("total_run_count") + 1)
    with django_assert_num_queries(1):
        quiet.update(enabled=True)
    row.refresh_from_db()
    assert (notes(), row.enabled, row.total_run_count, row.scheduled_from) == ([], True, 1, stamp)


def test_saving_a_one_off_does_not_switch_on_again_what_beat_has_switched_off(row):
    PeriodicTask.objects.filter(pk=row.pk).update(one_off=True)
    mine = PeriodicTask.objects.get()
    PeriodicTask.objects.without_notes().update(enabled=False)
    mine.description = "read before it was sent"
    for _ in range(2):
        mine.save()
    assert PeriodicTask.objects.values_list("enabled", "description").get() == (False, "read before it was sent")
    # Whoever says so switches it on.
    again = PeriodicTask.objects.get()
    again.enabled = True
    again.save()
    assert PeriodicTask.objects.get().enabled


def test_saving_a_task_that_recurs_writes_whether_it_is_enabled(row):
    mine = PeriodicTask.objects.get()
    PeriodicTask.objects.update(enabled=False)
    mine.save()
    assert PeriodicTask.objects.get().enabled


def test_an_instance_with_no_changes_is_not_noted(row):
    row.no_changes = True
    row.save()
    PeriodicTasks.changed(row)
    row.delete()
    assert notes() == []


# -- intervals, crontabs and the others ------------------------------------------------------------

TIMES = [
    ("interval", lambda: IntervalSchedule(every=9, period="days"), "every", 8),
    ("crontab", lambda: CrontabSchedule(minute="9"), "minute", "8"),
    ("solar", lambda: SolarSchedule(event="sunset", latitude=1, longitude=1), "latitude", 2),
    ("clocked", lambda: ClockedSchedule(clocked_time=utils.now()), "clocked_time", utils.now()),
]


@pytest.mark.parametrize(("kind", "make", "column", "value"), TIMES)
def test_edits_and_deletes_of_times_are_noted_by_kind_and_key(kind, make, column, value):
    row = make()
    row.save()
    assert notes() == []  # nothing uses it yet
    key = row.pk
    setattr(row, column, value)
    row.save()
    assert notes() == [(kind, key)]
    type(row).objects.filter(pk=key).update(**{column: value})
    assert notes() == [(kind, key)]
    type(row).objects.bulk_update([row], [column])
    assert notes() == [(kind, key)]
    row.delete()
    assert notes() == [(kind, key)]
    type(row).objects.bulk_create([make()])
    assert notes() == []


def test_a_row_in_use_that_is_not_deleted_is_not_noted_and_spoils_no_transaction(row):
    with transaction.atomic():
        for refused in (row.interval.delete, IntervalSchedule.objects.all().delete):
            with pytest.raises(ProtectedError):
                refused()
        assert IntervalSchedule.objects.count() == 1
    assert notes() == []


# -- cost and locks --------------------------------------------------------------------------------


def test_saving_a_task_takes_four_statements(every, django_assert_num_queries):
    # BEGIN, INSERT or UPDATE, INSERT of the note, COMMIT
    with django_assert_num_queries(4):
        row = PeriodicTask.objects.create(name="t", task="x", interval=every)
    row = PeriodicTask.objects.get(name="t")
    row.interval_id = every.pk
    row.enabled = False
    with django_assert_num_queries(4):
        row.save()
    with django_assert_num_queries(4):
        row.delete()


@pytest.fixture
def no_long_wait():
    """Fail instead of waiting for a lock."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET lock_timeout = '1s'")
        else:
            cursor.execute("SET SESSION innodb_lock_wait_timeout = 1")
    yield
    connection.close()


@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="SQLite has one writer at a time")
@pytest.mark.parametrize("edit", [save, save_one_column, update, bulk_update, update_or_create, delete])
def test_two_people_who_edit_different_tasks_do_not_wait_for_each_other(row, every, edit, no_long_wait):
    """The other one's transaction is open, has written its note, and isn't seen."""
    other = PeriodicTask.objects.create(name="other", task="x", interval=every)
    notes()
    written, seen, failed = threading.Event(), threading.Event(), []

    def edit_the_other():
        try:
            with transaction.atomic():
                found = PeriodicTask.objects.get(pk=other.pk)
                found.task = "y"
                found.save()
                written.set()
                assert seen.wait(120)
        except BaseException as exc:  # noqa: BLE001 - told below
            failed.append(exc)
        finally:
            connections.close_all()

    key = row.pk
    thread = threading.Thread(target=edit_the_other)
    thread.start()
    try:
        assert written.wait(60)
        edit(row)
        assert notes() == [("task", key)]
    finally:
        seen.set()
        thread.join()
    assert failed == []
    assert notes() == [("task", other.pk)]


# -- the legacy mark -------------------------------------------------------------------------------


def test_changed_notes_a_task_or_everything(row):
    PeriodicTasks.changed(row)
    PeriodicTasks.changed()
    PeriodicTasks.changed(PeriodicTask(name="new"))
    PeriodicTasks.changed(row.interval)
    assert notes() == [("task", row.pk), ("all", None), ("all", None), ("interval", row.interval_id)]


def test_the_last_change_is_the_legacy_mark_or_the_latest_note(row, django_assert_num_queries):
    assert PeriodicTasks.last_change() is None
    mark = utils.now()
    PeriodicTasks.objects.create(ident=1, last_update=mark)
    assert PeriodicTasks.last_change() == mark
    row.save()
    with django_assert_num_queries(1):
        noted = PeriodicTasks.last_change()
    assert noted == ScheduleChange.objects.get().created
    assert noted > mark
    notes()
    assert PeriodicTasks.last_change() == mark


# -- migrations ------------------------------------------------------------------------------------


#: As Django's own receivers unpack it.
MIGRATION = (SimpleNamespace(app_label="shop", operations=[]), False)


def migrated(plan):
    emit_post_migrate_signal(verbosity=0, interactive=False, db="default", plan=plan)


def test_migrations_are_noted_as_all_once_if_a_beat_has_run_here():
    migrated([MIGRATION])
    assert notes() == []
    BeatLease.objects.create(name="default", holder="h", token=1, expires_at=utils.now(), acquired_at=utils.now())
    migrated([])
    assert notes() == []
    migrated([MIGRATION])
    migrated([MIGRATION])
    assert notes() == [("all", None)]


def test_historical_models_work_and_leave_no_note(row):
    loader = MigrationLoader(connection)
    historical = loader.project_state().apps.get_model("djcelery", "PeriodicTask")
    historical.objects.filter(pk=row.pk).update(task="migrated")
    found = historical.objects.get(pk=row.pk)
    found.queue = "q"
    found.save()
    row.refresh_from_db()
    assert (row.task, row.queue, notes()) == ("migrated", "q", [])


def test_a_name_that_is_taken_leaves_no_note(row, every):
    with pytest.raises(IntegrityError):
        PeriodicTask.objects.create(name="t", task="x", interval=every)
    assert notes() == []
