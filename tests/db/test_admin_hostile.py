"""What the fuzz of the admin found: addresses, entries, rows and workers that broke a page, one rule each."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from datetime import datetime, timezone

import pytest
from celery.app.control import Control
from django.contrib.admin import DateFieldListFilter, site
from django.utils.html import escape

from djcelery import utils
from djcelery.admin import PeriodicTaskAdmin, control, inspection, search
from djcelery.admin.schedule_list import HeldOutFilter
from djcelery.exceptions import ArgumentsInvalid
from djcelery.forms import LaxChoiceField, PeriodicTaskForm, RateLimitForm, remember_told, worker_task_names
from djcelery.models import (
    CameraState,
    ClockedSchedule,
    IntervalSchedule,
    PeriodicTask,
    TaskMeta,
    TaskSetMeta,
    TaskState,
    WorkerState,
)
from djcelery.picklefield import PickledObject
from djcelery.schedulers import loading
from tests.checking import said
from tests.db.schedules import make, run

pytestmark = pytest.mark.django_db

ROOT = "/admin/djcelery/"
TASKS, ENTRIES, RESULTS = f"{ROOT}taskstate/", f"{ROOT}periodictask/", f"{ROOT}taskmeta/"
LISTS = ("taskstate", "taskmeta", "tasksetmeta", "chord", "periodicrun", "periodictask", "workerstate")
TIMES = ("intervalschedule", "crontabschedule", "solarschedule", "clockedschedule")


@pytest.fixture(autouse=True)
def app(bare_app):
    return bare_app


def make_task(number=0, **fields):
    values = {"state": "FAILURE", "task_id": f"id-{number}", "name": "shop.add", "tstamp": utils.now()}
    return TaskState.objects.create(**{**values, **fields})


# -- addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*LISTS, *TIMES])
@pytest.mark.parametrize("query", ["q=a%00b", "task_id=a%00b&task_id=b", "worker=" + "9" * 30, "a%00=1"])
def test_what_no_column_can_hold_leads_to_the_list_without_filters(admin_client, name, query):
    response = admin_client.get(f"{ROOT}{name}/?{query}", follow=True)
    # Or it is refused, where nothing of that name filters the list. The worker of a result is a text of any length.
    assert response.status_code in (200, 400)
    assert response.status_code == 400 or response.redirect_chain or (name == "taskmeta" and "worker" in query)


@pytest.mark.parametrize("name", [*LISTS, *TIMES])
@pytest.mark.parametrize("lookup", ["id__regex", "id__in", "pk__gt", "periodictask__args__contains", "name__regex"])
def test_no_lookup_but_those_of_the_filters_is_allowed(admin_client, name, lookup):
    assert admin_client.get(f"{ROOT}{name}/", {lookup: "(a+)+$"}).status_code == 400


def test_the_lookups_that_pages_link_to_are_allowed(admin_client):
    row = make(name="a", task="shop.a")
    for query in ({"interval__id__exact": row.interval_id}, {"enabled__exact": 1}, {"task": "shop.a"}, {"name": "a"}):
        response = admin_client.get(ENTRIES, query)
        assert [found.pk for found in response.context["cl"].result_list] == [row.pk], query


@pytest.mark.parametrize(
    ("lookup", "is_allowed"),
    [
        ("queue", True),
        ("queue__exact", True),
        ("expires__gte", True),
        ("interval__id__exact", True),
        ("start_time__year", True),
        ("held_out", True),
        ("queue__regex", False),
        ("expires__date__regex", False),
        ("interval__periodictask__args__exact", False),
        ("interval__every__lt", False),
        ("start_time__regex", False),
        ("args", False),
        ("args__exact", False),
        ("__exact", False),
    ],
)
def test_the_filters_that_a_project_adds_work(rf, lookup, is_allowed):
    class Mine(PeriodicTaskAdmin):
        list_filter = ("queue", ("expires", DateFieldListFilter), "interval", HeldOutFilter)
        date_hierarchy = "start_time"

    assert Mine(PeriodicTask, site).lookup_allowed(lookup, "1", rf.get("/")) is is_allowed


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize(
    "term", ["a\x00b", "0001-01-01", "9999-12-31 23:59", "1e-999999", "1e999999999", "sNaN", "9" * 400]
)
def test_no_term_breaks_an_autocompletion(admin_client, name, term):
    field = name.removesuffix("schedule")
    query = {"app_label": "djcelery", "model_name": "periodictask", "field_name": field, "term": term}
    assert admin_client.get("/admin/autocomplete/", query).status_code == 200


@pytest.mark.parametrize("model", ["periodictask", "periodicrun", "taskstate", "taskmeta", "workerstate", *TIMES])
def test_a_term_that_no_database_looks_for_finds_nothing(admin_client, model):
    # SQLite refuses patterns of more than 50,000 bytes, once it has a row to compare.
    worker = WorkerState.objects.create(hostname="w@h")
    TaskState.objects.create(task_id="t", name="add", state="STARTED", tstamp=utils.now(), worker=worker)
    run(make("a", interval=IntervalSchedule.objects.create(every=1, period="days")))
    page = admin_client.get(f"/admin/djcelery/{model}/", {"q": "x" * 70_000})
    assert page.status_code == 200
    query = {"app_label": "djcelery", "model_name": "taskstate", "field_name": "worker", "term": "x" * 70_000}
    assert admin_client.get("/admin/autocomplete/", query).json()["results"] == []


def test_a_term_with_nul_finds_no_worker(admin_client):
    query = {"app_label": "djcelery", "model_name": "taskstate", "field_name": "worker", "term": "a\x00"}
    assert admin_client.get("/admin/autocomplete/", query).json()["results"] == []


@pytest.mark.parametrize(
    "query", ["expires=5", "start_time=x", "expires=9999-12-31T23:59:59Z", "interval=x", "crontab="]
)
def test_what_an_address_fills_in_is_left_out_if_it_is_no_value(admin_client, query):
    assert admin_client.get(f"{ENTRIES}add/?{query}").status_code == 200


def test_a_time_in_the_address_is_filled_in(admin_client):
    text = admin_client.get(f"{ENTRIES}add/?expires=2030-05-06T07:08:09").content.decode()
    assert 'value="2030-05-06"' in text
    assert 'value="07:08:09"' in text


def test_an_empty_name_of_a_field_stands_for_none(admin_client):
    row = make()
    assert admin_client.get(f"{ENTRIES}{row.pk}/delete/?_to_field=").status_code == 200


@pytest.mark.parametrize("page", [TASKS, f"{ENTRIES}add/", f"{RESULTS}?q=%2B2AA-"])
def test_a_request_in_another_encoding_than_utf8_is_refused(admin_client, page):
    assert admin_client.get(page, CONTENT_TYPE="text/plain; charset=utf-7").status_code == 400
    assert admin_client.get(page, CONTENT_TYPE="text/plain; charset=utf-8").status_code == 200


@pytest.mark.parametrize("name", ["taskstate", "periodictask", "workerstate", "intervalschedule"])
def test_a_chosen_row_that_is_no_key_is_left_out(admin_client, name):
    data = {"action": "delete_selected", "_selected_action": ["x", "9" * 40, "\u0661"], "index": 0}
    assert admin_client.post(f"{ROOT}{name}/", data).status_code in (302, 403)


# -- entries ---------------------------------------------------------------------------------------


def entry(**fields):
    interval = IntervalSchedule.objects.get_or_create(every=1, period="hours")[0]
    return PeriodicTaskForm({"name": "n", "task": "shop.add", "interval": interval.pk, "enabled": "on", **fields})


def test_a_chosen_task_name_can_not_hold_nul():
    assert "regtask" in entry(task="", regtask="shop.\x00add").errors
    with pytest.raises(Exception, match="Null characters"):
        LaxChoiceField().clean("a\x00")


@pytest.mark.parametrize("field", ["expires", "start_time"])
@pytest.mark.parametrize("year", [1, 1899, 9000, 9999])
def test_a_year_in_which_not_every_database_counts_is_refused(field, year):
    moment = datetime(year, 6, 1, tzinfo=timezone.utc)
    assert entry(**{field: moment}).errors[field] == ["Give a year from 1900 to 8999."]
    with pytest.raises(Exception, match="Give a year from 1900 to 8999"):
        ClockedSchedule(clocked_time=moment).full_clean()


@pytest.mark.parametrize("field", ["expire_seconds", "grace_seconds", "jitter_seconds", "overlap_timeout"])
def test_a_number_of_seconds_is_refused_if_python_can_not_count_it(field):
    assert field in entry(**{field: 10**18, "no_overlap": "on"}).errors


def test_half_a_character_in_arguments_is_a_warning_like_others(admin_client, app):
    @app.task(name="shop.add", shared=False)
    def add(x):
        pass

    interval = IntervalSchedule.objects.create(every=1, period="hours")
    data = {"name": "n", "task": "shop.add", "interval": interval.pk, "args": "[1]", "kwargs": '{"\\ud800": 1}'}
    response = admin_client.post(f"{ENTRIES}add/", data, follow=True)
    assert "unexpected keyword argument" in response.content.decode()


def test_a_schedule_that_is_no_key_is_an_error_of_its_field(admin_client):
    response = admin_client.post(f"{ENTRIES}add/", {"name": "n", "task": "a", "crontab": "Scunthorpe"})
    assert response.status_code == 200
    assert "crontab" in response.context["adminform"].form.errors


def test_a_rate_has_no_line_break():
    form = RateLimitForm({"rate_limit": "10\n/s"})
    assert form.is_valid()
    assert form.cleaned_data["rate_limit"] == "10/s"


# -- rows ------------------------------------------------------------------------------------------


def test_a_period_of_an_old_row_is_no_template(admin_client):
    IntervalSchedule.objects.bulk_create([IntervalSchedule(every=1, period="{every.x}{")])
    assert str(IntervalSchedule.objects.get()) == "every 1 {every.x}{"
    assert admin_client.get(f"{ROOT}intervalschedule/").status_code == 200


def test_half_a_character_in_a_stored_value_is_shown_as_an_escape(admin_client):
    stored = PickledObject('{"children": [[["a\\ud800", null], null], [["b\\u0000", null], null]]}')
    row = TaskMeta.objects.create(task_id="a", status="SUCCESS", result=1, meta=stored, progress="x")
    text = admin_client.get(f"{RESULTS}{row.pk}/change/").content.decode()
    assert "<li>a\\ud800</li><li>b\\x00</li>" in text


def test_a_camera_of_any_frequency_does_not_break_the_list_of_tasks(admin_client):
    now = utils.now()
    values = {"name": "cam", "hostname": "h", "pid": 1, "started_at": now, "shutter_at": now, "frequency": 1e308}
    CameraState.objects.create(**values)
    assert admin_client.get(TASKS).status_code == 200


def test_a_row_whose_numbers_can_not_be_counted_is_held_out_and_breaks_no_list(admin_client):
    row = make()
    too_many = 2**63 - 1 if PeriodicTask.objects.db and _is_sqlite() else 2**31 - 1
    PeriodicTask.objects.filter(pk=row.pk).update(jitter_seconds=too_many, grace_seconds=too_many)
    for page in (ENTRIES, f"{ENTRIES}{row.pk}/change/", f"{ROOT}overview/"):
        assert admin_client.get(page).status_code == 200


def _is_sqlite():
    from django.db import connection

    return connection.vendor == "sqlite"


# -- workers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", [10**5000, "\ud800", "a\x00", [10**5000]], ids=["number", "half", "nul", "list"])
def test_no_value_of_a_worker_breaks_its_live_details(admin_client, monkeypatch, odd):
    request = dict.fromkeys(("id", "name", "args", "kwargs", "worker_pid"), odd)
    reply = {
        "stats": {"pid": odd, "pool": {"processes": [odd]}, "broker": {"transport": odd, "port": odd}, "total": {}},
        "active": [request],
        "scheduled": [{"eta": odd, "request": request}],
        "active_queues": [{"name": odd, "exchange": {"name": odd}}],
        "registered": [odd],
    }
    monkeypatch.setattr(inspection, "ask", lambda *args, **options: inspection.Answers({"w": reply}, ""))
    worker = WorkerState.objects.create(hostname="w", last_heartbeat=utils.now())
    assert admin_client.get(f"{ROOT}workerstate/{worker.pk}/live/").status_code == 200
    # What they told is offered there from now on.
    assert admin_client.get(f"{ENTRIES}add/").status_code == 200


def test_names_that_workers_tell_are_cut_and_can_be_shown():
    remember_told(["a\ud800", "b" * 10_000])
    assert worker_task_names() == {"a\\ud800", "b" * 255}


# -- what is told to whom --------------------------------------------------------------------------


def test_who_may_only_view_periodic_tasks_does_not_see_what_they_are_given(person, admin_client):
    row = make(args='["s3cret"]', kwargs='{"a": "s3cret"}', headers='{"b": "s3cret"}')
    page = f"{ENTRIES}{row.pk}/change/"
    assert admin_client.get(page).content.decode().count("s3cret") == 3
    client = person("view_periodictask")
    text = client.get(page).content.decode()
    assert "s3cret" not in text
    assert text.count("(hidden)") == 3


@pytest.mark.parametrize("codename", ["change_periodictask", "arguments_taskstate"])
def test_who_may_change_periodic_tasks_or_see_arguments_sees_them(person, codename):
    row = make(args='["s3cret"]')
    assert "s3cret" in person("view_periodictask", codename).get(f"{ENTRIES}{row.pk}/change/").content.decode()


def test_what_was_hidden_is_not_stored_when_a_row_is_saved(person):
    row = make(args='["s3cret"]')
    client = person("view_periodictask", "delete_periodictask")
    assert client.post(f"{ENTRIES}{row.pk}/change/", {"name": "x"}).status_code == 403
    assert PeriodicTask.objects.get().args == '["s3cret"]'


def test_who_may_not_see_arguments_sees_the_tasks_of_a_group_and_not_its_value(person):
    result = [["g", None], [[["t-1", None], None]]]
    row = TaskSetMeta.objects.create(taskset_id="g", result=result)
    text = person("view_tasksetmeta").get(f"{ROOT}tasksetmeta/{row.pk}/change/").content.decode()
    assert "<li>t-1</li>" in text
    assert "(hidden)" in text
    assert escape("['t-1', None]") not in text


def test_why_a_task_can_not_be_sent_again_quotes_no_arguments_to_who_may_not_see_them(person, app):
    @app.task(name="shop.add", shared=False)
    def add(x):
        pass

    row = make_task(args="()", kwargs="{'s3cret': 1}")
    client = person("view_taskstate", "retry_taskstate")
    data = {"action": "retry_tasks", "_selected_action": row.pk, "post": "yes"}
    text = client.post(TASKS, data, follow=True).content.decode()
    assert "it could not be sent: TypeError" in text
    assert "s3cret" not in text


def test_why_a_periodic_task_can_not_be_run_quotes_no_arguments_to_who_may_not_see_them(person, app):
    @app.task(name="shop.a", shared=False)
    def a():
        pass

    row = make(kwargs='{"s3cret": 1}')
    client = person("view_periodictask", "run_periodictask")
    data = {"action": "run_tasks", "_selected_action": row.pk, "post": "yes"}
    text = client.post(ENTRIES, data, follow=True).content.decode()
    assert "TypeError" in text
    assert "s3cret" not in text


def test_the_error_that_beat_writes_down_quotes_no_arguments():
    with pytest.raises(ArgumentsInvalid, match="args must be a JSON array") as caught:
        loading.check_json("args", '"\\"s3cret\\""', list)
    assert "s3cret" not in str(caught.value)


def test_a_name_with_a_line_break_stays_on_one_line_of_the_log(app, monkeypatch, caplog):
    monkeypatch.setattr(Control, "rate_limit", lambda *args, **options: 1 / 0)
    step = control.Step("rate_limit", [], ("a\nERROR forged", "1/s"), note="a\nERROR forged 1/s")
    with caplog.at_level(logging.WARNING):
        assert control.send([step])[1]
    assert said(caplog)
    assert not any("\n" in record.getMessage() for record in said(caplog))


# -- the rest of what an attacker tries ------------------------------------------------------------


@pytest.mark.parametrize(
    "line", ['"' * 2000, "\\" * 2000, ":" * 2000, "a:" * 1000, '"\\' * 1000, "a_" * 1000, "* " * 1000]
)
def test_reading_the_longest_search_line_takes_no_time(line):
    # Of the processor's time, and of this thread's alone: other programs of a busy machine don't count.
    began = time.thread_time()
    with suppress(search.SearchError):
        search.parse(line, {"a"})
    assert time.thread_time() - began < 0.5


@pytest.mark.parametrize("target", ["//evil.example/", "https://evil.example/", "javascript:x"])
@pytest.mark.parametrize("name", ["next", "_changelist_filters", "_popup", "_to_field", "_source_model"])
def test_no_parameter_leads_to_another_site(admin_client, name, target):
    row = make()
    for page in (f"{ENTRIES}registered/", f"{ENTRIES}{row.pk}/", f"{ENTRIES}99999/change/"):
        response = admin_client.get(page, {name: target})
        assert response.status_code in (302, 400)
        assert response.headers.get("Location", "/admin/").startswith("/admin/")


def test_no_page_may_be_framed_by_other_sites(admin_client, settings):
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.middleware.clickjacking.XFrameOptionsMiddleware"]
    admin_client.handler._middleware_chain = None
    row = make_task()
    for page in (TASKS, f"{TASKS}{row.pk}/change/", f"{ROOT}overview/", f"{ROOT}overview/figures/", f"{ENTRIES}add/"):
        assert admin_client.get(page).headers["X-Frame-Options"] == "DENY", page
