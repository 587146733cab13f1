"""celerybeat, celerycam, camqadm and the rest as real processes."""

from __future__ import annotations

import shutil

import pytest

from tests.integration.conftest import is_alive
from tests.services import wait_until

pytestmark = pytest.mark.integration

BEAT_READY = "beat: Starting..."


def test_default_pid_file_is_written_if_free_and_only_a_named_one_refuses(programs):
    first = programs.start("celerybeat", "--max-interval", "0.5", ready=BEAT_READY)
    assert programs.pid_in("celerybeat.pid") == first.pid
    assert "(0.5s)" in first.text()

    second = programs.start("celery", "beat", ready=BEAT_READY)
    assert f"celerybeat.pid belongs to the running process {first.pid}" in second.text()
    assert second.stop() == 0, second.text()
    assert programs.pid_in("celerybeat.pid") == first.pid

    third = programs.run("celerybeat", "--pidfile=celerybeat.pid")
    assert third.returncode == 73

    assert first.stop() == 0
    assert programs.pid_in("celerybeat.pid") is None


def test_stale_default_pid_file_is_taken_over(programs):
    (programs.cwd / "celerybeat.pid").write_text("999999999\n")
    beat = programs.start("celerybeat", "-S", "celery.beat:Scheduler", ready=BEAT_READY)
    assert programs.pid_in("celerybeat.pid") == beat.pid


def test_detached_beat_writes_its_pid_and_log_files(programs):
    done = programs.run("celerybeat", "--detach", "-f", "beat.log", "--umask", "022")
    assert done.returncode == 0, done.stderr
    pid = programs.wait_for_pid("celerybeat.pid")
    log = programs.cwd / "beat.log"
    wait_until(lambda: log.exists() and BEAT_READY in log.read_text(), 60, "the beat")
    assert is_alive(pid)


def test_detaching_says_at_once_what_is_wrong(programs):
    done = programs.run("celerybeat", "--detach", "-f", "/no/such/folder/beat.log")
    assert done.returncode == 1
    assert "--logfile=/no/such/folder/beat.log can't be written" in done.stderr


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_celerycam_takes_a_snapshot_every_two_seconds_with_its_own_camera(programs):
    camera = programs.start("celerycam", "-f", "2.0", "-c", "other.Camera", ready="Taking snapshots")
    assert "djcelery.snapshot.Camera (every 2.0 secs.)" in camera.text()
    assert "--camera=other.Camera is not used" in camera.text()
    assert programs.pid_in("celeryev.pid") == camera.pid
    assert not (programs.cwd / "2.0").exists()

    worker = programs.start("celeryd", "-E", "-l", "info", ready=" ready.")
    task_id = programs.call("shop.tasks.add", 2, 2)
    query = "SELECT state FROM djcelery_taskstate WHERE task_id = ?"
    wait_until(lambda: programs.rows(query, task_id) == [("SUCCESS",)], 60, "the snapshot")
    assert worker.stop() == 0
    assert camera.stop() == 0
    assert programs.pid_in("celeryev.pid") is None


def test_celerycam_writes_its_log_to_a_file_that_is_no_number(programs):
    camera = programs.start("celerycam", "-f", "cam.log", "-F", "3", ready="every 3.0 secs.")
    assert (programs.cwd / "cam.log").exists()
    assert camera.stop() == 0


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
def test_camqadm_runs_one_command_or_a_script(programs):
    queue = f"{programs.env['BROKER_PREFIX']}production"
    declared = programs.run("camqadm", "queue.declare", queue, "no", "no", "no", "yes")
    assert declared.returncode == 0, declared.stderr
    assert f"queue:{queue} messages:0 consumers:0" in declared.stdout

    script = f"basic.publish hello '' {queue}\nqueue.purge {queue}\nexit\n"
    assert "1 messages deleted" in programs.run("camqadm", stdin=script).stdout

    assert programs.run("camqadm", "queue.purge", "no.such.queue").returncode == 1
    assert programs.run("camqadm", stdin="queue.purge no.such.queue\n").returncode == 1
    assert programs.run("celery", "amqp", "queue.delete", queue).returncode == 0

    refused = programs.run("camqadm", "queue.declare", queue, "no", "no", "yes", "no")
    assert refused.returncode == 1
    assert "exclusive=yes has no counterpart" in refused.stderr


def test_camqadm_without_a_broker_is_69(programs):
    done = programs.run("camqadm", "queue.purge", "x", BROKER_URL="amqp://127.0.0.1:1//")
    assert done.returncode == 69
    assert "can't be reached" in done.stderr


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_celeryctl_purges_without_asking_and_celery_asks(programs):
    programs.call("shop.tasks.noop")
    assert programs.run("celery", "purge").returncode == 1
    done = programs.run("celeryctl", "purge")
    assert done.returncode == 0
    assert "Purged 1 message" in done.stdout


def test_settings_and_pythonpath_may_stand_anywhere_in_both_spellings(programs):
    elsewhere = programs.root / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(programs.project / "legacyproj" / "production.py", elsewhere / "live.py")
    for line in (
        ["celery", "report", "--settings=live", f"--pythonpath={elsewhere}"],
        ["celery", "--settings", "live", "--pythonpath", str(elsewhere), "report"],
        ["celeryctl", "report", "--pythonpath", str(elsewhere), "--settings", "live", "-C"],
    ):
        done = programs.run(*line)
        assert done.returncode == 0, done.stderr
        assert f"{programs.env['BROKER_PREFIX']}production" in done.stdout


def test_celery_itself_still_starts_a_modern_project(programs):
    beat = programs.start_celery("beat", "-l", "info", ready=BEAT_READY)
    assert beat.stop() == 0


def test_celerymon_says_where_its_work_is_done_now(programs):
    done = programs.run("celerymon", "-P", "8989")
    assert done.returncode == 1
    assert "celerycam" in done.stderr
