"""celerycam while RabbitMQ itself is killed and started again, on a node of the test's own."""

from __future__ import annotations

import pytest

from tests.faults import engines, storms
from tests.integration.test_camera import (
    CAM,
    READY,
    WORKER,
    WORKER_READY,
    assert_nothing_is_missing_or_twice,
    engine_of,
    quiet,
    totals,
    wait_for_heartbeats,
    wait_for_ticks,
    wait_for_totals,
)
from tests.services import wait_until

__all__ = ["quiet"]

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)]


@pytest.fixture
def server(quiet):
    server = engines.RabbitmqServer()
    quiet.env["BROKER_URL"] = server.url
    yield server
    quiet.kill()
    server.close()


def test_a_camera_and_its_queue_outlive_restarts_of_rabbitmq(quiet, server):
    engine = engine_of(quiet)
    camera = quiet.start(*CAM, ready=READY)
    worker = quiet.start(*WORKER, ready=WORKER_READY)
    done = 0
    for times, way in enumerate((None, *server.ways)):
        if way is not None:
            server.stop(way)
            server.start()
            camera.wait_for("Connected to the broker again", times=times)
            worker.wait_for("Connected to amqp", times=times + 1)
        done += 50
        storms.send(quiet, "shop.faulty.tick", 50)
        wait_for_totals(engine, SUCCESS=done, RECEIVED=done)
    wait_for_heartbeats(engine)
    assert camera.stop() == 0
    assert "Traceback" not in camera.text()
    assert_nothing_is_missing_or_twice(engine, done)


def test_events_that_a_restarted_rabbitmq_has_thrown_away_are_counted_as_missed(quiet, server):
    """Celery sends events as transient messages: no restart of the broker keeps those that wait in a queue."""
    engine = engine_of(quiet)
    camera = quiet.start(*CAM, ready=READY)
    worker = quiet.start(*WORKER, ready=WORKER_READY)
    storms.send(quiet, "shop.faulty.tick", 50)
    wait_for_totals(engine, SUCCESS=50, RECEIVED=50)
    wait_for_heartbeats(engine, 1)
    assert camera.stop() == 0
    storms.send(quiet, "shop.faulty.tick", 30)
    wait_for_ticks(quiet, 80)
    server.stop(server.ways[-1])
    server.start()
    worker.wait_for("Connected to amqp", times=2)
    camera = quiet.start(*CAM, ready=READY)
    wait_until(lambda: engine.ask("SELECT sum(missed) FROM djcelery_workerstate") == [(30,)], 60, "what was missed")
    assert camera.stop() == 0
    assert totals(engine) == {"SUCCESS": 50, "RECEIVED": 50}
