"""The live details of a worker: who may ask, what is shown of the answers, and how long is waited for them."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from django.core.cache import cache
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils.html import escape

from djcelery import utils
from djcelery.admin import inspection
from djcelery.forms import worker_task_names
from djcelery.models import TaskState, WorkerState

pytestmark = pytest.mark.django_db

WORKERS = "/admin/djcelery/workerstate/"
XSS = "<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def forget():
    yield
    # Who asks a broker in vain goes on after the answer, and would write into the log of the next test.
    for thread in threading.enumerate():
        if thread.name == "djcelery-inspect":
            thread.join(30)
    cache.clear()


def make_worker(number=0, **fields):
    return WorkerState.objects.create(**{"hostname": f"w{number}@h", "last_heartbeat": utils.now(), **fields})


def make_task(number=0, **fields):
    values = {"state": "STARTED", "task_id": f"id-{number}", "name": "shop.tasks.add", "tstamp": utils.now()}
    return TaskState.objects.create(**{**values, **fields})


# -- what a worker does now ------------------------------------------------------------------------

REQUEST = {
    "id": "id-0",
    "name": "shop.add",
    "args": ["tomato", 2],
    "kwargs": {"password": "s3cret"},
    "time_start": None,
    "worker_pid": 7,
}
REPLIES = {
    "stats": {
        "pid": 4711,
        "uptime": 60,
        "pool": {"implementation": "prefork", "max-concurrency": 2, "processes": [7, 8]},
        "broker": {"transport": "amqp", "hostname": "mq", "port": 5672, "transport_options": {"password": "s3cret"}},
        "total": {"shop.add": 3, "shop.mail": 4},
        "rusage": {"maxrss": 51200},
        "prefetch_count": 8,
    },
    "active": [{**REQUEST, "args": "('tomato', 2)", "kwargs": "{}"}],
    "reserved": [REQUEST],
    "scheduled": [{"eta": "2100-07-01T10:00:00+00:00", "priority": 6, "request": REQUEST}],
    "active_queues": [{"name": "mail", "exchange": {"name": "mail-x", "type": "topic"}, "routing_key": "mail.#"}],
    "registered": ["shop.add", "shop.mail [rate_limit=10/m]"],
}


@pytest.fixture
def answering(monkeypatch, celery_app):
    """A function that has every worker answer *replies*; it returns the list of what was asked."""

    def answer(replies, problem=""):
        asked = []

        def ask(commands, hostnames=None, expected=None, wait_s=0.9):
            asked.append((dict(commands), hostnames))
            return inspection.Answers({name: replies for name in hostnames or ["w0@h"]} if replies else {}, problem)

        monkeypatch.setattr(inspection, "ask", ask)
        return asked

    return answer


def live(client, worker, **query):
    return client.get(f"{WORKERS}{worker.pk}/live/", query)


def test_the_page_of_a_worker_asks_nobody_but_has_a_button_that_does(admin_client, answering):
    asked, worker = answering(REPLIES), make_worker()
    text = admin_client.get(f"{WORKERS}{worker.pk}/change/").content.decode()
    assert f'href="{WORKERS}{worker.pk}/live/"' in text
    assert asked == []


def test_the_live_details_ask_that_worker_alone_and_show_what_it_says(admin_client, answering):
    asked, worker = answering(REPLIES), make_worker()
    task = make_task()
    text = live(admin_client, worker).content.decode()
    assert asked == [(inspection.DETAILS, ["w0@h"])]
    shown = (
        "4711",
        "prefork",
        "7, 8",
        "amqp mq:5672",
        "50 MiB",
        "tomato",
        "2100-07-01 12:00:00+02:00",
        "mail-x",
        "mail.#",
    )
    for part in (*shown, "shop.mail", f"/admin/djcelery/taskstate/{task.pk}/change/"):
        assert part in text, part
    # What the broker's options hold may be secret.
    assert text.count("s3cret") == 2


def test_the_fragment_is_the_inner_part_alone(admin_client, answering):
    answering(REPLIES)
    text = live(admin_client, make_worker(), fragment=1).content.decode()
    assert "prefork" in text
    assert "<html" not in text


def test_links_to_tasks_take_one_query(admin_client, answering):
    answering({**REPLIES, "reserved": [{**REQUEST, "id": f"id-{number}"} for number in range(50)]})
    worker = make_worker()
    live(admin_client, worker, fragment=1)
    with CaptureQueriesContext(connection) as captured:
        live(admin_client, worker, fragment=1)
    # The session, the person, the worker, the tasks.
    assert len(captured) == 4


def test_arguments_are_hidden_from_who_may_not_see_them(person, answering):
    answering(REPLIES)
    worker = make_worker()
    client = person("view_workerstate", "inspect_workerstate")
    text = live(client, worker).content.decode()
    assert "(hidden)" in text
    assert "tomato" not in text
    assert "s3cret" not in text
    assert "id-0" in text


def test_arguments_that_are_not_stored_are_not_shown_here_either(admin_client, answering, settings):
    settings.DJCELERY_REDACT = ["kwargs.password", "args.0"]
    answering(
        {"reserved": [REQUEST], "active": [{**REQUEST, "args": "('tomato',)", "kwargs": "{'password': 's3cret'}"}]}
    )
    text = live(admin_client, make_worker()).content.decode()
    assert "s3cret" not in text
    assert "tomato" not in text
    assert "[redacted]" in text


@pytest.mark.parametrize("permissions", [("view_workerstate", "change_workerstate"), ("inspect_workerstate",)])
def test_who_may_not_ask_or_not_view_is_refused_and_has_no_button(person, answering, permissions):
    asked, worker = answering(REPLIES), make_worker()
    client = person(*permissions)
    assert live(client, worker).status_code == 403
    assert "/live/" not in client.get(f"{WORKERS}{worker.pk}/change/").content.decode()
    assert asked == []


def test_a_worker_that_is_gone_can_not_be_asked(admin_client, answering):
    asked = answering(REPLIES)
    assert live(admin_client, SimpleNamespace(pk=1_000_000)).status_code == 404
    assert live(admin_client, SimpleNamespace(pk="x")).status_code == 404
    assert asked == []


def test_what_a_worker_says_is_escaped(admin_client, answering):
    request = {**dict.fromkeys(("id", "name", "args", "kwargs", "worker_pid"), XSS), "time_start": XSS}
    replies = {
        "stats": {"pid": XSS, "pool": {"implementation": XSS, "processes": [XSS]}, "broker": {"hostname": XSS}},
        "active": [request],
        "reserved": {"error": XSS},
        "scheduled": [{"eta": XSS, "request": request}],
        "active_queues": [{"name": XSS, "exchange": {"name": XSS, "type": XSS}, "routing_key": XSS}],
        "registered": [XSS],
    }
    answering(replies, problem=XSS)
    text = live(admin_client, make_worker(hostname=XSS)).content.decode()
    assert XSS not in text
    assert text.count(escape(XSS)) > 10


@pytest.mark.parametrize("odd", [None, 7, "text", [None, 7, "text", [], {}], {"a": 1}, {"error": 7}, [{"request": 7}]])
def test_answers_of_unexpected_types_are_shown_as_far_as_they_go(admin_client, answering, odd):
    answering(dict.fromkeys(REPLIES, odd))
    assert live(admin_client, make_worker()).status_code == 200


def test_odd_values_inside_answers_are_left_out(admin_client, answering):
    odd = {
        "stats": {"uptime": "x", "pool": 7, "total": {"a": "b"}, "rusage": {"maxrss": None}, "broker": {"port": []}},
        "scheduled": [{"eta": "2100-13-45T99:00:00", "request": {"time_start": float("inf")}}],
        "active_queues": [{"exchange": None}],
        "registered": [7, None],
    }
    answering(odd)
    assert live(admin_client, make_worker()).status_code == 200


def test_of_very_many_tasks_a_part_is_shown_and_the_rest_counted(admin_client, answering):
    answering({"reserved": [{**REQUEST, "id": f"id-{number}"} for number in range(150)]})
    text = live(admin_client, make_worker()).content.decode()
    assert "(150)" in text
    assert "and 50 more" in text
    assert "id-120" not in text


def test_a_worker_that_does_not_answer_is_told_in_words(admin_client, answering):
    answering({}, problem="Nobody answered within 0.9 s.")
    text = live(admin_client, make_worker()).content.decode()
    assert "Nobody answered within 0.9 s." in text
    assert "Running now" not in text


def test_the_tasks_that_a_worker_told_are_known_to_the_form_from_then_on(admin_client, answering):
    answering(REPLIES)
    assert worker_task_names() == set()
    live(admin_client, make_worker())
    assert worker_task_names() == {"shop.add", "shop.mail"}


def test_what_workers_tell_is_bounded(admin_client, answering, monkeypatch):
    from djcelery import forms

    monkeypatch.setattr(forms, "_MAX_TOLD", 3)
    answering({"registered": [f"task-{number}" for number in range(10)]})
    live(admin_client, make_worker())
    assert len(worker_task_names()) == 3


def test_a_cache_that_fails_costs_nothing_but_the_names(admin_client, answering, monkeypatch, caplog):
    from djcelery import forms

    def fail(*args):
        raise ConnectionError("no cache")

    monkeypatch.setattr(forms, "cache", SimpleNamespace(get=fail, set=fail))
    answering(REPLIES)
    assert live(admin_client, make_worker()).status_code == 200
    assert "no cache" in caplog.text


# -- asking ----------------------------------------------------------------------------------------


@contextmanager
def node(app, hostname, handlers):
    """Have a worker of that name listen in a thread."""
    app.conf.broker_transport_options = {"polling_interval": 0.01}
    is_over, is_ready = threading.Event(), threading.Event()

    def listen():
        with app.connection_for_read() as broker:
            mine = app.control.mailbox(broker).Node(hostname, channel=broker.default_channel, handlers=handlers)
            with mine.listen(channel=broker.default_channel):
                is_ready.set()
                while not is_over.is_set():
                    try:
                        broker.drain_events(timeout=0.05)
                    except TimeoutError:
                        continue

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        assert is_ready.wait(30)
        yield
    finally:
        is_over.set()
        thread.join()


def handler(value):
    return lambda state, **arguments: value


def test_one_round_of_questions_brings_all_answers_before_the_time_is_over(celery_app):
    began_mono = time.monotonic()
    with (
        node(celery_app, "w0@h", {"stats": handler({"pid": 1}), "active": handler([])}),
        node(celery_app, "w1@h", {"stats": handler({"pid": 2}), "active": handler([REQUEST])}),
    ):
        one = inspection.ask({"stats": {}, "active": {"safe": True}}, ["w1@h"], wait_s=20)
        both = inspection.ask({"stats": {}}, expected=2, wait_s=20)
    assert (one.replies, one.problem) == ({"w1@h": {"stats": {"pid": 2}, "active": [REQUEST]}}, "")
    assert both.replies == {"w0@h": {"stats": {"pid": 1}}, "w1@h": {"stats": {"pid": 2}}}
    assert time.monotonic() - began_mono < 20


def test_an_answer_is_not_waited_for_because_another_one_is_missing(celery_app):
    with node(celery_app, "w0@h", {"stats": handler({"pid": 1})}):
        found = inspection.ask({"stats": {}}, ["w0@h", "w1@h"], wait_s=3)
    assert found.replies == {"w0@h": {"stats": {"pid": 1}}}


def test_a_command_that_a_worker_does_not_know_is_an_error_of_that_part(celery_app):
    with node(celery_app, "w0@h", {}):
        found = inspection.ask({"stats": {}}, ["w0@h"], wait_s=20)
    assert "KeyError" in found.replies["w0@h"]["stats"]["error"]


def took_s(call):
    began_mono = time.monotonic()
    found = call()
    return found, time.monotonic() - began_mono


def test_nobody_who_answers_costs_no_more_than_the_time(celery_app):
    found, seconds = took_s(lambda: inspection.ask(inspection.DETAILS, ["nobody@h"], wait_s=2))
    assert found.replies == {}
    assert found.problem == "Nobody answered within 2 s."
    # Not so long for each of the six questions.
    assert seconds < 2 * len(inspection.DETAILS) - 1


@pytest.mark.parametrize("url", ["amqp://127.0.0.1:1//", "redis://127.0.0.1:1/0", "nonesuch://"])
def test_a_broker_that_is_away_is_told_at_once(celery_app, url):
    celery_app.conf.broker_url = url
    found = inspection.ask(inspection.DETAILS, ["w0@h"], wait_s=5)
    assert found.replies == {}
    assert found.problem.startswith("The broker can't be reached: ")


@pytest.mark.parametrize("scheme", ["amqp", "redis"])
def test_a_broker_that_says_nothing_costs_no_more_than_the_time(celery_app, scheme):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        celery_app.conf.broker_url = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/"
        found, seconds = took_s(lambda: inspection.ask(inspection.DETAILS, ["w0@h"], wait_s=0.3))
    assert found.replies == {}
    assert found.problem
    # The clients by themselves wait four seconds at least.
    assert seconds < 3


def test_pages_that_wait_for_a_broker_do_not_pile_up(celery_app, monkeypatch):
    places = threading.BoundedSemaphore(1)
    monkeypatch.setattr(inspection, "_places", places)
    with places:
        found = inspection.ask(inspection.DETAILS, ["w0@h"], wait_s=5)
    assert found.problem == "Too many other pages are waiting for the broker."
    assert inspection.ask({"stats": {}}, ["w0@h"], wait_s=0.1).problem.startswith("Nobody")
