"""PID files, detaching and the autoreloader's decisions, without a worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management.base import CommandError

from djcelery.management import daemon, greenlets
from djcelery.management.reloader import Reloader


@pytest.fixture
def other_process():
    """A living process that isn't this one."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.communicate(b"\n")


def test_default_pid_file_is_taken_when_free_stale_or_our_own(tmp_path):
    path = tmp_path / "x.pid"
    for content in (None, "999999999\n", f"{os.getpid()}\n", "rubbish"):
        if content is not None:
            path.write_text(content)
        assert daemon.write_default_pidfile(str(path)) is None
        assert path.read_text() == f"{os.getpid()}\n"


def test_default_pid_file_of_a_living_process_is_left_alone(tmp_path, other_process):
    path = tmp_path / "x.pid"
    path.write_text(f"{other_process.pid}\n")
    problem = daemon.write_default_pidfile(str(path))
    assert f"belongs to the running process {other_process.pid}" in problem
    assert path.read_text() == f"{other_process.pid}\n"


def test_default_pid_file_that_cannot_be_written_stops_nothing(tmp_path):
    assert "Going on without the PID file" in daemon.write_default_pidfile(str(tmp_path / "no" / "x.pid"))


def test_named_pid_file_of_a_living_process_refuses_with_73(tmp_path, other_process):
    path = tmp_path / "x.pid"
    path.write_text(f"{other_process.pid}\n")
    with pytest.raises(CommandError, match=f"running process {other_process.pid}") as refused:
        daemon.check_pidfile(str(path))
    assert refused.value.returncode == 73


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"executable": "/no/such/python"}, "--executable=/no/such/python"),
        ({"uid": "no-such-user"}, "Can't run as user no-such-user"),
        ({"logfile": "/no/such/folder/x.log"}, "--logfile=/no/such/folder/x.log can't be written"),
        ({"umask": "0xyz"}, "--umask=0xyz"),
    ],
)
def test_what_is_wrong_is_said_before_detaching(monkeypatch, options, message):
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("It detached."))
    monkeypatch.setattr("celery.platforms.signals", {}, raising=True)
    monkeypatch.setattr("celery.platforms.detached", _detached)
    with pytest.raises(CommandError, match=message):
        daemon.detach(["manage.py"], **{"executable": sys.executable, **options})


def _detached(umask=None, **options):
    from celery.platforms import DaemonContext

    return DaemonContext(umask=umask, **options)


def test_manage_line_is_the_script_or_django_itself():
    assert daemon.manage_line("manage.py") == [os.path.abspath("manage.py")]
    assert daemon.manage_line(None) == ["-m", "django"]
    script = sys.modules["__main__"].__spec__
    if script is not None:
        assert daemon.manage_line(script.origin)[0] == "-m"


def test_reloader_sees_a_change_once_and_ignores_new_files(tmp_path):
    reloader = Reloader(app=None, first=[], later=[])
    reloader.files.watch_dir(tmp_path, "*.py")
    old = tmp_path / "old.py"
    old.write_text("")
    os.utime(old, (1, 1))
    assert reloader.changed() is None

    (tmp_path / "new.py").write_text("")
    assert reloader.changed() is None

    os.utime(old, (2, 2))
    assert reloader.changed() == Path(old)
    assert reloader.changed() is None


def test_reloader_survives_task_modules_that_cannot_be_imported(capsys):
    class App:
        class loader:
            @staticmethod
            def import_default_modules():
                raise SyntaxError("no Python")

    Reloader(App, [], [])._import_tasks()
    assert "no Python" in capsys.readouterr().err


def test_reloader_ends_with_the_status_of_a_worker_that_ended_by_itself(celery_app):
    for status in (0, 3):
        reloader = Reloader(celery_app, ["-c", f"raise SystemExit({status})"], [])
        reloader.interval_s = 0.1
        assert reloader._run_child() == status


def test_reloader_passes_signals_on_to_the_worker(celery_app, monkeypatch):
    code = "import signal, time; signal.signal(signal.SIGINT, lambda *a: exit(5)); print(1, flush=True); time.sleep(99)"
    reloader = Reloader(celery_app, [], [])
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as reloader.child:
        assert reloader.child.stdout.readline() == b"1\n"
        # The terminal itself has sent Ctrl-C to everybody.
        monkeypatch.setattr("djcelery.management.reloader._is_foreground", lambda: True)
        reloader._pass_on_from_keyboard(signal.SIGINT, None)
        assert reloader.stopping
        assert reloader.child.poll() is None

        monkeypatch.setattr("djcelery.management.reloader._is_foreground", lambda: False)
        reloader._pass_on_from_keyboard(signal.SIGINT, None)
        assert reloader.child.wait(60) == 5


def test_reloader_waits_for_a_change_after_a_crash(celery_app, monkeypatch):
    reloader = Reloader(celery_app, ["-c", "raise SystemExit(1)"], [])
    reloader.interval_s = 0.01
    looks = iter([None, None, Path("fixed.py")])
    monkeypatch.setattr(reloader, "changed", lambda: next(looks))
    assert reloader._run_child() is None


@pytest.mark.parametrize(
    ("pool", "restarted"), [("gevent", True), ("eventlet", True), ("prefork", False), (None, False), ("None", False)]
)
def test_greenlet_pools_start_again_with_a_patched_library_once(monkeypatch, pool, restarted):
    lines = []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(os, "execv", lambda path, line: lines.append(line))
    monkeypatch.setenv("DJCELERY_GREENLETS", "0")
    for _ in range(2):
        greenlets.restart(pool, ["/x/manage.py"], ["celeryd", "-P", "gevent"])
    expected = [sys.executable, greenlets.__file__, pool, "/x/manage.py", "celeryd", "-P", "gevent"]
    assert lines == [expected] * restarted


@pytest.mark.parametrize("how", ["script", "module"])
def test_greenlets_run_manage_py_as_it_was_run(tmp_path, how):
    (tmp_path / "manage.py").write_text("import sys; print(__name__, sys.argv[1:], sys.path[0])")
    script = [str(tmp_path / "manage.py")] if how == "script" else ["-m", "manage"]
    line = [sys.executable, greenlets.__file__, "prefork", *script, "celeryd", "-c2"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"__main__ ['celeryd', '-c2'] {tmp_path}"
