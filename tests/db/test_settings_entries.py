"""Entries of ``CELERYBEAT_SCHEDULE`` as rows: who owns them, and what is said when somebody loses an edit."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta, timezone

import pytest
from celery.schedules import crontab
from django.db import InterfaceError, connection, transaction
from django.test.utils import CaptureQueriesContext

from djcelery import times, utils
from djcelery.exceptions import SettingError
from djcelery.models import IntervalSchedule, PeriodicTask, ScheduleChange
from djcelery.schedulers import DatabaseScheduler
from tests.checking import said

pytestmark = pytest.mark.django_db(transaction=True)

POLL = {
    "task": "shop.tasks.add",
    "schedule": timedelta(seconds=30),
    "args": (16, 16),
    "options": {"queue": "reports", "expires": 60, "priority": 3, "serializer": "json"},
}
NIGHT = {"task": "shop.tasks.report", "schedule": crontab(hour=7, minute=30), "kwargs": {"a": 1}}


@pytest.fixture
def start(celery_app, settings, monkeypatch):
    """A function that lets a beat lead with these entries in its settings, and stops it."""
    settings.CELERY_TASK_RESULT_EXPIRES = None

    def starts(entries, policy=None, ticks=1, **kwargs):
        if policy:
            settings.DJCELERY_SCHEDULE_POLICY = policy
        celery_app.conf.beat_schedule = entries
        beat = DatabaseScheduler(celery_app, **kwargs)
        monkeypatch.setattr(beat, "apply_async", lambda entry, **kwargs: None)
        for _ in range(ticks):
            beat.tick()
        beat.close()
        return beat

    return starts


def poll():
    return PeriodicTask.objects.get(name="poll")


def warnings(caplog):
    return [record.getMessage() for record in said(caplog) if record.levelno == logging.WARNING]


def test_entries_become_rows_with_all_that_has_a_column(start):
    start({"poll": POLL, "night": NIGHT})
    row = poll()
    assert (row.task, row.args, row.interval.every, row.interval.period) == (
        "shop.tasks.add",
        "[16, 16]",
        30,
        "seconds",
    )
    assert (row.queue, row.expire_seconds, row.priority, row.origin) == ("reports", 60, 3, "settings")
    assert PeriodicTask.objects.get(name="night").crontab.hour == "7"


def test_every_option_of_a_row_can_be_given(start):
    expires = datetime(2040, 1, 1, tzinfo=timezone.utc)
    entry = {
        "task": "x",
        "schedule": times.ZonedCrontab("0", "9", zone="Asia/Kathmandu"),
        "options": {"headers": {"tenant": "a"}, "expires": expires},
        "no_overlap": True,
        "missed_runs": "all",
        "jitter_seconds": 20,
    }
    start({"poll": entry, "once": {"task": "x", "schedule": datetime(2040, 2, 1, tzinfo=timezone.utc)}})
    row = poll()
    assert (row.crontab.timezone, json.loads(row.headers)) == ("Asia/Kathmandu", {"tenant": "a"})
    assert (utils.to_utc(row.expires), row.expire_seconds) == (expires, None)
    assert (row.no_overlap, row.missed_runs, row.jitter_seconds) == (True, "all", 20)
    assert utils.to_utc(PeriodicTask.objects.get(name="once").clocked.clocked_time).month == 2


def test_a_second_start_writes_nothing_and_asks_once(start):
    entries = {"poll": POLL, "night": NIGHT}
    start(entries)
    ScheduleChange.objects.all().delete()
    before = list(PeriodicTask.objects.order_by("pk").values())
    with CaptureQueriesContext(connection) as captured:
        start(entries)
    asked = [query["sql"] for query in captured if "intervalschedule" in query["sql"] and "name" in query["sql"]]
    assert len(asked) == 2  # the settings' entries, and the load
    assert list(PeriodicTask.objects.order_by("pk").values()) == before
    assert (ScheduleChange.objects.count(), IntervalSchedule.objects.count()) == (0, 1)


def test_what_people_own_stays(start, caplog):
    start({"poll": POLL})
    PeriodicTask.objects.filter(name="poll").update(enabled=False, description="mine")
    PeriodicTask.objects.filter(name="poll").update(total_run_count=5)
    start({"poll": POLL})
    row = poll()
    assert (row.enabled, row.description, row.total_run_count) == (False, "mine", 5)
    assert warnings(caplog) == []


@pytest.mark.parametrize(("policy", "queue"), [("mirror", "reports"), ("seed", "mine")])
def test_an_edit_is_overwritten_with_a_word_or_kept_by_the_policy(start, caplog, policy, queue):
    start({"poll": POLL}, policy)
    PeriodicTask.objects.filter(name="poll").update(queue="mine", args="[1]")
    start({"poll": POLL}, policy)
    assert poll().queue == queue
    expected = ["poll", "args, queue", "DJCELERY_SCHEDULE_POLICY"] if policy == "mirror" else []
    assert len(warnings(caplog)) == bool(expected)
    assert all(word in warnings(caplog)[0] for word in expected)


def test_new_settings_change_a_row_that_nobody_edited_without_a_warning(start, caplog):
    start({"poll": POLL})
    start({"poll": {**POLL, "args": (1, 2), "schedule": 60}})
    row = poll()
    assert (row.args, row.interval.every) == ("[1, 2]", 60)
    assert warnings(caplog) == []


def test_seeded_rows_stay_when_the_settings_change_or_forget_them(start):
    start({"poll": POLL}, "seed")
    start({"poll": {**POLL, "args": (1, 2)}}, "seed")
    assert poll().args == "[16, 16]"
    start({}, "seed")
    assert poll().enabled


def test_an_entry_that_is_removed_is_disabled_and_comes_back_enabled(start, caplog):
    caplog.set_level(logging.INFO)
    PeriodicTask.objects.create(name="mine", task="x", interval=IntervalSchedule.objects.create(every=9, period="days"))
    start({"poll": POLL})
    start({})
    assert (poll().enabled, PeriodicTask.objects.get(name="mine").enabled) == (False, True)
    assert "'poll' was removed from the settings; it is disabled" in caplog.text
    caplog.clear()
    start({})
    assert "poll" not in caplog.text
    start({"poll": POLL})
    assert poll().enabled


def test_a_row_of_the_same_name_that_a_person_made_is_taken_over_with_a_word(start, caplog):
    PeriodicTask.objects.create(name="poll", task="theirs", crontab=None)
    start({"poll": POLL})
    assert poll().task == "shop.tasks.add"
    assert "task" in warnings(caplog)[0]


@pytest.mark.parametrize(
    "bad",
    [
        {"task": "x", "schedule": object()},
        {"task": "x", "schedule": 1, "colour": "red"},
        {"task": "x"},
        {"task": "x", "schedule": 9, "args": [object()]},
    ],
    ids=["no schedule object", "unknown key", "no schedule", "no JSON"],
)
def test_a_bad_entry_is_logged_and_the_others_are_written(start, caplog, bad):
    start({"bad": bad, "poll": POLL})
    assert list(PeriodicTask.objects.values_list("name", flat=True)) == ["poll"]
    assert "Couldn't add entry 'bad'" in caplog.text


def test_options_without_a_column_are_sent_all_the_same(start, monkeypatch):
    beat = start({"poll": POLL})
    assert beat.schedule["poll"].options["serializer"] == "json"
    beat = start({"poll": {**POLL, "schedule": 1}}, ticks=1)
    assert beat._settings_options["poll"] == {"serializer": "json"}


def test_only_the_beat_that_leads_writes(start, celery_app):
    leader = DatabaseScheduler(celery_app)
    celery_app.conf.beat_schedule = {}
    leader.tick()
    start({"poll": POLL})
    assert not PeriodicTask.objects.filter(name="poll").exists()
    leader.close()
    start({"poll": POLL})
    assert poll().enabled


def test_the_cleanup_entry_is_installed_once_and_stays_as_edited(start, settings):
    settings.CELERY_TASK_RESULT_EXPIRES = 3600
    start({})
    row = PeriodicTask.objects.get(name="celery.backend_cleanup")
    assert (row.crontab.hour, row.crontab.minute, row.expire_seconds, row.origin) == ("4", "0", 12 * 3600, None)
    PeriodicTask.objects.filter(pk=row.pk).update(enabled=False, task="mine")
    start({})
    row.refresh_from_db()
    assert (row.enabled, row.task) == (False, "mine")


@pytest.mark.parametrize(("age", "is_wanted"), [(3600, True), (None, False)])
def test_the_cleanup_entry_is_wanted_if_any_rule_of_retention_has_an_age(start, settings, age, is_wanted):
    settings.CELERY_TASK_RESULT_EXPIRES = None
    settings.DJCELERY_RETENTION = {"FAILURE": None, "shop.*": age}
    start({})
    assert PeriodicTask.objects.filter(name="celery.backend_cleanup").exists() is is_wanted


def test_a_policy_that_is_none_is_refused(start, settings):
    settings.DJCELERY_SCHEDULE_POLICY = "both"
    with pytest.raises(SettingError, match="use 'mirror' or 'seed'"):
        start({"poll": POLL})


class LaggingReplica:
    def db_for_read(self, model, **hints):
        return "replica" if model is PeriodicTask else None


def test_entries_are_compared_with_the_database_that_is_written(start, settings):
    from djcelery.schedulers import settings_entries

    start({"poll": POLL})
    settings.DATABASE_ROUTERS = [LaggingReplica()]
    settings_entries.install({"poll": POLL}, DatabaseScheduler.Entry, PeriodicTask, None, settings_entries.MIRROR)
    settings_entries.disable_removed(PeriodicTask, set())
    settings.DATABASE_ROUTERS = []
    assert (PeriodicTask.objects.count(), poll().enabled) == (1, False)


UNREADABLE = {
    "sqlite": "UPDATE djcelery_periodictask SET expires = '2026-02-31 00:00:00' WHERE name = 'poll'",
    "postgresql": "UPDATE djcelery_periodictask SET expires = 'infinity' WHERE name = 'poll'",
}


def make_unreadable():
    if connection.vendor not in UNREADABLE:
        pytest.skip("it keeps no such time")
    with connection.cursor() as cursor:
        cursor.execute(UNREADABLE[connection.vendor])


REFUSED = {
    "no task": {"bad": {"task": None, "schedule": 10}},
    "neither on nor off": {"bad": {"task": "x", "schedule": 10, "enabled": None}},
    "a long name": {"b" * 201: {"task": "x", "schedule": 10}},
    "a large number": {"bad": {"task": "x", "schedule": 10, "options": {"expires": 10**10}}},
    "one name": {"bad": {"task": "x", "schedule": 10}, "BAD": {"task": "x", "schedule": 10}},
    "NUL in a name": {"b\x00d": {"task": "x", "schedule": 10}},
}
#: SQLite knows no lengths, and PostgreSQL tells capitals from small letters.
TAKEN = {
    "sqlite": {"a long name", "a large number", "one name", "NUL in a name"},
    "postgresql": {"one name"},
    "mysql": {"NUL in a name"},
}


@pytest.mark.parametrize("kind", REFUSED)
def test_an_entry_that_the_database_refuses_is_logged_and_the_others_are_sent(start, caplog, kind):
    if kind in TAKEN[connection.vendor]:
        pytest.skip("it takes them")
    beat = start({**REFUSED[kind], "poll": POLL})
    assert poll().enabled
    assert "Couldn't add entry" in caplog.text
    assert repr(list(REFUSED[kind])[-1]) in caplog.text
    assert "the database gave an error" not in caplog.text
    assert beat._problem is None


def test_an_entry_that_is_refused_breaks_no_transaction_of_the_caller(start):
    from djcelery.schedulers import settings_entries

    entries = {"bad": {"task": None, "schedule": 10}, "poll": POLL}
    with transaction.atomic():
        settings_entries.install(entries, DatabaseScheduler.Entry, PeriodicTask, None, settings_entries.MIRROR)
    assert list(PeriodicTask.objects.values_list("name", flat=True)) == ["poll"]


def test_a_database_that_is_away_is_not_taken_for_a_bad_entry(start, celery_app, caplog):
    celery_app.conf.beat_schedule = {"poll": POLL}
    beat = DatabaseScheduler(celery_app)

    def fails(execute, sql, *args):
        if sql.startswith("INSERT") and "djcelery_periodictask" in sql:
            raise InterfaceError("connection already closed")
        return execute(sql, *args)

    with connection.execute_wrapper(fails):
        assert beat.tick() > 0
    assert beat._book is None
    assert "Couldn't add entry" not in caplog.text
    beat.tick()
    assert poll().enabled
    beat.close()


@pytest.mark.parametrize("policy", ["mirror", "seed"])
@pytest.mark.parametrize("bad", [None, ["x", 10], "x", {"task": "x", "schedule": 10, "options": ["queue"]}], ids=repr)
def test_what_is_no_entry_is_logged_and_the_others_are_written(start, caplog, bad, policy):
    start({"bad": bad, "poll": POLL}, policy)
    assert list(PeriodicTask.objects.values_list("name", flat=True)) == ["poll"]
    assert "Couldn't add entry 'bad'" in caplog.text


def test_settings_that_are_no_dictionary_leave_the_rows_alone(start, caplog):
    start({"poll": POLL})
    start(["poll"])
    assert poll().enabled
    assert "CELERYBEAT_SCHEDULE is no dictionary" in caplog.text
    start(None)
    assert not poll().enabled


def test_a_row_that_can_not_be_read_stops_no_other_entry(start, caplog):
    start({"poll": POLL})
    make_unreadable()
    start({"poll": POLL, "night": NIGHT})
    assert PeriodicTask.objects.filter(name="night", enabled=True).exists()
    assert "Couldn't add entry 'poll'" in caplog.text
    start({"night": NIGHT})
    assert list(PeriodicTask.objects.filter(enabled=True).values_list("name", flat=True)) == ["night"]
