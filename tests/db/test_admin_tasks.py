"""The pages of tasks: what they show, to whom, and what the search line and the filters find."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from celery import states
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils.html import escape

from djcelery import admin as djcelery_admin
from djcelery import utils
from djcelery.admin.relatives import Relatives
from djcelery.models import (
    LOST,
    CameraState,
    IntervalSchedule,
    PeriodicRun,
    PeriodicTask,
    TaskHistory,
    TaskMeta,
    TaskState,
    WorkerState,
)

pytestmark = pytest.mark.django_db

TASKS = "/admin/djcelery/taskstate/"
XSS = "<script>alert(1)</script>"
SECRETS = {name: f"secret-{name}" for name in ("args", "kwargs", "result", "traceback", "exception", "progress")}


def make_task(number=0, **fields):
    values = {"state": "STARTED", "task_id": f"id-{number}", "name": "shop.tasks.add", "tstamp": utils.now()}
    return TaskState.objects.create(**{**values, **fields})


def make_worker(number=0, **fields):
    return WorkerState.objects.create(**{"hostname": f"w{number}@h", "last_heartbeat": utils.now(), **fields})


def make_camera(**fields):
    now = utils.now()
    values = {"name": "cam", "hostname": "h", "pid": 1, "started_at": now, "shutter_at": now, "frequency": 1.0}
    return CameraState.objects.create(**{**values, "event_at": now, **fields})


def listed(client, **params):
    response = client.get(TASKS, params)
    assert response.status_code == 200
    return sorted(row.task_id for row in response.context["cl"].result_list)


def detail(client, task):
    response = client.get(f"{TASKS}{task.pk}/change/")
    assert response.status_code == 200
    return response.content.decode()


# -- columns ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "color"),
    [
        ("SUCCESS", "green"),
        ("FAILURE", "red"),
        ("REVOKED", "magenta"),
        ("STARTED", "yellow"),
        ("RETRY", "orange"),
        ("RECEIVED", "blue"),
        ("LOST", "red"),
        ("PENDING", "black"),
        ("OF-MY-OWN", "black"),
    ],
)
def test_a_task_s_state_has_its_legacy_colour(state, color):
    shown = djcelery_admin.colored_state(TaskState(state=state))
    assert shown == f'<b><span style="color: {color};">{state}</span></b>'


def test_a_long_name_is_abbreviated_with_all_of_it_in_the_tooltip():
    shown = djcelery_admin.name(TaskState(name="very.long.package.tasks.addition"))
    assert shown == '<div title="very.long.package.tasks.addition"><b>very.[.]addition</b></div>'


def test_a_task_without_a_name_is_shown(admin_client):
    assert djcelery_admin.name(TaskState()) == '<div title=""><b>???</b></div>'
    task = make_task(name=None)
    assert listed(admin_client) == ["id-0"]
    assert "field-called" not in detail(admin_client, task)


def test_the_eta_is_told_in_the_project_s_time_zone(settings):
    moment = datetime(2026, 11, 21, 2, 44, 33, 178942, tzinfo=timezone.utc)
    assert djcelery_admin.eta(TaskState()) == '<span style="color: gray;">none</span>'
    assert djcelery_admin.eta(TaskState(eta=moment)) == "2026-11-21 03:44:33+01:00"
    settings.USE_TZ = False
    assert djcelery_admin.eta(TaskState(eta=moment.replace(tzinfo=None))) == "2026-11-21 02:44:33"


def test_when_is_an_age_with_the_time_in_the_tooltip():
    moment = utils.now() - timedelta(minutes=5)
    shown = djcelery_admin.tstamp(TaskState(tstamp=moment))
    assert shown == f'<div title="{moment.replace(microsecond=0)}">5 minutes ago</div>'


# -- the list --------------------------------------------------------------------------------------


def test_the_pages_have_their_legacy_titles(admin_client):
    task = make_task()
    assert admin_client.get(TASKS).context["title"] == "Tasks"
    assert admin_client.get(f"{TASKS}{task.pk}/change/").context["title"] == "Task detail"


def test_a_caller_s_own_title_is_kept(rf, admin_user):
    from django.contrib.admin import site

    task = make_task()
    request = rf.get("/")
    request.user = admin_user
    monitor = site.get_model_admin(TaskState)
    response = monitor.change_view(request, str(task.pk), extra_context={"title": "Mine"})
    assert response.context_data["title"] == "Mine"


def test_the_task_list_needs_the_same_few_queries_for_any_number_of_rows(admin_client):
    worker = make_worker()
    make_camera()
    make_task(worker=worker, **SECRETS)
    admin_client.get(TASKS)
    with CaptureQueriesContext(connection) as few:
        admin_client.get(TASKS)
    for number in range(1, 30):
        make_task(number, worker=worker, **SECRETS)
    with CaptureQueriesContext(connection) as many:
        admin_client.get(TASKS)
    # Session, person, the names and the workers to filter by, the rows, the camera, its workers.
    assert len(many) == len(few) == 7


def test_the_task_list_leaves_wide_columns_in_the_database(admin_client):
    make_task(**{name: value * 1000 for name, value in SECRETS.items()})
    with CaptureQueriesContext(connection) as captured:
        text = admin_client.get(TASKS).content.decode()
    (rows,) = [query["sql"].replace("`", '"') for query in captured if '"task_id"' in query["sql"].replace("`", '"')]
    # The beginnings of args and kwargs are in functions.
    for column in SECRETS:
        assert f' "djcelery_taskstate"."{column}"' not in rows
    assert "secret-argssecret-args" in text
    assert len(text) < 60_000


def test_the_filters_choose_by_state_name_worker_time_and_eta(admin_client):
    worker, other = make_worker(1), make_worker(2)
    now = utils.now()
    make_task(1, worker=worker, eta=now)
    make_task(2, worker=other, state="FAILURE", name="shop.tasks.sub", tstamp=now - timedelta(hours=5))
    make_task(3, state=LOST, tstamp=now - timedelta(days=3))
    assert listed(admin_client, state__exact="FAILURE") == ["id-2"]
    assert listed(admin_client, state__exact=LOST) == ["id-3"]
    assert listed(admin_client, name="shop.tasks.sub") == ["id-2"]
    assert listed(admin_client, worker__id__exact=worker.pk) == ["id-1"]
    assert listed(admin_client, eta="scheduled") == ["id-1"]
    assert listed(admin_client, eta="none") == ["id-2", "id-3"]
    assert listed(admin_client, within="hour") == ["id-1"]
    assert listed(admin_client, within="day") == ["id-1", "id-2"]
    assert listed(admin_client, within="week", state__exact="FAILURE") == ["id-2"]
    start, end = (utils.correct_awareness(now - timedelta(hours=hours)) for hours in (6, 4))
    bounds = {"tstamp__gte": start.strftime("%Y-%m-%dT%H:%M"), "tstamp__lt": end.strftime("%Y-%m-%dT%H:%M")}
    assert listed(admin_client, **bounds) == ["id-2"]
    assert listed(admin_client, tstamp__gte="", tstamp__lt="") == ["id-1", "id-2", "id-3"]


def test_a_filter_keeps_what_was_chosen_even_if_it_does_not_offer_it(admin_client):
    make_task(state="OF-MY-OWN", name=XSS, worker=make_worker())
    for params in ({"state__exact": "OF-MY-OWN"}, {"name": XSS}, {"worker__id__exact": WorkerState.objects.get().pk}):
        response = admin_client.get(TASKS, params)
        assert len(response.context["cl"].result_list) == 1
        text = response.content.decode()
        assert 'class="selected"' in text
        assert XSS not in text
    assert listed(admin_client, name="none") == listed(admin_client, worker__id__exact="x") == []


def test_the_names_to_filter_by_are_those_of_the_history_and_no_more_than_a_hundred(admin_client):
    start = datetime(1970, 1, 1, tzinfo=timezone.utc)
    TaskHistory.objects.bulk_create(
        TaskHistory(period=period, start=start, name=f"shop.{number:03}", state=state, count=number)
        for number in range(1, 130)
        for state in ("SUCCESS", "FAILURE")
        for period in ("total", "minute")
    )
    names = [name for name, _label in admin_client.get(TASKS).context["cl"].filter_specs[1].lookup_choices]
    assert names == [f"shop.{number:03}" for number in range(30, 130)]


def test_a_range_of_one_s_own_keeps_the_other_filters_and_the_search(admin_client):
    make_task()
    params = {"state__exact": "STARTED", "q": "shop", "tstamp__gte": "2026-01-02"}
    text = admin_client.get(TASKS, params).content.decode()
    form = text[text.index('class="djcelery-range"') :]
    form = form[: form.index("</form>")]
    assert '<input type="hidden" name="state__exact" value="STARTED">' in form
    assert '<input type="hidden" name="q" value="shop">' in form
    assert 'name="tstamp__gte" value="2026-01-02T00:00"' in form


def test_tasks_can_be_neither_added_nor_changed_nor_deleted(admin_client):
    task = make_task()
    page = f"{TASKS}{task.pk}/change/"
    assert admin_client.get(f"{TASKS}add/").status_code == 403
    assert admin_client.get(page).status_code == 200
    assert admin_client.post(page, {}).status_code == 403
    assert admin_client.post(f"{TASKS}{task.pk}/delete/", {"post": "yes"}).status_code == 403
    admin_client.post(TASKS, {"action": "delete_selected", "_selected_action": [task.pk], "post": "yes"})
    assert TaskState.objects.exists()


def test_the_task_pages_work_without_use_tz(admin_client, settings):
    settings.USE_TZ = False
    task = make_task(eta=datetime(2026, 1, 1), worker=make_worker(), sent_at=datetime(2026, 1, 1))
    for params in ({}, {"within": "hour"}, {"tstamp__gte": "2026-01-01"}, {"q": "when:1d"}, {"eta": "scheduled"}):
        assert listed(admin_client, **params) == ["id-0"]
    detail(admin_client, task)


def test_every_state_of_celery_can_be_listed(admin_client):
    for number, state in enumerate(sorted(states.ALL_STATES)):
        make_task(number, state=state)
    assert len(listed(admin_client)) == len(states.ALL_STATES)


# -- the search line -------------------------------------------------------------------------------


@pytest.fixture
def tasks():
    at = utils.now()
    one, two = make_worker(1), make_worker(2)
    make_task(1, task_id="aaa", worker=one, queue="mail", args="(1, 'Ünï \"x\"')", root_id="aaa")
    make_task(2, task_id="aaa-2", name="shop.tasks.sub", state="FAILURE", worker=two, root_id="aaa", parent_id="aaa")
    make_task(3, task_id="bbb", name="blog.tasks.add", exception="KeyError('x')", kwargs="{'a': 'needle'}")
    make_task(4, task_id="d%d_4", name="Shop.other", result="needle", tstamp=at - timedelta(days=2), queue="mail")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("", ["aaa", "aaa-2", "bbb", "d%d_4"]),
        ("aaa", ["aaa"]),
        ("id:aaa", ["aaa"]),
        ("aa", ["aaa", "aaa-2"]),
        ("aaa*", ["aaa", "aaa-2"]),
        ("id:aa…", ["aaa", "aaa-2"]),
        ("UUID:aaa-2", ["aaa-2"]),
        ("aaa bbb", ["aaa", "bbb"]),
        ("shop.tasks", ["aaa", "aaa-2"]),
        ("name:shop.tasks.add", ["aaa"]),
        ("name:shop.tasks", []),
        ("name:shop.tasks.*", ["aaa", "aaa-2"]),
        ("name:shop.tasks.add name:blog.*", ["aaa", "bbb"]),
        ("d%", ["d%d_4"]),
        ("%", []),
        ("_", []),
        ("tasks", []),
        ("state:FAILURE", ["aaa-2"]),
        ("state:failure", ["aaa-2"]),
        ("status:fail*", ["aaa-2"]),
        ("state:FAILURE state:SUCCESS", ["aaa-2"]),
        ("state:STARTED name:shop.tasks.*", ["aaa"]),
        ("worker:w1@h", ["aaa"]),
        ("worker:w*", ["aaa", "aaa-2"]),
        ("worker:none", []),
        ("root:aaa", ["aaa", "aaa-2"]),
        ("queue:mail", ["aaa"]),
        ("queue:mail when:1w", ["aaa", "d%d_4"]),
        ("args:needle", ["bbb"]),
        ("kwargs:NEEDLE", ["bbb"]),
        ('args:"Ünï "', ["aaa"]),
        ("result:needle", []),
        ("result:needle when:3d", ["d%d_4"]),
        ("result:KeyError", ["bbb"]),
        ("when:1d", ["aaa", "aaa-2", "bbb"]),
        ('"state:FAILURE"', []),
    ],
)
def test_the_search_line_finds(admin_client, tasks, line, found):
    assert listed(admin_client, q=line) == found


def test_names_differ_by_the_case_of_their_letters(admin_client, tasks):
    found = ["d%d_4"] if connection.vendor != "mysql" else ["aaa", "aaa-2", "d%d_4"]
    assert listed(admin_client, q="Shop") == found


def test_a_search_by_arguments_says_in_what_time_it_looked_and_takes_another(admin_client, tasks):
    note = "are searched in the last day only"
    assert note in admin_client.get(TASKS, {"q": "result:needle"}).content.decode()
    assert note not in admin_client.get(TASKS, {"q": "result:needle when:3d"}).content.decode()
    response = admin_client.get(TASKS, {"q": "result:needle", "within": "week"})
    assert note not in response.content.decode()
    assert len(response.context["cl"].result_list) == 1
    assert note not in admin_client.get(TASKS, {"q": "state:FAILURE"}).content.decode()


@pytest.mark.parametrize("line", ["foo:1", "state:", '"x', f"{XSS}:1", f"{XSS} x:y"])
def test_a_line_that_can_t_be_understood_says_so_and_finds_nothing(admin_client, tasks, line):
    response = admin_client.get(TASKS, {"q": line})
    text = response.content.decode()
    assert XSS not in text
    assert response.context["cl"].result_list == []
    if "<" not in line:
        assert 'class="errornote djcelery-problem"' in text


def test_the_help_names_the_keys(admin_client, person):
    assert "state, worker, root, when, queue, args" in admin_client.get(TASKS).content.decode()
    assert "when, queue. Quotation" in person("view_taskstate").get(TASKS).content.decode()


def test_a_search_by_id_needs_two_queries_more_than_the_list(admin_client, tasks):
    with CaptureQueriesContext(connection) as without:
        listed(admin_client)
    with CaptureQueriesContext(connection) as exact:
        listed(admin_client, q="aaa")
    assert len(exact) == len(without) + 1


# -- who may see arguments -------------------------------------------------------------------------


def test_without_the_permission_arguments_and_results_are_hidden_everywhere(person):
    task = make_task(state="FAILURE", **SECRETS)
    viewer = person("view_taskstate")
    for page in (TASKS, f"{TASKS}{task.pk}/change/", f"{TASKS}{task.pk}/history/"):
        text = viewer.get(page).content.decode()
        assert "secret-" not in text, page
    assert "(hidden)" in viewer.get(TASKS).content.decode()
    text = detail(viewer, task)
    # What looks like the exception is not shown again as the result.
    assert text.count("(hidden)") == len(SECRETS) - 1


def test_with_the_permission_they_are_shown(person):
    task = make_task(state="FAILURE", **SECRETS)
    viewer = person("view_taskstate", "arguments_taskstate")
    text = detail(viewer, task)
    for value in SECRETS.values():
        assert value in text
    assert "secret-args" in viewer.get(TASKS).content.decode()


def test_hidden_values_are_not_even_read_for_the_list(person):
    make_task(**SECRETS)
    viewer = person("view_taskstate")
    with CaptureQueriesContext(connection) as captured:
        viewer.get(TASKS)
    for query in captured:
        for column in SECRETS:
            assert f'"djcelery_taskstate"."{column}"' not in query["sql"].replace("`", '"')


@pytest.mark.parametrize("line", ["args:secret", "kwargs:secret", "result:secret", "name:shop.* args:zzz"])
def test_without_the_permission_they_can_t_be_searched(person, line):
    make_task(**SECRETS)
    viewer = person("view_taskstate")
    response = viewer.get(TASKS, {"q": line})
    assert "You may not see the arguments" in response.content.decode()
    assert response.context["cl"].result_list == []


def test_the_old_permission_to_change_tasks_shows_no_arguments(person):
    task = make_task(**SECRETS)
    assert "secret-" not in detail(person("change_taskstate"), task)


# -- one task --------------------------------------------------------------------------------------


def test_the_page_of_a_task_shows_its_whole_life(admin_client):
    at = datetime(2026, 5, 1, 12, 0, 0, tzinfo=timezone.utc)
    task = make_task(
        state="FAILURE", args="(1, 'é')", kwargs="{'a': 2}", result="'done'", traceback="Traceback:\n  boom",
        exception="ValueError('x')", progress='{"percent": 30}', retries=2, queue="mail", routing_key="mail.now",
        client="gen1@web", worker=make_worker(), runtime=1234.5, eta=at, expires=at, sent_at=at,
        received_at=at + timedelta(seconds=1), started_at=at + timedelta(seconds=3),
        finished_at=at + timedelta(seconds=10), flags="args_cut traceback_escaped",
    )  # fmt: skip
    text = detail(admin_client, task)
    for shown in (
        "FAILURE</b>", escape("(1, 'é')"), escape("{'a': 2}"), escape("'done'"), "Traceback:\n  boom</pre>",
        escape("ValueError('x')"), "percent", ">mail<", "mail.now", "gen1@web", "w0@h</a>", "2026-05-01 14:00:03.000",
        "1.000 s in the queue, 2.000 s waiting in the worker, 7.000 s running", "<svg", "?name=shop.tasks.add",
        "<li>Arguments: too long; only a part is stored.</li>",
        "<li>Traceback: characters that the database can&#x27;t store are written as escapes.</li>",
    ):  # fmt: skip
        assert shown in text, shown


def test_a_task_of_django_celery_shows_what_it_has_and_no_empty_fields(admin_client):
    text = detail(admin_client, make_task(state="SUCCESS"))
    for field in ("times", "raised", "error", "value", "arguments", "queue", "root", "children", "periodic"):
        assert f"field-{field}" not in text
    for field in ("state_now", "task_id", "called", "tries", "last_event"):
        assert f"field-{field}" in text


def test_what_it_means_that_a_task_is_lost_is_explained(admin_client):
    assert "was not heard of since" in detail(admin_client, make_task(state=LOST))
    assert "was not heard of since" not in detail(admin_client, make_task(1))


def test_the_page_of_a_task_links_its_relatives(admin_client):
    root = make_task(1, root_id="id-1")
    task = make_task(2, root_id="id-1", parent_id="id-1", retried_as="id-4")
    child = make_task(3, root_id="id-1", parent_id="id-2", state="FAILURE")
    again = make_task(4)
    result = TaskMeta.objects.create(task_id="id-2", status="SUCCESS")
    text = detail(admin_client, task)
    for row in (root, child, again):
        assert f'<a href="{TASKS}{row.pk}/change/">{row.task_id}</a>' in text
    assert f'<a href="/admin/djcelery/taskmeta/{result.pk}/change/">stored result</a>' in text
    assert f'<a href="{TASKS}{task.pk}/change/">id-2</a>' in detail(admin_client, again)
    text = detail(admin_client, root)
    assert "this task" in text
    assert f'<a href="{TASKS}{task.pk}/change/">id-2</a>' in text
    assert f'<a href="{TASKS}{child.pk}/change/">id-3</a>' not in text


def test_relatives_that_are_not_stored_are_shown_by_their_ids(admin_client):
    text = detail(admin_client, make_task(root_id="gone-root", parent_id="gone-parent", retried_as="gone-again"))
    for name in ("gone-root", "gone-parent", "gone-again"):
        assert name in text


def test_a_task_links_the_entry_that_sent_it_by_its_run_or_by_its_result(admin_client):
    every = IntervalSchedule.objects.create(every=1, period="days")
    entry = PeriodicTask.objects.create(name="nightly", task="shop.tasks.add", interval=every)
    at = utils.now()
    run = PeriodicRun.objects.create(
        periodic_task_id=entry.pk, name="nightly", scheduled_at=at, task_id="id-1", claimed_at=at, token=1
    )
    page = f'<a href="/admin/djcelery/periodictask/{entry.pk}/change/">nightly</a>'
    text = detail(admin_client, make_task(1))
    assert page in text
    assert f"/admin/djcelery/periodicrun/{run.pk}/change/" in text
    TaskMeta.objects.create(task_id="id-2", status="SUCCESS", periodic_task="nightly")
    assert page in detail(admin_client, make_task(2))
    TaskMeta.objects.create(task_id="id-3", status="SUCCESS", periodic_task="removed since")
    assert "removed since" in detail(admin_client, make_task(3))


def test_the_page_of_a_task_needs_the_same_queries_for_any_number_of_children(admin_client):
    task = make_task(root_id="id-0")
    admin_client.get(f"{TASKS}{task.pk}/change/")
    with CaptureQueriesContext(connection) as few:
        detail(admin_client, task)
    TaskState.objects.bulk_create(
        TaskState(task_id=f"c-{n}", state="SUCCESS", tstamp=utils.now(), root_id="id-0", parent_id="id-0")
        for n in range(250)
    )
    with CaptureQueriesContext(connection) as many:
        text = detail(admin_client, task)
    assert len(many) == len(few) <= 8
    assert text.count(">c-") == 200
    assert "and more; search by root:" in text
    assert len(Relatives.of(task).children) == 201


def test_what_a_task_sent_is_escaped_wherever_it_is_shown(admin_client):
    worker = make_worker(hostname=XSS)
    names = (
        *("name", "args", "kwargs", "result", "traceback", "exception", "progress", "queue", "routing_key"),
        *("root_id", "parent_id", "retried_as", "client", "flags"),
    )
    task = make_task(task_id=XSS, state=XSS, worker=worker, **{name: XSS[:36] for name in names})
    TaskState.objects.create(task_id="child", state=XSS, name=XSS, tstamp=utils.now(), root_id=XSS, parent_id=XSS)
    TaskMeta.objects.create(task_id=XSS, status=XSS, periodic_task=XSS)
    for page in (TASKS, f"{TASKS}{task.pk}/change/", f"{TASKS}?q={XSS}", f"{TASKS}?name={XSS}&state__exact={XSS}"):
        text = admin_client.get(page).content.decode()
        assert XSS not in text
        assert escape(XSS) in text


def test_the_text_of_an_exception_is_shown_once(admin_client):
    text = detail(admin_client, make_task(state="FAILURE", result="ValueError(17)", exception="ValueError(17)"))
    assert text.count("ValueError(17)") == 1
    assert detail(admin_client, make_task(task_id="other", result="17", exception="ValueError(18)")).count("18)") == 1


def test_long_values_are_cut_with_a_note(admin_client):
    text = detail(admin_client, make_task(args="x" * 50_000, traceback="y" * 50_000))
    assert len(text) < 60_000
    assert text.count("Cut: only about the first 10000 characters are shown.") == 2


# -- when nothing comes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("camera", "said"),
    [
        (None, "No camera has run yet"),
        ({"shutter_at": timedelta(minutes=6), "event_at": timedelta(minutes=6)}, "No camera is running"),
        ({"event_at": timedelta(minutes=6)}, "no event came for a while"),
        # As the overview says it.
        ({"shutter_at": timedelta(minutes=1), "event_at": timedelta(minutes=1)}, "No camera is running"),
        ({"stopped_at": -timedelta(seconds=1)}, "No camera is running"),
        ({"event_at": timedelta(minutes=3)}, "no event came for a while"),
        ({"event_at": None}, "no event came for a while"),
        ({}, ""),
        ({"shutter_at": timedelta(minutes=20), "event_at": timedelta(minutes=20), "frequency": 600.0}, ""),
    ],
)
def test_the_list_says_what_to_do_if_no_events_come(admin_client, camera, said):
    if camera is not None:
        ages = {name: utils.now() - age if isinstance(age, timedelta) else age for name, age in camera.items()}
        make_camera(**ages)
        make_camera(name="old", event_at=None, shutter_at=utils.now() - timedelta(days=9))
    text = admin_client.get(TASKS).content.decode()
    assert ("djcelery-silence" in text) == bool(said)
    assert said in text
    if said:
        assert "-E" in text


@pytest.mark.parametrize(("heard", "processed", "is_said"), [(None, 5, True), (3, 5, False), (None, 0, False)])
def test_the_list_says_what_to_do_if_only_heartbeats_come(admin_client, heard, processed, is_said):
    make_camera()
    make_worker(processed=processed, seen=heard, last_heartbeat=utils.now())
    text = admin_client.get(TASKS).content.decode()
    assert ("djcelery-silence" in text) == is_said
    assert ("no event of one came. Start them with -E" in text) == is_said
