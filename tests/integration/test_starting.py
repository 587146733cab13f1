"""Worker, beat and camera together, started in both ways, with each broker."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from tests.services import wait_until

pytestmark = pytest.mark.integration

BROKERS = pytest.mark.parametrize("broker", ["filesystem", "redis", "rabbitmq"], indirect=True)
LEGACY = Path(__file__).parents[1] / "legacy" / "data"


def result_of(programs, task_id):
    """Wait for the final row of a task; return (status, result, traceback)."""

    def row():
        found = programs.rows("SELECT status, result, traceback FROM celery_taskmeta WHERE task_id = ?", task_id)
        return found and found[0][0] in ("SUCCESS", "FAILURE") and found[0]

    return wait_until(row, 60, f"the result of {task_id}")


def assert_tasks_run(programs):
    assert result_of(programs, programs.call("shop.tasks.add", 2, 3))[:2] == ("SUCCESS", "5")
    status, result, traceback = result_of(programs, programs.call("shop.tasks.fail", "SKU-1"))
    assert status == "FAILURE"
    assert json.loads(result)["exc_type"] == "StockError"
    assert "sold out" in traceback


def add_schedule(programs):
    programs.run(
        "shell",
        "-c",
        "from djcelery.schedulers import DatabaseScheduler as S; "
        "S.create_or_update_task('every second', task='shop.tasks.add', schedule=1, args=(16, 16))",
    )


def assert_schedule_runs(programs):
    wait_until(
        lambda: programs.rows(
            "SELECT 1 FROM djcelery_periodictask WHERE name = 'every second' AND total_run_count > 1"
        ),
        60,
        "two runs of the periodic task",
    )
    wait_until(
        lambda: programs.rows("SELECT 1 FROM celery_taskmeta WHERE result = '32' AND status = 'SUCCESS'"),
        60,
        "a result of the periodic task",
    )


def assert_monitored(programs):
    wait_until(
        lambda: programs.rows("SELECT 1 FROM djcelery_taskstate WHERE name = 'shop.tasks.add' AND state = 'SUCCESS'"),
        60,
        "a snapshot of a finished task",
    )
    assert programs.rows("SELECT 1 FROM djcelery_workerstate WHERE hostname LIKE 'celery@%'")


@BROKERS
def test_the_legacy_way_runs_tasks_schedule_and_monitor(programs):
    worker = programs.start("celeryd", "-E", "-l", "info", ready="ready.")
    camera = programs.start("celerycam", "-f", "0.5", ready="Taking snapshots")
    assert_tasks_run(programs)
    add_schedule(programs)
    beat = programs.start("celerybeat", "-S", "djcelery.schedulers.DatabaseScheduler", ready="beat: Starting...")
    assert_schedule_runs(programs)
    assert_monitored(programs)
    for program in (beat, camera, worker):
        assert program.stop() == 0
        # The worker prints that of the task that is meant to fail.
        assert "Traceback" not in program.text() or program is worker


@BROKERS
def test_the_modern_way_runs_tasks_and_schedule(programs):
    programs.env["DJANGO_SETTINGS_MODULE"] = "modernproj.settings"
    worker = programs.start_celery("worker", "-E", "-l", "INFO", ready="ready.")
    camera = programs.start_celery("events", "-c", "djcelery.snapshot.Camera", "-F", "0.5", ready="Taking snapshots")
    assert_tasks_run(programs)
    add_schedule(programs)
    beat = programs.start_celery("beat", "-S", "djcelery", "-l", "INFO", ready="beat: Starting...")
    assert_schedule_runs(programs)
    assert_monitored(programs)
    for program in (beat, worker):
        assert program.stop() == 0
    # Celery's own "celery events" has no handler for SIGTERM; celerycam has one.
    assert camera.stop() == -signal.SIGTERM


def test_an_embedded_beat_sends_the_schedule(programs):
    add_schedule(programs)
    programs.start(
        "celeryd", "-B", "--scheduler", "djcelery.schedulers.DatabaseScheduler", "-l", "info", ready="ready."
    )
    assert_schedule_runs(programs)


def test_an_edit_reaches_a_running_beat(programs):
    add_schedule(programs)
    programs.start("celeryd", "-l", "info", ready="ready.")
    beat = programs.start("celerybeat", "-S", "djcelery.schedulers.DatabaseScheduler", ready="Sending due task")
    programs.run(
        "shell",
        "-c",
        "from djcelery.models import *; PeriodicTask.objects.filter(name='every second').update(enabled=False)",
    )
    beat.wait_for("Schedule changed.")
    sent = beat.text().count("Sending due task every second")
    programs.run(
        "shell",
        "-c",
        "from djcelery.schedulers import DatabaseScheduler as S; "
        "S.create_or_update_task('other', task='shop.tasks.noop', schedule=1)",
    )
    beat.wait_for("Sending due task other", times=3)
    assert beat.text().count("Sending due task every second") == sent


@pytest.mark.parametrize(
    ("release", "periodic"), [("2.5.5", "poll"), ("3.1.17", "poll-every-30-seconds")], ids=["2.5.5", "3.1.17"]
)
def test_an_old_database_carries_on(programs, release, periodic):
    dump = LEGACY / f"django-celery-{release}.sqlite"
    shutil.copy(dump, programs.root / "db.sqlite3")
    programs.env["DJANGO_SETTINGS_MODULE"] = "legacyproj.adopted"
    old_ids = {row[0] for row in programs.rows("SELECT task_id FROM celery_taskmeta")}
    (before,) = programs.rows("SELECT total_run_count FROM djcelery_periodictask WHERE name = ?", periodic)
    migrated = programs.run("migrate", "--fake-initial")
    assert migrated.returncode == 0, migrated.stderr
    programs.start("celeryd", "-E", "-l", "info", ready="ready.")
    programs.start("celerycam", "-f", "2.0", ready="every 2.0 secs")
    programs.start("celerybeat", "-S", "djcelery.schedulers.DatabaseScheduler", ready="Starting...")
    wait_until(
        lambda: programs.rows(
            "SELECT 1 FROM djcelery_periodictask WHERE name = ? AND total_run_count > ?", periodic, before[0]
        ),
        60,
        f"{periodic} to fire from its old row",
    )
    wait_until(
        lambda: {row[0] for row in programs.rows("SELECT task_id FROM celery_taskmeta WHERE result = '32'")} - old_ids,
        60,
        "its result as a new row",
    )
    wait_until(
        lambda: programs.rows("SELECT 1 FROM djcelery_taskstate WHERE result = '32' AND state = 'SUCCESS'"),
        60,
        "its state as a new row",
    )
    assert old_ids <= {row[0] for row in programs.rows("SELECT task_id FROM celery_taskmeta")}


def test_a_project_without_a_default_database_works(programs):
    programs.env["DJANGO_SETTINGS_MODULE"] = "legacyproj.routed"
    migrated = programs.run("migrate", "--database=tasks")
    assert migrated.returncode == 0, migrated.stderr
    programs.start("celeryd", "-E", "-l", "info", ready="ready.")
    programs.start("celerycam", "-f", "0.5", ready="Taking snapshots")
    assert_tasks_run(programs)
    add_schedule(programs)
    programs.start("celerybeat", "-S", "djcelery.schedulers.DatabaseScheduler", ready="beat: Starting...")
    assert_schedule_runs(programs)
    assert_monitored(programs)
