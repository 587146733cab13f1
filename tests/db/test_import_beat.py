"""``celeryimport beat``: the schedule of django-celery-beat becomes ours, on whichever engine is chosen."""

from __future__ import annotations

import io
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pytest
from celery import schedules
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import translation

from djcelery import models, utils
from djcelery.importing import BeatImport, beat
from djcelery.models import CrontabSchedule, IntervalSchedule, PeriodicTask, ScheduleChange
from djcelery.schedulers.book import Book
from tests.db import peer_tables
from tests.db.peer_tables import CLOCKED, CRONTAB, INTERVAL, SOLAR, TASK, WHEN

pytestmark = pytest.mark.django_db

UTC = timezone.utc


@pytest.fixture(autouse=True)
def app(tables_of_peers, celery_app):
    return celery_app


def add(table, **values):
    return peer_tables.add(connection, table, **values)


def every(seconds=10, **values):
    """Add an interval and a task of it."""
    interval = add(INTERVAL, every=seconds)
    return add(TASK, **{"name": f"every {seconds}", "interval_id": interval, **values})


def run(app, **options):
    return BeatImport(app, **options).run()


def task(name):
    return PeriodicTask.objects.get(name=name)


def counts(summary):
    return {what: dict(outcomes) for what, outcomes in summary.counts.items()}


def theirs():
    """Return every value of their tables."""
    found = []
    with connection.cursor() as cursor:
        for table in peer_tables.TABLES:
            cursor.execute(f"SELECT * FROM {table} ORDER BY id")
            found.append(cursor.fetchall())
    return found


# -- values ------------------------------------------------------------------------------------


def test_a_task_keeps_everything_that_is_said_of_it(app):
    values = {
        "task": "shop.tasks.charge",
        "args": '[1, "é"]',
        "kwargs": '{"express": true}',
        "queue": "reports",
        "exchange": "tasks",
        "routing_key": "reports.daily",
        "headers": '{"tenant": 7}',
        "priority": 5,
        "expires": WHEN + timedelta(days=400),
        "start_time": WHEN - timedelta(days=1),
        "last_run_at": WHEN,
        "total_run_count": 1234,
        "description": "Tägliche Rechnung",
    }
    every(60, name="charge", **values)
    summary = run(app)
    assert counts(summary) == {"intervals": {"imported": 1}, "periodic tasks": {"imported": 1}}
    stored = task("charge")
    assert {name: getattr(stored, name) for name in values} == values
    assert (stored.enabled, stored.one_off, stored.expire_seconds, stored.origin) == (True, False, None, None)
    assert stored.schedule.run_every == timedelta(minutes=1)
    assert stored.scheduled_from == WHEN


def test_options_that_say_nothing_are_empty(app):
    every(60, queue="", exchange="", routing_key="", headers="{}", expire_seconds=0, args="", kwargs="")
    run(app)
    stored = task("every 60")
    assert (stored.queue, stored.exchange, stored.routing_key, stored.headers) == (None,) * 4
    assert (stored.expire_seconds, stored.args, stored.kwargs) == (None, "[]", "{}")


def test_each_kind_of_schedule_is_taken_over(app):
    solar = add(SOLAR, latitude="50.850000", longitude="-4.350001")
    clocked = add(CLOCKED, clocked_time=WHEN)
    crontab = add(CRONTAB, minute="*/5", hour="8-17", day_of_week="mon-fri", timezone="Europe/Berlin")
    add(TASK, name="solar", solar_id=solar)
    add(TASK, name="clocked", clocked_id=clocked, one_off=True)
    add(TASK, name="crontab", crontab_id=crontab, expire_seconds=30)
    assert run(app).left_out == 0
    sun = task("solar").solar
    assert (sun.event, sun.latitude, sun.longitude) == ("sunset", Decimal("50.850000"), Decimal("-4.350001"))
    assert (task("clocked").clocked.clocked_time, task("clocked").one_off) == (WHEN, True)
    assert str(task("crontab").crontab) == "*/5 8-17 mon-fri * * (m/h/d/dM/MY) Europe/Berlin"
    assert task("crontab").expire_seconds == 30


def test_schedules_that_are_equal_become_one_row(app):
    for number in range(3):
        crontab = add(CRONTAB, minute="0", hour="4")
        add(TASK, name=f"nightly {number}", crontab_id=crontab)
    add(CRONTAB, minute="0", hour="4", timezone="Europe/Berlin")
    summary = run(app)
    assert counts(summary)["crontabs"] == {"imported": 2, "merged": 2}
    assert CrontabSchedule.objects.count() == 2
    assert len({row.crontab_id for row in PeriodicTask.objects.all()}) == 1


def test_a_schedule_that_ours_has_already_serves(app):
    IntervalSchedule.objects.create(every=10, period="seconds")
    mine = IntervalSchedule.objects.order_by("pk").first()
    IntervalSchedule.objects.create(every=10, period="seconds")
    every(10)
    summary = run(app)
    assert counts(summary)["intervals"] == {"present": 1}
    assert task("every 10").interval == mine


LONG = ",".join(map(str, range(60)))
ODD = ",".join(map(str, [0, 1, 2, 3, *range(5, 60, 5), 58]))


@pytest.mark.parametrize("minute", [LONG, ODD, ",".join(map(str, range(1, 60, 2))), f"{ODD},*/7,{ODD}"])
def test_a_crontab_that_is_too_long_is_written_shorter_and_fires_at_the_same_times(app, minute):
    crontab = add(CRONTAB, minute=minute)
    add(TASK, name="a", crontab_id=crontab)
    assert run(app).left_out == 0
    stored = task("a").crontab
    assert len(stored.minute) <= 64
    assert stored.schedule.minute == schedules.crontab(minute=minute).minute


def test_a_crontab_that_can_not_be_written_shorter_is_left_out_and_named(app):
    minutes = [n for n in range(60) if (n * n) % 7 in (1, 2) or n % 11 == 3]
    crontab = add(CRONTAB, minute=",".join(map(str, minutes)))
    add(TASK, name="a", crontab_id=crontab)
    listed = []
    summary = run(app, on_listed=listed.append)
    assert summary.left_out == 2
    assert listed[0].reason.startswith("minute: Ensure this value has at most 64 characters")
    assert listed[1].reason == f"its crontab {crontab} can't be imported: {listed[0].reason}"


@pytest.mark.parametrize("use_tz", [True, False])
def test_times_are_the_same_instants_with_and_without_time_zones(app, settings, use_tz):
    settings.USE_TZ = use_tz
    moment = WHEN if use_tz else WHEN.replace(tzinfo=None)
    clocked = add(CLOCKED, clocked_time=moment)
    add(TASK, name="a", clocked_id=clocked, last_run_at=moment, expires=moment, start_time=moment, date_changed=moment)
    run(app)
    stored = task("a")
    assert {stored.last_run_at, stored.expires, stored.start_time, stored.clocked.clocked_time} == {moment}


# -- when a task runs next ---------------------------------------------------------------------


def next_runs(app, now):
    """Return what the beat that leads next has planned, by name."""
    book = Book("default", lambda: PeriodicTask.objects.filter(enabled=True), app.timezone, {}, is_dry=True)
    book.load(now)
    return {plan.name: plan.due for plan in book.agenda.plans.values()}


def test_a_task_goes_on_from_its_last_run_neither_twice_nor_too_late(app):
    now = datetime.now(UTC).replace(microsecond=0)
    daily = add(CRONTAB, minute="0", hour="4")
    add(TASK, name="ran", crontab_id=daily, last_run_at=now.replace(hour=4, minute=0, second=1) - timedelta(days=1))
    every(3600, name="recent", last_run_at=now - timedelta(minutes=10))
    every(7200, name="overdue", last_run_at=now - timedelta(hours=3))
    every(86400, name="never ran", date_changed=now - timedelta(hours=20))
    run(app)
    due = next_runs(app, now)
    assert due["ran"] == now.replace(hour=4, minute=0, second=0)
    assert due["recent"] == now + timedelta(minutes=50)
    # Missed while no beat ran: it is sent, once.
    assert due["overdue"] == now - timedelta(hours=1)
    assert due["never ran"] == now + timedelta(hours=4)


def test_a_last_run_in_the_future_does_not_keep_a_task_from_running(app):
    now = utils.now()
    every(3600, last_run_at=now + timedelta(days=3))
    run(app)
    assert task("every 3600").last_run_at <= utils.now()
    assert next_runs(app, now)["every 3600"] <= utils.now() + timedelta(hours=1)


def test_a_task_that_is_switched_off_keeps_its_last_run_and_counts_from_being_switched_on(app):
    every(60, enabled=False, last_run_at=WHEN, total_run_count=3)
    run(app)
    stored = task("every 60")
    assert (stored.enabled, stored.last_run_at, stored.total_run_count) == (False, WHEN, 3)
    stored.enabled = True
    stored.save()
    assert stored.scheduled_from > utils.now() - timedelta(minutes=1)


def test_a_beat_that_runs_notices(app):
    every(60)
    every(61)
    run(app)
    assert ScheduleChange.objects.filter(kind__in=("task", "all")).exists()


# -- the run -----------------------------------------------------------------------------------


def test_a_second_run_imports_what_is_new_and_leaves_the_rest_as_it_is(app):
    every(60)
    run(app)
    PeriodicTask.objects.filter(name="every 60").update(task="ours.now")
    before = PeriodicTask.objects.values().get()
    every(61)
    listed = []
    summary = run(app, on_listed=listed.append)
    assert counts(summary) == {
        "intervals": {"present": 1, "imported": 1},
        "periodic tasks": {"present": 1, "imported": 1},
    }
    assert [(each.key, each.reason) for each in listed] == [("every 60", "a task of this name is there already")]
    assert PeriodicTask.objects.values().get(name="every 60") == before


def test_an_update_takes_their_values_but_never_sets_a_run_back(app):
    every(60, last_run_at=WHEN, total_run_count=5)
    every(61, last_run_at=WHEN, total_run_count=5)
    every(62)
    run(app)
    later = WHEN + timedelta(hours=1)
    with connection.cursor() as cursor:
        moment = connection.ops.adapt_datetimefield_value(later)
        cursor.execute(f"UPDATE {TASK} SET task = 'new', last_run_at = %s WHERE name = 'every 60'", [moment])
        cursor.execute(f"UPDATE {TASK} SET total_run_count = 4 WHERE name = 'every 61'")
    PeriodicTask.objects.filter(name="every 61").update(last_run_at=later, total_run_count=9)
    ScheduleChange.objects.all().delete()
    dry = run(app, is_update=True, is_dry_run=True)
    assert task("every 60").task == "shop.tasks.add"
    summary = run(app, is_update=True)
    assert counts(summary)["periodic tasks"] == {"updated": 1, "present": 2}
    assert counts(dry) == counts(summary)
    first, second = task("every 60"), task("every 61")
    assert (first.task, first.last_run_at, first.scheduled_from, first.total_run_count) == ("new", later, later, 5)
    assert (second.last_run_at, second.total_run_count) == (later, 9)
    assert ScheduleChange.objects.filter(kind="task", key=first.pk).exists()


def test_their_tables_are_not_changed(app):
    every(60)
    before = theirs()
    run(app)
    run(app, is_update=True)
    assert theirs() == before


def test_a_dry_run_counts_the_same_and_writes_nothing(app):
    every(60)
    every(0, name="left")
    add(CRONTAB)
    add(CRONTAB)
    dry = run(app, is_dry_run=True)
    assert PeriodicTask.objects.count() == IntervalSchedule.objects.count() == CrontabSchedule.objects.count() == 0
    assert ScheduleChange.objects.count() == 0
    wet = run(app)
    assert (wet.counts, wet.reasons) == (dry.counts, dry.reasons)


def broken():
    """Add tasks that beat could not run; return why, by name."""
    reasons = {
        "no schedule": "it has no schedule",
        "args": "args is not JSON",
        "kwargs": "kwargs must be a JSON object",
        "headers": "headers must be a JSON object",
        "two": "it has more than one schedule: interval and crontab",
        "priority": "priority: Must be between 0 and 255",
        "no task": "task: This field cannot be blank",
        "gone": "its interval 9999 is gone",
        "interval": "can't be imported: every: The interval must be at least 1",
        "short": "can't be imported: every: 500 microseconds is shorter than a second",
        "crontab": "Not a crontab that Celery can read",
        "never": "Not a crontab that Celery can read: ",
        "zone": "There is no time zone “Mars/Base”",
        "solar": "latitude: 91.000000 is not between -90 and 90 degrees",
        "event": "event: Value 'noon tea' is not a valid choice",
    }
    good = add(INTERVAL, every=30)
    given = {
        "no schedule": {},
        "args": {"interval_id": good, "args": "[1,"},
        "kwargs": {"interval_id": good, "kwargs": "[]"},
        "headers": {"interval_id": good, "headers": "[1]"},
        "two": {"interval_id": good, "crontab_id": add(CRONTAB)},
        "priority": {"interval_id": good, "priority": 300},
        "no task": {"interval_id": good, "task": ""},
        "gone": {"interval_id": 9999},
        "interval": {"interval_id": add(INTERVAL, every=0)},
        "short": {"interval_id": add(INTERVAL, every=500, period="microseconds")},
        "crontab": {"crontab_id": add(CRONTAB, minute="often")},
        "never": {"crontab_id": add(CRONTAB, day_of_month="31", month_of_year="2")},
        "zone": {"crontab_id": add(CRONTAB, timezone="Mars/Base")},
        "solar": {"solar_id": add(SOLAR, latitude="91.000000")},
        "event": {"solar_id": add(SOLAR, event="noon tea")},
    }
    for name, values in given.items():
        add(TASK, name=name, **values)
    return reasons


def test_what_beat_could_not_run_is_left_out_with_the_reason_and_stops_nothing_else(app, settings):
    # Reasons are English, whatever people see.
    settings.LANGUAGE_CODE = "es"
    reasons = broken()
    every(60)
    listed = []
    with translation.override(None):
        summary = run(app, on_listed=listed.append)
    found = {each.key: each.reason for each in listed if each.table == TASK}
    assert found.keys() == reasons.keys()
    assert {name: found[name] for name in reasons if reasons[name] not in found[name]} == {}
    assert counts(summary)["periodic tasks"] == {"imported": 1, "left out": len(reasons)}
    assert task("every 60").enabled


def test_tasks_that_the_database_refuses_stop_no_other(app, monkeypatch):
    for number in (60, 61, 62):
        every(number)
    original = beat._values

    def values(connection, row, ours):
        made = original(connection, row, ours)
        return {**made, "description": None} if row["name"] == "every 61" else made

    monkeypatch.setattr(beat, "_values", values)
    summary = run(app)
    assert counts(summary)["periodic tasks"] == {"imported": 2, "left out": 1}
    assert next(iter(summary.reasons)).startswith("the database refuses it (")


def test_batches_see_all_rows_once(app):
    for number in range(60, 67):
        every(number)
    seen = []
    summary = run(app, batch_rows=3, on_progress=lambda now: seen.append((now.seen, now.total)))
    assert counts(summary)["periodic tasks"] == {"imported": 7}
    assert [count for count, _ in seen] == [3, 6, 7, 10, 13, 14]
    assert {total for _, total in seen} == {14}
    assert PeriodicTask.objects.count() == 7


def test_a_batch_of_tasks_costs_no_statement_per_task(app):
    def statements(names):
        for name in names:
            add(TASK, name=name, interval_id=interval)
        with CaptureQueriesContext(connection) as queries:
            summary = run(app)
        assert counts(summary)["periodic tasks"]["imported"] == len(names)
        return len(queries)

    interval = add(INTERVAL)
    run(app)
    few = statements([f"few {number}" for number in range(4)])
    # Django splits an INSERT that has too many values for SQLite.
    assert statements([f"many {number}" for number in range(40)]) <= few + 2


# -- the command -------------------------------------------------------------------------------


def command(*args):
    out = io.StringIO()
    call_command("celeryimport", "beat", *args, stdout=out)
    return out.getvalue()


def test_the_command_says_what_it_did():
    every(60)
    add(INTERVAL, every=60)
    expected = [
        "           1  intervals: imported",
        "           1  intervals: the same as another one, which serves for both",
        "           1  periodic tasks: imported",
    ]
    assert command("--dry-run").splitlines() == [*expected, "Nothing was written: this is a dry run."]
    assert command().splitlines() == expected
    assert command().splitlines() == [
        "           2  intervals: there already",
        "           1  periodic tasks: there already (every 60)",
    ]
    models.PeriodicTask.objects.update(task="mine")
    assert command("--update").splitlines()[-1] == "           1  periodic tasks: updated"
    assert task("every 60").task == "shop.tasks.add"


def test_the_command_fails_if_anything_is_left_out(settings):
    settings.LANGUAGE_CODE = "es"
    every(0, name="left")
    out = io.StringIO()
    with pytest.raises(CommandError, match=r"2 rows left out\. --report FILE lists all of them\.") as info:
        call_command("celeryimport", "beat", stdout=out)
    assert info.value.returncode == 1
    assert "left out: every: The interval must be at least 1; 0 can't be run: interval " in out.getvalue()
