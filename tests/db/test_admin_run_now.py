"""Running periodic tasks at once: who may, what is sent, what is refused, and that nothing else changes."""

from __future__ import annotations

from datetime import timedelta

import pytest
from celery import Celery
from django.contrib.admin.models import LogEntry
from django.forms.models import model_to_dict
from django.utils.html import escape

from djcelery import utils
from djcelery.admin import run_now
from djcelery.models import CrontabSchedule, IntervalSchedule, PeriodicRun, PeriodicTask, ScheduleChange
from tests.db.schedules import make

pytestmark = pytest.mark.django_db

PAGE = "/admin/djcelery/periodictask/"
XSS = "<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def app(celery_app, monkeypatch):
    monkeypatch.setattr(celery_app.loader, "import_default_modules", lambda: [])

    @celery_app.task(name="shop.add", shared=False)
    def add(x, y=0):
        pass

    return celery_app


@pytest.fixture
def sent(app, monkeypatch):
    """What was sent: (name, args, kwargs, options)."""
    messages = []

    def send_task(self, name, args=None, kwargs=None, **options):
        assert options.pop("connection").connected
        messages.append((name, tuple(args or ()), kwargs, options))

    monkeypatch.setattr(Celery, "send_task", send_task)
    return messages


def act(client, rows, **data):
    pks = [row.pk for row in rows]
    return client.post(PAGE, {"action": "run_tasks", "_selected_action": pks, "index": 0, **data}, follow=True)


def confirm(client, *rows):
    return act(client, rows, post="yes")


def texts(response):
    return [str(message) for message in response.context["messages"]]


# -- who may ---------------------------------------------------------------------------------------


def test_who_lacks_the_permission_is_offered_no_action_and_refused_when_sending_one(person, sent):
    row = make()
    client = person("view_periodictask", "change_periodictask", "delete_periodictask")
    assert "run_tasks" not in client.get(PAGE).content.decode()
    act(client, [row])
    confirm(client, row)
    assert sent == []
    assert not LogEntry.objects.exists()


def test_who_has_the_permission_may_run_without_any_other(person, sent):
    row = make()
    client = person("view_periodictask", "run_periodictask")
    assert "run_tasks" in client.get(PAGE).content.decode()
    assert "1 task was sent" in texts(confirm(client, row))[0]
    assert len(sent) == 1


# -- what is sent ----------------------------------------------------------------------------------


def test_it_asks_first(admin_client, sent):
    rows = [make("nightly"), make(XSS, no_overlap=True)]
    text = act(admin_client, rows).content.decode()
    assert sent == []
    assert "nightly" in text
    assert escape(XSS) in text
    assert XSS not in text
    assert "must not be overlapped" in text


def test_the_options_of_the_row_go_with_the_message_and_expiry_counts_from_now(admin_client, sent):
    options = {"queue": "q", "exchange": "e", "routing_key": "r", "priority": 5, "headers": '{"a": 1}'}
    row = make("nightly", task="shop.add", args="[1]", kwargs='{"y": 2}', expire_seconds=60, **options)
    before = utils.to_utc(utils.now())
    confirm(admin_client, row)
    ((name, args, kwargs, said),) = sent
    assert (name, args, kwargs) == ("shop.add", (1,), {"y": 2})
    assert {key: said[key] for key in ("queue", "exchange", "routing_key", "priority")} == {
        key: value for key, value in options.items() if key != "headers"
    }
    # Beat's own headers would make it one of its runs.
    assert said["headers"] == {"a": 1, "periodic_task_name": "nightly"}
    assert timedelta(0) <= said["expires"] - before - timedelta(seconds=60) <= utils.to_utc(utils.now()) - before


def test_a_task_that_is_not_known_here_is_sent_by_its_name(admin_client, sent):
    confirm(admin_client, make(task="elsewhere.x", args="[1, 2, 3]"))
    assert [(name, args) for name, args, _, _ in sent] == [("elsewhere.x", (1, 2, 3))]


def test_options_of_the_settings_that_have_no_column_go_with_it(admin_client, sent, app):
    app.conf.beat_schedule = {"nightly": {"task": "shop.a", "schedule": 10, "options": {"time_limit": 7}}}
    confirm(admin_client, make("nightly"))
    assert sent[0][3]["time_limit"] == 7


def test_a_disabled_task_can_be_run(admin_client, sent):
    confirm(admin_client, make(enabled=False))
    assert len(sent) == 1


def test_nothing_changes_but_the_log(admin_client, admin_user, sent):
    row = make(last_run_at=utils.now() - timedelta(days=1), total_run_count=3, one_off=True)
    ScheduleChange.objects.all().delete()
    before = model_to_dict(PeriodicTask.objects.get())
    times = PeriodicTask.objects.values("last_run_at", "total_run_count", "date_changed", "scheduled_from").get()
    response = confirm(admin_client, row)
    assert model_to_dict(PeriodicTask.objects.get()) == before
    assert PeriodicTask.objects.values(*times).get() == times
    assert not ScheduleChange.objects.exists()
    assert not PeriodicRun.objects.exists()
    entry, task_id = LogEntry.objects.get(), sent[0][3]["task_id"]
    assert (entry.object_id, entry.user_id) == (str(row.pk), admin_user.pk)
    assert entry.get_change_message() == f"Run at once, as task {task_id}."
    assert f'<a href="/admin/djcelery/taskstate/?q={task_id}">{task_id}</a>' in texts(response)[0]


def test_the_ids_are_no_links_for_who_may_see_neither_tasks_nor_results(person, sent):
    response = confirm(person("view_periodictask", "run_periodictask"), make())
    assert sent[0][3]["task_id"] in texts(response)[0]
    assert "<a " not in texts(response)[0]


def test_the_message_reaches_the_queue(admin_client, app):
    app.conf.broker_transport_options = {"polling_interval": 0.01}
    confirm(admin_client, make("nightly", task="shop.add", args="[1]", queue="run-now"))
    with app.connection_for_read() as broker:
        message = broker.SimpleQueue("run-now").get(timeout=5)
        message.ack()
    assert message.headers["task"] == "shop.add"
    assert message.headers["periodic_task_name"] == "nightly"
    assert message.payload[0] == [1]


def test_eager_tasks_are_run_at_once(admin_client, app):
    done = []

    @app.task(name="shop.eager", shared=False)
    def eager(x):
        done.append(x)

    app.conf.task_always_eager = True
    app.conf.broker_url = "amqp://127.0.0.1:1//"
    assert "1 task was sent" in texts(confirm(admin_client, make(task="shop.eager", args="[7]")))[0]
    assert done == [7]


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (lambda: {"args": "["}, "args is not JSON"),
        (lambda: {"kwargs": "[]"}, "kwargs must be a JSON object"),
        (lambda: {"interval": None}, "it has no schedule"),
        (lambda: {"crontab": CrontabSchedule.objects.create(minute=XSS)}, "crontab field minute"),
        (lambda: {"interval": IntervalSchedule.objects.create(every=0, period="hours")}, "shorter than a second"),
        (lambda: {"expires": utils.now() - timedelta(hours=1)}, "It has expired: "),
        (lambda: {"task": "shop.add", "args": "[1, 2, 3]"}, "TypeError: "),
    ],
)
def test_what_beat_would_not_send_is_refused_with_the_reason_and_the_others_are_sent(
    admin_client, sent, fields, reason
):
    response = confirm(admin_client, make("bad", **fields()), make("good"))
    assert [options["headers"]["periodic_task_name"] for *_, options in sent] == ["good"]
    done, refused = texts(response)
    assert "1 task was sent" in done
    assert escape("1 task can't be run:") in refused
    assert "<br>bad: " in refused
    assert escape(reason) in refused
    assert XSS not in refused
    assert [entry.object_repr for entry in LogEntry.objects.all()] == [str(PeriodicTask.objects.get(name="good"))]


def test_an_error_that_was_mended_does_not_keep_a_task_from_being_run(admin_client, sent):
    row = make()
    PeriodicTask.objects.filter(pk=row.pk).update(last_error="args is not JSON")
    confirm(admin_client, row)
    assert len(sent) == 1


def test_too_many_tasks_are_refused(admin_client, sent, monkeypatch):
    monkeypatch.setattr(run_now, "MAX_ROWS", 1)
    response = act(admin_client, [make("a"), make("b")])
    assert "more than 1 rows" in texts(response)[0]
    assert sent == []


@pytest.mark.parametrize("url", ["amqp://127.0.0.1:1//", "redis://127.0.0.1:1/0", "nonesuch://"])
def test_a_missing_broker_is_an_error_message(admin_client, app, url):
    app.conf.broker_url = url
    response = confirm(admin_client, make("a"), make("b"))
    assert texts(response)[0].startswith("Not sent for 2 rows, because the broker did not take it: ")
    assert not LogEntry.objects.exists()


def test_when_the_broker_fails_half_way_both_counts_are_told(admin_client, app, monkeypatch):
    def send_task(self, name, *args, **options):
        if name == "shop.lost":
            raise ConnectionResetError("gone")

    monkeypatch.setattr(Celery, "send_task", send_task)
    rows = [make("a"), make("b", task="shop.lost"), make("c")]
    done, failed = texts(confirm(admin_client, *rows))
    assert "1 task was sent" in done
    assert failed == "Not sent for 2 rows, because the broker did not take it: gone"
    assert LogEntry.objects.count() == 1


def test_of_many_tasks_a_few_are_named(admin_client, sent, monkeypatch):
    monkeypatch.setattr(run_now, "MAX_SHOWN", 2)
    (text,) = texts(confirm(admin_client, *(make(f"t{number}") for number in range(5))))
    assert "5 tasks were sent:" in text
    assert text.endswith("<br>and 3 more")
    assert LogEntry.objects.count() == 5
