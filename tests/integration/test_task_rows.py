"""The rows of tasks that real workers run, from messages that real brokers carry."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests import services
from tests.services import wait_until

pytestmark = pytest.mark.integration

READY = " ready."
SECRET = "hunter2-password"
BROKERS = pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)
REDIS = pytest.mark.parametrize("broker", ["redis"], indirect=True)

TASKS = """
import threading
from celery import shared_task

pause = threading.Event()

@shared_task(bind=True)
def charge(self, order_id, *, currency, seconds=0.3):
    pause.wait(seconds)
    return f"{order_id} {currency}"

@shared_task(bind=True, max_retries=1)
def twice(self, secret=None):
    if not self.request.retries:
        self.update_state(state="PROGRESS", meta={"percent": 50})
        pause.wait(1.5)
        raise self.retry(countdown=0.3)
    return "done"

@shared_task(bind=True)
def parent(self):
    charge.delay(1, currency="EUR", seconds=0)
    charge.delay(2, currency="EUR", seconds=0)

@shared_task
def large(size):
    return "x" * size

@shared_task
def unencodable():
    return {1, 2}

@shared_task(redact=["args", "kwargs", "result", "traceback"])
def hidden(secret, fail=False):
    if fail:
        raise ValueError(secret)
    return secret

@shared_task(redact="args")
def wrong(secret):
    return secret
"""

SETTINGS = """
from kombu import Exchange, Queue
CELERY_TASK_QUEUES = [
    Queue(CELERY_TASK_DEFAULT_QUEUE, Exchange(CELERY_TASK_DEFAULT_QUEUE), CELERY_TASK_DEFAULT_QUEUE),
    Queue(prefix() + "media", Exchange(prefix() + "media", "topic"), "media.#"),
]
CELERY_IMPORTS = ["shop.life"]
CELERY_TASK_TRACK_STARTED = True
DJCELERY_RESULT_MAX_BYTES = 5000
"""


@pytest.fixture
def life(programs, broker):
    """The programs, with the tasks and settings above; nothing runs yet."""
    (programs.project / "shop" / "life.py").write_text(TASKS)
    with (programs.project / "modernproj" / "settings.py").open("a") as settings:
        settings.write(SETTINGS)
    programs.env["DJANGO_SETTINGS_MODULE"] = "modernproj.settings"
    yield programs
    programs.kill()
    if broker == "rabbitmq":
        name = programs.env["BROKER_PREFIX"] + "media"
        with services.rabbitmq() as connection:
            connection.default_channel.queue_delete(name)
            connection.default_channel.exchange_delete(name)


def work(programs, *options):
    return programs.start("celeryd", "-l", "info", "-c1", *options, ready=READY)


def send(programs, line):
    """Send a task by the expression *line*; return its id."""
    code = f"from shop.life import *; from environ import prefix; print(({line}).id)"
    done = programs.run("shell", "-v0", "-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


def row(programs, task_id):
    """Return the task's row once it is final."""

    def final():
        rows = programs.rows(
            "SELECT * FROM celery_taskmeta WHERE task_id = ? AND status IN ('SUCCESS', 'FAILURE', 'REVOKED')", task_id
        )
        return rows and dict(zip(columns, rows[0], strict=True))

    columns = [column[1] for column in programs.rows("PRAGMA table_info(celery_taskmeta)")]
    return wait_until(final, 60, f"the end of {task_id}")


def seconds(programs, later, earlier, task_id):
    return programs.rows(
        f"SELECT (julianday({later}) - julianday({earlier})) * 86400 FROM celery_taskmeta WHERE task_id = ?", task_id
    )[0][0]


def on_disk(programs):
    """Return every byte that the database has on the disk."""
    return b"".join(path.read_bytes() for path in programs.root.glob("db.sqlite3*"))


@BROKERS
def test_a_row_tells_the_life_of_its_task(life):
    work(life, "-n", "one@here")
    task_id = send(life, "charge.apply_async((5,), {'currency': 'EUR'}, headers={'periodic_task_name': 'nightly'})")
    found = row(life, task_id)
    assert (found["name"], found["status"], found["result"]) == ("shop.life.charge", "SUCCESS", '"5 EUR"')
    assert (json.loads(found["args"]), json.loads(found["kwargs"])) == ([5], {"currency": "EUR"})
    assert (found["worker"], found["queue"]) == ("one@here", life.env["BROKER_PREFIX"] + "celery")
    assert (found["periodic_task"], found["retries"], found["root_id"]) == ("nightly", 0, task_id)
    assert (found["parent_id"], found["group_id"], found["flags"], found["progress"]) == (None, None, None, None)
    assert found["created"] <= found["started"] <= found["finished"]
    assert 0.3 <= found["runtime"] < 30
    assert seconds(life, "finished", "started", task_id) == pytest.approx(found["runtime"], abs=0.25)


@BROKERS
def test_the_queue_of_an_exchange_of_the_project_is_named(life):
    work(life)
    task_id = send(
        life,
        "charge.apply_async((5,), {'currency': 'EUR', 'seconds': 0}, "
        "queue=prefix() + 'media', routing_key='media.video.hd')",
    )
    assert row(life, task_id)["queue"] == life.env["BROKER_PREFIX"] + "media"


@REDIS
def test_a_retry_tells_when_it_was_sent_first_and_when_it_ran_last(life):
    work(life)
    task_id = send(life, "twice.delay()")
    found = row(life, task_id)
    assert (found["retries"], found["result"], json.loads(found["progress"])) == (1, '"done"', {"percent": 50})
    assert seconds(life, "started", "created", task_id) > 1.7
    # That of the last run, which does nothing; the first took longer.
    assert found["runtime"] < 1.5


@REDIS
def test_relatives_are_named(life):
    work(life)
    task_id = send(life, "parent.delay()")
    children = [child[0][0] for child in json.loads(row(life, task_id)["meta"])["children"]]
    assert len(children) == 2
    for child in children:
        found = row(life, child)
        assert (found["parent_id"], found["root_id"]) == (task_id, task_id)


@REDIS
def test_results_that_cannot_be_stored_fail_the_task_and_say_why(life):
    work(life)
    too_large, wrong_type = send(life, "large.delay(5000)"), send(life, "unencodable.delay()")
    found = row(life, too_large)
    assert found["status"] == "FAILURE"
    assert json.loads(found["result"])["exc_type"] == "ResultTooLarge"
    assert f"The result of task {too_large} takes 5002 bytes; 5000 may be stored." in found["traceback"]
    found = row(life, wrong_type)
    assert found["status"] == "FAILURE"
    assert "Object of type set is not JSON serializable" in found["result"]


@REDIS
def test_tasks_that_a_worker_ends_or_refuses_have_their_columns(life):
    work(life)
    ended = send(life, "charge.apply_async((5,), {'currency': 'EUR', 'seconds': 60}, time_limit=1)")
    expired = send(life, "charge.apply_async((6,), {'currency': 'EUR'}, expires=-5)")
    found = row(life, ended)
    assert (found["status"], json.loads(found["result"])["exc_type"]) == ("FAILURE", "TimeLimitExceeded")
    assert (found["name"], json.loads(found["args"]), bool(found["worker"])) == ("shop.life.charge", [5], True)
    # Known from the write in state STARTED.
    assert found["started"] <= found["finished"]
    found = row(life, expired)
    assert (found["status"], found["name"], json.loads(found["args"])) == ("REVOKED", "shop.life.charge", [6])
    assert found["created"] <= found["finished"]


@BROKERS
def test_what_the_sender_hides_stays_hidden_through_a_retry(life):
    worker = work(life)
    task_id = send(life, f"twice.apply_async(('{SECRET}',), argsrepr='(***)', kwargsrepr='{{}}')")
    found = row(life, task_id)
    assert (found["retries"], json.loads(found["args"]), found["flags"]) == (
        1,
        "(***)",
        "args_redacted kwargs_redacted",
    )
    assert SECRET.encode() not in on_disk(life)
    assert SECRET not in worker.text()


@BROKERS
def test_what_a_sender_without_djcelery_hides_stays_hidden_through_a_retry(life):
    work(life)
    code = (
        "import os, sys; from celery import Celery; queue = os.environ['BROKER_PREFIX'] + 'celery'; "
        "app = Celery(broker=os.environ['BROKER_URL'], backend='disabled://'); "
        "app.conf.task_default_queue = queue; "
        "app.conf.broker_transport_options = eval(sys.argv[1]); "
        f"print(app.send_task('shop.life.twice', ('{SECRET}',), argsrepr='(***)'), "
        "app.send_task('shop.life.charge', ((5, [{'a': ('b',)}]),), {'currency': 'EUR', 'seconds': 0}))"
    )
    redis = life.env["BROKER_URL"].startswith("redis")
    options = {"global_keyprefix": life.env["BROKER_PREFIX"]} if redis else {}
    done = subprocess.run(
        [sys.executable, "-c", code, repr(options)], env={**os.environ, **life.env}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    secret, plain = done.stdout.split()
    found = row(life, secret)
    assert (found["retries"], json.loads(found["args"]), found["flags"]) == (1, "(***)", "args_redacted")
    found = row(life, plain)
    assert (json.loads(found["args"]), found["flags"]) == ([[5, [{"a": ["b"]}]]], None)
    assert SECRET.encode() not in on_disk(life)


@REDIS
def test_what_a_task_hides_is_not_on_the_disk_nor_does_a_wrong_option_stop_it(life):
    worker = work(life)
    sent = [send(life, f"hidden.delay('{SECRET}')"), send(life, f"hidden.delay('{SECRET}', fail=True)")]
    wrong = send(life, f"wrong.delay('{SECRET}')")
    assert [row(life, task_id)["status"] for task_id in (*sent, wrong)] == ["SUCCESS", "FAILURE", "SUCCESS"]
    assert SECRET.encode() not in on_disk(life)
    assert "redact of task shop.life.wrong = 'args': use a list of names, not one string." in worker.text()
    assert row(life, send(life, "large.delay(5)"))["status"] == "SUCCESS"


@REDIS
def test_rows_at_publish_become_the_rows_of_the_worker(life):
    with (life.project / "modernproj" / "settings.py").open("a") as settings:
        settings.write("DJCELERY_STORE_PUBLISHED = True\n")
    task_id = send(life, "charge.delay(5, currency='EUR', seconds=0)")
    ((status, name, args, queue, created),) = life.rows(
        "SELECT status, name, args, queue, created FROM celery_taskmeta WHERE task_id = ?", task_id
    )
    assert (status, name, json.loads(args)) == ("PENDING", "shop.life.charge", [5])
    assert queue == life.env["BROKER_PREFIX"] + "celery"
    work(life)
    assert row(life, task_id)["created"] == created


@REDIS
def test_a_task_that_beat_has_sent_names_its_entry(life):
    made = life.run(
        "shell",
        "-v0",
        "-c",
        "from djcelery.schedulers import DatabaseScheduler as S; "
        "S.create_or_update_task('every second', task='shop.life.large', args='[3]', schedule=1)",
    )
    assert made.returncode == 0, made.stderr
    work(life)
    life.start("celerybeat", ready="Sending due task")
    names = wait_until(
        lambda: life.rows("SELECT periodic_task, name FROM celery_taskmeta WHERE status = 'SUCCESS'"), 60, "a result"
    )
    assert names[0] == ("every second", "shop.life.large")
