"""Asking the broker: what it says of queues, and that nobody waits for one that doesn't answer."""

from __future__ import annotations

import threading
import time
import uuid

import pytest
from celery import Celery

from djcelery import queues
from djcelery.backends.columns import SENT_HEADER
from tests import services
from tests.services import wait_until


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


def test_a_queue_of_redis_tells_its_length_and_the_age_of_its_oldest_message(name):
    services.redis().close()
    app = app_at(services.REDIS_URL, name)
    assert only(queues.ask(app, [name])) == queues.Queue(name, 0)
    try:
        send(app, name, **{SENT_HEADER: time.time() - 100})
        send(app, name, **{SENT_HEADER: time.time()})
        found = only(queues.ask(app, [name]))
        assert found.messages == 2
        assert found.consumers is None
        assert 100 <= found.oldest_s < 110
    finally:
        services.redis().delete(name)


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
        release.wait(30)
        return queues.Broker((queues.Queue("celery", 5),))

    monkeypatch.setattr(queues, "ask", ask)
    watch = queues.Watch(app_at("memory://"))
    started = time.monotonic()
    assert watch.look(["celery"], wait_s=0.2).problem == "no answer within 0.2 s"
    assert watch.look(["celery"], wait_s=0.2).is_away
    assert time.monotonic() - started < 2
    # A second thread would wait for the same broker.
    assert len(calls) == 1
    release.set()
    wait_until(lambda: watch.look(["celery"], wait_s=0.2).queues)
    assert len(calls) == 1


def test_an_answer_is_good_for_some_seconds_and_for_the_queues_that_were_asked_for(monkeypatch):
    calls = []

    def ask(app, names):
        calls.append(set(names))
        return queues.Broker(tuple(queues.Queue(name, 1) for name in sorted(names)))

    monkeypatch.setattr(queues, "ask", ask)
    watch = queues.Watch(app_at("memory://"))
    assert len(watch.look(["a", "b"]).queues) == 2
    assert [queue.name for queue in watch.look(["a"]).queues] == ["a"]
    assert len(calls) == 1
    watch.look(["a", "c"])
    watch.look(["a", "c"], good_s=0)
    assert calls == [{"a", "b"}, {"a", "c"}, {"a", "c"}]


def test_no_more_than_fifty_queues_are_asked_for(monkeypatch):
    monkeypatch.setattr(queues, "ask", lambda app, names: queues.Broker(tuple(queues.Queue(n, 0) for n in names)))
    assert len(queues.Watch(app_at("memory://")).look([str(n) for n in range(200)]).queues) == 50


def test_the_queues_that_the_app_is_configured_with_are_looked_at(name):
    app = app_at("memory://", name)
    assert queues.configured(app) == [name]
    assert [queue.name for queue in queues.look(app, ["other"]).queues] == sorted([name, "other"])
