"""``manage.py celerybeat --dry-run``."""

from __future__ import annotations

import io
from datetime import datetime, timedelta, timezone

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from djcelery.management.dry_run import DryRun
from djcelery.models import (
    BeatLease,
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicRun,
    PeriodicTask,
    ScheduleChange,
)
from djcelery.schedulers import DatabaseScheduler
from tests.checking import said

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@pytest.fixture(autouse=True)
def app(celery_app, settings):
    settings.CELERY_TIMEZONE = "UTC"
    settings.CELERYBEAT_SCHEDULER = "djcelery.schedulers.DatabaseScheduler"
    # Nobody listens there: whoever asked the broker would fail.
    settings.BROKER_URL = "amqp://guest@127.0.0.1:1//"
    return celery_app


def make(name, since=NOON, **values):
    """A row that counts from *since*, whatever saving says."""
    values = {"task": f"shop.{name}", **values}
    row = PeriodicTask.objects.create(name=name, **values)
    PeriodicTask._base_manager.filter(pk=row.pk).update(scheduled_from=since)
    return row


def every(minutes):
    return IntervalSchedule.objects.get_or_create(every=minutes, period="minutes")[0]


def crontab(minute="0", hour="*", **values):
    return CrontabSchedule.objects.create(minute=minute, hour=hour, **values)


def lines(app, period=HOUR, now=NOON):
    return list(DryRun(DatabaseScheduler, app, period, now).lines())


def sent(app, **arguments):
    """The lines of firings alone, between the first and that of the count."""
    found = lines(app, **arguments)
    count = next(index for index, line in enumerate(found) if line.endswith(" firings."))
    return found[1:count]


def refused(app, **arguments):
    found = lines(app, **arguments)
    return found[found.index("Not sent:") + 1 :] if "Not sent:" in found else []


def test_what_would_be_sent_is_printed_in_order_of_time(app):
    make("often", interval=every(25))
    make("brussels", crontab=crontab("30", "13", timezone="Europe/Brussels"))
    assert sent(app) == [
        "2026-03-01 12:25:00+00:00 UTC  2026-03-01 12:25:00Z  often  shop.often",
        "2026-03-01 13:30:00+01:00 Europe/Brussels  2026-03-01 12:30:00Z  brussels  shop.brussels",
        "2026-03-01 12:50:00+00:00 UTC  2026-03-01 12:50:00Z  often  shop.often",
    ]
    assert lines(app)[-1] == "3 firings."


def test_the_period_bounds_what_is_printed_its_end_included(app):
    make("hourly", crontab=crontab())
    assert len(sent(app, period=DAY)) == 24
    assert len(sent(app, period=HOUR - timedelta(seconds=1))) == 0


def test_nothing_is_written_and_nobody_else_is_asked(app):
    make("often", interval=every(25))
    make("broken", interval=every(25), args="{")
    make("off", interval=every(25), enabled=False)
    # As django-celery left it: the leading beat would stamp it.
    old = make("adopted", crontab=crontab(), last_run_at=NOON - 400 * DAY)
    PeriodicTask._base_manager.filter(pk=old.pk).update(scheduled_from=None, date_changed=NOON - 400 * DAY)
    before = list(PeriodicTask.objects.order_by("pk").values()), ScheduleChange.objects.count()
    with CaptureQueriesContext(connection) as queries:
        lines(app)
    # PostgreSQL reads large results by a cursor.
    allowed = ("SELECT", 'DECLARE "_django_curs')
    assert [query["sql"] for query in queries if not query["sql"].lstrip("( ").startswith(allowed)] == []
    assert (list(PeriodicTask.objects.order_by("pk").values()), ScheduleChange.objects.count()) == before
    assert not BeatLease.objects.exists()
    assert not PeriodicRun.objects.exists()


def test_many_rows_take_no_more_statements(app, django_assert_max_num_queries):
    for number in range(30):
        make(f"often {number}", interval=every(25))
        make(f"broken {number}", interval=every(25), args="{")
        make(f"off {number}", interval=every(25), enabled=False)
    with django_assert_max_num_queries(7):
        lines(app)


def test_a_row_that_is_held_out_is_named_with_its_error_and_nothing_is_logged(app, caplog):
    make("broken", interval=every(25), args="{")
    make("nothing")
    first, second = refused(app)
    assert first.startswith("broken  shop.broken  held out: args is not JSON")
    assert second.startswith("nothing  shop.nothing  held out: it has no schedule.")
    assert not said(caplog)


def test_a_disabled_row_is_named_if_it_would_be_sent(app):
    make("off", crontab=crontab(), enabled=False)
    make("off and later", crontab=crontab("0", "20"), enabled=False)
    make("off and broken", enabled=False)
    first, second = refused(app)
    assert first == "off  shop.off  disabled (else 2026-03-01 13:00:00Z)"
    assert second.startswith("off and broken  shop.off and broken  disabled, and can't be run: it has no schedule.")


def test_an_expired_row_is_named(app):
    make("gone by", crontab=crontab(), expires=NOON - MINUTE)
    assert sent(app) == []
    assert refused(app) == ["gone by  shop.gone by  expired 2026-03-01 11:59:00Z"]


def test_what_is_overdue_goes_by_the_missed_run_policy(app):
    make("once", NOON - HOUR, crontab=crontab("50"))
    make("never late", NOON - HOUR, crontab=crontab("50"), missed_runs="skip")
    assert sent(app, period=MINUTE) == [
        "2026-03-01 11:50:00+00:00 UTC  2026-03-01 11:50:00Z  once  shop.once  (overdue, sent at once)"
    ]
    assert refused(app, period=MINUTE) == [
        "never late  shop.never late  2026-03-01 11:50:00Z is passed over: missed; the policy is skip"
    ]


def test_rows_that_django_celery_left_make_up_for_nothing(app):
    old = make("adopted", crontab=crontab("50"), last_run_at=NOON - 400 * DAY)
    PeriodicTask._base_manager.filter(pk=old.pk).update(scheduled_from=None, date_changed=NOON - 400 * DAY)
    assert [line.split("  ")[1] for line in sent(app)] == ["2026-03-01 12:50:00Z"]


def test_a_one_off_is_printed_once(app):
    make("minutely", NOON - HOUR, interval=every(5), one_off=True)
    make("clocked", clocked=ClockedSchedule.objects.create(clocked_time=NOON + MINUTE), one_off=True)
    assert [line.split("  ")[2:] for line in sent(app)] == [
        ["minutely", "shop.minutely", "(overdue, sent at once; once)"],
        ["clocked", "shop.clocked", "(once)"],
    ]


def test_jitter_and_no_overlap_are_told(app):
    make("careful", NOON + MINUTE, crontab=crontab(), no_overlap=True, jitter_seconds=30)
    (line,) = sent(app, period=HOUR + MINUTE)
    assert line.endswith(" s later, by its jitter; unless its run before is not done)")


def test_runs_that_wait_are_counted(app):
    PeriodicRun.objects.create(periodic_task_id=1, name="a", scheduled_at=NOON, task_id="x", claimed_at=NOON, token=1)
    assert lines(app)[1] == "1 runs were claimed and are not sent yet; they go first."


def test_entries_of_the_settings_that_are_not_in_the_table_are_named(app, settings):
    settings.CELERYBEAT_SCHEDULE = {"new": {"task": "shop.new", "schedule": 60.0}}
    make("removed", crontab=crontab("0", "20"), origin="settings")
    assert refused(app) == [
        "new  shop.new  not in the table yet: beat adds it when it begins to lead",
        "removed  shop.removed  removed from the settings: beat disables it when it begins to lead",
    ]
    assert not PeriodicTask.objects.filter(name="new").exists()


@pytest.mark.parametrize("bad", [None, ["x", 10], {"task": "x", "schedule": 10, "options": ["queue"]}], ids=repr)
def test_what_is_no_entry_of_the_settings_is_said_and_the_rest_is_printed(app, bad):
    app.conf.beat_schedule = {"bad": bad, "new": {"task": "shop.new", "schedule": 60}, "b\x00d": {}}
    assert refused(app) == [
        "bad  its entry in the settings can't be read: beat logs an error and leaves it out",
        "new  shop.new  not in the table yet: beat adds it when it begins to lead",
        *[line for line in refused(app) if line.startswith("b\x00d")],
    ]
    app.conf.beat_schedule = ["bad"]
    assert "CELERYBEAT_SCHEDULE is no dictionary" in refused(app)[0]


# -- the command -------------------------------------------------------------------------------


def run(*args):
    out = io.StringIO()
    call_command("celerybeat", "--dry-run", *args, stdout=out)
    return out.getvalue().splitlines()


def test_the_command_prints_an_hour_unless_told_otherwise(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    now = datetime.now(timezone.utc)
    make("often", since=now, interval=every(10))
    assert "5 firings." in run("--for", "55m")
    assert "5 firings." in run("--for=3300")
    assert run("--detach")[-1] in ("5 firings.", "6 firings.")
    assert "143 firings." in run("--for", "1d", "-S", "djcelery") or "144 firings." in run("--for", "1d")
    # No PID file either.
    assert not list(tmp_path.iterdir())


def test_a_reader_that_has_seen_enough_is_no_error():
    class Pipe(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    call_command("celerybeat", "--dry-run", stdout=Pipe())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--dry-run", "--for", "soon"], "'soon' is no age above 0"),
        (["--for", "1h"], "Add --dry-run"),
        (["--dry-run", "-S", "celery.beat.PersistentScheduler"], "keeps it elsewhere. Add -S djcelery"),
        (["--dry-run", "-S", "no.such"], "can't be imported"),
        (["--dry-run", "--for", "999999w"], "after the year 9999"),
    ],
)
def test_what_can_not_be_done_is_said(args, message):
    with pytest.raises(CommandError, match=message):
        call_command("celerybeat", *args)
