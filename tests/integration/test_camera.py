"""celerycam as a real process, with real workers and brokers: what it writes, and what it doesn't lose."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time

import pytest
from kombu import Connection, Exchange, Producer

from tests.faults import engines, storms
from tests.integration.conftest import CAMERAS
from tests.proxy import Proxy
from tests.services import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.long]

CAM = ("celerycam", "-F", "0.5", "--pidfile=", "-l", "info")
WORKER = ("celeryd", "-E", "-l", "info", "-c", "2")
READY, WORKER_READY = "Connected to", " ready."
both = pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)
rabbitmq = pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
redis = pytest.mark.parametrize("broker", ["redis"], indirect=True)


@pytest.fixture
def quiet(programs):
    """Programs whose workers store no results, so that the database is the camera's alone."""
    ticks = programs.root / "ticks"
    ticks.mkdir()
    programs.env |= {
        "DJANGO_SETTINGS_MODULE": "legacyproj.faults",
        "FAULT_SETTINGS": json.dumps({"CELERY_IGNORE_RESULT": True}),
        "TICKS": str(ticks),
    }
    return programs


def totals(engine):
    """Return how many tasks came to each state, by the history."""
    rows = engine.ask("SELECT state, sum(count) FROM djcelery_taskhistory WHERE period = 'total' GROUP BY state")
    return {state: int(count) for state, count in rows}


def wait_for_ticks(programs, count):
    """Wait until so many tasks have run, as they count it themselves."""
    ticks = programs.root / "ticks"
    wait_until(lambda: sum(path.stat().st_size for path in ticks.iterdir()) == count, 60, f"{count} tasks")


def engine_of(programs):
    return engines.Sqlite(programs.root / "db.sqlite3")


def wait_for_totals(engine, timeout_s=60, **counts):
    found = {}

    def are_there():
        found.clear()
        found.update(totals(engine))
        return all(found.get(state, 0) >= count for state, count in counts.items())

    try:
        wait_until(are_there, timeout_s, str(counts))
    except pytest.fail.Exception:
        pytest.fail(f"The history has {found} instead of {counts}.")


def assert_nothing_is_missing_or_twice(engine, count):
    assert {state: n for state, n in totals(engine).items() if state != "RETRY"} == {
        "RECEIVED": count,
        "SUCCESS": count,
    }
    assert engine.ask("SELECT count(*), count(DISTINCT task_id) FROM djcelery_taskstate") == [(count, count)]
    assert engine.ask("SELECT sum(missed), sum(dropped), sum(malformed) FROM djcelery_camerastate") == [(0, 0, 0)]


@both
def test_tasks_and_workers_show_and_the_camera_says_how_it_does(programs):
    camera = programs.start(*CAM, ready=READY)
    assert "-> evcam: Taking snapshots with djcelery.snapshot.Camera (every 0.5 secs.)" in camera.text()
    worker = programs.start(*WORKER, ready=WORKER_READY)
    good, bad = programs.call("shop.tasks.add", 2, 2), programs.call("shop.tasks.fail", "sku")
    query = "SELECT state, name, result FROM djcelery_taskstate WHERE task_id = ?"
    wait_until(lambda: programs.rows(query, good) == [("SUCCESS", "shop.tasks.add", "4")], 60, "the task")
    wait_until(lambda: [row[:1] for row in programs.rows(query, bad)] == [("FAILURE",)], 60, "the failure")
    query = "SELECT processed, missed, offline_at IS NULL FROM djcelery_workerstate"
    wait_until(lambda: programs.rows(query) == [(2, 0, 1)], 60, "the counts of the worker")
    assert programs.rows("SELECT stopped_at FROM djcelery_camerastate") == [(None,)]
    assert worker.stop() == 0
    wait_until(lambda: programs.rows(query)[0][2] == 0, 60, "the worker's good-bye")
    assert camera.stop() == 0, camera.text()
    name, pid, events, error = programs.rows(
        "SELECT name, pid, events, error FROM djcelery_camerastate WHERE stopped_at IS NOT NULL"
    )[0]
    assert (name, pid, error or None) == (f"celerycam@{socket.gethostname()}", camera.pid, None)
    assert events >= 8


@both
def test_sigterm_writes_the_last_tasks(quiet):
    camera = quiet.start(*CAM, "-F", "600", ready=READY)
    worker = quiet.start(*WORKER, ready=WORKER_READY)
    storms.send(quiet, "shop.faulty.tick", 50)
    wait_for_ticks(quiet, 50)
    # Then it has sent all its events.
    assert worker.stop() == 0
    assert totals(engine_of(quiet)) == {}
    assert camera.stop() == 0, camera.text()
    assert_nothing_is_missing_or_twice(engine_of(quiet), 50)


@rabbitmq
def test_a_camera_that_is_killed_in_the_middle_loses_and_doubles_nothing(quiet):
    engine, tasks = engine_of(quiet), 900
    camera = quiet.start(*CAM, "-F", "0.2", ready=READY)
    quiet.start(*WORKER, ready=WORKER_READY)
    sender = threading.Thread(target=storms.send, args=(quiet, "shop.faulty.tick", tasks))
    sender.start()
    for part in (0.1, 0.4, 0.7):
        wait_for_totals(engine, SUCCESS=int(tasks * part))
        camera.send(signal.SIGKILL)
        camera.end()
        camera = quiet.start(*CAM, "-F", "0.2", ready=READY)
    sender.join()
    wait_for_totals(engine, SUCCESS=tasks, RECEIVED=tasks)
    wait_for_heartbeats(engine)
    assert camera.stop() == 0
    assert_nothing_is_missing_or_twice(engine, tasks)


def wait_for_heartbeats(engine, count=5):
    """Wait until missed tasks would have been counted."""
    query = "SELECT max(last_heartbeat) FROM djcelery_workerstate"
    last = engine.ask(query)
    for _ in range(count):
        wait_until(lambda before=last: engine.ask(query) != before, 60, "a heartbeat")
        last = engine.ask(query)


@rabbitmq
def test_a_camera_finds_what_ran_while_it_was_away(quiet):
    engine = engine_of(quiet)
    assert quiet.start(*CAM, ready=READY).stop() == 0
    quiet.start(*WORKER, ready=WORKER_READY)
    storms.send(quiet, "shop.faulty.tick", 100)
    wait_for_ticks(quiet, 100)
    camera = quiet.start(*CAM, ready=READY)
    wait_for_totals(engine, SUCCESS=100)
    wait_for_heartbeats(engine)
    assert camera.stop() == 0
    assert_nothing_is_missing_or_twice(engine, 100)


@redis
def test_what_ran_while_a_camera_on_redis_was_away_is_counted_as_missed(quiet):
    engine = engine_of(quiet)
    camera = quiet.start(*CAM, ready=READY)
    quiet.start(*WORKER, ready=WORKER_READY)
    storms.send(quiet, "shop.faulty.tick", 20)
    wait_for_totals(engine, SUCCESS=20)
    wait_for_heartbeats(engine)
    assert camera.stop() == 0
    storms.send(quiet, "shop.faulty.tick", 30)
    wait_for_ticks(quiet, 50)
    quiet.start(*CAM, ready=READY)
    storms.send(quiet, "shop.faulty.tick", 10)
    wait_for_totals(engine, SUCCESS=30)
    wait_until(lambda: engine.ask("SELECT sum(missed) FROM djcelery_camerastate") == [(30,)], 60, "the missed ones")
    assert engine.ask("SELECT missed, processed FROM djcelery_workerstate") == [(30, 60)]
    assert totals(engine) == {"RECEIVED": 30, "SUCCESS": 30}


@rabbitmq
def test_a_lost_connection_to_the_broker_loses_and_doubles_nothing(quiet):
    engine, tasks = engine_of(quiet), 600
    proxy = Proxy(5672)
    url = quiet.env["BROKER_URL"].replace(":5672", f":{proxy.port}")
    camera = quiet.start(*CAM, "-b", url, ready=READY)
    quiet.start(*WORKER, ready=WORKER_READY)
    sender = threading.Thread(target=storms.send, args=(quiet, "shop.faulty.tick", tasks))
    sender.start()
    for times, part in enumerate((0.1, 0.5), 1):
        wait_for_totals(engine, SUCCESS=int(tasks * part))
        proxy.cut()
        camera.wait_for("Connected to the broker again", times=times)
    sender.join()
    wait_for_totals(engine, SUCCESS=tasks, RECEIVED=tasks)
    wait_for_heartbeats(engine)
    assert camera.stop() == 0
    proxy.close()
    assert camera.text().count("is lost") == 2
    assert "Traceback" not in camera.text()
    assert_nothing_is_missing_or_twice(engine, tasks)


@redis
def test_a_lost_connection_to_redis_is_made_again(quiet):
    engine = engine_of(quiet)
    proxy = Proxy(6379)
    camera = quiet.start(*CAM, "-b", quiet.env["BROKER_URL"].replace(":6379", f":{proxy.port}"), ready=READY)
    quiet.start(*WORKER, ready=WORKER_READY)
    proxy.cut()
    camera.wait_for("Connected to the broker again")
    storms.send(quiet, "shop.faulty.tick", 10)
    wait_for_totals(engine, SUCCESS=10)
    assert camera.stop() == 0
    proxy.close()
    assert "Traceback" not in camera.text()


def test_a_broker_that_cannot_be_reached_is_said_once(programs):
    camera = programs.start(*CAM, "-b", "amqp://127.0.0.1:1//", ready="can't be reached")
    wait_until(lambda: programs.rows("SELECT error FROM djcelery_camerastate WHERE error LIKE '%reached%'"), 60, "it")
    assert camera.stop() == 0
    assert camera.text().count("can't be reached") == 1
    refusing = programs.root / "project" / "legacyproj" / "refusing.py"
    refusing.write_text("from legacyproj.settings import *\nCELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = False\n")
    done = programs.run(*CAM, "-b", "amqp://127.0.0.1:1//", "--settings=legacyproj.refusing")
    assert done.returncode == 69
    assert "can't be reached" in done.stderr


@both
def test_a_database_that_is_restarted_loses_and_doubles_nothing(quiet):
    server = engines.PostgresServer()
    try:
        engine = server.engine(f"djcelery_test_{os.getpid()}", server.url)
        with storms.closing_after(quiet, engine):
            quiet.env["DATABASE_URL"] = engine.url
            assert quiet.run("migrate", "-v0").returncode == 0
            camera = quiet.start(*CAM, "-F", "0.2", ready=READY)
            quiet.start(*WORKER, ready=WORKER_READY)
            sender = threading.Thread(target=storms.send, args=(quiet, "shop.faulty.tick", 1000))
            sender.start()
            for times, way in enumerate(server.ways, 1):
                wait_for_totals(engine, SUCCESS=250 * times)
                said = camera.text().count("The database can't be written")
                server.stop(way)
                camera.wait_for("The database can't be written", times=said + 1)
                server.start()
                camera.wait_for("The database is written again", times=times)
            sender.join()
            wait_for_totals(engine, SUCCESS=1000, RECEIVED=1000)
            wait_for_heartbeats(engine)
            assert camera.stop() == 0
            assert "Traceback" not in camera.text()
            assert_nothing_is_missing_or_twice(engine, 1000)
    finally:
        server.close()


@both
@pytest.mark.parametrize("names", [("one", "one"), ("one", "two")])
def test_two_cameras_count_nothing_twice(quiet, names):
    engine = engine_of(quiet)
    cameras = [quiet.start(*CAM, f"--name={name}", ready=READY) for name in names]
    quiet.start(*WORKER, ready=WORKER_READY)
    storms.send(quiet, "shop.faulty.tick", 200)
    wait_for_totals(engine, SUCCESS=200, RECEIVED=200)
    wait_for_heartbeats(engine)
    for camera in cameras:
        assert camera.stop() == 0, camera.text()
    assert_nothing_is_missing_or_twice(engine, 200)


@rabbitmq
def test_a_second_camera_of_the_same_name_takes_over_when_the_first_is_killed(quiet):
    engine = engine_of(quiet)
    first, _ = [quiet.start(*CAM, "--name=one", ready=READY) for _ in range(2)]
    quiet.start(*WORKER, ready=WORKER_READY)
    storms.send(quiet, "shop.faulty.tick", 20)
    wait_for_totals(engine, SUCCESS=20)
    first.send(signal.SIGKILL)
    storms.send(quiet, "shop.faulty.tick", 20)
    wait_for_totals(engine, SUCCESS=40)
    assert totals(engine) == {"RECEIVED": 40, "SUCCESS": 40}


@both
def test_malformed_messages_are_counted_and_do_no_harm(programs):
    camera = programs.start(*CAM, ready=READY)
    kind = "fanout" if "redis" in programs.env["BROKER_URL"] else "topic"
    exchange = Exchange(f"{programs.env['BROKER_PREFIX']}events", kind)
    options = {"global_keyprefix": programs.env["BROKER_PREFIX"]} if kind == "fanout" else {}
    with Connection(programs.env["BROKER_URL"], transport_options=options) as connection:
        producer = Producer(connection, exchange, routing_key="task.multi", serializer="json")

        def is_listening():
            # Redis keeps nothing for a camera that has said it is connected and doesn't listen yet.
            event = {"type": "worker-heartbeat", "hostname": "h", "timestamp": time.time(), "pid": 1}
            producer.publish(event, declare=[exchange])
            return programs.rows("SELECT 1 FROM djcelery_workerstate WHERE hostname = 'h'")

        wait_until(is_listening, 60, "the first event")
        producer.publish(b"{", content_type="application/json", content_encoding="utf-8", declare=[exchange])
        producer.publish(b"cos\nsystem\n.", content_type="application/x-python-serialize")
        producer.publish("a text")
        producer.publish([{"type": "task-received", "hostname": "h"}, 3, [], {"type": "task-started", "uuid": "u"}])
        producer.publish({"type": "worker-online", "hostname": "h", "timestamp": "yesterday"})
        producer.publish([])
    count = "SELECT malformed FROM djcelery_camerastate"
    wait_until(lambda: programs.rows(count) == [(8,)], 60, "the malformed events")
    assert programs.rows("SELECT count(*) FROM djcelery_malformedevent") == [(8,)]
    programs.start(*WORKER, ready=WORKER_READY)
    task_id = programs.call("shop.tasks.add", 2, 2)
    query = "SELECT state FROM djcelery_taskstate WHERE task_id = ?"
    wait_until(lambda: programs.rows(query, task_id) == [("SUCCESS",)], 60, "the task")
    assert camera.stop() == 0
    assert "Traceback" not in camera.text()


@rabbitmq
def test_a_queue_with_other_arguments_is_a_clear_error(programs):
    assert programs.start(*CAM, ready=READY).stop() == 0
    done = programs.run(*CAM, CAMERA_QUEUE_TTL_S="61")
    assert done.returncode == 1
    queue = f"{programs.env['BROKER_PREFIX']}celeryev.djcelery.{CAMERAS[0]}"
    assert f"camqadm queue.delete {queue}" in done.stderr
    assert "Traceback" not in done.stderr
    assert programs.run("camqadm", "queue.delete", queue).returncode == 0
    assert programs.start(*CAM, ready=READY, CAMERA_QUEUE_TTL_S="61").stop() == 0


@rabbitmq
def test_the_queue_of_a_camera_that_is_gone_for_good_does_not_stay(programs):
    assert programs.start(*CAM, ready=READY, CAMERA_QUEUE_TTL_S="1").stop() == 0
    queue = f"{programs.env['BROKER_PREFIX']}celeryev.djcelery.{CAMERAS[0]}"
    with Connection(programs.env["BROKER_URL"]) as connection:

        def is_gone():
            # To ask is to use it, which begins its time anew.
            threading.Event().wait(3)
            channel = connection.channel()
            try:
                channel.queue_declare(queue, passive=True)
            except connection.channel_errors:
                return True
            channel.close()
            return False

        wait_until(is_gone, 60, "the end of the queue")


@both
def test_events_are_switched_on_in_workers_that_were_started_without_them(quiet):
    engine = engine_of(quiet)
    without = tuple(word for word in WORKER if word != "-E")
    quiet.start(*without, "-n", "early@x", ready=WORKER_READY)
    camera = quiet.start(*CAM, "--enable-events", ready="Told all workers")
    camera.wait_for("Told early@x")
    storms.send(quiet, "shop.faulty.tick", 5)
    wait_for_totals(engine, SUCCESS=5)
    late = quiet.start(*without, "-n", "late@x", ready=WORKER_READY)
    # With another worker that is told at the same time, it comes last.
    camera.wait_for("late@x to send events", times=2)
    late.wait_for("Events of group {task} enabled by remote")
    storms.send(quiet, "shop.faulty.tick", 20)
    wait_for_totals(engine, SUCCESS=25)


def test_missing_tables_are_a_clear_error(programs):
    done = programs.run(*CAM, DATABASE_URL=f"sqlite:///{programs.root / 'empty.sqlite3'}")
    assert done.returncode == 1
    assert "Run manage.py migrate" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_name_that_no_queue_can_have_is_refused(programs):
    done = programs.run(*CAM, "--name", "x" * 300)
    assert done.returncode == 1
    assert "1 to 200 characters" in done.stderr
