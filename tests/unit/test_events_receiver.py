"""The receiver of events on a broker in memory; for what only RabbitMQ can do see ``tests/integration``."""

from __future__ import annotations

import logging
import threading
import uuid
from types import SimpleNamespace

import pytest
from celery import Celery
from kombu import Producer

from djcelery.exceptions import CameraError
from djcelery.snapshot import receiver as module
from djcelery.snapshot.receiver import Mark, Receiver
from tests.services import wait_until


@pytest.fixture
def app():
    app = Celery("events", broker="memory://", set_as_current=False)
    app.conf.event_exchange = f"events-{uuid.uuid4().hex}"
    app.conf.event_queue_prefix = f"celeryev-{uuid.uuid4().hex}"
    yield app
    app.close()


class Received:
    """A receiver that runs in a thread, and what it has handed on."""

    def __init__(self, app, **options):
        self.bodies, self.refused, self.returns = [], [], []
        self.should_stop = False
        self.error = None
        self.receiver = Receiver(
            app,
            "cam@test",
            ttl_s=60,
            max_rows=1000,
            take=lambda body, at: self.bodies.append(body),
            refuse=lambda reason, body, at: self.refused.append((reason, body)),
            returned=lambda: self.returns.append(1),
            should_stop=lambda: self.should_stop,
        )
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        try:
            self.receiver.run()
        except CameraError as exc:
            self.error = exc

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.should_stop = True
        self.thread.join(60)
        assert not self.thread.is_alive()
        self.receiver.close()

    def wait_for(self, count):
        wait_until(lambda: len(self.bodies) >= count, 60, f"{count} messages")


def publish(app, body, **options):
    with app.connection_for_write() as connection:
        exchange = module.get_exchange(connection, name=app.conf.event_exchange)
        producer = Producer(connection, exchange, routing_key="task.multi", serializer="json")
        producer.publish(body, declare=[exchange], **options)


def ready(received):
    wait_until(lambda: received.receiver._consumer is not None, 60, "the consumer")


def test_one_event_and_a_list_of_events_are_handed_on_as_they_came(app):
    with Received(app) as received:
        ready(received)
        publish(app, {"type": "worker-online"})
        publish(app, [{"type": "task-sent"}, {"type": "task-received"}])
        received.wait_for(2)
    assert received.bodies == [{"type": "worker-online"}, [{"type": "task-sent"}, {"type": "task-received"}]]
    assert received.refused == []


@pytest.mark.parametrize(
    ("body", "options", "reason"),
    [
        (b"{", {"content_type": "application/json", "content_encoding": "utf-8"}, "DecodeError"),
        (b"\xff\xfe", {"content_type": "application/json", "content_encoding": "utf-8"}, "DecodeError"),
        (b"cos\nsystem\n.", {"content_type": "application/x-python-serialize"}, "ContentDisallowed"),
        (b"x", {"content_type": "application/json", "headers": {"compression": "application/x-gzip"}}, ""),
    ],
)
def test_a_message_that_cannot_be_decoded_does_not_stop_the_others(app, body, options, reason):
    with Received(app) as received:
        ready(received)
        publish(app, body, **options)
        publish(app, {"type": "worker-online"})
        received.wait_for(1)
    assert received.bodies == [{"type": "worker-online"}]
    assert len(received.refused) == 1
    assert received.refused[0][0].startswith(f"undecodable: {reason}")


def test_the_name_of_the_queue_is_stable(app):
    received = Received(app)
    assert received.receiver.queue_name == f"{app.conf.event_queue_prefix}.djcelery.cam@test"
    assert not received.receiver.acknowledges
    received.receiver.close()


def test_a_lost_connection_is_said_once_and_made_again(app, monkeypatch, caplog):
    caplog.set_level(logging.WARNING, logger=module.__name__)
    pauses, losses, failures = [], [ConnectionResetError("gone")], []
    connect, receive = Receiver._connect, Receiver._receive

    def failing_connect(self):
        if failures:
            raise failures.pop()
        connect(self)

    def failing_receive(self):
        if losses:
            failures.extend([OSError("away")] * 3)
            raise losses.pop()
        receive(self)

    monkeypatch.setattr(Receiver, "_connect", failing_connect)
    monkeypatch.setattr(Receiver, "_receive", failing_receive)
    monkeypatch.setattr(Receiver, "_sleep", lambda self, seconds: pauses.append(seconds))
    with Received(app) as received:
        wait_until(lambda: received.returns, 60, "the connection")
        assert received.receiver.trouble is None
        ready(received)
        publish(app, {"type": "worker-online"})
        received.wait_for(1)
    said = [record for record in caplog.records if record.name == module.__name__]
    assert [record.levelname for record in said] == ["ERROR", "WARNING"]
    assert "is lost: gone" in said[0].getMessage()
    assert "keeps no events meanwhile" in said[0].getMessage()
    assert len(pauses) == 4
    assert 0.5 <= pauses[0] <= 1
    assert 4 <= pauses[3] <= 8


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"broker_connection_retry_on_startup": False}, "can't be reached"),
        ({"broker_connection_retry": False}, "can't be reached"),
    ],
)
def test_settings_may_say_not_to_try_again(app, monkeypatch, settings, text):
    app.conf.update(settings)

    def away(self):
        raise ConnectionRefusedError("nobody there")

    monkeypatch.setattr(Receiver, "_connect", away)
    with Received(app) as received:
        received.thread.join(60)
    assert text in str(received.error)
    assert received.error.returncode == 69


def on_amqp(app):
    """Return a receiver whose messages the broker counts, with a channel that notes what it is told."""
    receiver = Received(app).receiver
    receiver.acknowledges, receiver.prefetch = True, 10
    told = []
    channel = SimpleNamespace(basic_ack=lambda tag, multiple: told.append((tag, multiple)))
    receiver._consumer = SimpleNamespace(channel=channel)
    receiver._connections = 1
    return receiver, told


def message(tag):
    return SimpleNamespace(decode=lambda: {"tag": tag}, delivery_tag=tag, body="")


def test_what_is_committed_is_acknowledged_and_nothing_else(app):
    receiver, told = on_amqp(app)
    for tag in (1, 2, 3):
        receiver._message(message(tag))
    mark = receiver.mark()
    receiver._message(message(4))
    receiver._acknowledge()
    assert told == []
    receiver.committed(mark)
    receiver._acknowledge()
    receiver._acknowledge()
    assert told == [(3, True)]
    assert receiver.unacknowledged == 1


def test_a_tag_of_a_lost_connection_is_not_acknowledged_on_the_next(app):
    receiver, told = on_amqp(app)
    receiver._message(message(5))
    mark = receiver.mark()
    receiver._connections = 2
    receiver._received = receiver._acknowledged = Mark(2, 0)
    receiver._message(message(9))
    receiver.committed(mark)
    receiver._acknowledge()
    assert told == []


def test_half_of_what_the_broker_hands_over_is_enough_to_write(app):
    receiver, _ = on_amqp(app)
    for tag in range(1, 5):
        receiver._message(message(tag))
    assert not receiver.is_half_full
    receiver._message(message(5))
    assert receiver.is_half_full


def test_a_small_limit_of_rows_is_a_small_number_of_messages(app):
    amqp = Celery("amqp", broker="amqp://127.0.0.1:1//", set_as_current=False)
    common = dict.fromkeys(("take", "refuse", "returned", "should_stop"), print)
    sizes = [Receiver(amqp, "c", ttl_s=1, max_rows=rows, **common).prefetch for rows in (10, 2400, 100_000_000)]
    assert sizes == [1, 100, 4000]
    amqp.close()
