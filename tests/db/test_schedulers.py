"""The database scheduler: entries, edits, bad rows, and what it writes."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta, timezone

import pytest
from celery import schedules
from celery.beat import Scheduler
from celery.schedules import crontab, schedule
from django.db import OperationalError, connection
from django.db.models import ProtectedError
from django.utils import translation

from djcelery import utils
from djcelery.exceptions import ArgumentsInvalid, ScheduleError, ScheduleMissing
from djcelery.models import CrontabSchedule, IntervalSchedule, PeriodicTask, PeriodicTasks
from djcelery.schedulers import DatabaseScheduler, ModelEntry
from djcelery.schedulers import scheduler as scheduler_module

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def no_wait(monkeypatch):
    monkeypatch.setattr(scheduler_module, "CHECK_EVERY_S", 0.0)


@pytest.fixture
def every10():
    return IntervalSchedule.objects.create(every=10, period="seconds")


@pytest.fixture
def scheduler(celery_app, settings):
    settings.CELERY_TASK_RESULT_EXPIRES = None
    sent = []

    class Recording(DatabaseScheduler):
        def apply_async(self, entry, **kwargs):
            sent.append(entry.name)

    made = Recording(app=celery_app)
    made.sent = sent
    return made


def make(name="t", **values):
    return PeriodicTask.objects.create(name=name, task="shop.tasks.add", **values)


def test_an_overdue_interval_is_sent_and_its_run_is_written_at_once(scheduler, every10):
    row = make(interval=every10, last_run_at=utils.now() - timedelta(minutes=1), description="before")
    PeriodicTask.objects.filter(pk=row.pk).update(description="edited meanwhile")
    assert scheduler.tick() == 0
    row.refresh_from_db()
    assert scheduler.sent == ["t"]
    assert row.total_run_count == 1
    assert utils.now() - row.last_run_at < timedelta(seconds=10)
    assert row.description == "edited meanwhile"


def test_a_tick_without_changes_is_one_query(scheduler, every10, django_assert_num_queries):
    make(interval=every10, last_run_at=utils.now())
    scheduler.tick()
    with django_assert_num_queries(1):
        scheduler.tick()


@pytest.mark.parametrize("rows", [1, 30])
def test_loading_the_schedule_takes_two_queries_for_any_number_of_rows(scheduler, rows, django_assert_num_queries):
    for number in range(rows):
        make(f"t{number}", interval=IntervalSchedule.objects.create(every=number + 1, period="hours"))
    with django_assert_num_queries(2):
        scheduler._load()
    assert len(scheduler.schedule) == rows


def test_a_run_by_beat_is_not_a_change_of_the_schedule(scheduler, every10):
    make(interval=every10, last_run_at=utils.now() - timedelta(minutes=1))
    scheduler.tick()
    assert not scheduler.schedule_changed()


def disable(row, every):
    row.enabled = False
    row.save()


def bulk_update(row, every):
    PeriodicTask.objects.filter(pk=row.pk).update(enabled=False)


def delete(row, every):
    row.delete()


def create(row, every):
    make("other", interval=every)


def bulk_create(row, every):
    PeriodicTask.objects.bulk_create([PeriodicTask(name="other", task="x", interval=every)])


def edit_interval(row, every):
    every.every = 20
    every.save()


@pytest.mark.parametrize("edit", [disable, bulk_update, delete, create, bulk_create, edit_interval])
def test_every_edit_through_the_orm_is_noticed(scheduler, every10, edit):
    row = make(interval=every10)
    scheduler.tick()
    before = dict(scheduler.schedule)
    edit(row, every10)
    assert scheduler.schedule_changed()
    scheduler.tick()
    assert not scheduler.schedule_changed()
    after = scheduler.schedule
    assert set(after) != set(before) or after["t"].schedule != before["t"].schedule


def test_an_edit_is_noted_when_it_is_committed_and_not_before(scheduler, every10):
    from django.db import transaction

    make(interval=every10)
    scheduler.tick()
    with transaction.atomic():
        make("other", interval=every10)
        assert PeriodicTasks.last_change() == scheduler._last_change
    assert scheduler.schedule_changed()


def test_an_instance_with_no_changes_is_not_noted(scheduler, every10):
    row = make(interval=every10)
    scheduler.tick()
    row.no_changes = True
    row.save()
    assert not scheduler.schedule_changed()


def raw(sql, *params):
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("PRAGMA foreign_keys = OFF")
        elif connection.vendor == "mysql":
            cursor.execute("SET FOREIGN_KEY_CHECKS = 0")
        cursor.execute(sql, params)
        if connection.vendor == "mysql":
            cursor.execute("SET FOREIGN_KEY_CHECKS = 1")


BAD_ROWS = {
    "no schedule": ({}, ScheduleMissing, "has no schedule|it has no schedule"),
    "broken json": ({"args": "[1,", "every": 10}, ArgumentsInvalid, "args is not JSON"),
    "args no array": ({"args": '{"a": 1}', "every": 10}, ArgumentsInvalid, "args must be a JSON array"),
    "kwargs no object": ({"kwargs": "[1]", "every": 10}, ArgumentsInvalid, "kwargs must be a JSON object"),
    "period of zero": ({"every": 0}, ScheduleError, "shorter than a second"),
    "negative period": ({"every": -5}, ScheduleError, "shorter than a second"),
    "broken crontab": ({"minute": "sixty"}, ScheduleError, "crontab can't be read"),
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_one_broken_row_does_not_stop_the_other_schedules(scheduler, every10, caplog, kind):
    values, error, words = BAD_ROWS[kind]
    values = dict(values)
    if "every" in values:
        values["interval"] = IntervalSchedule.objects.create(every=values.pop("every"), period="seconds")
    if "minute" in values:
        values["crontab"] = CrontabSchedule.objects.create(minute=values.pop("minute"))
    bad = make("bad", **values)
    make("good", interval=every10, last_run_at=utils.now() - timedelta(minutes=1))
    with pytest.raises(error, match=words):
        ModelEntry(bad)
    scheduler.tick()
    scheduler._load()
    assert scheduler.sent == ["good"]
    assert list(scheduler.schedule) == ["good"]
    told = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert len(told) == 1
    assert f"Periodic task {bad.pk} 'bad'" in told[0].getMessage()
    bad.refresh_from_db()
    assert bad.enabled


@pytest.mark.skipif("connection.vendor == 'postgresql'", reason="PostgreSQL keeps its references")
def test_a_row_whose_schedule_was_removed_is_held_out(scheduler, every10, caplog):
    bad = make("bad", interval=every10)
    make("good", interval=IntervalSchedule.objects.create(every=3, period="seconds"))
    raw("DELETE FROM djcelery_intervalschedule WHERE id = %s", every10.pk)
    try:
        scheduler._load()
        assert list(scheduler.schedule) == ["good"]
        assert "its schedule was removed from the database" in caplog.text
    finally:
        raw("DELETE FROM djcelery_periodictask WHERE id = %s", bad.pk)


def test_a_row_with_two_schedules_runs_by_its_interval_and_is_told_of(scheduler, every10, caplog):
    make(interval=every10, crontab=CrontabSchedule.objects.create())
    scheduler._load()
    assert scheduler.schedule["t"].schedule == schedule(timedelta(seconds=10))
    assert "has an interval and a crontab; the interval counts" in caplog.text


def test_arguments_that_legacy_encoded_twice_are_read(every10):
    entry = ModelEntry(make(interval=every10, args=json.dumps("[2, 2]"), kwargs=""))
    assert (entry.args, entry.kwargs) == ([2, 2], {})


def test_entries_carry_the_options_of_the_row(every10):
    expires = datetime(2030, 1, 1, tzinfo=timezone.utc)
    entry = ModelEntry(make(interval=every10, queue="q", exchange="e", routing_key="r", expires=expires))
    headers = {"periodic_task_name": entry.name}
    assert entry.options == {"queue": "q", "exchange": "e", "routing_key": "r", "expires": expires, "headers": headers}


def test_a_disabled_task_is_never_due(every10):
    row = make(interval=every10, last_run_at=utils.now() - timedelta(days=1))
    row.enabled = False
    assert ModelEntry(row).is_due() == (False, 5.0)


def test_disabling_a_task_forgets_its_last_run(every10):
    row = make(interval=every10, last_run_at=utils.now(), queue="", exchange="", routing_key="")
    row.enabled = False
    row.save()
    row.refresh_from_db()
    assert row.last_run_at is None
    assert (row.queue, row.exchange, row.routing_key) == (None, None, None)


def test_an_interval_longer_than_the_time_between_restarts_fires(scheduler):
    row = make(interval=IntervalSchedule.objects.create(every=7, period="days"))
    PeriodicTask._base_manager.filter(pk=row.pk).update(date_changed=utils.now() - timedelta(days=8))
    scheduler.tick()
    assert scheduler.sent == ["t"]


def test_crontabs_of_an_adopted_database_wait_for_their_next_time(scheduler, caplog):
    caplog.set_level(logging.INFO, "djcelery")
    make(
        crontab=CrontabSchedule.objects.create(minute="30", hour="7"),
        last_run_at=datetime(2012, 1, 1, tzinfo=timezone.utc),
    )
    scheduler._loaded_mono = 0.0
    scheduler._load()
    scheduler.tick()
    assert scheduler.sent == []
    assert "1 crontabs last ran over a day ago" in caplog.text


def test_crontabs_are_read_in_the_projects_zone(celery_app, settings):
    settings.CELERY_TIMEZONE = "Asia/Kathmandu"
    row = make(crontab=CrontabSchedule.objects.create(minute="0", hour="9"))
    entry = ModelEntry(row, app=celery_app)
    assert entry.schedule.tz.key == "Asia/Kathmandu"


@pytest.mark.parametrize("use_tz", [True, False])
def test_last_runs_survive_use_tz_on_and_off(settings, every10, use_tz):
    settings.USE_TZ = use_tz
    row = make(interval=every10, last_run_at=utils.now())
    row.refresh_from_db()
    entry = ModelEntry(row)
    assert entry.last_run_at.tzinfo is not None
    assert abs(entry.last_run_at - datetime.now(timezone.utc)) < timedelta(seconds=30)
    following = next(entry)
    following.save()
    row.refresh_from_db()
    assert abs(utils.to_utc(row.last_run_at) - datetime.now(timezone.utc)) < timedelta(seconds=30)


def test_entries_of_the_settings_are_written_once_and_keep_what_people_own(celery_app, settings):
    settings.CELERY_TASK_RESULT_EXPIRES = None
    settings.CELERYBEAT_SCHEDULE = {
        "poll": {
            "task": "shop.tasks.add",
            "schedule": timedelta(seconds=30),
            "args": (16, 16),
            "options": {"queue": "reports", "expires": 60, "priority": 3},
        },
        "night": {"task": "shop.tasks.report", "schedule": crontab(hour=7, minute=30), "kwargs": {"a": 1}},
        "broken": {"task": "x", "schedule": object()},
    }
    DatabaseScheduler(app=celery_app)
    poll = PeriodicTask.objects.get(name="poll")
    assert (poll.args, poll.queue, poll.interval.every) == ("[16, 16]", "reports", 30)
    PeriodicTask.objects.filter(name="poll").update(enabled=False, description="mine", total_run_count=5)
    mark = PeriodicTasks.last_change()
    again = DatabaseScheduler(app=celery_app)
    poll.refresh_from_db()
    assert (poll.enabled, poll.description, poll.total_run_count) == (False, "mine", 5)
    assert PeriodicTasks.last_change() == mark
    assert IntervalSchedule.objects.count() == 1
    assert list(again.schedule) == ["night"]


def test_options_of_the_settings_that_have_no_column_are_sent_all_the_same(celery_app, settings):
    settings.CELERY_TASK_RESULT_EXPIRES = None
    settings.CELERYBEAT_SCHEDULE = {"poll": {"task": "x", "schedule": 30, "options": {"expires": 60, "priority": 3}}}
    entry = DatabaseScheduler(app=celery_app).schedule["poll"]
    assert (entry.options["expires"], entry.options["priority"]) == (60, 3)
    assert next(entry).options["priority"] == 3


def test_switching_an_entry_from_interval_to_crontab_clears_the_other(celery_app):
    ModelEntry.from_entry("t", task="x", schedule=10)
    ModelEntry.from_entry("t", task="x", schedule=crontab(minute=5))
    row = PeriodicTask.objects.get(name="t")
    assert row.interval is None
    assert row.crontab.minute == "5"


def test_a_bad_entry_of_the_settings_is_logged_and_skipped(scheduler, caplog):
    scheduler.update_from_dict(
        {"bad": {"task": "x", "schedule": 1, "colour": "red"}, "good": {"task": "x", "schedule": 9}}
    )
    assert list(scheduler.schedule) == ["good"]
    assert "A schedule entry has no key colour" in caplog.text


def test_the_cleanup_entry_is_installed_once_and_stays_as_edited(celery_app):
    DatabaseScheduler(app=celery_app)
    row = PeriodicTask.objects.get(name="celery.backend_cleanup")
    assert (row.crontab.hour, row.crontab.minute) == ("4", "0")
    PeriodicTask.objects.filter(pk=row.pk).update(enabled=False, task="mine")
    DatabaseScheduler(app=celery_app)
    row.refresh_from_db()
    assert (row.enabled, row.task) == (False, "mine")


def test_a_lazy_scheduler_writes_nothing(celery_app):
    DatabaseScheduler(app=celery_app, lazy=True)
    assert PeriodicTask.objects.count() == 0


@pytest.mark.parametrize(("given", "setting", "expected"), [(None, 0, 5), (3, 0, 3), (None, 7, 7), (0, None, 5)])
def test_a_falsy_max_interval_is_five_seconds(celery_app, settings, given, setting, expected):
    settings.CELERYBEAT_MAX_LOOP_INTERVAL = setting
    assert DatabaseScheduler(app=celery_app, max_interval=given, lazy=True).max_interval == expected


def test_create_or_update_task_leaves_alone_what_it_is_not_given():
    DatabaseScheduler.create_or_update_task("t", task="x", schedule=10, args=[1], options={"queue": "q"})
    DatabaseScheduler.create_or_update_task("t", task="y")
    row = PeriodicTask.objects.get(name="t")
    assert (row.task, row.args, row.queue, row.interval.every) == ("y", "[1]", "q", 10)
    DatabaseScheduler.create_or_update_task("t", schedule=crontab(minute=1))
    row.refresh_from_db()
    assert row.interval is None
    with pytest.raises(KeyError, match="schedule"):
        DatabaseScheduler.create_or_update_task("new", task="x")


def test_delete_task():
    DatabaseScheduler.create_or_update_task("t", task="x", schedule=10)
    DatabaseScheduler.delete_task("t")
    with pytest.raises(PeriodicTask.DoesNotExist):
        DatabaseScheduler.delete_task("t")


@pytest.mark.parametrize(
    ("given", "every", "period"),
    [
        (30, 30, "seconds"),
        (timedelta(minutes=2), 120, "seconds"),
        (0.5, 500000, "microseconds"),
        (schedule(90), 90, "seconds"),
    ],
)
def test_periods_are_stored_without_loss(given, every, period):
    row, field = ModelEntry.to_model_schedule(given)
    assert (field, row.every, row.period) == ("interval", every, period)


def test_equal_schedule_rows_are_neither_multiplied_nor_deleted():
    rows = [IntervalSchedule.objects.create(every=10, period="seconds") for _ in range(2)]
    assert IntervalSchedule.from_schedule(schedule(10)) == rows[0]
    crontabs = [CrontabSchedule.objects.create(minute="5") for _ in range(2)]
    assert CrontabSchedule.from_schedule(crontab(minute="5")) == crontabs[0]
    assert IntervalSchedule.objects.count() == CrontabSchedule.objects.count() == 2


@pytest.mark.parametrize("wrong", ["every day", object(), None])
def test_what_is_no_schedule_is_refused(wrong):
    with pytest.raises(ValueError, match="Cannot convert schedule type"):
        ModelEntry.to_model_schedule(wrong)


def test_a_schedule_row_in_use_cannot_be_deleted(every10):
    make(interval=every10)
    with pytest.raises(ProtectedError):
        every10.delete()


def test_a_database_error_while_looking_for_changes_keeps_the_schedule(scheduler, every10, monkeypatch, caplog):
    make(interval=every10)
    scheduler.tick()

    def fails():
        raise OperationalError("server is away")

    monkeypatch.setattr(PeriodicTasks, "last_change", staticmethod(fails))
    assert scheduler.tick() > 0
    assert "t" in scheduler.schedule
    assert "server is away" in caplog.text


def test_runs_that_could_not_be_written_are_written_later(scheduler, every10, monkeypatch, caplog):
    row = make(interval=every10, last_run_at=utils.now() - timedelta(minutes=1))

    def fails(self, runs):
        raise OperationalError("server is away")

    with monkeypatch.context() as broken:
        broken.setattr(ModelEntry, "save", fails)
        scheduler.tick()
    assert scheduler.sent == ["t"]
    row.refresh_from_db()
    assert row.total_run_count == 0
    scheduler.close()
    row.refresh_from_db()
    assert row.total_run_count == 1


def test_a_signal_in_the_middle_of_a_tick_touches_neither_broker_nor_database(scheduler, every10, monkeypatch):
    closed = []
    monkeypatch.setattr(Scheduler, "close", lambda self: closed.append(1))

    def interrupted(entry, **kwargs):
        # What Celery's handler of SIGTERM does.
        scheduler.close()
        raise SystemExit

    monkeypatch.setattr(scheduler, "apply_async", interrupted)
    make(interval=every10, last_run_at=utils.now() - timedelta(minutes=1))
    with pytest.raises(SystemExit):
        scheduler.tick()
    assert closed == []
    scheduler.close()
    assert closed == [1]


def test_a_row_deleted_while_it_runs_is_not_an_error(scheduler, every10):
    row = make(interval=every10, last_run_at=utils.now() - timedelta(minutes=1))
    scheduler._load()
    rows = PeriodicTask._base_manager.filter(pk=row.pk)
    rows._raw_delete(rows.db)
    scheduler.tick()
    assert scheduler.sent == ["t"]


def test_the_texts_of_legacy_models(every10):
    assert str(every10) == "every 10 seconds"
    assert str(IntervalSchedule(every=1, period="hours")) == "every hour"
    with translation.override("es"):
        assert str(every10) == "cada 10 segundos"
        assert str(IntervalSchedule(every=1, period="days")) == "cada día"
    assert str(IntervalSchedule(every=2, period="fortnights")) == "every 2 fortnights"
    table = CrontabSchedule(minute="*/5,7", day_of_week="mon")
    assert str(table) == "*/5,7 * mon * * (m/h/d/dM/MY)"
    assert str(make(interval=every10)) == "t: every 10 seconds"
    assert str(PeriodicTask(name="x")) == "x: {no schedule}"
    assert isinstance(table.schedule, schedules.crontab)
