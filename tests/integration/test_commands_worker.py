"""celeryd and its relatives as real processes: signals, detaching, several nodes, autoreload."""

from __future__ import annotations

import os
import signal
from importlib.util import find_spec

import pytest
from celery.utils.nodenames import gethostname

from tests.integration.conftest import is_alive
from tests.services import wait_until

pytestmark = pytest.mark.integration

READY = " ready."


def read(path) -> str:
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize(
    ("broker", "settings"),
    [
        ("filesystem", "legacyproj.settings"),
        ("redis", "modernproj.settings"),
        ("rabbitmq", "legacyproj.settings"),
        ("rabbitmq", "modernproj.settings"),
    ],
)
def test_worker_answers_then_ends_warm_when_its_task_has_finished(programs, settings):
    programs.env["DJANGO_SETTINGS_MODULE"] = settings
    log, release = programs.root / "log", programs.root / "release"
    worker = programs.start("celeryd", "-l", "info", "-c1", ready=READY)
    assert ("modernproj:" in worker.text()) is settings.startswith("modern")

    status = programs.run("celery", "status", "--timeout", "5")
    assert status.returncode == 0, status.stderr
    assert "1 node online" in status.stdout

    task_id = programs.call("shop.tasks.sleepy", str(log), str(release), 120)
    wait_until(lambda: read(log) == "started\n", 60, "the task to start")
    worker.send(signal.SIGTERM)
    worker.wait_for("Warm shutdown")
    release.touch()

    assert worker.end() == 0
    assert read(log) == "started\nfinished\n"
    assert programs.rows("SELECT status FROM celery_taskmeta WHERE task_id = ?", task_id) == [("SUCCESS",)]


def test_status_without_a_worker_is_69(programs):
    for command in ("celery", "celeryctl"):
        done = programs.run(command, "status", "-t", "0.2")
        assert done.returncode == 69
        assert "No nodes replied within time constraint" in done.stderr
    assert programs.run("celeryctl", "inspect", "registered_tasks", "-t", "0.2").returncode == 69


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_sigquit_ends_the_worker_cold(programs):
    log = programs.root / "log"
    worker = programs.start("celeryd", "-l", "info", "-c1", ready=READY)
    programs.call("shop.tasks.sleepy", str(log), None, 300)
    wait_until(lambda: read(log) == "started\n", 60, "the task to start")

    worker.send(signal.SIGQUIT)

    worker.end()
    assert "Cold shutdown" in worker.text()
    assert read(log) == "started\n"


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_what_celery_dropped_is_accepted_after_the_sub_command(programs):
    elsewhere = programs.root / "elsewhere"
    elsewhere.mkdir()
    line = ["celery", "worker", "-l", "20", "--maxtasksperchild", "10", "-c", "1", "--pidfile", "w.pid", "--no-execv"]
    line += ["-b", programs.env["BROKER_URL"], "--workdir", str(elsewhere), "--settings", "legacyproj.production"]
    worker = programs.start(*line, ready=READY, BROKER_URL="redis://127.0.0.1:1/0")
    assert "production" in worker.text()
    assert "--no-execv has no effect" in worker.text()
    assert int((elsewhere / "w.pid").read_text()) == worker.pid


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_detached_worker_has_a_pid_file_and_stops_on_sigterm(programs):
    done = programs.run("celeryd", "--detach", "-l", "INFO", "-f", "%n.log", "-c1")
    assert done.returncode == 0, done.stderr
    pid = programs.wait_for_pid("celeryd.pid")
    wait_until(lambda: READY in read(programs.cwd / "celery.log"), 60, "the worker")
    assert os.getsid(pid) not in (os.getsid(0), 0)

    again = programs.run("celeryd_detach", "--pidfile=celeryd.pid")
    assert again.returncode == 73
    assert f"celeryd.pid belongs to the running process {pid}" in again.stderr

    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not is_alive(pid), 60, "the worker to end")
    assert programs.pid_in("celeryd.pid") is None


@pytest.mark.long
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_multi_starts_restarts_and_stops_nodes_with_its_settings(programs):
    names = ("w1", "w2")
    line = [*names, "-l", "info", "-c", "1", "--settings", "legacyproj.production"]
    started = programs.run("celeryd_multi", "start", *line)
    assert started.returncode == 0, started.stdout + started.stderr
    pids = [programs.wait_for_pid(f"{name}.pid") for name in names]
    for name in names:
        wait_until(lambda name=name: READY in read(programs.cwd / f"{name}.log"), 60, f"{name}")
    # Who is asked for by name is waited for only until all have answered.
    nodes = ",".join(f"{name}@{gethostname()}" for name in names)
    queues = programs.run(
        *("celeryctl", "inspect", "active_queues", "--json", "-t", "30", "-d", nodes),
        "--settings=legacyproj.production",
    )
    assert queues.stdout.count(f'"name": "{programs.env["BROKER_PREFIX"]}production"') >= 2, queues.stdout

    failed = programs.run("celeryd_multi", "start", "w1", "--pythonpath", ".")
    assert failed.returncode == 1
    assert "FAILED" in failed.stdout

    restarted = programs.run("celeryd_multi", "restart", *line)
    assert restarted.returncode == 0, restarted.stdout + restarted.stderr
    new = [programs.wait_for_pid(f"{name}.pid", other_than=pid) for name, pid in zip(names, pids, strict=True)]
    assert not any(is_alive(pid) for pid in pids)

    stopped = programs.run("celeryd_multi", "stopwait", *names)
    assert stopped.returncode == 0
    assert not any(is_alive(pid) for pid in new)


def test_a_node_that_cannot_start_makes_multi_fail(programs):
    done = programs.run("celery", "multi", "start", "w1", "--no-such-option")
    assert done.returncode == 1
    assert "FAILED" in done.stdout


@pytest.mark.long
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_autoreload_lets_the_task_finish_and_runs_the_new_code(programs):
    log, release = programs.root / "log", programs.root / "release"
    tasks = programs.project / "shop" / "tasks.py"
    parent = programs.start("celeryd", "--autoreload", "-l", "info", "-c1", ready=READY)
    programs.call("shop.tasks.sleepy", str(log), str(release), 120)
    wait_until(lambda: read(log) == "started\n", 60, "the task to start")

    code = tasks.read_text()
    tasks.write_text(code.replace("return x + y", "return x + y + 1000"))
    parent.wait_for("tasks.py changed")
    parent.wait_for("Warm shutdown")
    release.touch()
    parent.wait_for(READY, times=2)
    assert read(log) == "started\nfinished\n"
    assert programs.run("celery", "result", programs.call("shop.tasks.add", 2, 2)).stdout.strip() == "1004"

    tasks.write_text(f"{code}\nthis is no Python")
    parent.wait_for(READY, times=3)
    parent.wait_for("this is no Python")
    tasks.write_text(code)
    parent.wait_for(READY, times=4)
    assert parent.stop() == 0


@pytest.mark.long
@pytest.mark.skipif(find_spec("gevent") is None, reason="gevent is not installed")
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_greenlets_run_tasks_side_by_side_and_end_warm(programs):
    logs, release = [programs.root / f"log{n}" for n in range(3)], programs.root / "release"
    # Wherever these tests found it; the processes don't inherit their PYTHONPATH.
    programs.env["PYTHONPATH"] = os.path.dirname(os.path.dirname(find_spec("gevent").origin))
    worker = programs.start("celery", "worker", "--pool=gevent", "-c3", "-l", "info", ready=READY)
    for log in logs:
        programs.call("shop.tasks.sleepy", str(log), str(release), 120)
    wait_until(lambda: all(read(log) == "started\n" for log in logs), 60, "three tasks at once")
    release.touch()
    assert worker.stop() == 0
    assert {read(log) for log in logs} == {"started\nfinished\n"}


def test_two_spellings_of_a_setting_with_different_values_refuse_to_start(programs):
    done = programs.run("celeryd", "--settings=legacyproj.clashing")
    assert done.returncode == 1
    assert "CELERYD_CONCURRENCY" in done.stderr
    assert "CELERY_WORKER_CONCURRENCY" in done.stderr
