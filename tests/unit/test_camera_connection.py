"""The camera's connections to brokers that say nothing: one that is quiet stays, one that is silent is away."""

from __future__ import annotations

import socket
import threading
import time
import uuid
from contextlib import suppress

import pytest
from celery import Celery
from kombu import Producer

from djcelery.snapshot import receiver as module
from djcelery.snapshot import switch as switching
from djcelery.snapshot.receiver import Receiver
from djcelery.snapshot.switch import Switch
from tests import services
from tests.proxy import Proxy
from tests.services import wait_until

#: Seconds for one call, in these tests.
LIMIT_S = 0.3
PORTS = {"redis": 6379, "amqp": 5672}


@pytest.fixture(autouse=True)
def limits(monkeypatch):
    monkeypatch.setattr(module, "LIMIT_S", LIMIT_S)
    monkeypatch.setattr(switching, "LIMIT_S", LIMIT_S)


@pytest.fixture
def apps():
    """A function that makes an app with a broker."""
    made = []

    def make(url):
        app = Celery("events", broker=url, set_as_current=False)
        app.conf.event_exchange = f"events-{uuid.uuid4().hex}"
        app.conf.event_queue_prefix = f"celeryev-{uuid.uuid4().hex}"
        # A ping in each second.
        app.conf.broker_transport_options = {"health_check_interval": 1} if url.startswith("redis") else {}
        made.append(app)
        return app

    yield make
    for app in made:
        app.close()


class Running:
    """A receiver that runs in a thread."""

    def __init__(self, app):
        self.bodies, self.returns, self.should_stop = [], [], False
        self.receiver = Receiver(
            app,
            "cam@test",
            ttl_s=10,
            max_rows=1000,
            take=lambda body, at: self.bodies.append(body),
            refuse=lambda reason, body, at: None,
            returned=lambda: self.returns.append(1),
            should_stop=lambda: self.should_stop,
        )
        self.rounds = 0
        self._check = self.receiver._check
        self.receiver._check = self._counting
        self.thread = threading.Thread(target=self.receiver.run, daemon=True)

    def _counting(self):
        self.rounds += 1
        self._check()

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.should_stop = True
        self.thread.join(60)
        self.receiver.close()

    def took_to_stop(self):
        started_mono = time.monotonic()
        self.should_stop = True
        self.thread.join(60)
        assert not self.thread.is_alive()
        self.receiver.close()
        return time.monotonic() - started_mono


def server(kind):
    """The URL of a server that runs."""
    if kind == "redis":
        services.redis().close()
        return services.REDIS_URL
    services.rabbitmq().release()
    return services.RABBITMQ_URL


@pytest.fixture
def silent():
    """The port of a server that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        yield listener.getsockname()[1]


def publish(app, body):
    with app.connection_for_write() as connection:
        exchange = module.get_exchange(connection, name=app.conf.event_exchange)
        producer = Producer(connection, exchange, routing_key="task.multi", serializer="json")
        producer.publish(body, declare=[exchange])


@pytest.mark.parametrize("kind", PORTS)
def test_a_server_that_accepts_and_says_nothing_is_told_and_holds_nobody_up(apps, silent, kind):
    if kind == "redis":
        pytest.importorskip("redis")
    with Running(apps(f"{kind}://127.0.0.1:{silent}//")) as running:
        wait_until(lambda: running.receiver.trouble, 30, "the trouble")
        assert "can't be reached" in running.receiver.trouble
        assert running.took_to_stop() < 5


@pytest.mark.parametrize("kind", PORTS)
def test_a_server_that_is_quiet_stays_connected(apps, kind, monkeypatch):
    monkeypatch.setattr(module, "_SUBSCRIPTION_S", 0.1)
    app = apps(server(kind))
    with Running(app) as running:
        wait_until(lambda: running.rounds, 60, "the connection")
        # Many times longer than one call may take.
        quiet_until_mono = time.monotonic() + 8 * LIMIT_S
        wait_until(lambda: time.monotonic() > quiet_until_mono and running.rounds > 8, 60, "rounds without an event")
        assert (running.receiver.trouble, running.receiver._connections, running.returns) == (None, 1, [])
        publish(app, {"type": "worker-online"})
        wait_until(lambda: running.bodies, 60, "the event")
        assert running.receiver._connections == 1


@pytest.mark.parametrize("kind", PORTS)
def test_a_server_that_falls_silent_does_not_hold_up_the_end(apps, kind):
    url = server(kind)
    proxy = Proxy(PORTS[kind])
    with Running(apps(url.replace(str(PORTS[kind]), str(proxy.port)))) as running:
        wait_until(lambda: running.rounds, 60, "the connection")
        proxy.is_silent.set()
        rounds = running.rounds
        wait_until(lambda: running.rounds > rounds + 1, 60, "another round")
        assert running.took_to_stop() < 10
    proxy.close()


# switching events on


@pytest.mark.parametrize("kind", PORTS)
def test_a_silent_server_is_told_nothing_and_tried_again(apps, silent, kind, caplog):
    if kind == "redis":
        pytest.importorskip("redis")
    switch = Switch(apps(f"{kind}://127.0.0.1:{silent}//"))
    started_mono = time.monotonic()
    switch.step()
    assert time.monotonic() - started_mono < 1
    switch._thread.join(10)
    assert not switch._thread.is_alive()
    assert "Could not tell workers to send events" in caplog.text
    assert switch._tell_all


@pytest.mark.parametrize("kind", PORTS)
@pytest.mark.parametrize("destination", [None, ["w1@h", "w2@h"]])
def test_workers_are_told_to_send_events(apps, kind, destination):
    app = apps(server(kind))
    app.conf.control_exchange = f"control-{uuid.uuid4().hex}"
    mailbox = app.control.mailbox
    told = []
    with app.connection_for_read() as connection:
        queue = mailbox(connection).get_queue("w1@h")
        with connection.Consumer([queue], callbacks=[lambda body, message: told.append(body)], no_ack=True):
            # Redis subscribes on the first look.
            with suppress(TimeoutError):
                connection.drain_events(timeout=0.5)
            switch = Switch(app)
            switch._tell_all = destination is None
            switch._tell.extend(destination or ())
            switch.step()
            switch._thread.join(60)
            while not told:
                connection.drain_events(timeout=30)
    assert (told[0]["method"], told[0]["destination"]) == ("enable_events", destination)
    # Not over Celery's own pool, which others use as before.
    assert app.amqp._producer_pool is None
    assert app.control.mailbox.producer_pool is not None
