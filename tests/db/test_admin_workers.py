"""The pages of workers: what they show, who may send which command, and what is sent."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils.html import escape

from djcelery import admin as djcelery_admin
from djcelery import utils
from djcelery.admin import control
from djcelery.models import TaskState, WorkerState

pytestmark = pytest.mark.django_db

WORKERS = "/admin/djcelery/workerstate/"
XSS = "<script>alert(1)</script>"

#: Each action: its permission, the method of app.control, and a valid answer to its question.
COMMANDS = {
    "shutdown_nodes": ("shutdown", "shutdown", {}),
    "enable_events": ("events", "enable_events", {}),
    "disable_events": ("events", "disable_events", {}),
    "grow_pool": ("pool", "pool_grow", {"n": 2}),
    "shrink_pool": ("pool", "pool_shrink", {"n": 2}),
    "add_consumer": ("consumer", "add_consumer", {"queue": "mail"}),
    "cancel_consumer": ("consumer", "cancel_consumer", {"queue": "mail"}),
    "set_time_limit": ("timelimit", "time_limit", {"task_name": "shop.add", "soft": 5, "hard": 10}),
}


def make_worker(number=0, **fields):
    return WorkerState.objects.create(**{"hostname": f"w{number}@h", "last_heartbeat": utils.now(), **fields})


def make_task(number=0, **fields):
    values = {"state": "STARTED", "task_id": f"id-{number}", "name": "shop.tasks.add", "tstamp": utils.now()}
    return TaskState.objects.create(**{**values, **fields})


def act(client, action, rows, **data):
    pks = [row.pk for row in rows]
    return client.post(WORKERS, {"action": action, "_selected_action": pks, "index": 0, **data}, follow=True)


def confirm(client, action, rows, **data):
    return act(client, action, rows, post="yes", **data)


def texts(response):
    return [str(message) for message in response.context["messages"]]


# -- the list and the page -------------------------------------------------------------------------


def test_a_worker_is_online_while_its_heartbeat_is_recent():
    alive = WorkerState(hostname="a", last_heartbeat=utils.now())
    dead = WorkerState(hostname="b", last_heartbeat=utils.now() - timedelta(hours=1))
    assert djcelery_admin.node_state(alive) == '<b><span style="color: green;">ONLINE</span></b>'
    assert djcelery_admin.node_state(dead) == '<b><span style="color: gray;">OFFLINE</span></b>'
    assert "OFFLINE" in djcelery_admin.node_state(WorkerState(hostname="c"))


def test_the_pages_have_their_legacy_titles(admin_client):
    worker = make_worker()
    assert admin_client.get(WORKERS).context["title"] == "Worker Nodes"
    assert admin_client.get(f"{WORKERS}{worker.pk}/change/").context["title"] == "Node detail"


FIGURES = {
    "software": "py-celery",
    "version": "5.7.0",
    "system": "Linux",
    "pid": 4711,
    "processed": 1234567,
    "active": 3,
    "load": "0.5 0.4 0.3",
    "missed": 8,
    "frequency": 2.0,
}


def test_the_list_and_the_page_show_what_the_heartbeat_said(admin_client):
    worker = make_worker(clock_skew=7.25, **FIGURES)
    for page in (WORKERS, f"{WORKERS}{worker.pk}/change/"):
        text = admin_client.get(page).content.decode()
        for shown in ("py-celery 5.7.0", "1,234,567", "0.5 0.4 0.3", "+7.2 s", "just now"):
            assert shown in text, (page, shown)


@pytest.mark.parametrize(("seconds", "is_marked"), [(4.9, False), (5.1, True), (-5.1, True)])
def test_a_clock_is_marked_if_it_is_more_than_five_seconds_off(admin_client, seconds, is_marked):
    make_worker(clock_skew=seconds)
    text = admin_client.get(WORKERS).content.decode()
    assert f"{seconds:+.1f} s" in text
    assert ("The clock of this machine is wrong" in text) == is_marked


def test_rows_of_django_celery_which_know_little_are_shown(admin_client):
    worker = make_worker(last_heartbeat=None)
    for page in (WORKERS, f"{WORKERS}{worker.pk}/change/"):
        response = admin_client.get(page)
        assert response.status_code == 200
        assert "None" not in response.content.decode().partition("<body")[2].replace("data-initial", "")


def test_the_list_is_filtered_by_what_is_online(admin_client):
    make_worker(1)
    make_worker(2, last_heartbeat=utils.now() - timedelta(hours=1))
    make_worker(3, offline_at=utils.now() + timedelta(seconds=1))
    make_worker(4, last_heartbeat=None)
    for value, names in (("1", ["w1@h"]), ("0", ["w2@h", "w3@h", "w4@h"]), ("x", ["w1@h", "w2@h", "w3@h", "w4@h"])):
        listed = admin_client.get(WORKERS, {"online": value}).context["cl"].result_list
        assert sorted(row.hostname for row in listed) == names


def test_who_was_heard_of_last_comes_first_and_who_never_was_last(admin_client):
    now = utils.now()
    make_worker(1, last_heartbeat=now - timedelta(minutes=1))
    make_worker(2, last_heartbeat=None)
    make_worker(3, last_heartbeat=now)
    assert [row.hostname for row in admin_client.get(WORKERS).context["cl"].result_list] == ["w3@h", "w1@h", "w2@h"]


def test_every_column_can_be_sorted_by_and_workers_are_found_by_name(admin_client):
    make_worker(1, **FIGURES)
    make_worker(2)
    for column in range(1, 11):
        assert admin_client.get(WORKERS, {"o": column}).status_code == 200
    assert [row.hostname for row in admin_client.get(WORKERS, {"q": "w2"}).context["cl"].result_list] == ["w2@h"]


def test_the_list_needs_the_same_few_queries_for_any_number_of_workers(admin_client):
    make_worker()
    admin_client.get(WORKERS)
    with CaptureQueriesContext(connection) as few:
        admin_client.get(WORKERS)
    for number in range(1, 30):
        make_worker(number, **FIGURES)
    with CaptureQueriesContext(connection) as many:
        admin_client.get(WORKERS)
    # The session, the person, the bounded count, the rows.
    assert len(many) == len(few) == 4


def test_a_worker_can_be_added_and_renamed_but_not_deleted(admin_client):
    assert admin_client.get(f"{WORKERS}add/").status_code == 200
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


def test_the_page_shows_the_latest_tasks_of_the_worker_in_one_query(admin_client):
    worker, other = make_worker(1), make_worker(2)
    page = f"{WORKERS}{worker.pk}/change/"
    admin_client.get(page)
    with CaptureQueriesContext(connection) as none:
        admin_client.get(page)
    now = utils.now()
    tasks = [make_task(number, worker=worker, tstamp=now - timedelta(minutes=number), args="x") for number in range(25)]
    make_task(99, worker=other)
    with CaptureQueriesContext(connection) as many:
        text = admin_client.get(page).content.decode()
    assert len(many) == len(none)
    assert "args" not in next(query["sql"] for query in many if "tstamp" in query["sql"])
    shown = [task.pk for task in tasks if f"/admin/djcelery/taskstate/{task.pk}/change/" in text]
    assert shown == [task.pk for task in tasks[:20]]
    assert "id-99" not in text


def test_who_may_not_view_tasks_sees_none_on_the_page_of_a_worker(person):
    worker = make_worker()
    make_task(worker=worker)
    text = person("view_workerstate").get(f"{WORKERS}{worker.pk}/change/").content.decode()
    assert "id-0" not in text


def test_what_workers_and_tasks_sent_is_escaped_wherever_it_is_shown(admin_client, broadcasts):
    sent = dict.fromkeys(("software", "version", "system", "load"), XSS)
    worker = make_worker(hostname=XSS, **sent)
    make_task(task_id=XSS, state=XSS, name=XSS, worker=worker)
    for page in (WORKERS, f"{WORKERS}{worker.pk}/change/"):
        text = admin_client.get(page).content.decode()
        assert XSS not in text
        assert escape(XSS) in text
    for action in COMMANDS:
        text = act(admin_client, action, [worker]).content.decode()
        assert XSS not in text
        assert escape(XSS) in text


def test_the_pages_work_without_use_tz(admin_client, settings):
    settings.USE_TZ = False
    worker = make_worker(online_at=utils.now(), **FIGURES)
    make_task(worker=worker)
    assert admin_client.get(WORKERS).status_code == 200
    assert admin_client.get(f"{WORKERS}{worker.pk}/change/").status_code == 200


# -- who may act -----------------------------------------------------------------------------------


@pytest.mark.parametrize("action", COMMANDS)
def test_who_lacks_the_permission_is_offered_no_action_and_refused_when_sending_one(person, broadcasts, action):
    worker = make_worker()
    permission, _method, answer = COMMANDS[action]
    others = {name for name, _, _ in COMMANDS.values()} - {permission}
    # To change rows, and to send every other command, is not to send this one.
    client = person("view_workerstate", "change_workerstate", *(f"{name}_workerstate" for name in others))
    assert f'value="{action}"' not in client.get(WORKERS).content.decode()
    act(client, action, [worker])
    confirm(client, action, [worker], **answer)
    assert broadcasts == []
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize("action", COMMANDS)
def test_who_has_the_permission_may_act_without_any_other(person, broadcasts, action):
    worker = make_worker()
    permission, method, answer = COMMANDS[action]
    client = person("view_workerstate", f"{permission}_workerstate")
    assert f'value="{action}"' in client.get(WORKERS).content.decode()
    confirm(client, action, [worker], **answer)
    assert [command for command, _, _ in broadcasts] == [method]


def test_an_action_needs_the_csrf_token(django_user_model, broadcasts):
    from django.test import Client

    client = Client(enforce_csrf_checks=True)
    client.force_login(django_user_model.objects.create_superuser("root"))
    assert confirm(client, "shutdown_nodes", [make_worker()]).status_code == 403
    assert broadcasts == []


# -- what is sent ----------------------------------------------------------------------------------


@pytest.mark.parametrize("action", COMMANDS)
def test_every_action_asks_first_and_goes_to_the_chosen_workers_alone(admin_client, broadcasts, action):
    worker, _other = make_worker(1), make_worker(2)
    _permission, method, answer = COMMANDS[action]
    page = act(admin_client, action, [worker])
    assert broadcasts == []
    assert "w1@h" in page.content.decode()
    assert "w2@h" not in page.content.decode()
    response = confirm(admin_client, action, [worker], **answer)
    ((command, arguments, destination),) = broadcasts
    assert (command, destination) == (method, ["w1@h"])
    assert answer.items() <= arguments.items()
    assert texts(response)[0].startswith("Asked 1 worker to ")


def test_shutting_down_says_what_it_means_and_who_will_not_hear_it(admin_client, broadcasts):
    workers = [make_worker(1), make_worker(2, last_heartbeat=None)]
    text = act(admin_client, "shutdown_nodes", workers).content.decode()
    assert "must be started again" in text
    assert "1 of them seems to be offline" in text
    assert texts(confirm(admin_client, "shutdown_nodes", workers)) == ["Asked 2 workers to shut down."]


@pytest.mark.parametrize(
    ("action", "answer", "error"),
    [
        ("grow_pool", {}, "This field is required"),
        ("grow_pool", {"n": 0}, "greater than or equal to 1"),
        ("shrink_pool", {"n": 101}, "less than or equal to 100"),
        ("add_consumer", {"queue": "  "}, "This field is required"),
        ("add_consumer", {"queue": "x" * 201}, "at most 200"),
        ("cancel_consumer", {"queue": "a\nb"}, "can be printed"),
        ("set_time_limit", {"task_name": "", "soft": 1}, "This field is required"),
        ("set_time_limit", {"task_name": "a", "soft": -1}, "greater than or equal to 0.1"),
        ("set_time_limit", {"task_name": "a", "hard": 10**9}, "less than or equal to"),
        ("set_time_limit", {"task_name": "a", "hard": "nan"}, "Enter a number"),
        ("set_time_limit", {"task_name": "a", "soft": 10, "hard": 10}, "must be shorter"),
    ],
)
def test_an_answer_that_can_not_be_meant_is_asked_for_again(admin_client, broadcasts, action, answer, error):
    page = confirm(admin_client, action, [make_worker()], **answer)
    assert error in page.content.decode()
    assert broadcasts == []
    assert not LogEntry.objects.exists()


def test_no_limit_is_sent_as_none(admin_client, broadcasts):
    confirm(admin_client, "set_time_limit", [make_worker()], task_name=" shop.add ")
    ((_, arguments, _),) = broadcasts
    assert arguments == {"task_name": "shop.add", "soft": None, "hard": None}


@pytest.mark.parametrize("action", COMMANDS)
def test_workers_that_are_gone_meanwhile_never_become_all_workers(admin_client, broadcasts, action):
    make_worker(1)
    response = confirm(admin_client, action, [SimpleNamespace(pk=1_000_000)], **COMMANDS[action][2])
    assert broadcasts == []
    assert texts(response) == ["Nothing was sent: the selected rows are gone."]


def test_each_worker_that_was_acted_on_has_a_log_entry_that_says_what_was_sent(admin_client, admin_user, broadcasts):
    workers = [make_worker(1), make_worker(2)]
    confirm(admin_client, "grow_pool", workers, n=3)
    entries = LogEntry.objects.all()
    assert {entry.object_id for entry in entries} == {str(worker.pk) for worker in workers}
    assert {entry.user_id for entry in entries} == {admin_user.pk}
    assert entries[0].get_change_message() == "Sent to the workers: pool_grow (n 3)."


def test_acting_on_too_many_workers_is_refused(admin_client, broadcasts, monkeypatch):
    monkeypatch.setattr(control, "MAX_CONFIRMED_ROWS", 1)
    response = act(admin_client, "shutdown_nodes", [make_worker(1), make_worker(2)])
    assert "more than 1 rows" in texts(response)[0]
    assert broadcasts == []


def test_a_missing_broker_is_an_error_message(admin_client, celery_app):
    celery_app.conf.broker_url = "redis://127.0.0.1:1/0"
    response = confirm(admin_client, "enable_events", [make_worker()])
    assert texts(response)[0].startswith("Not sent for 1 row, because the broker did not take it: ")
    assert not LogEntry.objects.exists()
