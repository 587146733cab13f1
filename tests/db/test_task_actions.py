"""The actions on tasks: who may, what is asked, what is sent to workers or to a queue, what is said and logged."""

from __future__ import annotations

import re
import socket
from types import SimpleNamespace

import pytest
from celery.app.control import Control
from django.contrib.admin.models import LogEntry
from django.contrib.messages import get_messages
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils.html import escape

from djcelery import admin as djcelery_admin
from djcelery import utils
from djcelery.admin import control, resend, task_actions
from djcelery.models import TaskMeta, TaskState

pytestmark = pytest.mark.django_db

TASKS = "/admin/djcelery/taskstate/"
XSS = "<script>alert(1)</script>"
#: Each action and its permission.
ACTIONS = {
    "revoke_tasks": "revoke_taskstate",
    "terminate_tasks": "terminate_taskstate",
    "kill_tasks": "kill_taskstate",
    "rate_limit_tasks": "ratelimit_taskstate",
    "retry_tasks": "retry_taskstate",
}


@pytest.fixture
def queue(celery_app):
    """A function that returns the messages in the queues: (queue, headers, arguments)."""

    @celery_app.task(name="shop.tasks.add", shared=False)
    def add(x, y=0):
        return x + y

    def messages(*names):
        found = []
        with celery_app.connection_for_read() as broker:
            for name in names or ("celery",):
                simple = broker.SimpleQueue(name)
                while simple.qsize():
                    message = simple.get(timeout=1)
                    message.ack()
                    args, kwargs, _embed = message.payload
                    found.append((name, message.headers, args, kwargs))
                simple.close()
        return found

    yield messages
    messages("celery", "mail")


def make_task(number=0, **fields):
    values = {"state": "STARTED", "task_id": f"id-{number}", "name": "shop.tasks.add", "tstamp": utils.now()}
    return TaskState.objects.create(**{**values, **fields})


def make_failed(number=0, **fields):
    return make_task(number, **{"state": "FAILURE", "args": "(1,)", "kwargs": "{'y': 2}", **fields})


def act(client, action, rows, follow=True, url=TASKS, **data):
    pks = [row.pk for row in rows]
    return client.post(url, {"action": action, "_selected_action": pks, "index": 0, **data}, follow=follow)


def confirm(client, action, rows, url=TASKS, follow=True, **data):
    pks = [row.pk for row in rows]
    return client.post(url, {"action": action, "_selected_action": pks, "post": "yes", **data}, follow=follow)


def texts(response):
    return [str(message) for message in response.context["messages"]]


# -- who may act -----------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ACTIONS)
def test_who_may_only_view_is_offered_no_action_and_refused_when_sending_one(person, broadcasts, queue, action):
    row = make_failed()
    viewer = person("view_taskstate", "arguments_taskstate", "change_taskstate")
    for page in (TASKS, f"{TASKS}{row.pk}/change/"):
        assert action not in viewer.get(page).content.decode()
    act(viewer, action, [row])
    confirm(viewer, action, [row], rate_limit="1/s")
    assert broadcasts == queue() == []
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize("action", ACTIONS)
def test_the_permissions_of_the_other_actions_do_not_count(person, broadcasts, queue, action):
    row = make_failed()
    others = [codename for name, codename in ACTIONS.items() if name != action]
    editor = person("view_taskstate", *others)
    assert action not in editor.get(TASKS).content.decode()
    act(editor, action, [row])
    confirm(editor, action, [row], rate_limit="1/s")
    assert broadcasts == queue() == []
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize(("action", "codename"), ACTIONS.items())
def test_who_has_the_permission_is_offered_the_action_and_may_run_it(person, broadcasts, queue, action, codename):
    row = make_failed()
    editor = person("view_taskstate", codename)
    for page in (TASKS, f"{TASKS}{row.pk}/change/"):
        text = editor.get(page).content.decode()
        assert [name for name in ACTIONS if f'value="{name}"' in text] == [action]
    confirm(editor, action, [row], rate_limit="1/s")
    assert len(broadcasts) + len(queue()) == 1
    assert LogEntry.objects.count() == 1


@pytest.mark.parametrize(("action", "codename"), ACTIONS.items())
def test_who_may_act_but_not_view_tasks_is_refused(person, broadcasts, queue, action, codename):
    row = make_failed()
    client = person(codename)
    assert client.get(TASKS).status_code == 403
    assert confirm(client, action, [row], rate_limit="1/s").status_code == 403
    assert broadcasts == queue() == []


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_names_a_permission_of_its_own(action):
    (permission,) = getattr(djcelery_admin.TaskMonitor, action).allowed_permissions
    assert callable(getattr(djcelery_admin.TaskMonitor, f"has_{permission}_permission"))


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_asks_first(admin_client, broadcasts, queue, action):
    page = act(admin_client, action, [make_failed()])
    assert page.status_code == 200
    assert 'name="post" value="yes"' in page.content.decode()
    assert broadcasts == queue() == []
    assert not LogEntry.objects.exists()


def test_an_action_needs_the_csrf_token(django_user_model, broadcasts):
    from django.test import Client

    client = Client(enforce_csrf_checks=True)
    client.force_login(django_user_model.objects.create_superuser("root"))
    assert confirm(client, "revoke_tasks", [make_task()]).status_code == 403
    assert broadcasts == []


def test_an_action_by_a_link_does_nothing(admin_client, broadcasts):
    row = make_task()
    admin_client.get(TASKS, {"action": "revoke_tasks", "_selected_action": row.pk, "post": "yes"})
    assert broadcasts == []


@pytest.mark.parametrize("action", ACTIONS)
def test_what_a_task_sent_is_escaped_where_an_action_asks(admin_client, broadcasts, queue, action):
    row = make_failed(task_id=XSS, name=XSS, started_at=utils.now(), args=f"('{XSS}',)", queue=XSS)
    make_failed(2, name=XSS)
    text = act(admin_client, action, TaskState.objects.all()).content.decode()
    assert XSS not in text
    assert escape(XSS) in text
    assert row


# -- commands to the workers -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "options", "verb"),
    [
        ("revoke_tasks", {"terminate": False}, "revoke"),
        ("terminate_tasks", {"terminate": True, "signal": "SIGTERM"}, "terminate"),
        ("kill_tasks", {"terminate": True, "signal": "KILL"}, "kill"),
    ],
)
def test_revoking_sends_the_ids_in_one_broadcast_and_says_how_many(admin_client, broadcasts, action, options, verb):
    tasks = [make_task(1), make_task(2)]
    page = act(admin_client, action, tasks)
    assert page.templates[0].name == "djcelery/confirm_action.html"
    assert list(page.context["queryset"]) == list(TaskState.objects.all())
    response = confirm(admin_client, action, tasks)
    ((command, arguments, destination),) = broadcasts
    assert command == "revoke"
    assert sorted(arguments["task_id"]) == ["id-1", "id-2"]
    assert options.items() <= arguments.items()
    assert destination is None
    assert texts(response) == [f"Asked the workers to {verb} 2 tasks."]


def test_a_task_that_has_left_the_filter_meanwhile_is_acted_on_all_the_same(admin_client, broadcasts):
    row = make_task(state="RECEIVED")
    url = f"{TASKS}?state__exact=RECEIVED"
    assert act(admin_client, "terminate_tasks", [row], url=url).context["queryset"] == [row]
    TaskState.objects.update(state="STARTED")
    confirm(admin_client, "terminate_tasks", [row], url=url)
    assert len(broadcasts) == 1


def test_rows_that_are_gone_meanwhile_are_told(admin_client, broadcasts):
    row = make_task()
    TaskState.objects.all().delete()
    response = confirm(admin_client, "revoke_tasks", [SimpleNamespace(pk=row.pk or 1_000_000)])
    assert broadcasts == []
    assert texts(response) == ["Nothing was sent: the selected rows are gone."]


def test_a_rate_limit_is_asked_for_and_sent_once_per_name(admin_client, broadcasts):
    tasks = [make_task(1, name="b"), make_task(2, name="a"), make_task(3, name="b"), make_task(4, name=None)]
    page = act(admin_client, "rate_limit_tasks", tasks)
    assert page.context["title"] == "Rate limit selection"
    assert page.templates[0].name == "djcelery/confirm_rate_limit.html"
    assert page.context["action_checkbox_name"] == "_selected_action"
    assert page.content.decode().count('name="_selected_action"') == 4
    assert broadcasts == []
    response = confirm(admin_client, "rate_limit_tasks", tasks, rate_limit="10/m")
    sent = [(command, arguments["task_name"], arguments["rate_limit"]) for command, arguments, _ in broadcasts]
    assert sent == [("rate_limit", "a", "10/m"), ("rate_limit", "b", "10/m")]
    assert texts(response) == ["Asked the workers for the rate limit of 3 tasks."]


def test_the_commands_of_an_action_take_one_connection(admin_client, broadcasts, monkeypatch):
    opened = []
    broker = control.broker
    monkeypatch.setattr(control, "broker", lambda app: opened.append(1) or broker(app))
    tasks = [make_task(number, name=f"n{number}") for number in range(4)]
    confirm(admin_client, "rate_limit_tasks", tasks, rate_limit="10/m")
    assert (len(broadcasts), len(opened)) == (4, 1)


def test_what_was_sent_before_the_broker_went_away_is_logged_and_the_rest_is_told(
    admin_client, broadcasts, monkeypatch
):
    def rate_limit(self, name, rate, connection):
        if name == "n2":
            raise OSError("gone")

    monkeypatch.setattr(Control, "rate_limit", rate_limit)
    tasks = [make_task(number, name=f"n{number}") for number in range(4)]
    response = confirm(admin_client, "rate_limit_tasks", tasks, rate_limit="10/m")
    assert texts(response) == [
        "Asked the workers for the rate limit of 2 tasks.",
        "Not sent for 2 rows, because the broker did not take it: gone",
    ]
    assert {entry.object_id for entry in LogEntry.objects.all()} == {str(task.pk) for task in tasks[:2]}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("is_answer", [False, True])
def test_an_action_loads_no_column_that_it_does_not_need(admin_client, broadcasts, queue, action, is_answer):
    rows = [make_failed(number, traceback="x" * 1000) for number in range(3)]
    with CaptureQueriesContext(connection) as captured:
        (confirm if is_answer else act)(admin_client, action, rows, rate_limit="1/s", follow=False)
    table, *wide = map(
        connection.ops.quote_name, ("djcelery_taskstate", "traceback", "result", "exception", "progress")
    )
    wide += [] if action == "retry_tasks" else map(connection.ops.quote_name, ("args", "kwargs"))
    # The beginnings, which the list shows, are no column by themselves.
    loaded = re.compile(rf"(?:SELECT|,) {table}\.({'|'.join(wide)})")
    assert {found for query in captured for found in loaded.findall(query["sql"])} == set()


def test_a_rate_that_celery_cannot_read_is_asked_for_again(admin_client, broadcasts):
    page = confirm(admin_client, "rate_limit_tasks", [make_task()], rate_limit="lots")
    assert "not a rate" in page.content.decode()
    assert broadcasts == []


def test_tasks_of_unknown_name_get_no_rate_limit(admin_client, broadcasts):
    response = act(admin_client, "rate_limit_tasks", [make_task(name=None)])
    assert "names" in texts(response)[0]
    assert broadcasts == []


def test_each_task_that_was_acted_on_has_a_log_entry(admin_client, admin_user, broadcasts):
    tasks = [make_task(1), make_task(2)]
    confirm(admin_client, "kill_tasks", tasks)
    entries = LogEntry.objects.all()
    assert {entry.object_id for entry in entries} == {str(task.pk) for task in tasks}
    assert {entry.user_id for entry in entries} == {admin_user.pk}
    assert entries[0].get_change_message() == "Sent to the workers: revoke (terminate True, signal KILL)."


def test_the_log_of_a_rate_limit_says_the_rate(admin_client, broadcasts):
    confirm(admin_client, "rate_limit_tasks", [make_task()], rate_limit="10/m")
    assert "rate_limit (shop.tasks.add 10/m)" in LogEntry.objects.get().change_message


def test_acting_on_too_many_rows_is_refused(admin_client, broadcasts, monkeypatch):
    monkeypatch.setattr(control, "MAX_ROWS", 1)
    response = act(admin_client, "revoke_tasks", [make_task(1), make_task(2)])
    assert "more than 1 rows" in texts(response)[0]
    assert broadcasts == []


def test_all_rows_of_a_list_can_be_revoked_at_once_in_bounded_messages(admin_client, broadcasts, monkeypatch):
    monkeypatch.setattr(task_actions, "_IDS_PER_BROADCAST", 2)
    monkeypatch.setattr(control, "MAX_CONFIRMED_ROWS", 3)
    monkeypatch.setattr(control, "_SHOWN_ROWS", 2)
    tasks = [make_task(number) for number in range(5)]
    make_task(9, state="SUCCESS")
    page = act(admin_client, "revoke_tasks", tasks[:1], url=f"{TASKS}?state__exact=STARTED", select_across="1")
    text = page.content.decode()
    assert "and 3 more" in text
    assert text.count('name="_selected_action"') == 1
    response = confirm(admin_client, "revoke_tasks", tasks[:1], djcelery_rows=page.context["packed"])
    assert [len(arguments["task_id"]) for _, arguments, _ in broadcasts] == [2, 2, 1]
    assert texts(response) == ["Asked the workers to revoke 5 tasks."]
    assert LogEntry.objects.count() == 5


@pytest.mark.parametrize("posted", ["x", "1,x", "9" * 30, ",", "-1", "1;drop"])
def test_keys_that_are_none_are_left_out(admin_client, broadcasts, posted):
    row = make_task()
    confirm(admin_client, "revoke_tasks", [row], djcelery_rows=posted)
    assert all(arguments["task_id"] == ["id-0"] for _, arguments, _ in broadcasts)


def test_a_worker_hears_what_the_admin_sends(admin_client, celery_app):
    task = make_task()
    heard = []
    with celery_app.connection_for_read() as broker:
        node = celery_app.control.mailbox(broker).Node(
            "w1@h", handlers={"revoke": lambda state, **arguments: heard.append(arguments)}
        )
        with node.listen(channel=broker.default_channel):
            confirm(admin_client, "revoke_tasks", [task])
            broker.drain_events(timeout=5)
    assert [arguments["task_id"] for arguments in heard] == [["id-0"]]


@pytest.mark.parametrize(
    "url", ["amqp://127.0.0.1:1//", "redis://127.0.0.1:1/0", "nonesuch://", "sqs://", "mongodb://127.0.0.1:1/"]
)
@pytest.mark.parametrize("action", ["revoke_tasks", "retry_tasks"])
def test_a_missing_broker_is_an_error_message(admin_client, celery_app, url, action):
    celery_app.conf.broker_url = url
    row = make_failed(started_at=utils.now())
    response = confirm(admin_client, action, [row])
    assert response.status_code == 200
    assert "the broker did not take it: " in texts(response)[0]
    assert not LogEntry.objects.exists()
    row.refresh_from_db()
    assert row.retried_as is None


@pytest.mark.parametrize("scheme", ["amqp", "redis"])
@pytest.mark.parametrize("action", ["revoke_tasks", "retry_tasks"])
def test_a_broker_that_accepts_and_never_answers_is_an_error_message(
    admin_client, celery_app, scheme, action, monkeypatch
):
    monkeypatch.setattr(control, "_TIMEOUT_S", 0.1)
    row = make_failed(started_at=utils.now())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        celery_app.conf.broker_url = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/"
        response = confirm(admin_client, action, [row])
    assert "the broker did not take it: " in texts(response)[0]
    assert not LogEntry.objects.exists()


def test_when_the_broker_fails_half_way_both_counts_are_told(admin_client, celery_app, monkeypatch):
    sent = []

    def broadcast(self, command, arguments=None, **kwargs):
        if sent:
            raise ConnectionResetError("gone")
        sent.append(arguments["task_name"])

    monkeypatch.setattr(Control, "broadcast", broadcast)
    tasks = [make_task(1, name="a"), make_task(2, name="b"), make_task(3, name="c")]
    response = confirm(admin_client, "rate_limit_tasks", tasks, rate_limit="1/s")
    assert texts(response) == [
        "Asked the workers for the rate limit of 1 task.",
        "Not sent for 2 rows, because the broker did not take it: gone",
    ]
    assert LogEntry.objects.count() == 1


# -- sending tasks again ---------------------------------------------------------------------------


def test_a_task_is_sent_again_with_what_its_event_showed(admin_client, queue):
    row = make_failed()
    page = act(admin_client, "retry_tasks", [row])
    assert page.templates[0].name == "djcelery/confirm_retry.html"
    assert escape("[1] {'y': 2}") in page.content.decode()
    response = confirm(admin_client, "retry_tasks", [row])
    ((_name, headers, args, kwargs),) = queue()
    assert (args, kwargs) == ([1], {"y": 2})
    assert headers["task"] == "shop.tasks.add"
    assert headers["djcelery_retry_of"] == "id-0"
    row.refresh_from_db()
    assert row.retried_as == headers["id"] != "id-0"
    assert texts(response) == ["Sent 1 task again."]
    assert LogEntry.objects.get().change_message == f"Sent again as {row.retried_as}."


def test_the_stored_result_s_arguments_and_the_queue_are_taken_if_they_are_known(admin_client, queue):
    TaskMeta.objects.create(task_id="id-0", status="FAILURE", args=[7, "é"], kwargs={}, queue="mail")
    confirm(admin_client, "retry_tasks", [make_failed(args="(7, '...')")])
    ((name, _headers, args, kwargs),) = queue("celery", "mail")
    assert (name, args, kwargs) == ("mail", [7, "é"], {})


def test_a_task_whose_code_is_elsewhere_is_sent_if_a_worker_has_run_it(admin_client, queue):
    confirm(admin_client, "retry_tasks", [make_failed(name="elsewhere.add", started_at=utils.now())])
    ((_name, headers, _args, _kwargs),) = queue()
    assert headers["task"] == "elsewhere.add"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": None}, "its name is not known"),
        ({"name": "no.such"}, "no task of this name is registered"),
        ({"args": None}, "its arguments are not known"),
        ({"args": "('aaa...',)"}, "its arguments may have been cut"),
        ({"kwargs": "{'password': '***'}"}, "its arguments were hidden"),
        ({"flags": "kwargs_redacted"}, "its arguments were hidden"),
        ({"flags": "args_cut"}, "its arguments were too long to be kept"),
        ({"args": "(<User: bob>,)"}, "its arguments can't be read back"),
        ({"args": "(1, 2, 3)"}, "it could not be sent: "),
        ({"retried_as": "other"}, "it was sent again already, as other"),
    ],
)
def test_what_can_t_be_sent_again_is_refused_with_its_reason(admin_client, queue, fields, said):
    refused, good = make_failed(1, **fields), make_failed(2)
    page = act(admin_client, "retry_tasks", [refused, good])
    text = page.content.decode()
    assert escape(said) in text or said == "it could not be sent: "
    response = confirm(admin_client, "retry_tasks", [refused, good])
    assert len(queue()) == 1
    assert texts(response)[0] == "Sent 1 task again."
    assert texts(response)[1].startswith(f"1 task was not sent again: {said}")
    refused.refresh_from_db()
    assert refused.retried_as == fields.get("retried_as")
    assert [entry.object_id for entry in LogEntry.objects.all()] == [str(good.pk)]


def test_if_nothing_can_be_sent_no_page_asks(admin_client, queue):
    response = act(admin_client, "retry_tasks", [make_failed(1, args="..."), make_failed(2, args="...")])
    assert texts(response) == ["2 tasks were not sent again: its arguments may have been cut."]


def test_a_second_click_sends_nothing_twice(admin_client, queue):
    row = make_failed()
    for _click in range(2):
        response = confirm(admin_client, "retry_tasks", [row])
    assert len(queue()) == 1
    assert "it was sent again already" in texts(response)[0]


def test_two_people_at_once_send_a_task_once(celery_app, queue):
    row = make_failed()
    plans = [resend.plan([TaskState.objects.get(pk=row.pk)]) for _person in range(2)]
    for plan in plans:
        resend.send(celery_app, plan)
    assert len(queue()) == 1
    assert [bool(plan[0].new_id) for plan in plans] == [True, False]
    assert "meanwhile" in plans[1][0].reason


def test_a_task_that_has_not_ended_is_sent_again_with_a_warning(admin_client, queue):
    row = make_failed(state="STARTED")
    assert "It may run twice." in act(admin_client, "retry_tasks", [row]).content.decode()
    assert "It may run twice." not in act(admin_client, "retry_tasks", [make_failed(1)]).content.decode()


def test_who_may_not_see_arguments_may_send_again_without_seeing_them(person, queue):
    row = make_failed(args="('secret',)")
    editor = person("view_taskstate", "retry_taskstate")
    page = act(editor, "retry_tasks", [row])
    assert "secret" not in page.content.decode()
    confirm(editor, "retry_tasks", [row])
    ((_name, _headers, args, _kwargs),) = queue()
    assert args == ["secret"]


def test_a_broken_task_module_does_not_stop_the_others(admin_client, queue, celery_app, monkeypatch, caplog):
    monkeypatch.setattr(celery_app.loader, "import_default_modules", lambda: 1 / 0)
    confirm(admin_client, "retry_tasks", [make_failed()])
    assert len(queue()) == 1
    assert "can't be imported" in caplog.text


def test_sending_again_needs_a_bounded_number_of_queries(admin_client, queue, django_assert_max_num_queries):
    rows = [make_failed(number) for number in range(10)]
    with django_assert_max_num_queries(10 * 2 + 20):
        confirm(admin_client, "retry_tasks", rows)
    assert len(queue()) == 10


def test_the_message_names_no_secret(rf, admin_client, queue):
    response = confirm(admin_client, "retry_tasks", [make_failed(args="('secret...',)")])
    assert all("secret" not in str(message) for message in get_messages(response.wsgi_request))
