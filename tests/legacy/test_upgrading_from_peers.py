"""The commands of ``docs/coming-from-results-and-beat.rst``, as they stand there, from a project on both peers.

One test makes their tables by hand. The other has the packages themselves make and fill them, in this interpreter or
in that of ``PEERS_PYTHON``, an environment with both of them; nothing of theirs is imported here.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from kombu.utils.imports import symbol_by_name

from djcelery import models
from djcelery.backends.database import DatabaseBackend
from tests.db import peer_tables
from tests.db.peer_tables import CRONTAB, GROUP, INTERVAL, RESULT, TASK, WHEN
from tests.migrations import databases
from tests.services import wait_until

PAGE = Path(__file__).parents[2] / "docs" / "coming-from-results-and-beat.rst"
PEERS_PYTHON = os.environ.get("PEERS_PYTHON", sys.executable)


def commands():
    """Return the words after ``manage.py`` of each command of the page, in order."""
    return [shlex.split(line)[2:] for line in re.findall(r"^ +(python manage\.py .+)$", PAGE.read_text(), re.MULTILINE)]


def test_the_page_has_the_commands_that_these_tests_know():
    assert [words[:2] for words in commands()] == [
        ["migrate", "djcelery"],
        ["celeryimport", "results"],
        ["celeryimport", "beat"],
        ["celeryimport", "results"],
        ["celeryimport", "beat"],
        ["celerybeat", "-S"],
        ["migrate", "django_celery_results"],
        ["migrate", "django_celery_beat"],
    ]


def test_the_settings_that_the_page_asks_for_name_parts_that_exist():
    *_, asked = re.findall(r'CELERY_BEAT_SCHEDULER = "(.+)"', PAGE.read_text())
    assert asked == "djcelery.schedulers:DatabaseScheduler"
    symbol_by_name(asked)
    pyproject = (PAGE.parents[1] / "pyproject.toml").read_text()
    assert re.findall(r'CELERY_RESULT_BACKEND = "(.+)"', PAGE.read_text())[-1] == "djcelery-db"
    for name in ("djcelery-db", "djcelery-cache", "djcelery"):
        assert f"\n{name} = " in pyproject


@pytest.mark.long
@pytest.mark.parametrize("vendor", databases.VENDORS)
def test_every_step_on_tables_that_were_made_by_hand(make_database, vendor, celery_app):
    database = make_database(vendor)
    migrate, dry_results, dry_beat, results, beat, start, *_ = commands()
    with peer_tables.made(database.connection):
        add = lambda table, **values: peer_tables.add(database.connection, table, **values)  # noqa: E731
        add(RESULT, task_id="a", result="[1]", task_args='"(1,)"')
        add(GROUP, group_id="left")
        add(TASK, name="nightly", crontab_id=add(CRONTAB, hour="4"), last_run_at=WHEN, total_run_count=3)
        add(TASK, name="left", interval_id=add(INTERVAL, every=0))
        database.manage("migrate", "--skip-checks", "-v0")
        assert "djcelery" in database.manage(*migrate)
        for words, name, left in ((dry_results, "results", ["left"]), (dry_beat, "beat", ["interval 1", "left"])):
            assert "this is a dry run" in database.manage(*words, check=False)
            with (database.folder / f"{name}.csv").open(newline="") as file:
                assert [row["id"] for row in csv.DictReader(file)] == left
        assert database.contents()["djcelery_periodictask"] == database.contents()["celery_taskmeta"] == []
        assert "1 row left out." in database.manage(*results, check=False)
        assert "2 rows left out." in database.manage(*beat, check=False)
        # Again changes nothing.
        before = database.contents()
        database.manage(*results, check=False)
        database.manage(*beat, check=False)
        assert database.contents() == before
        # The beat that is started then sends what is due.
        assert "nightly  shop.tasks.add" in database.manage(*start, "--dry-run", "--for", "1d")
    stored = models.TaskMeta.objects.using(database.alias).get()
    assert (stored.task_id, stored.result, stored.args) == ("a", [1], [1])
    task = models.PeriodicTask.objects.using(database.alias).get()
    assert (task.name, task.last_run_at, task.total_run_count) == ("nightly", WHEN, 3)


# -- the packages themselves -------------------------------------------------------------------

SETTINGS = """
SECRET_KEY = "peers"
USE_TZ = True
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": {path!r}}}}}
INSTALLED_APPS = ["django.contrib.contenttypes", "django_celery_results", "django_celery_beat"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
CELERY_BROKER_URL = "memory://"
CELERY_RESULT_BACKEND = "django-db"
CELERY_RESULT_EXTENDED = True
CELERY_TASK_TRACK_STARTED = True
CELERY_RESULT_SERIALIZER = {serializer!r}
CELERY_ACCEPT_CONTENT = ["json", "pickle"]
"""

#: Has the packages store results and make a schedule; prints what they say of it themselves.
SCRIPT = """
import datetime, json
import django
django.setup()
from celery import Celery, group
from celery.contrib.testing.worker import start_worker
app = Celery("peers")
app.config_from_object("django.conf:settings", namespace="CELERY")

@app.task(name="shop.add")
def add(*args, **kwargs):
    return {"args": list(args), "kwargs": kwargs}

@app.task(name="shop.fail")
def fail(x):
    raise KeyError("schl\\u00fcssel", x)

with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=30):
    sent = [add.delay(2, "b", None, order=7), add.delay("x" * 3000), fail.delay(3)]
    sent.append(add.apply_async((5,), argsrepr="(***)"))
    for result in sent:
        result.get(timeout=30, propagate=False)
    saved = group(add.s(1), add.s(2)).apply_async()
    saved.get(timeout=30)
    saved.save()
from django_celery_beat.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule
utc = datetime.timezone.utc
ran = datetime.datetime(2026, 3, 1, 12, 30, tzinfo=utc)
interval = IntervalSchedule.objects.create(every=5, period="minutes")
crontab = CrontabSchedule.objects.create(minute="0", hour="4", timezone="Europe/Berlin")
solar = SolarSchedule.objects.create(event="sunset", latitude=50.85, longitude=4.35)
clocked = ClockedSchedule.objects.create(clocked_time=ran + datetime.timedelta(days=900))
make = PeriodicTask.objects.create
make(name="five", task="shop.add", interval=interval, args="[1]", kwargs='{"a": 2}', queue="q", priority=3,
     expire_seconds=60, headers='{"tenant": 7}', description="t\\u00e4glich")
make(name="night", task="shop.add", crontab=crontab, enabled=False)
make(name="sun", task="shop.add", solar=solar, start_time=ran)
make(name="once", task="shop.add", clocked=clocked, one_off=True, expires=ran + datetime.timedelta(days=901))
PeriodicTask.objects.filter(name="five").update(last_run_at=ran, total_run_count=9)
told = {
    "results": {r.id: [r.state, repr(app.AsyncResult(r.id).result)] for r in [*sent, *saved.results]},
    "times": {r.task_id: [r.date_created.isoformat(), r.date_done.isoformat()] for r in
              __import__("django_celery_results.models").models.TaskResult.objects.all()},
    "group": saved.as_tuple(),
    "sent": [r.id for r in sent],
}
print("TOLD" + json.dumps(told))
"""


def run_peers(folder, *words, **env):
    path = os.pathsep.join([str(folder)])
    return subprocess.run(
        [PEERS_PYTHON, *words],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": path, "DJANGO_SETTINGS_MODULE": "peers_settings", **env},
        capture_output=True,
        text=True,
        timeout=180,
    )


@pytest.fixture
def peers(tmp_path):
    """A folder in which the packages are run; skipped where they are not installed."""
    done = run_peers(tmp_path, "-c", "import django_celery_results, django_celery_beat")
    if done.returncode:
        pytest.skip("django-celery-results and -beat are not installed; set PEERS_PYTHON to a Python that has them")
    return tmp_path


@pytest.mark.long
@pytest.mark.integration
@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_what_the_packages_themselves_wrote_is_imported_and_reads_the_same(
    peers, make_database, serializer, celery_app, monkeypatch
):
    path = peers / "shop.sqlite"
    (peers / "peers_settings.py").write_text(SETTINGS.format(path=str(path), serializer=serializer))
    (peers / "fill.py").write_text(SCRIPT)
    migrated = run_peers(peers, "-m", "django", "migrate", "-v0")
    assert migrated.returncode == 0, migrated.stderr
    filled = run_peers(peers, "fill.py")
    assert filled.returncode == 0, filled.stderr
    told = json.loads(filled.stdout.rpartition("TOLD")[2])

    database = make_database("sqlite", f"sqlite:///{path}")
    migrate, dry_results, dry_beat, results, beat, *_, drop_results, drop_beat = commands()
    for words in (migrate, dry_results, dry_beat, results, beat):
        database.manage(*words)

    monkeypatch.setattr("django.db.router.db_for_write", lambda model, **hints: database.alias)
    backend = DatabaseBackend(app=celery_app)
    rows = {row.task_id: row for row in models.TaskMeta.objects.using(database.alias)}
    assert rows.keys() == told["times"].keys()
    for task_id, (state, value) in told["results"].items():
        meta = backend.get_task_meta(task_id)
        assert (meta["status"], repr(meta["result"])) == (state, value)
        created, done = told["times"][task_id]
        assert (rows[task_id].created.isoformat(), rows[task_id].date_done.isoformat()) == (created, done)
        assert rows[task_id].worker
    first, long, failed, hidden = (rows[task_id] for task_id in told["sent"])
    assert (first.name, first.args, first.kwargs, first.flags) == ("shop.add", [2, "b", None], {"order": 7}, None)
    assert (long.flags, hidden.args, hidden.flags) == ("args_repr", "(***)", "args_repr")
    assert (failed.args, "KeyError" in failed.traceback) == ([3], True)
    assert json.loads(json.dumps(backend.restore_group(told["group"][0][0]).as_tuple())) == told["group"]

    tasks = {task.name: task for task in models.PeriodicTask.objects.using(database.alias)}
    assert {"five", "night", "sun", "once"} <= tasks.keys()
    five = tasks["five"]
    assert (five.args, five.kwargs, five.queue, five.priority) == ("[1]", '{"a": 2}', "q", 3)
    assert (five.expire_seconds, five.headers, five.description) == (60, '{"tenant": 7}', "täglich")
    assert (five.last_run_at.isoformat(), five.total_run_count) == ("2026-03-01T12:30:00+00:00", 9)
    assert str(tasks["night"].crontab) == "0 4 * * * (m/h/d/dM/MY) Europe/Berlin"
    assert tasks["night"].enabled is False
    assert str(tasks["sun"].solar.latitude) == "50.850000"
    assert tasks["once"].one_off is True

    for words in (drop_results, drop_beat):
        dropped = run_peers(peers, "-m", "django", *words)
        assert dropped.returncode == 0, dropped.stderr
    wait_until(lambda: RESULT not in database.tables(), 30, "their tables to be gone")
    assert models.TaskMeta.objects.using(database.alias).count() == len(rows)
