"""Beat as real processes: who leads, what a kill leaves behind, and what reaches a running beat."""

from __future__ import annotations

import os
import signal
import sqlite3
import time

import pytest

from tests.services import wait_until

pytestmark = pytest.mark.integration

LEADING, STANDING_BY = "beat: leading", "beat: standing by"
BEAT = ("celerybeat", "-S", "djcelery.schedulers.DatabaseScheduler", "--pidfile=", "-l", "info")
TAKEOVER_S = 3.0
#: What a machine that runs much else may add to a time that is promised.
BUSY_S = 8


@pytest.fixture
def quick(programs):
    """Programs whose beats take over within three seconds."""
    set_lease(programs, TAKEOVER_S)
    programs.env["DJANGO_SETTINGS_MODULE"] = "legacyproj.quick"
    return programs


def set_lease(programs, lease_s):
    settings = programs.project / "legacyproj" / "quick.py"
    settings.write_text(
        f"from legacyproj.settings import *\nDJCELERY_BEAT_LEASE_S = {lease_s}\nCELERY_TASK_RESULT_EXPIRES = None\n"
    )


def shell(programs, code):
    done = programs.run("shell", "-c", code)
    assert done.returncode == 0, done.stderr


def add(programs, name, schedule=1, **values):
    shell(
        programs,
        "from djcelery.schedulers import DatabaseScheduler as S; "
        f"S.create_or_update_task({name!r}, task='shop.tasks.noop', schedule={schedule!r}, **{values!r})",
    )


def sent(programs, name):
    return programs.rows("SELECT count(*) FROM djcelery_periodicrun WHERE outcome = 'sent' AND name = ?", name)[0][0]


def test_a_beat_that_stands_by_takes_over_when_the_one_that_leads_is_killed(quick):
    add(quick, "every second")
    first = quick.start(*BEAT, ready=LEADING)
    second = quick.start(*BEAT, ready=STANDING_BY)
    first.wait_for("Sending due task every second", times=2)
    assert "Sending due task" not in second.text()
    os.killpg(first.pid, signal.SIGKILL)
    killed = time.monotonic()
    second.wait_for(LEADING)
    # The poll of a second is within the lease; the rest is what a busy machine may add.
    assert time.monotonic() - killed < TAKEOVER_S + BUSY_S
    second.wait_for("Sending due task every second", times=2)
    assert second.stop() == 0
    runs = quick.rows("SELECT periodic_task_id, scheduled_at, task_id FROM djcelery_periodicrun")
    assert len({run[:2] for run in runs}) == len({run[2] for run in runs}) == len(runs)
    assert quick.rows("SELECT 1 FROM djcelery_periodicrun WHERE outcome IS NULL") == []


def test_a_stopped_beat_is_replaced_at_once(quick):
    # Whoever waits for the end of this lease is too late, however slow the machine.
    set_lease(quick, 600)
    add(quick, "every second")
    first = quick.start(*BEAT, ready=LEADING)
    second = quick.start(*BEAT, ready=STANDING_BY)
    assert first.stop() == 0
    second.wait_for(LEADING)
    assert second.stop() == 0
    assert "Traceback" not in first.text() + second.text()


def test_what_a_killed_beat_has_claimed_is_sent_by_the_next_under_the_same_id(quick):
    add(quick, "hourly", schedule=3600)
    path = quick.root / "db.sqlite3"
    connection = sqlite3.connect(path, timeout=30)
    with connection:
        (pk,) = connection.execute("SELECT id FROM djcelery_periodictask WHERE name = 'hourly'").fetchone()
        connection.execute(
            "INSERT INTO djcelery_periodicrun (periodic_task_id, name, scheduled_at, claimed_at, task_id, token) "
            "VALUES (?, 'hourly', strftime('%Y-%m-%d %H:%M:%f', 'now', '-5 seconds'), "
            "strftime('%Y-%m-%d %H:%M:%f', 'now', '-5 seconds'), 'the-id', 1)",
            (pk,),
        )
    connection.close()
    worker = quick.start("celeryd", "-l", "info", ready="ready.")
    quick.start(*BEAT, ready="sending 1 runs that were claimed and not sent")
    worker.wait_for("Task shop.tasks.noop[the-id] received")
    wait_until(lambda: sent(quick, "hourly") == 1, 60, "the run to be marked")


def test_an_edit_reaches_a_running_beat_within_five_seconds(quick):
    add(quick, "every second")
    beat = quick.start(*BEAT, ready="Sending due task every second")
    add(quick, "other")
    committed = time.monotonic()
    beat.wait_for("Sending due task other")
    assert time.monotonic() - committed < 5 + BUSY_S
    shell(quick, "from djcelery.models import *; PeriodicTask.objects.filter(name='other').delete()")
    wait_until(lambda: beat.text().count("Schedule changed.") == 2, 60, "the deletion to be noticed")
    count = beat.text().count("Sending due task other")
    beat.wait_for("Sending due task every second", times=beat.text().count("Sending due task every second") + 3)
    assert beat.text().count("Sending due task other") == count


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)
def test_a_burst_goes_out_whole_and_each_message_once(quick):
    shell(
        quick,
        "from datetime import datetime, timedelta, timezone; from djcelery.models import *; "
        "every = IntervalSchedule.objects.create(every=1, period='hours'); "
        "start = datetime.now(timezone.utc) - timedelta(hours=1) + timedelta(seconds=6); "
        "PeriodicTask.objects.bulk_create([PeriodicTask(name=f't{n}', task='shop.tasks.noop', interval=every, "
        "scheduled_from=start) for n in range(300)])",
    )
    worker = quick.start("celeryd", "-l", "info", ready="ready.")
    beat = quick.start(*BEAT, ready=LEADING)
    query = "SELECT count(*) FROM djcelery_periodicrun WHERE outcome = 'sent'"
    wait_until(lambda: quick.rows(query)[0][0] == 300, 60, "300 runs to be sent")
    wait_until(lambda: worker.text().count("] received") == 300, 60, "300 messages to arrive")
    assert beat.stop() == 0
    ids = {row[0] for row in quick.rows("SELECT task_id FROM djcelery_periodicrun")}
    assert sum(f"[{task_id}] received" in worker.text() for task_id in ids) == 300


def test_the_result_of_a_run_is_found_by_its_task_id(quick):
    add(quick, "every second")
    quick.start("celeryd", "-B", "--scheduler", "djcelery.schedulers.DatabaseScheduler", "-l", "info", ready="ready.")
    join = (
        "SELECT 1 FROM djcelery_periodicrun r JOIN celery_taskmeta m ON m.task_id = r.task_id "
        "WHERE m.status = 'SUCCESS' AND r.name = 'every second'"
    )
    wait_until(lambda: quick.rows(join), 60, "the result of a run")
