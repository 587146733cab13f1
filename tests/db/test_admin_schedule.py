"""The pages of the schedule: what they show, what they change, and the warning about the scheduler."""

from __future__ import annotations

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils.html import escape

from djcelery import utils
from djcelery.models import CrontabSchedule, IntervalSchedule, PeriodicTask, PeriodicTasks

pytestmark = pytest.mark.django_db

PAGE = "/admin/djcelery/periodictask/"
WARNING = "Periodic tasks won't be dispatched unless you set the CELERYBEAT_SCHEDULER setting"
XSS = "<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def app(celery_app, monkeypatch):
    monkeypatch.setattr(celery_app.loader, "import_default_modules", lambda: [])
    return celery_app


def make(name="n", **fields):
    if "crontab" not in fields:
        fields.setdefault("interval", IntervalSchedule.objects.get_or_create(every=1, period="hours")[0])
    return PeriodicTask.objects.create(**{"name": name, "task": "shop.a", **fields})


def act(client, action, rows, follow=True):
    pks = [row.pk for row in rows]
    return client.post(PAGE, {"action": action, "_selected_action": pks, "index": 0}, follow=follow)


def texts(response):
    return [str(message) for message in response.context["messages"]]


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


def test_the_list_shows_the_legacy_columns_and_the_runs(admin_client):
    make(args="[1]", kwargs='{"a": 2}', last_run_at=utils.now(), total_run_count=7)
    text = admin_client.get(PAGE).content.decode()
    for column in ("enabled", "__str__", "task", "args", "kwargs", "last_run_at", "total_run_count"):
        assert f"field-{column}" in text
    assert "n: every hour" in text


def test_the_list_needs_the_same_few_queries_for_any_number_of_tasks(admin_client):
    def add(number):
        make(f"i{number}")
        make(f"c{number}", interval=None, crontab=CrontabSchedule.objects.create(minute=str(number)))

    add(0)
    admin_client.get(PAGE)
    with CaptureQueriesContext(connection) as few:
        admin_client.get(PAGE)
    for number in range(1, 10):
        add(number)
    with CaptureQueriesContext(connection) as many:
        admin_client.get(PAGE)
    assert len(many) == len(few) == 5


def test_broken_rows_are_listed_and_can_be_opened(admin_client):
    broken = CrontabSchedule.objects.create(minute="soon")
    never = IntervalSchedule.objects.create(every=0, period="parsecs")
    rows = [
        make("bad crontab", interval=None, crontab=broken),
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


def test_other_lists_have_no_warning(admin_client):
    assert WARNING not in admin_client.get("/admin/djcelery/intervalschedule/").content.decode()


def __getattr__(name):
    if name == "Mine":
        from djcelery.schedulers import DatabaseScheduler

        return type("Mine", (DatabaseScheduler,), {})
    raise AttributeError(name)


# -- actions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "enabled", "word"), [("enable_tasks", True, "enabled"), ("disable_tasks", False, "disabled")]
)
def test_tasks_are_switched_and_beat_is_told_once(
    admin_client, admin_user, action, enabled, word, django_capture_on_commit_callbacks
):
    rows = [make("a", enabled=not enabled), make("b", enabled=not enabled)]
    with django_capture_on_commit_callbacks(execute=True) as callbacks:
        response = act(admin_client, action, rows)
    assert [row.enabled for row in PeriodicTask.objects.all()] == [enabled, enabled]
    assert texts(response) == [f"2 periodic tasks were {word}."]
    assert len(callbacks) == 1
    assert PeriodicTasks.last_change() is not None
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
