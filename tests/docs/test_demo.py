"""``make demo``: its messages when it can't start, and that it leaves no process behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.services import wait_until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def clone(tmp_path):
    """A folder with what ``make demo`` needs, and a ``.demo`` of its own."""
    shutil.copytree(
        ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__", ".demo", "*.sqlite3")
    )
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def demo(clone: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "examples/demoproject/run_demo.py", *arguments]
    return subprocess.run(command, cwd=clone, capture_output=True, text=True, timeout=180)


def make(clone: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["make", *arguments], cwd=clone, capture_output=True, text=True, timeout=180)


def fake_python(clone: Path, body: str) -> str:
    path = clone / "fake-python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


# -- messages


def test_a_port_in_use_is_named_with_the_way_out(clone):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ended = demo(clone, "--port", str(port))
    assert ended.returncode == 1
    assert f"port {port} on 127.0.0.1 is in use" in ended.stderr
    assert f"make demo DEMO_PORT={port + 1}" in ended.stderr


def test_a_second_demo_is_refused_and_the_first_is_named(clone, port):
    (clone / ".demo").mkdir()
    with open(clone / ".demo" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711\n")
        lock.flush()
        ended = demo(clone, "--port", str(port))
    assert ended.returncode == 1
    assert "already running" in ended.stderr
    assert "kill 4711" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--seconds", "soon"), "DEMO_SECONDS='soon' is not a number"), (("--port", "0"), "DEMO_PORT='0' is not a port")],
)
def test_a_wrong_value_is_named(clone, arguments, message):
    ended = demo(clone, *arguments)
    assert ended.returncode == 2
    assert message in ended.stderr


@pytest.mark.parametrize("target", ["demo", "test"])
def test_a_missing_interpreter_is_named(clone, target):
    ended = make(clone, target, "PYTHON=python-that-is-not-here")
    assert ended.returncode != 0
    assert "there is no python-that-is-not-here" in ended.stderr
    assert f"make {target} PYTHON=" in ended.stderr


def test_an_old_interpreter_is_refused(clone):
    old = fake_python(clone, 'case "$1" in -V) echo Python 3.9.18 ;; *) exit 1 ;; esac')
    ended = make(clone, "demo", f"PYTHON={old}")
    assert ended.returncode != 0
    assert "djcelery needs Python 3.10 or newer" in ended.stderr
    assert "is Python 3.9.18" in ended.stderr


def test_a_missing_venv_module_is_named_with_the_package_that_has_it(clone):
    without_venv = fake_python(clone, 'case "$2" in *ensurepip*) exit 1 ;; *) exit 0 ;; esac')
    ended = make(clone, "demo", f"PYTHON={without_venv}")
    assert ended.returncode != 0
    assert "apt-get install python3-venv" in ended.stderr


# -- processes


class Running:
    """A demo in a session of its own, as a terminal would give it."""

    def __init__(self, clone: Path, port: int, *arguments: str) -> None:
        self.clone = clone
        self.log = clone / "output"
        command = [sys.executable, "examples/demoproject/run_demo.py", "--port", str(port), *arguments]
        with open(self.log, "w") as output:
            self.popen = subprocess.Popen(command, cwd=clone, stdout=output, stderr=output, start_new_session=True)

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def ready(self) -> bool:
        assert self.popen.poll() is None, self.output()
        return bool(re.search(r"login demo +password \S+", self.output()))

    def processes(self) -> list[int]:
        """Every living process of this demo but its supervisor."""
        marker = f"DEMO_DIR={self.clone / '.demo'}".encode()
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and int(folder.name) != self.popen.pid:
                with contextlib.suppress(OSError):
                    if marker in (folder / "environ").read_bytes().split(b"\0"):
                        found.append(int(folder.name))
        return found


@pytest.fixture
def running(clone, port, request):
    if not Path("/proc/self/environ").exists():
        pytest.skip("only /proc tells which processes belong to the demo")
    started = Running(clone, port, *getattr(request, "param", ()))
    yield started
    for pid in [started.popen.pid, *started.processes()]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    started.popen.wait()


@pytest.mark.integration
@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_and_leaves_no_process(running, number):
    wait_until(running.ready, timeout_s=240, what="the demo's login")
    assert len(running.processes()) >= 4
    os.killpg(running.popen.pid, number)
    assert running.popen.wait(timeout=180) == 0, running.output()
    assert running.processes() == []
    assert "OK    every process has ended" in running.output()


@pytest.mark.integration
@pytest.mark.long
def test_killing_the_supervisor_ends_everything(running):
    if sys.platform != "linux":
        pytest.skip("only Linux tells a process that its parent was killed")
    wait_until(running.ready, timeout_s=240, what="the demo's login")
    running.popen.kill()
    wait_until(lambda: not running.processes(), timeout_s=240, what="the end of every process")


@pytest.mark.integration
@pytest.mark.long
@pytest.mark.parametrize("running", [("--seconds", "10")], indirect=True)
def test_a_demo_with_an_end_checks_the_database_and_exits_with_0(running):
    assert running.popen.wait(timeout=300) == 0, running.output()
    output = running.output()
    assert "[demo]     FAIL" not in output
    for kind in ("success", "failure", "retry", "group", "chain", "chord", "order", "PeriodicTask", "TaskState"):
        assert re.search(rf"\[demo\]     OK +.*{kind}", output), kind


@pytest.mark.integration
@pytest.mark.long
@pytest.mark.parametrize("running", [("--seconds", "30")], indirect=True)
def test_a_process_that_dies_fails_the_demo(running):
    wait_until(running.ready, timeout_s=240, what="the demo's login")
    beat = next(pid for pid in running.processes() if b"celerybeat" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(beat, signal.SIGKILL)
    assert running.popen.wait(timeout=180) == 1
    assert "[beat] ended by itself" in running.output()
    assert running.processes() == []
