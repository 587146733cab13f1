"""Chords on real workers: one callback per chord, on three databases, killed workers or not."""

from __future__ import annotations

import json
import uuid

import pytest

from tests.integration.test_connections import Mariadb, Postgres
from tests.services import wait_until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.long,
    pytest.mark.parametrize("broker", ["redis"], indirect=True),
]


@pytest.fixture(params=[None, Postgres, Mariadb], ids=["sqlite", "postgresql", "mariadb"])
def database(request, programs):
    """A database with djcelery's tables; ``programs`` use it."""
    if request.param is None:
        yield programs.env["DATABASE_URL"]
        return
    server = request.param(f"djcelery_chords_{uuid.uuid4().hex[:12]}")
    programs.env["DATABASE_URL"] = server.url
    done = programs.run("migrate", "-v0")
    assert done.returncode == 0, done.stderr
    yield server.url
    programs.kill()
    server.close()


@pytest.fixture
def worker(programs, database):
    words = ("worker", "--include", "shop.chordtasks", "--concurrency", "4", "-l", "INFO")
    return lambda **env: programs.start_celery(*words, ready="ready.", **env)


def called(log):
    """Return what the callbacks have written: ``[task id, values]``."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def started(programs, running, task, *args):
    """Send a task that sends chords; return the ids of the callbacks."""
    import ast
    import re

    task_id = programs.call(f"shop.chordtasks.{task}", *args)
    running.wait_for(f"{task}[{task_id}] succeeded")
    (ids,) = re.findall(rf"{task}\[{task_id}\] succeeded in \S+: (\[.*\])", running.text())
    return ast.literal_eval(ids)


def test_every_chord_calls_back_once_whichever_worker_is_last(programs, worker, tmp_path):
    log, chords, size = tmp_path / "log", 12, 6
    running = worker()
    ids = started(programs, running, "start", chords, size, str(log))
    wait_until(lambda: len(called(log)) >= chords, 60, "the callbacks")
    running.stop()
    assert sorted(called(log)) == sorted([task_id, list(range(size))] for task_id in ids)


def test_a_callback_whose_sender_was_killed_is_sent_by_the_part_that_comes_again(programs, worker, tmp_path):
    log, die = tmp_path / "log", tmp_path / "die"
    running = worker(DIE_ONCE=str(die))
    die.touch()
    ids = started(programs, running, "start", 1, 3, str(log))
    wait_until(lambda: called(log), 60, "the callback")
    running.stop()
    assert not die.exists()
    assert called(log) == [[ids[0], [0, 1, 2]]]


def test_a_chord_that_an_older_release_sent_is_completed_by_its_own_polling(programs, worker, tmp_path):
    log = tmp_path / "log"
    running = worker()
    ids = started(programs, running, "start_as_before", 3, str(log))
    wait_until(lambda: called(log), 60, "the callback")
    running.stop()
    assert called(log) == [[ids[0], [0, 1, 2]]]
