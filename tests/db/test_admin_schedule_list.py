"""The list of periodic tasks: its columns and filters, how little it reads, and the warning about the scheduler."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils.html import escape

from djcelery import figures, utils
from djcelery.app import project_app
from djcelery.models import (
    BeatLease,
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicRun,
    PeriodicTask,
    SolarSchedule,
    TaskMeta,
)
from tests.db.schedules import NOON, cells, make, run

pytestmark = pytest.mark.django_db

PAGE = "/admin/djcelery/periodictask/"
RUNS = "/admin/djcelery/periodicrun/"
WARNING = "Periodic tasks won't be dispatched unless you set the CELERYBEAT_SCHEDULER setting"
XSS = "<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def app(bare_app):
    return bare_app


# -- the list --------------------------------------------------------------------------------------


def test_enabled_tasks_come_first_then_by_name(admin_client):
    make("b")
    make("a", enabled=False)
    make("c")
    listed = admin_client.get(PAGE).context["cl"].result_list
    assert [row.name for row in listed] == ["b", "c", "a"]


def test_the_list_finds_tasks_by_name_and_task(admin_client):
    make("nightly")
    make("other", task="shop.report")
    for text, found in (("night", "nightly"), ("report", "other")):
        listed = admin_client.get(PAGE, {"q": text}).context["cl"].result_list
        assert [row.name for row in listed] == [found]


def test_the_list_says_the_schedule_in_words(admin_client):
    weekdays = {"minute": "30", "hour": "2", "day_of_week": "mon-fri", "timezone": "Europe/Brussels"}
    make("a")
    make("b", crontab=CrontabSchedule.objects.create(**weekdays))
    make("c", solar=SolarSchedule.objects.create(event="sunset", latitude=51.5, longitude=-4))
    make("d", clocked=ClockedSchedule.objects.create(clocked_time=NOON))
    make("e", interval=None)
    assert cells(admin_client, "schedule") == [
        "every hour",
        "at 02:30 on weekdays, Europe/Brussels",
        "Sunset at 51.5, -4",
        "once, at 2026-06-01 14:00:00+02:00",
        "-",
    ]


def test_the_list_shows_the_last_run_with_its_lateness_and_its_state_linked_to_the_result(admin_client):
    row = make(last_run_at=NOON)
    run(row, sent_at=NOON + timedelta(seconds=1.5))
    run(row, "skipped-1", scheduled_at=NOON + timedelta(hours=1), outcome=PeriodicRun.SKIPPED)
    make("never")
    result = TaskMeta.objects.create(task_id="id-1", status="FAILURE")
    assert '<div title="2026-06-01 14:00:00+02:00">' in admin_client.get(PAGE).content.decode()
    assert cells(admin_client, "last_run")[1] == "-"
    assert cells(admin_client, "last_state") == ["FAILURE", "-"]
    assert cells(admin_client, "late") == ["1.500 s", "-"]
    assert f'href="/admin/djcelery/taskmeta/{result.pk}/change/"' in admin_client.get(PAGE).content.decode()


def ago(**delta):
    return utils.now() - timedelta(**delta)


def scheduled(name, minutes_ago, **fields):
    """A task every hour that counts from so many minutes ago."""
    row = make(name, **fields)
    PeriodicTask.objects.filter(pk=row.pk).update(scheduled_from=ago(minutes=minutes_ago))
    return row


def test_what_should_have_run_and_did_not_is_marked_as_overdue_and_can_be_chosen(admin_client):
    scheduled("due soon", 59)
    scheduled("just due", 60.5)
    scheduled("overdue", 62)
    scheduled("jittered", 62, jitter_seconds=600)
    scheduled("disabled", 62, enabled=False)
    over = scheduled("expired", 62)
    PeriodicTask.objects.filter(pk=over.pk).update(expires=ago(minutes=5))
    ran = scheduled("ran", 122)
    PeriodicTask.objects.filter(pk=ran.pk).update(last_run_at=ago(minutes=2))
    passed = scheduled("passed over", 62)
    run(passed, "p", scheduled_at=ago(minutes=2), outcome=PeriodicRun.SKIPPED)
    unsent = scheduled("unsent", 62)
    PeriodicTask.objects.filter(pk=unsent.pk).update(last_run_at=ago(minutes=2))
    run(unsent, "u", scheduled_at=ago(minutes=2))
    held_out = scheduled("held out", 62)
    PeriodicTask.objects.filter(pk=held_out.pk).update(last_error="why")

    names = {row.name for row in admin_client.get(PAGE, {"overdue": "1"}).context["cl"].result_list}
    assert names == {"overdue", "unsent"}
    overview = figures.schedule(project_app())
    # What is claimed and not sent the overview counts by itself.
    assert ({entry.name for entry in overview.overdue}, overview.unsent) == (names - {"unsent"}, 1)
    others = {row.name for row in admin_client.get(PAGE, {"overdue": "0"}).context["cl"].result_list}
    assert others == set(PeriodicTask.objects.values_list("name", flat=True)) - names
    marks = dict(zip(cells(admin_client, "name"), cells(admin_client, "flags"), strict=True))
    assert {name: mark for name, mark in marks.items() if mark != "-"} == {
        "overdue": "overdue",
        "unsent": "overdue",
        "held out": "error",
    }


def test_broken_rows_are_never_overdue(admin_client):
    make("gone")
    make("bad", crontab=CrontabSchedule.objects.create(minute="soon"))
    never = IntervalSchedule.objects.create(every=0, period="parsecs")
    make("none", interval=never)
    PeriodicTask.objects.update(scheduled_from=ago(days=1))
    PeriodicTask.objects.filter(name="gone").update(interval_id=None)
    assert list(admin_client.get(PAGE, {"overdue": "1"}).context["cl"].result_list) == []


def test_the_filter_by_overdue_reads_a_bounded_number_of_rows_in_one_query(admin_client, monkeypatch):
    from djcelery.admin import schedule_list

    for number in range(5):
        scheduled(f"t{number}", 62 + number)
    PeriodicTask.objects.filter(name="t3").update(last_run_at=ago(days=3))
    with CaptureQueriesContext(connection) as captured:
        assert len(schedule_list.overdue_keys()) == 5
    assert len(captured) == 1
    monkeypatch.setattr(schedule_list, "MAX_LOOKED_AT", 2)
    assert len(schedule_list.overdue_keys()) == 2


def test_the_list_needs_the_same_few_queries_for_any_number_of_tasks(admin_client):
    def add(number):
        make(f"i{number}")
        make(f"c{number}", crontab=CrontabSchedule.objects.create(minute=str(number)))
        make(f"s{number}", solar=SolarSchedule.objects.create(event="sunset", latitude=0, longitude=4))
        make(f"t{number}", clocked=ClockedSchedule.objects.create(clocked_time=NOON))

    add(0)
    admin_client.get(PAGE)
    with CaptureQueriesContext(connection) as few:
        admin_client.get(PAGE)
    for number in range(1, 10):
        add(number)
    with CaptureQueriesContext(connection) as many:
        admin_client.get(PAGE)
    # The session, the person, the lease of beat, two counts, the rows, and what is known of their last runs.
    assert len(many) == len(few) == 7


def test_broken_rows_are_listed_and_can_be_opened(admin_client):
    broken = CrontabSchedule.objects.create(minute="soon")
    never = IntervalSchedule.objects.create(every=0, period="parsecs")
    rows = [
        make("bad crontab", crontab=broken),
        make("bad interval", interval=never),
        make("none", interval=None),
        make("both", crontab=CrontabSchedule.objects.create(), interval=never),
        make("json", args="[", kwargs="{"),
    ]
    assert admin_client.get(PAGE).status_code == 200
    for row in rows:
        assert admin_client.get(f"{PAGE}{row.pk}/change/").status_code == 200
    assert admin_client.get("/admin/djcelery/crontabschedule/").status_code == 200
    assert admin_client.get(f"/admin/djcelery/crontabschedule/{broken.pk}/change/").status_code == 200
    assert admin_client.get(f"/admin/djcelery/intervalschedule/{never.pk}/change/").status_code == 200


def test_what_a_row_holds_is_escaped(admin_client):
    row = make(XSS, task=XSS, args=XSS, kwargs=XSS, description=XSS)
    for page in (PAGE, f"{PAGE}{row.pk}/change/"):
        text = admin_client.get(page).content.decode()
        assert XSS not in text
        assert escape(XSS) in text


def test_the_list_works_without_use_tz(admin_client, settings):
    settings.USE_TZ = False
    make(last_run_at=utils.now())
    assert admin_client.get(PAGE).status_code == 200


# -- the scheduler's warning -----------------------------------------------------------------------


def shows_warning(client):
    response = client.get(PAGE)
    assert response.status_code == 200
    shown = escape(WARNING) in response.content.decode() or WARNING in response.content.decode()
    assert shown == response.context["wrong_scheduler"]
    return shown


@pytest.mark.parametrize(
    "path",
    ["djcelery.schedulers.DatabaseScheduler", "djcelery.schedulers:DatabaseScheduler", "djcelery", f"{__name__}:Mine"],
)
def test_there_is_no_warning_if_beat_reads_the_database(admin_client, app, path):
    app.conf.beat_scheduler = path
    assert not shows_warning(admin_client)


@pytest.mark.parametrize(
    "path",
    ["celery.beat:PersistentScheduler", "no.such.module:X", "djcelery.schedulers:NoSuch", "djcelery.conf:conf", ""],
)
def test_there_is_a_warning_if_it_does_not_or_cannot_be_imported(admin_client, app, path):
    app.conf.beat_scheduler = path
    assert shows_warning(admin_client)


def test_there_is_a_warning_if_nothing_is_configured(admin_client):
    assert shows_warning(admin_client)


def lease(**delta):
    now = datetime.now(timezone.utc)
    expires_at = utils.correct_awareness(now + timedelta(**delta))
    values = {"holder": f"host-{XSS}:77:abc", "token": 1, "acquired_at": utils.correct_awareness(now)}
    return BeatLease.objects.create(name="default", expires_at=expires_at, **values)


def test_a_beat_of_ours_that_leads_needs_no_warning_whatever_the_settings_say(admin_client, app):
    lease(seconds=600)
    assert not shows_warning(admin_client)
    assert "No beat" not in admin_client.get(PAGE).content.decode()


def test_a_lease_that_ran_out_means_that_no_beat_of_ours_runs(admin_client, app):
    lease(seconds=-90)
    assert shows_warning(admin_client)
    app.conf.beat_scheduler = "djcelery"
    assert not shows_warning(admin_client)
    text = admin_client.get(PAGE).content.decode()
    assert re.search(r"No beat is running: host-\S+:77 is gone since (9\d|1\d\d) s", text)
    assert XSS not in text


def test_a_database_on_which_no_beat_ever_ran_says_how_to_start_one(admin_client, app):
    app.conf.beat_scheduler = "djcelery"
    assert "No beat has ever run on this database" in admin_client.get(PAGE).content.decode()
    assert "No beat" not in admin_client.get("/admin/djcelery/intervalschedule/").content.decode()


def test_other_lists_have_no_warning(admin_client):
    assert WARNING not in admin_client.get("/admin/djcelery/intervalschedule/").content.decode()


def __getattr__(name):
    if name == "Mine":
        from djcelery.schedulers import DatabaseScheduler

        return type("Mine", (DatabaseScheduler,), {})
    raise AttributeError(name)


@pytest.mark.parametrize(
    ("column", "value"),
    [("expires", "infinity"), ("last_run_at", "12000-01-01 00:00:00"), ("expires", "2026-02-31 00:00:00")],
)
def test_a_row_that_cannot_be_read_is_named_and_hides_no_other(admin_client, column, value):
    bad, good = make("bad"), make("good")
    accepted = {"sqlite": ["2026-02-31 00:00:00"], "postgresql": ["infinity", "12000-01-01 00:00:00"]}
    if value not in accepted.get(connection.vendor, ()):
        pytest.skip("the server refuses it, or reads it as nothing")
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE djcelery_periodictask SET {column} = %s WHERE id = %s", [value, bad.pk])
    listed = admin_client.get(PAGE)
    assert [row.pk for row in listed.context["cl"].result_list] == [good.pk]
    words = f"Periodic task {bad.pk} can't be read, and only SQL can mend it: "
    assert escape(words) in listed.content.decode()
    page = admin_client.get(f"{PAGE}{bad.pk}/change/", follow=True)
    assert page.status_code == 200
    assert escape(words) in page.content.decode()
