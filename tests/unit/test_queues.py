"""Asking the broker: what it says of queues, and that nobody waits for one that doesn't answer."""

from __future__ import annotations

import re
import threading
import time
import uuid

import pytest
from celery import Celery
from kombu import Queue

from djcelery import queues
from djcelery.backends.columns import SENT_HEADER
from tests import services
from tests.services import wait_until


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Have the brokers of the tests answer in time on a machine that does much else."""
    monkeypatch.setattr(queues, "_TIMEOUT_S", 60.0)


@pytest.fixture
def name():
    return f"q{uuid.uuid4().hex[:8]}"


def app_at(url, name="celery", **conf):
    app = Celery("queues", broker=url, set_as_current=False)
    app.conf.update(task_default_queue=name, **conf)
    return app


def send(app, name, **headers):
    with app.connection_for_write() as connection, connection.SimpleQueue(name) as queue:
        queue.put({"x": 1}, headers=headers)


def only(broker):
    assert not broker.is_away, broker.problem
    (queue,) = broker.queues
    return queue


def test_a_queue_in_memory_is_counted(name):
    app = app_at("memory://", name)
    assert only(queues.ask(app, [name])).messages == 0
    send(app, name)
    assert only(queues.ask(app, [name])).messages == 1


@pytest.mark.parametrize("prefix", ["", "djcelery-test-"])
def test_a_queue_of_redis_tells_its_length_and_the_age_of_its_oldest_message(name, prefix):
    services.redis().close()
    app = app_at(services.REDIS_URL, name, broker_transport_options={"global_keyprefix": prefix})
    assert only(queues.ask(app, [name])) == queues.Queue(name, 0)
    try:
        send(app, name, **{SENT_HEADER: time.time() - 100})
        send(app, name, **{SENT_HEADER: time.time()})
        found = only(queues.ask(app, [name]))
        assert found.messages == 2
        assert found.consumers is None
        assert 100 <= found.oldest_s < 160
    finally:
        services.redis().delete(prefix + name)


@pytest.mark.parametrize("prefix", ["", "djcelery-test-"])
def test_messages_of_every_priority_are_counted_and_the_oldest_of_all_is_found(name, prefix):
    client = services.redis()
    app = app_at(services.REDIS_URL, name, broker_transport_options={"global_keyprefix": prefix})
    try:
        with app.connection_for_write() as connection, connection.SimpleQueue(name) as queue:
            for priority, age_s in ((0, 10), (6, 200), (9, 30)):
                queue.put({"x": 1}, headers={SENT_HEADER: time.time() - age_s}, priority=priority)
        assert len(client.keys(f"{prefix}{name}*")) == 3
        found = only(queues.ask(app, [name]))
        assert found.messages == 3
        assert 200 <= found.oldest_s < 260
    finally:
        client.delete(*client.keys(f"{prefix}{name}*"))


def test_a_retried_message_of_redis_says_nothing_of_its_age(name):
    services.redis().close()
    app = app_at(services.REDIS_URL, name)
    try:
        send(app, name, retries=1, **{SENT_HEADER: time.time() - 100})
        assert only(queues.ask(app, [name])).oldest_s is None
    finally:
        services.redis().delete(name)


@pytest.mark.parametrize("body", [b"", b"no json", b"[]", b'{"headers": []}', b'{"headers": {"djcelery_sent": "x"}}'])
def test_a_message_that_is_none_has_no_age(body):
    assert queues._sent(body) is None


def test_a_queue_of_rabbitmq_tells_its_length_and_its_consumers_and_one_that_is_missing(name):
    services.rabbitmq().release()
    app = app_at(services.RABBITMQ_URL, name)
    missing = f"{name}-missing"
    with app.connection_for_write() as connection, connection.SimpleQueue(name) as queue:
        try:
            queue.put("x")
            wait_until(lambda: queues.ask(app, [name]).queues[0].messages == 1)
            found = queues.ask(app, [missing, name, f"{name}z"])
            assert [(one.name, one.messages) for one in found.queues] == [
                (name, 1),
                (missing, None),
                (f"{name}z", None),
            ]
            assert found.queues[0].consumers is not None
        finally:
            connection.default_channel.queue_delete(name)


def test_a_broker_that_refuses_is_away_and_says_why():
    found = queues.ask(app_at("redis://127.0.0.1:1/0"), ["celery"])
    assert found.is_away
    assert found.queues == ()
    assert found.problem


def test_the_password_of_the_broker_is_not_told():
    found = queues.ask(app_at("redis://me:secret@127.0.0.1:1/0"), ["celery"])
    assert "secret" not in repr(found)
    assert "127.0.0.1" in found.url


def test_a_broker_that_never_answers_holds_nobody_up(monkeypatch):
    release, calls = threading.Event(), []

    def ask(app, names):
        calls.append(names)
        release.wait(60)
        return queues.Broker((queues.Queue("celery", 5),))

    monkeypatch.setattr(queues, "ask", ask)
    watch = queues.Watch(app_at("memory://"))
    started = time.monotonic()
    assert watch.look(["celery"], wait_s=0.2).problem == "no answer within 0.2 s"
    assert watch.look(["celery"], wait_s=0.2).is_away
    # Far from what the broker takes, however slow the machine.
    assert time.monotonic() - started < 30
    wait_until(lambda: calls)
    # A second thread would wait for the same broker.
    assert len(calls) == 1
    release.set()
    wait_until(lambda: watch.look(["celery"], wait_s=0.2, good_s=600).queues)
    assert len(calls) == 1


def test_an_answer_is_good_for_some_seconds_and_for_the_queues_that_were_asked_for(monkeypatch):
    calls = []

    def ask(app, names):
        calls.append(set(names))
        return queues.Broker(tuple(queues.Queue(name, 1) for name in sorted(names)))

    monkeypatch.setattr(queues, "ask", ask)
    watch = queues.Watch(app_at("memory://"))
    assert len(watch.look(["a", "b"], wait_s=60).queues) == 2
    assert [queue.name for queue in watch.look(["a"], wait_s=60).queues] == ["a"]
    assert len(calls) == 1
    watch.look(["a", "c"], wait_s=60)
    watch.look(["a", "c"], wait_s=60, good_s=0)
    assert calls == [{"a", "b"}, {"a", "c"}, {"a", "c"}]


def test_no_more_than_fifty_queues_are_asked_for(monkeypatch):
    monkeypatch.setattr(queues, "ask", lambda app, names: queues.Broker(tuple(queues.Queue(n, 0) for n in names)))
    assert len(queues.Watch(app_at("memory://")).look([str(n) for n in range(200)], wait_s=60).queues) == 50


def test_the_queues_that_the_app_is_configured_with_are_looked_at(name):
    app = app_at("memory://", name)
    assert queues.configured(app) == [name]
    assert [queue.name for queue in queues.look(app, ["other"], wait_s=60).queues] == sorted([name, "other"])


def test_the_queues_of_the_settings_come_before_all_others(name, monkeypatch):
    monkeypatch.setattr(queues, "ask", lambda app, names: queues.Broker(tuple(queues.Queue(n, 0) for n in names)))
    app = app_at("memory://", name, task_routes={f"t{n}": f"a{n}" for n in range(60)})
    assert len(queues.configured(app)) == 50
    found = queues.look(app, [f"b{n}" for n in range(60)], wait_s=60).queues
    assert len(found) == 50
    assert name in {queue.name for queue in found}


def refuse(*args, **options):
    raise AssertionError("a route was called")


@pytest.mark.parametrize(
    ("routes", "named"),
    [
        ({"shop.mail": {"queue": "mail"}, "shop.web.*": "web"}, ["mail", "web"]),
        ([{"shop.mail": {"queue": "mail"}}, [(re.compile("web"), {"queue": Queue("web")})]], ["mail", "web"]),
        (({"a": {"queue": "mail"}, "b": "mail"}, refuse, "no.such.module.route"), ["mail"]),
        ({"a": {"exchange": "x", "routing_key": "y"}, "b": {"queue": None}}, []),
        # Nobody can send by these.
        ([("a", {"queue": "mail"})], []),
        (None, []),
    ],
)
def test_queues_that_only_routes_name_are_looked_at_and_no_route_is_called(name, routes, named):
    app = app_at("memory://", name, task_routes=routes)
    assert queues.configured(app) == [name, *named]
