"""Connections to a broker whose calls are bounded."""

from __future__ import annotations

import socket

import pytest
from celery import Celery
from kombu import Producer
from kombu.exceptions import OperationalError

from djcelery.brokers import TIMEOUTS, bounded, control_over


@pytest.fixture
def app():
    app = Celery("x", set_as_current=False)
    yield app
    app.close()


@pytest.mark.parametrize(("scheme", "kind"), [("redis", "redis"), ("amqp", "amqp"), ("memory", None)])
def test_each_call_of_a_transport_that_can_is_bounded(app, scheme, kind):
    if kind == "redis":
        pytest.importorskip("redis")
    app.conf.broker_url = f"{scheme}://localhost//"
    connection = bounded(app, 0.5)
    assert connection.connect_timeout == 0.5
    assert connection.transport_options == dict.fromkeys(TIMEOUTS.get(kind, ()), 0.5)


def test_what_the_project_allows_stays_where_it_is_shorter(app):
    app.conf.broker_url = "amqp://localhost//"
    app.conf.broker_connection_timeout = 0.1
    app.conf.broker_transport_options = {"read_timeout": 0.2, "write_timeout": 60, "login_method": "PLAIN"}
    connection = bounded(app, 0.5)
    assert connection.connect_timeout == 0.1
    assert connection.transport_options == {"read_timeout": 0.2, "write_timeout": 0.5, "login_method": "PLAIN"}
    # The next connection waits as long as the project says.
    assert app.connection_for_write().transport_options["write_timeout"] == 60


def test_each_of_several_brokers_is_bounded(app):
    app.conf.broker_url = ["amqp://one//", "amqp://two//"]
    app.conf.broker_connection_timeout = 60
    connection = bounded(app, 0.5)
    connection.maybe_switch_next()
    connection.maybe_switch_next()
    assert connection.connect_timeout == 0.5
    assert connection.transport_options == dict.fromkeys(TIMEOUTS["amqp"], 0.5)


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_accepts_and_never_answers_is_an_error(app, scheme):
    if scheme == "redis":
        pytest.importorskip("redis")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        app.conf.broker_url = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}//"
        connection = bounded(app, 0.1)
        with pytest.raises(OperationalError):
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=0.1)


def test_control_is_sent_over_the_connection_that_is_given_and_once(app, monkeypatch):
    app.conf.broker_url = "memory://"
    tries = []

    def publish(self, *args, **kwargs):
        tries.append(self.connection)
        raise ConnectionResetError("the broker has died")

    with bounded(app, 0.5) as connection:
        control = control_over(app, connection)
        monkeypatch.setattr(Producer, "_publish", publish)
        with pytest.raises(ConnectionResetError):
            control.revoke("x", connection=connection)
        assert tries == [connection]
    # Celery's own pool is left as it is.
    assert app.amqp._producer_pool is None
    assert app.control.mailbox.producer_pool is not control.mailbox.producer_pool
