"""The pages of tasks and workers: what they show, who may act, and what is sent to the workers."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
from celery import states
from celery.app.control import Control
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils.html import escape

from djcelery import admin as djcelery_admin
from djcelery import utils
from djcelery.admin import control
from djcelery.admin.base import BoundedPaginator
from djcelery.models import TaskState, WorkerState

pytestmark = pytest.mark.django_db

TASKS = "/admin/djcelery/taskstate/"
WORKERS = "/admin/djcelery/workerstate/"
XSS = "<script>alert(1)</script>"


@pytest.fixture
def broadcasts(celery_app, monkeypatch):
    """What was sent to the workers: (command, arguments, destination)."""
    sent = []

    def broadcast(self, command, arguments=None, destination=None, connection=None, **extra):
        assert connection.connected
        sent.append((command, {**(arguments or {}), **extra}, destination))

    monkeypatch.setattr(Control, "broadcast", broadcast)
    return sent


def make_task(number=0, **fields):
    values = {"state": "STARTED", "task_id": f"id-{number}", "name": "shop.tasks.add", "tstamp": utils.now()}
    return TaskState.objects.create(**{**values, **fields})


def make_worker(number=0, **fields):
    return WorkerState.objects.create(**{"hostname": f"w{number}@h", "last_heartbeat": utils.now(), **fields})


def act(client, page, action, rows, follow=True, **data):
    pks = [row.pk for row in rows]
    return client.post(page, {"action": action, "_selected_action": pks, "index": 0, **data}, follow=follow)


def confirm(client, page, action, rows, **data):
    pks = [row.pk for row in rows]
    return client.post(page, {"action": action, "_selected_action": pks, "post": "yes", **data}, follow=True)


def texts(response):
    return [str(message) for message in response.context["messages"]]


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
        ("PENDING", "black"),
        ("OF-MY-OWN", "black"),
    ],
)
def test_a_task_s_state_has_its_legacy_colour(state, color):
    shown = djcelery_admin.colored_state(TaskState(state=state))
    assert shown == f'<b><span style="color: {color};">{state}</span></b>'


def test_a_worker_is_online_while_its_heartbeat_is_recent():
    alive = WorkerState(hostname="a", last_heartbeat=utils.now())
    dead = WorkerState(hostname="b", last_heartbeat=utils.now() - timedelta(hours=1))
    assert djcelery_admin.node_state(alive) == '<b><span style="color: green;">ONLINE</span></b>'
    assert djcelery_admin.node_state(dead) == '<b><span style="color: gray;">OFFLINE</span></b>'
    assert "OFFLINE" in djcelery_admin.node_state(WorkerState(hostname="c"))


def test_a_long_name_is_abbreviated_with_all_of_it_in_the_tooltip():
    shown = djcelery_admin.name(TaskState(name="very.long.package.tasks.addition"))
    assert shown == '<div title="very.long.package.tasks.addition"><b>very.[.]addition</b></div>'


def test_a_task_without_a_name_is_shown():
    assert djcelery_admin.name(TaskState()) == '<div title=""><b>???</b></div>'


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


def test_what_a_task_sent_is_escaped_wherever_it_is_shown(admin_client):
    worker = make_worker(hostname=XSS)
    sent = dict.fromkeys(("name", "args", "kwargs", "result", "traceback"), XSS)
    task = make_task(task_id=XSS, state=XSS, worker=worker, **sent)
    for page in (TASKS, f"{TASKS}{task.pk}/change/", WORKERS, f"{WORKERS}{worker.pk}/change/"):
        text = admin_client.get(page).content.decode()
        assert XSS not in text
        assert escape(XSS) in text


def test_what_a_task_sent_is_escaped_where_an_action_asks(admin_client, broadcasts):
    task = make_task(task_id=XSS, name=XSS)
    for action in ("terminate_tasks", "kill_tasks", "rate_limit_tasks"):
        text = act(admin_client, TASKS, action, [task]).content.decode()
        assert XSS not in text
        assert escape(XSS) in text


# -- lists and pages -------------------------------------------------------------------------------


def test_the_pages_have_their_legacy_titles(admin_client):
    task, worker = make_task(), make_worker()
    assert admin_client.get(TASKS).context["title"] == "Tasks"
    assert admin_client.get(f"{TASKS}{task.pk}/change/").context["title"] == "Task detail"
    assert admin_client.get(WORKERS).context["title"] == "Worker Nodes"
    assert admin_client.get(f"{WORKERS}{worker.pk}/change/").context["title"] == "Node detail"


def test_a_caller_s_own_title_is_kept(rf, admin_user):
    from django.contrib.admin import site

    task = make_task()
    request = rf.get("/")
    request.user = admin_user
    monitor = site.get_model_admin(TaskState)
    response = monitor.change_view(request, str(task.pk), extra_context={"title": "Mine"})
    assert response.context_data["title"] == "Mine"


def test_every_filter_search_and_column_of_the_task_list_works(admin_client):
    make_task(worker=make_worker(), eta=utils.now())
    names = ("state", "name__exact", "worker__id__exact")
    values = ("STARTED", "shop.tasks.add", WorkerState.objects.get().pk)
    for query in ({"q": "shop"}, dict(zip(names, values, strict=True)), {"tstamp__year": utils.now().year}):
        assert len(admin_client.get(TASKS, query).context["cl"].result_list) == 1, query
    for column in range(1, 9):
        assert admin_client.get(TASKS, {"o": column}).status_code == 200


def test_the_task_list_needs_the_same_few_queries_for_any_number_of_rows(admin_client):
    worker = make_worker()
    make_task(worker=worker, result="x", traceback="y")
    admin_client.get(TASKS)
    with CaptureQueriesContext(
        connection,
    ) as few:
        admin_client.get(TASKS)
    for number in range(1, 30):
        make_task(number, worker=worker, result="x", traceback="y")
    with CaptureQueriesContext(connection) as many:
        admin_client.get(TASKS)
    assert len(many) == len(few) <= 8


def test_the_task_list_leaves_results_and_tracebacks_in_the_database(admin_client):
    make_task(result="x", traceback="y")
    with CaptureQueriesContext(connection) as captured:
        admin_client.get(TASKS)
    rows = [query["sql"] for query in captured if '"args"' in query["sql"] or "`args`" in query["sql"]]
    assert len(rows) == 1
    assert "traceback" not in rows[0]
    assert '"result"' not in rows[0]


def test_no_list_counts_a_whole_table(admin_client, monkeypatch):
    monkeypatch.setattr(BoundedPaginator, "max_rows", 3)
    monkeypatch.setattr(djcelery_admin.TaskMonitor, "list_per_page", 2)
    for number in range(5):
        make_task(number)
    with CaptureQueriesContext(connection) as captured:
        response = admin_client.get(TASKS)
    counts = [query["sql"] for query in captured if "COUNT(" in query["sql"]]
    assert len(counts) == 1
    assert "LIMIT 4" in counts[0]
    assert response.context["cl"].result_count == 3
    assert "Only the first 3 are listed" in response.content.decode()


def test_a_list_that_fits_says_nothing_of_more(admin_client):
    make_task()
    assert "are listed" not in admin_client.get(TASKS).content.decode()


def test_a_database_without_time_zones_has_no_date_hierarchy_instead_of_an_error(admin_client, monkeypatch):
    make_task()
    monkeypatch.setattr(connection.features, "has_zoneinfo_database", False)
    assert admin_client.get(TASKS).context["cl"].date_hierarchy is None


def test_the_task_list_can_be_walked_by_day(admin_client):
    if not connection.features.has_zoneinfo_database:
        pytest.skip("this server has no tables of time zones")
    make_task()
    assert admin_client.get(TASKS).context["cl"].date_hierarchy == "tstamp"


def test_tasks_can_be_neither_added_nor_changed_nor_deleted(admin_client):
    task = make_task()
    page = f"{TASKS}{task.pk}/change/"
    assert admin_client.get(f"{TASKS}add/").status_code == 403
    assert admin_client.get(page).status_code == 200
    assert admin_client.post(page, {}).status_code == 403
    assert admin_client.post(f"{TASKS}{task.pk}/delete/", {"post": "yes"}).status_code == 403
    act(admin_client, TASKS, "delete_selected", [task], post="yes")
    assert TaskState.objects.exists()


def test_a_worker_can_be_added_and_renamed_but_not_deleted(admin_client):
    assert admin_client.post(f"{WORKERS}add/", {"hostname": "new@h"}).status_code == 302
    worker = WorkerState.objects.get()
    assert admin_client.post(f"{WORKERS}{worker.pk}/change/", {"hostname": "other@h"}).status_code == 302
    assert admin_client.post(f"{WORKERS}{worker.pk}/delete/", {"post": "yes"}).status_code == 403
    assert WorkerState.objects.get().hostname == "other@h"


def test_saving_a_worker_keeps_the_heartbeat_that_came_meanwhile(rf, admin_user):
    from django.contrib.admin import site

    worker = make_worker()
    opened = WorkerState.objects.get()
    later = utils.now() + timedelta(minutes=1)
    WorkerState.objects.update(last_heartbeat=later)
    opened.hostname = "other@h"
    site.get_model_admin(WorkerState).save_model(rf.post("/"), opened, SimpleNamespace(changed_data=["hostname"]), True)
    worker.refresh_from_db()
    assert (worker.hostname, worker.last_heartbeat) == ("other@h", later)


def test_the_task_list_works_without_use_tz(admin_client, settings):
    settings.USE_TZ = False
    make_task(eta=datetime(2026, 1, 1), worker=make_worker())
    assert admin_client.get(TASKS).status_code == 200
    assert admin_client.get(WORKERS).status_code == 200


# -- who may act -----------------------------------------------------------------------------------

ACTIONS = [
    (TASKS, "revoke_tasks", make_task),
    (TASKS, "terminate_tasks", make_task),
    (TASKS, "kill_tasks", make_task),
    (TASKS, "rate_limit_tasks", make_task),
    (WORKERS, "shutdown_nodes", make_worker),
    (WORKERS, "enable_events", make_worker),
    (WORKERS, "disable_events", make_worker),
]


@pytest.mark.parametrize(("page", "action", "make"), ACTIONS)
def test_who_may_only_view_is_offered_no_action_and_refused_when_sending_one(person, broadcasts, page, action, make):
    row = make()
    viewer = person("view_taskstate", "view_workerstate")
    assert action not in viewer.get(page).content.decode()
    act(viewer, page, action, [row])
    confirm(viewer, page, action, [row], rate_limit="1/s")
    assert broadcasts == []
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize(("page", "action", "make"), ACTIONS)
def test_who_may_change_the_model_may_act(person, broadcasts, page, action, make):
    row = make()
    editor = person("change_taskstate", "change_workerstate")
    assert action in editor.get(page).content.decode()
    confirm(editor, page, action, [row], rate_limit="1/s")
    assert len(broadcasts) == 1


@pytest.mark.parametrize(("page", "action", "make"), ACTIONS)
def test_the_permission_of_the_other_model_does_not_count(person, broadcasts, page, action, make):
    row = make()
    mine, other = ("taskstate", "workerstate") if page == TASKS else ("workerstate", "taskstate")
    editor = person(f"view_{mine}", f"change_{other}")
    confirm(editor, page, action, [row], rate_limit="1/s")
    assert broadcasts == []


@pytest.mark.parametrize(("page", "action", "make"), ACTIONS)
def test_every_action_names_a_permission_of_its_own(page, action, make):
    monitor = djcelery_admin.TaskMonitor if page == TASKS else djcelery_admin.WorkerMonitor
    (permission,) = getattr(monitor, action).allowed_permissions
    assert callable(getattr(monitor, f"has_{permission}_permission"))


def test_an_action_needs_the_csrf_token(django_user_model, broadcasts):
    from django.test import Client

    client = Client(enforce_csrf_checks=True)
    client.force_login(django_user_model.objects.create_superuser("root"))
    assert act(client, TASKS, "revoke_tasks", [make_task()]).status_code == 403
    assert broadcasts == []


# -- what is sent ----------------------------------------------------------------------------------


def test_revoking_sends_the_ids_in_one_broadcast_and_says_how_many(admin_client, broadcasts):
    tasks = [make_task(1), make_task(2)]
    response = act(admin_client, TASKS, "revoke_tasks", tasks)
    ((command, arguments, destination),) = broadcasts
    assert command == "revoke"
    assert sorted(arguments["task_id"]) == ["id-1", "id-2"]
    assert arguments["terminate"] is False
    assert destination is None
    assert texts(response) == ["Asked the workers to revoke 2 tasks."]


@pytest.mark.parametrize(
    ("action", "options", "verb"),
    [
        ("terminate_tasks", {"terminate": True, "signal": "SIGTERM"}, "terminate"),
        ("kill_tasks", {"terminate": True, "signal": "KILL"}, "kill"),
    ],
)
def test_what_stops_tasks_asks_first(admin_client, broadcasts, action, options, verb):
    tasks = [make_task(1), make_task(2)]
    page = act(admin_client, TASKS, action, tasks)
    assert broadcasts == []
    assert page.templates[0].name == "djcelery/confirm_action.html"
    assert list(page.context["queryset"]) == list(TaskState.objects.all())
    response = confirm(admin_client, TASKS, action, tasks)
    ((command, arguments, _),) = broadcasts
    assert command == "revoke"
    assert options.items() <= arguments.items()
    assert texts(response) == [f"Asked the workers to {verb} 2 tasks."]


def test_shutting_down_asks_first_and_goes_to_the_chosen_workers_alone(admin_client, broadcasts):
    worker, _other = make_worker(1), make_worker(2)
    page = act(admin_client, WORKERS, "shutdown_nodes", [worker])
    assert "must be started again" in page.content.decode()
    assert broadcasts == []
    response = confirm(admin_client, WORKERS, "shutdown_nodes", [worker])
    assert broadcasts == [("shutdown", {}, ["w1@h"])]
    assert texts(response) == ["Asked 1 worker to shut down."]


@pytest.mark.parametrize("action", ["shutdown_nodes", "enable_events", "disable_events"])
def test_workers_that_are_gone_meanwhile_never_become_all_workers(admin_client, broadcasts, action):
    worker = make_worker()
    make_worker(1)
    WorkerState.objects.filter(pk=worker.pk).delete()
    response = confirm(admin_client, WORKERS, action, [SimpleNamespace(pk=worker.pk or 1_000_000)])
    assert broadcasts == []
    assert texts(response) == ["Nothing was sent: the selected rows are gone."]


@pytest.mark.parametrize("command", ["enable_events", "disable_events"])
def test_events_are_switched_on_the_chosen_workers(admin_client, broadcasts, command):
    response = act(admin_client, WORKERS, command, [make_worker(1)])
    assert broadcasts == [(command, {}, ["w1@h"])]
    assert "events" in texts(response)[0]


def test_a_rate_limit_is_asked_for_and_sent_once_per_name(admin_client, broadcasts):
    tasks = [make_task(1, name="b"), make_task(2, name="a"), make_task(3, name="b"), make_task(4, name=None)]
    page = act(admin_client, TASKS, "rate_limit_tasks", tasks)
    assert page.context["title"] == "Rate limit selection"
    assert page.templates[0].name == "djcelery/confirm_rate_limit.html"
    assert page.context["action_checkbox_name"] == "_selected_action"
    assert broadcasts == []
    response = confirm(admin_client, TASKS, "rate_limit_tasks", tasks, rate_limit="10/m")
    sent = [(command, arguments["task_name"], arguments["rate_limit"]) for command, arguments, _ in broadcasts]
    assert sent == [("rate_limit", "a", "10/m"), ("rate_limit", "b", "10/m")]
    assert texts(response) == ["Asked the workers for the rate limit of 3 tasks."]


def test_a_rate_that_celery_cannot_read_is_asked_for_again(admin_client, broadcasts):
    page = confirm(admin_client, TASKS, "rate_limit_tasks", [make_task()], rate_limit="lots")
    assert "not a rate" in page.content.decode()
    assert broadcasts == []


def test_tasks_of_unknown_name_get_no_rate_limit(admin_client, broadcasts):
    response = act(admin_client, TASKS, "rate_limit_tasks", [make_task(name=None)])
    assert "names" in texts(response)[0]
    assert broadcasts == []


def test_each_task_that_was_acted_on_has_a_log_entry(admin_client, admin_user, broadcasts):
    tasks = [make_task(1), make_task(2)]
    confirm(admin_client, TASKS, "kill_tasks", tasks)
    entries = LogEntry.objects.all()
    assert {entry.object_id for entry in entries} == {str(task.pk) for task in tasks}
    assert {entry.user_id for entry in entries} == {admin_user.pk}
    assert entries[0].get_change_message() == "Sent to the workers: revoke (terminate True, signal KILL)."


def test_the_log_of_a_rate_limit_says_the_rate(admin_client, broadcasts):
    confirm(admin_client, TASKS, "rate_limit_tasks", [make_task()], rate_limit="10/m")
    assert "rate_limit (shop.tasks.add 10/m)" in LogEntry.objects.get().change_message


def test_acting_on_too_many_rows_is_refused(admin_client, broadcasts, monkeypatch):
    monkeypatch.setattr(control, "MAX_CONFIRMED_ROWS", 1)
    response = act(admin_client, TASKS, "terminate_tasks", [make_task(1), make_task(2)])
    assert "more than 1 rows" in texts(response)[0]
    assert broadcasts == []


def test_all_rows_of_a_list_can_be_revoked_at_once_in_bounded_messages(admin_client, broadcasts, monkeypatch):
    from djcelery.admin import monitor

    monkeypatch.setattr(monitor, "_IDS_PER_BROADCAST", 2)
    tasks = [make_task(number) for number in range(5)]
    response = act(admin_client, TASKS, "revoke_tasks", tasks[:1], select_across="1")
    assert [len(arguments["task_id"]) for _, arguments, _ in broadcasts] == [2, 2, 1]
    assert texts(response) == ["Asked the workers to revoke 5 tasks."]
    assert LogEntry.objects.count() == 5


# -- the broker ------------------------------------------------------------------------------------


def test_a_worker_hears_what_the_admin_sends(admin_client, celery_app):
    task = make_task()
    heard = []
    with celery_app.connection_for_read() as broker:
        node = celery_app.control.mailbox(broker).Node(
            "w1@h", handlers={"revoke": lambda state, **arguments: heard.append(arguments)}
        )
        with node.listen(channel=broker.default_channel):
            act(admin_client, TASKS, "revoke_tasks", [task])
            broker.drain_events(timeout=5)
    assert [arguments["task_id"] for arguments in heard] == [["id-0"]]


@pytest.mark.parametrize(
    "url", ["amqp://127.0.0.1:1//", "redis://127.0.0.1:1/0", "nonesuch://", "sqs://", "mongodb://127.0.0.1:1/"]
)
def test_a_missing_broker_is_an_error_message(admin_client, celery_app, url):
    celery_app.conf.broker_url = url
    response = act(admin_client, TASKS, "revoke_tasks", [make_task()])
    assert response.status_code == 200
    assert texts(response)[0].startswith("Not sent for 1 row, because the broker did not take it: ")
    assert not LogEntry.objects.exists()


def test_when_the_broker_fails_half_way_both_counts_are_told(admin_client, celery_app, monkeypatch):
    sent = []

    def broadcast(self, command, arguments=None, **kwargs):
        if sent:
            raise ConnectionResetError("gone")
        sent.append(arguments["task_name"])

    monkeypatch.setattr(Control, "broadcast", broadcast)
    tasks = [make_task(1, name="a"), make_task(2, name="b"), make_task(3, name="c")]
    response = confirm(admin_client, TASKS, "rate_limit_tasks", tasks, rate_limit="1/s")
    assert texts(response) == [
        "Asked the workers for the rate limit of 1 task.",
        "Not sent for 2 rows, because the broker did not take it: gone",
    ]
    assert LogEntry.objects.count() == 1


def test_every_state_of_celery_can_be_listed(admin_client):
    for number, state in enumerate(sorted(states.ALL_STATES)):
        make_task(number, state=state)
    assert admin_client.get(TASKS).status_code == 200
