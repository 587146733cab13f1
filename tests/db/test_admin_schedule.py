"""The pages of periodic tasks: what they show, what they change, and who may do that."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils.html import escape

from djcelery import utils
from djcelery.admin import inspection
from djcelery.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicRun,
    PeriodicTask,
    ScheduleChange,
    SolarSchedule,
    TaskHistory,
    TaskMeta,
    WorkerState,
)
from tests.db.schedules import NOON, cells, make, run

pytestmark = pytest.mark.django_db

PAGE = "/admin/djcelery/periodictask/"
RUNS = "/admin/djcelery/periodicrun/"
XSS = "<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def app(bare_app):
    return bare_app


def act(client, action, rows, follow=True):
    pks = [row.pk for row in rows]
    return client.post(PAGE, {"action": action, "_selected_action": pks, "index": 0}, follow=follow)


def texts(response):
    return [str(message) for message in response.context["messages"]]


# -- actions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "enabled", "word"), [("enable_tasks", True, "enabled"), ("disable_tasks", False, "disabled")]
)
def test_tasks_are_switched_and_beat_is_told_of_each(admin_client, admin_user, action, enabled, word):
    rows = [make("a", enabled=not enabled), make("b", enabled=not enabled)]
    ScheduleChange.objects.all().delete()
    response = act(admin_client, action, rows)
    assert [row.enabled for row in PeriodicTask.objects.all()] == [enabled, enabled]
    assert texts(response) == [f"2 periodic tasks were {word}."]
    assert {(note.kind, note.key) for note in ScheduleChange.objects.all()} == {("task", row.pk) for row in rows}
    entries = LogEntry.objects.all()
    assert {entry.object_id for entry in entries} == {str(row.pk) for row in rows}
    assert {entry.user_id for entry in entries} == {admin_user.pk}


def test_tasks_that_were_so_already_are_counted_apart_and_not_logged(admin_client):
    rows = [make("a", enabled=True), make("b", enabled=False)]
    response = act(admin_client, "enable_tasks", rows)
    assert texts(response) == ["1 periodic task was enabled.", "1 periodic task was so already."]
    assert LogEntry.objects.get().object_id == str(rows[1].pk)


def test_disabling_keeps_the_time_of_the_last_run(admin_client):
    moment = utils.now()
    act(admin_client, "disable_tasks", [make(last_run_at=moment)])
    assert PeriodicTask.objects.get().last_run_at == moment


@pytest.mark.parametrize("action", ["enable_tasks", "disable_tasks"])
def test_who_may_only_view_is_offered_no_action_and_refused_when_sending_one(person, action):
    row = make(enabled=action == "disable_tasks")
    viewer = person("view_periodictask")
    assert action not in viewer.get(PAGE).content.decode()
    act(viewer, action, [row])
    assert PeriodicTask.objects.get().enabled == row.enabled
    assert not LogEntry.objects.exists()


def test_who_may_delete_but_not_change_is_refused_too(person):
    row = make(enabled=True)
    act(person("view_periodictask", "delete_periodictask"), "disable_tasks", [row])
    assert PeriodicTask.objects.get().enabled


def test_who_may_change_may_switch(person):
    row = make(enabled=True)
    response = act(person("change_periodictask"), "disable_tasks", [row])
    assert texts(response) == ["1 periodic task was disabled."]
    assert not PeriodicTask.objects.get().enabled


# -- forms -----------------------------------------------------------------------------------------


def test_a_task_is_added_and_changed_through_its_form(admin_client):
    interval = IntervalSchedule.objects.create(every=1, period="hours")
    data = {"name": "n", "task": "shop.a", "interval": interval.pk, "enabled": "on", "description": "why"}
    assert admin_client.post(f"{PAGE}add/", data).status_code == 302
    row = PeriodicTask.objects.get()
    assert (row.args, row.kwargs, row.description) == ("[]", "{}", "why")
    change = f"{PAGE}{row.pk}/change/"
    assert admin_client.post(change, {**data, "regtask": "shop.b", "args": "[1]"}).status_code == 302
    row.refresh_from_db()
    assert (row.task, row.args) == ("shop.b", "[1]")


def test_the_form_says_what_is_wrong(admin_client):
    text = admin_client.post(f"{PAGE}add/", {"name": "n", "args": "[", "kwargs": "[]"}).content.decode()
    for error in ("Need name of task", "Unable to parse JSON", "Must be a JSON object", "One of interval or crontab"):
        assert error in text


def test_intervals_and_crontabs_are_checked_by_their_forms(admin_client):
    star = dict.fromkeys(("hour", "day_of_week", "day_of_month", "month_of_year"), "*")
    interval = admin_client.post("/admin/djcelery/intervalschedule/add/", {"every": 0, "period": "hours"})
    crontab = admin_client.post("/admin/djcelery/crontabschedule/add/", {"minute": "*/", **star})
    assert "at least 1" in interval.content.decode()
    assert "Not a crontab" in crontab.content.decode()


def test_a_schedule_that_is_used_cannot_be_deleted(admin_client):
    row = make()
    page = f"/admin/djcelery/intervalschedule/{row.interval_id}/delete/"
    assert "protected" in admin_client.post(page, {"post": "yes"}).content.decode()
    assert IntervalSchedule.objects.exists()


# -- what beat knows of a task ---------------------------------------------------------------------


def change_page(client, row):
    return client.get(f"{PAGE}{row.pk}/change/")


def titles(response):
    return [str(part.name) for part in response.context["adminform"]]


def test_a_task_that_beat_holds_out_says_why_in_the_list_and_on_its_page(admin_client):
    row = make("bad")
    PeriodicTask.objects.filter(pk=row.pk).update(last_error=f"no such zone {XSS}")
    make("good")
    for response in (admin_client.get(PAGE), change_page(admin_client, row)):
        text = response.content.decode()
        assert f"no such zone {escape(XSS)}" in text
        assert XSS not in text
    assert "Beat does not run this task" in text


def test_a_task_without_an_error_shows_no_error(admin_client):
    text = change_page(admin_client, make()).content.decode()
    assert "field-problem" not in text


def test_the_list_is_filtered_by_enabled_and_by_error(admin_client):
    bad = make("bad")
    PeriodicTask.objects.filter(pk=bad.pk).update(last_error="why")
    make("good")
    make("off", enabled=False)
    for params, names in (
        ({"enabled__exact": "0"}, ["off"]),
        ({"held_out": "1"}, ["bad"]),
        ({"held_out": "0"}, ["good", "off"]),
        ({"held_out": "x"}, ["bad", "good", "off"]),
    ):
        assert [row.name for row in admin_client.get(PAGE, params).context["cl"].result_list] == names


def test_the_list_and_the_page_show_the_next_run_in_the_project_s_zone(admin_client):
    moment = ClockedSchedule.objects.create(clocked_time=datetime(2100, 7, 1, 10, tzinfo=timezone.utc))
    row = make(clocked=moment)
    assert '<span title="2100-07-01 12:00:00+02:00">in 7' in admin_client.get(PAGE).content.decode()
    text = change_page(admin_client, row).content.decode()
    assert '<span title="2100-07-01 12:00:00+02:00">2100-07-01 12:00:00</span>' in text


def test_what_runs_within_a_minute_is_not_said_to_run_in_no_time(admin_client):
    make(clocked=ClockedSchedule.objects.create(clocked_time=utils.now() + timedelta(seconds=40)))
    assert cells(admin_client, "next_run") == ["in less than a minute"]


def test_a_disabled_task_has_no_next_run(admin_client):
    make(enabled=False)
    assert '<td class="field-next_run">-</td>' in admin_client.get(PAGE).content.decode()


def test_the_page_shows_the_last_runs_with_lateness_and_state(admin_client):
    row = make(origin="settings", last_run_at=NOON, total_run_count=7)
    for number in range(12):
        instant = NOON + timedelta(hours=number)
        run(row, f"id-{number:02}", scheduled_at=instant, sent_at=instant + timedelta(seconds=1.5))
    run(row, "skipped-1", scheduled_at=NOON + timedelta(hours=12), outcome=PeriodicRun.SKIPPED)
    result = TaskMeta.objects.create(task_id="id-11", status="FAILURE")
    response = change_page(admin_client, row)
    text = response.content.decode()
    assert titles(response)[-1] == "Status"
    assert f"/admin/djcelery/taskmeta/{result.pk}/change/" in text
    for shown in ("FAILURE", "1.500 s", "skipped-1", "id-11", "id-03", "CELERYBEAT_SCHEDULE in the settings"):
        assert shown in text, shown
    assert "id-02" not in text
    assert f"{RUNS}?task={row.pk}" in text


def test_the_page_of_a_task_reads_its_runs_and_their_states_by_one_query(admin_client):
    row = make()
    change_page(admin_client, row)
    with CaptureQueriesContext(connection) as none:
        change_page(admin_client, row)
    for number in range(20):
        run(row, f"id-{number}", scheduled_at=NOON + timedelta(hours=number), sent_at=NOON)
        TaskMeta.objects.create(task_id=f"id-{number}", status="SUCCESS")
    with CaptureQueriesContext(connection) as many:
        change_page(admin_client, row)
    assert len(none) == len(many)
    # The session, the person, the row, its interval, the runs; the chosen interval again, for its field; two for
    # the names of tasks that workers know.
    assert len(many) <= 8


def test_the_page_loads_none_of_the_tables_of_times(admin_client):
    for number in range(1, 30):
        IntervalSchedule.objects.create(every=1000 + number, period="seconds")
    row = make()
    text = change_page(admin_client, row).content.decode()
    assert "1005 seconds" not in text
    assert "admin-autocomplete" in text


# -- the next runs ---------------------------------------------------------------------------------


def next_runs(client, row):
    text = change_page(client, row).content.decode()
    part = text.partition("field-next_runs")[2].partition("field-last_run")[0]
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", part)).strip()


def test_the_page_shows_the_next_ten_runs_in_both_zones(admin_client):
    crontab = CrontabSchedule.objects.create(minute="0", hour="9", timezone="America/New_York")
    shown = next_runs(admin_client, make(crontab=crontab))
    assert "Europe/Brussels" in shown
    assert "America/New_York" in shown
    assert len(re.findall(r"\d{4}-\d\d-\d\d 09:00:00", shown)) == 10
    assert len(re.findall(r"\d{4}-\d\d-\d\d 1[45]:00:00", shown)) == 10


def test_a_crontab_in_the_project_s_zone_is_shown_once(admin_client, app):
    app.conf.timezone = "Europe/Brussels"
    shown = next_runs(admin_client, make(crontab=CrontabSchedule.objects.create(minute="0", hour="9")))
    assert len(re.findall(r"\d{4}-\d\d-\d\d \d\d:00:00", shown)) == 10


def never():
    return CrontabSchedule.objects.create(minute="0", hour="0", day_of_month="31", month_of_year="2")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (lambda: {"enabled": False}, "It is disabled."),
        (lambda: {"interval": None}, "It has no schedule."),
        (
            lambda: {
                "crontab": CrontabSchedule.objects.create(),
                "interval": IntervalSchedule.objects.create(every=1, period="hours"),
            },
            "It has more than one schedule.",
        ),
        (lambda: {"crontab": CrontabSchedule.objects.create(minute="soon")}, "Its schedule can&#x27;t be read"),
        (lambda: {"crontab": CrontabSchedule.objects.create(timezone=XSS)}, "Its schedule can&#x27;t be read"),
        (lambda: {"interval": IntervalSchedule.objects.create(every=0, period="parsecs")}, "can&#x27;t be read"),
        (lambda: {"crontab": never()}, "no time that is still to come"),
        (lambda: {"clocked": ClockedSchedule.objects.create(clocked_time=NOON)}, "no time that is still to come"),
        (lambda: {"expires": NOON}, "It expires before its next time."),
    ],
)
def test_the_page_says_why_there_is_no_next_run(admin_client, fields, reason):
    assert reason in next_runs(admin_client, make(**fields()))


def test_the_page_says_what_ends_the_runs_and_what_delays_them(admin_client):
    hour = IntervalSchedule.objects.create(every=1, period="hours")
    once = next_runs(admin_client, make("once", interval=hour, one_off=True))
    assert "switched off, since it is to run once" in once
    ends = make("ends", interval=hour, expires=utils.now() + timedelta(hours=3, minutes=30), jitter_seconds=5)
    shown = next_runs(admin_client, ends)
    assert len(re.findall(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", shown)) == 3
    assert "Then it expires." in shown
    assert "up to 5 s later" in shown
    moment = ClockedSchedule.objects.create(clocked_time=datetime(2100, 1, 1, tzinfo=timezone.utc))
    assert "No time comes after that." in next_runs(admin_client, make("clocked", clocked=moment))


def test_the_next_runs_are_shown_without_use_tz(admin_client, settings):
    row = make(crontab=CrontabSchedule.objects.create(minute="0", hour="9", timezone="America/New_York"))
    settings.USE_TZ = False
    assert "America/New_York" in next_runs(admin_client, row)


# -- forms: more -----------------------------------------------------------------------------------


def test_the_page_of_a_new_task_has_no_status(admin_client):
    assert "Status" not in titles(admin_client.get(f"{PAGE}add/"))


def test_every_column_that_a_person_may_edit_is_on_the_page(admin_client):
    response = admin_client.get(f"{PAGE}add/")
    shown = {name for part in response.context["adminform"] for line in part for name in line.fields}
    columns = {field.name for field in PeriodicTask._meta.get_fields() if getattr(field, "editable", False)}
    assert columns - {"id", "date_changed"} <= shown


def test_the_new_columns_are_saved_and_survive_an_edit(admin_client):
    place = SolarSchedule.objects.create(event="sunset", latitude=51, longitude=4)
    data = {
        "name": "n",
        "task": "shop.a",
        "solar": place.pk,
        "enabled": "on",
        "one_off": "on",
        "start_time_0": "2100-01-01",
        "start_time_1": "12:00:00",
        "priority": 5,
        "headers": '{"a": 1}',
        "expire_seconds": 60,
        "missed_runs": "skip",
        "grace_seconds": 10,
        "no_overlap": "on",
        "overlap_timeout": 30,
        "jitter_seconds": 3,
    }
    assert admin_client.post(f"{PAGE}add/", data).status_code == 302
    row = PeriodicTask.objects.get()
    expected = (place, True, 5, '{"a": 1}', 60, "skip", 10, True, 30, 3)
    names = ("solar", "one_off", "priority", "headers", "expire_seconds", "missed_runs", "grace_seconds")
    names = (*names, "no_overlap", "overlap_timeout", "jitter_seconds")
    assert tuple(getattr(row, name) for name in names) == expected
    assert row.start_time == datetime(2100, 1, 1, 11, tzinfo=timezone.utc)
    assert admin_client.post(f"{PAGE}{row.pk}/change/", {**data, "description": "why"}).status_code == 302
    row.refresh_from_db()
    assert tuple(getattr(row, name) for name in names) == expected


def test_an_edit_does_not_write_what_beat_writes(admin_client):
    row = make(total_run_count=3)
    posted = {"name": "n", "task": "shop.b", "interval": row.interval_id, "enabled": "on"}
    forged = {"total_run_count": 9, "last_error": "x", "origin": "x", "scheduled_from_0": "2000-01-01"}
    assert admin_client.post(f"{PAGE}{row.pk}/change/", {**posted, **forged}).status_code == 302
    changed = PeriodicTask.objects.get()
    assert (changed.task, changed.total_run_count, changed.last_error, changed.origin) == ("shop.b", 3, None, None)
    assert changed.scheduled_from == row.scheduled_from


def test_suns_and_fixed_times_are_added_and_checked_by_their_forms(admin_client):
    suns, times = "/admin/djcelery/solarschedule/", "/admin/djcelery/clockedschedule/"
    wrong = admin_client.post(f"{suns}add/", {"event": "sunset", "latitude": 91, "longitude": 4})
    assert "is not between -90 and 90 degrees" in wrong.content.decode()
    admin_client.post(f"{suns}add/", {"event": "sunset", "latitude": 51, "longitude": 4})
    admin_client.post(f"{times}add/", {"clocked_time_0": "2100-01-01", "clocked_time_1": "12:00:00"})
    assert SolarSchedule.objects.get().latitude == 51
    assert ClockedSchedule.objects.get().clocked_time == datetime(2100, 1, 1, 11, tzinfo=timezone.utc)
    for page in (suns, times):
        assert admin_client.get(page).status_code == 200


def test_the_zone_of_a_crontab_is_edited_and_checked(admin_client):
    page = "/admin/djcelery/crontabschedule/add/"
    star = dict.fromkeys(("minute", "hour", "day_of_week", "day_of_month", "month_of_year"), "*")
    assert "There is no time zone" in admin_client.post(page, {**star, "timezone": "Mars/Base"}).content.decode()
    admin_client.post(page, {**star, "timezone": "Asia/Kolkata"})
    assert CrontabSchedule.objects.get().timezone == "Asia/Kolkata"


def test_what_may_be_wrong_with_a_task_is_said_when_it_is_saved(admin_client, app):
    @app.task(name="shop.add", shared=False)
    def add(x, y=0):
        pass

    row = make(task="shop.add")
    data = {"name": "n", "task": "shop.add", "interval": row.interval_id, "enabled": "on"}
    change = f"{PAGE}{row.pk}/change/"
    response = admin_client.post(change, {**data, "args": "[1, 2, 3]"}, follow=True)
    assert any("The arguments don't fit the task shop.add" in text for text in texts(response))
    row.refresh_from_db()
    assert row.args == "[1, 2, 3]"
    fits = admin_client.post(change, {**data, "args": "[1]", "kwargs": '{"y": 2}'}, follow=True)
    assert not any("fit" in text for text in texts(fits))


def test_a_warning_is_escaped(admin_client):
    interval = IntervalSchedule.objects.create(every=1, period="hours")
    data = {"name": "n", "task": XSS, "interval": interval.pk, "enabled": "on"}
    text = admin_client.post(f"{PAGE}add/", data, follow=True).content.decode()
    assert XSS not in text
    assert escape(f"This process knows no task {XSS}.") in text


# -- the tasks that workers know -------------------------------------------------------------------


@pytest.fixture
def told(monkeypatch):
    """A function that has workers tell tasks; it returns the list of what was asked."""

    def tell(names, problem=""):
        asked = []

        def ask(commands, hostnames=None, expected=None, wait_s=0.9):
            asked.append((dict(commands), hostnames, expected))
            return inspection.Answers({"w@h": {"registered": names}} if names else {}, problem)

        monkeypatch.setattr(inspection, "ask", ask)
        return asked

    return tell


def test_opening_the_form_asks_nobody(admin_client, told):
    asked = told(["shop.far"])
    admin_client.get(f"{PAGE}add/")
    admin_client.get(PAGE)
    assert asked == []


def test_the_workers_are_asked_for_their_tasks_on_demand(admin_client, told):
    asked = told(["shop.far [rate_limit=1/s]", XSS])
    WorkerState.objects.create(hostname="w@h", last_heartbeat=utils.now())
    text = admin_client.get(f"{PAGE}registered/", {"fragment": 1}).content.decode()
    assert asked == [({"registered": {}}, None, 1)]
    assert '<option value="shop.far">shop.far</option>' in text
    assert XSS not in text
    assert 'value="shop.far"' in admin_client.get(f"{PAGE}add/").content.decode()


def test_without_scripts_the_answer_is_a_message_on_the_list(admin_client, told):
    told(["shop.far"])
    response = admin_client.get(f"{PAGE}registered/", follow=True)
    assert texts(response) == ["1 worker has told its tasks."]
    told([], problem="Nobody answered")
    assert texts(admin_client.get(f"{PAGE}registered/", follow=True)) == ["Nobody answered"]
    assert admin_client.get(f"{PAGE}registered/", {"fragment": 1}).status_code == 503


@pytest.mark.parametrize(
    "permissions", [("change_periodictask",), ("view_periodictask", "inspect_workerstate"), ("inspect_workerstate",)]
)
def test_who_may_not_ask_or_not_edit_is_refused_and_has_no_link(person, told, permissions):
    asked = told(["shop.far"])
    client = person(*permissions)
    assert client.get(f"{PAGE}registered/").status_code == 403
    row = make()
    assert "registered/" not in client.get(f"{PAGE}{row.pk}/change/").content.decode()
    assert asked == []


def test_who_may_only_view_sees_the_page_and_can_neither_save_nor_delete(person):
    row = make(args='["x"]')
    client = person("view_periodictask", "inspect_workerstate")
    response = client.get(f"{PAGE}{row.pk}/change/")
    assert response.status_code == 200
    assert "every hour" in response.content.decode()
    assert "registered/" not in response.content.decode()
    assert client.post(f"{PAGE}{row.pk}/change/", {"name": "other"}).status_code == 403
    assert client.post(f"{PAGE}{row.pk}/delete/", {"post": "yes"}).status_code == 403
    assert client.post(f"{PAGE}add/", {"name": "other"}).status_code == 403
    assert PeriodicTask.objects.get().name == "n"


def test_tasks_that_workers_ran_are_offered_and_others_marked(admin_client, app):
    @app.task(name="shop.new", shared=False)
    def new():
        pass

    epoch = utils.correct_awareness(datetime(1970, 1, 1, tzinfo=timezone.utc))
    TaskHistory.objects.create(period="total", start=epoch, name="shop.ran", state="SUCCESS", count=1)
    text = admin_client.get(f"{PAGE}add/").content.decode()
    assert '<option value="shop.ran">shop.ran</option>' in text
    assert '<option value="shop.new">shop.new (no worker was seen with it)</option>' in text
