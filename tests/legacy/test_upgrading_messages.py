"""Messages that Celery 2.5 and 3.1 left in a queue, put there by hand, and a real worker of today."""

from __future__ import annotations

import json
import pickle
import uuid
from pathlib import Path

import pytest
from kombu import Connection, Producer

from tests.integration.conftest import broker, migrated_database, programs
from tests.services import wait_until

__all__ = ("broker", "migrated_database", "programs")

pytestmark = [pytest.mark.integration, pytest.mark.long]

JSON = ("application/json", "utf-8")
PICKLE = ("application/x-python-serialize", "binary")


def body(release, task, *args, **changed):
    """Return the dictionary that is the whole body of a message of protocol 1."""
    made = {"task": task, "id": str(uuid.uuid4()), "args": list(args), "kwargs": {}}
    made |= {"retries": 0, "eta": None, "expires": None}
    if release == "3.1":
        made |= {"utc": True, "callbacks": None, "errbacks": None, "timelimit": [None, None], "taskset": None}
        made |= {"chord": None}
    return {**made, **changed}


def python_2_pickle(value):
    """Return the pickle of *value* as Python 2 wrote it, whose texts are bytes."""

    def parts(value):
        if isinstance(value, dict):
            return b"}(" + b"".join(parts(key) + parts(item) for key, item in value.items()) + b"u"
        if isinstance(value, list):
            return b"](" + b"".join(map(parts, value)) + b"e"
        if isinstance(value, bytes):
            return b"U" + bytes([len(value)]) + value
        if isinstance(value, str):
            return parts(value.encode())
        return pickle.dumps(value, 2)[2:-1]

    return b"\x80\x02" + parts(value) + b"."


class Queue:
    """The queue of the project's workers, in a folder."""

    def __init__(self, programs):
        self.name = f"{programs.env['BROKER_PREFIX']}celery"
        root = Path(programs.env["BROKER_DIR"])
        self.folder = root / "messages"
        for folder in (self.folder, root / "control"):
            folder.mkdir(parents=True, exist_ok=True)
        self.options = {
            "data_folder_in": str(self.folder),
            "data_folder_out": str(self.folder),
            "control_folder": str(root / "control"),
        }

    def put(self, payload, kind):
        """Put a message there as an old sender left it; return its task's id."""
        content_type, encoding = kind
        raw = json.dumps(payload).encode() if kind is JSON else python_2_pickle(payload)
        with Connection("filesystem://localhost", transport_options=self.options) as connection:
            Producer(connection.default_channel).publish(
                raw, exchange="", routing_key=self.name, content_type=content_type, content_encoding=encoding
            )
        return payload["id"]

    def waiting(self):
        return list(self.folder.glob(f"*.{self.name}.msg"))


def states(programs):
    return dict(programs.rows("SELECT task_id, status FROM celery_taskmeta"))


def wait_for(programs, **expected):
    wait_until(lambda: expected.items() <= states(programs).items(), 90, f"{expected}; there is {states(programs)}")


def test_old_json_runs_and_an_old_pickle_is_logged_and_gone(programs):
    queue = Queue(programs)
    pickled = queue.put(body("3.1", "shop.tasks.add", 1, 1), PICKLE)
    late = "2015-03-01T12:00:00+00:00"
    ran = {
        queue.put(body("2.5", "shop.tasks.add", 2, 3), JSON): "SUCCESS",
        queue.put(body("3.1", "shop.tasks.add", 4, 5, eta=late, utc=True), JSON): "SUCCESS",
        queue.put(body("3.1", "shop.tasks.fail", "SKU-1"), JSON): "FAILURE",
        queue.put(body("3.1", "shop.tasks.add", 6, 7, expires=late), JSON): "REVOKED",
    }
    assert len(queue.waiting()) == 5
    worker = programs.start("celeryd", "-l", "info", "-c1", ready="ready.")
    wait_for(programs, **ran)
    worker.wait_for("Can't decode message body")
    wait_until(lambda: not queue.waiting(), 60, "the queue to be empty")
    # It is lost, and the worker goes on.
    assert pickled not in states(programs)
    assert worker.stop() == 0
    assert pickled not in states(programs)
    rows = dict(programs.rows("SELECT result, args FROM celery_taskmeta WHERE status = 'SUCCESS'"))
    assert rows == {"5": "[2, 3]", "9": "[4, 5]"}


def test_an_old_pickle_runs_where_the_settings_accept_it(programs):
    queue = Queue(programs)
    programs.env["DJANGO_SETTINGS_MODULE"] = "legacyproj.faults"
    programs.env["FAULT_SETTINGS"] = json.dumps({"CELERY_ACCEPT_CONTENT": ["json", "pickle"]})
    ran = {
        queue.put(body("2.5", "shop.tasks.add", 2, 3), PICKLE): "SUCCESS",
        queue.put(body("3.1", "shop.tasks.add", "a", "b"), PICKLE): "SUCCESS",
        queue.put(body("3.1", "shop.tasks.add", 4, 5), JSON): "SUCCESS",
    }
    # Bytes of Python 2 beyond ASCII: Python 3 can't tell what text they are.
    lost = queue.put(body("3.1", "shop.tasks.add", "é".encode(), b""), PICKLE)
    worker = programs.start("celeryd", "-l", "info", "-c1", ready="ready.")
    wait_for(programs, **ran)
    worker.wait_for("Can't decode message body")
    wait_until(lambda: not queue.waiting(), 60, "the queue to be empty")
    assert worker.stop() == 0
    assert lost not in states(programs)
    assert {text for (text,) in programs.rows("SELECT result FROM celery_taskmeta")} == {"5", '"ab"', "9"}


def test_messages_of_protocol_1_are_what_an_old_worker_reads(programs):
    queue = Queue(programs)
    programs.env["DJANGO_SETTINGS_MODULE"] = "legacyproj.faults"
    programs.env["FAULT_SETTINGS"] = json.dumps({"CELERY_TASK_PROTOCOL": 1})
    task_id = programs.call("shop.tasks.add", 2, 3)
    (file,) = queue.waiting()
    message = json.loads(file.read_text())
    with Connection("memory://") as connection:
        decoded = connection.default_channel.message_to_python(message).decode()
    assert (message["content-type"], message["content-encoding"]) == JSON
    expected = body("3.1", "shop.tasks.add", 2, 3, id=task_id)
    assert expected.keys() <= decoded.keys()
    assert {name: decoded[name] for name in ("task", "id", "args", "kwargs", "retries")} == {
        name: expected[name] for name in ("task", "id", "args", "kwargs", "retries")
    }
