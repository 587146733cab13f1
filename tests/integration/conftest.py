"""Real processes: manage.py and celery, in a copy of the project, with a database and broker of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests import services
from tests.services import wait_until

ROOT = Path(__file__).parents[2]
PROJECT = ROOT / "tests" / "project"
#: Node names of cameras whose queues are deleted after each test.
CAMERAS = (f"celerycam@{socket.gethostname()}", "one", "two")
CELERY = str(Path(sys.executable).parent / "celery")


class Running:
    """A program that runs, and the file that holds what it has printed."""

    def __init__(self, popen: subprocess.Popen, output: Path):
        self.popen = popen
        self.output = output

    @property
    def pid(self) -> int:
        return self.popen.pid

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def wait_for(self, text: str, timeout_s: float = 90, times: int = 1) -> None:
        """Wait until *text* has been printed; fail with all of the output if the program ends before."""

        def seen() -> bool:
            # Asked first: what it prints between two looks must not be missed because it then ends.
            has_ended = self.popen.poll() is not None
            if self.text().count(text) >= times:
                return True
            if has_ended:
                pytest.fail(f"It ended with {self.popen.returncode} before it printed {text!r}:\n{self.text()}")
            return False

        try:
            wait_until(seen, timeout_s, repr(text))
        except pytest.fail.Exception:
            pytest.fail(f"It did not print {text!r} within {timeout_s} s:\n{self.text()}")

    def send(self, number: signal.Signals) -> None:
        os.kill(self.popen.pid, number)

    def end(self, timeout_s: float = 120) -> int:
        """Wait for the end; return the exit status, negative for a signal."""
        try:
            return self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"It did not end within {timeout_s} s:\n{self.text()}")

    def stop(self) -> int:
        """Send SIGTERM; return the exit status."""
        self.send(signal.SIGTERM)
        return self.end()


class Programs:
    """Starts programs in a working directory with an environment; kills all of them, and their children, at the end."""

    def __init__(self, root: Path, broker: dict[str, str]):
        self.root = root
        self.project = root / "project"
        self.cwd = root / "work"
        self.cwd.mkdir()
        shutil.copytree(PROJECT, self.project, ignore=shutil.ignore_patterns("__pycache__"))
        self.manage = str(self.project / "manage.py")
        self.mark = f"DJCELERY_TEST={uuid.uuid4().hex}"
        name, _, value = self.mark.partition("=")
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(root),
            "LANG": "C.UTF-8",
            "C_FORCE_ROOT": "1",
            "PYTHONUNBUFFERED": "1",
            "DATABASE_URL": f"sqlite:///{root / 'db.sqlite3'}",
            "BROKER_DIR": str(root / "broker"),
            "DEMO_BROKER": str(ROOT / "examples" / "demoproject" / "demoproject" / "broker.py"),
            "BROKER_PREFIX": f"{root.name}.{value[:6]}.",
            name: value,
            **broker,
        }
        self.running: list[Running] = []

    def start(self, *words: str, ready: str | None = None, **env: str) -> Running:
        """Start ``manage.py *words``; wait until it prints *ready*."""
        return self._start([sys.executable, self.manage, *words], ready, env)

    def start_celery(self, *words: str, ready: str | None = None, **env: str) -> Running:
        """Start ``celery -A modernproj *words``."""
        return self._start([CELERY, "-A", "modernproj", *words], ready, {"PYTHONPATH": str(self.project), **env})

    def _start(self, line: list[str], ready: str | None, env: dict[str, str]) -> Running:
        output = self.root / f"output{len(self.running)}.txt"
        with output.open("wb") as out:
            popen = subprocess.Popen(
                line,
                cwd=self.cwd,
                env={**self.env, **env},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        running = Running(popen, output)
        self.running.append(running)
        if ready:
            running.wait_for(ready)
        return running

    def run(self, *words: str, stdin: str = "", timeout_s: float = 180, **env: str) -> subprocess.CompletedProcess[str]:
        """Run ``manage.py *words`` to its end."""
        return subprocess.run(
            [sys.executable, self.manage, *words],
            cwd=self.cwd,
            env={**self.env, **env},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def call(self, task: str, *args: object) -> str:
        """Send a task; return its id."""
        import json

        done = self.run("celery", "call", task, "--args", json.dumps(args))
        assert done.returncode == 0, done.stderr
        return done.stdout.split()[-1]

    def rows(self, query: str, *args: object) -> list[tuple]:
        """Return what the database has for *query*."""
        with contextlib.closing(sqlite3.connect(self.root / "db.sqlite3", timeout=30)) as connection:
            return connection.execute(query, args).fetchall()

    def pid_in(self, name: str) -> int | None:
        """Return the number in a PID file in the working directory, if there is one."""
        with contextlib.suppress(OSError, ValueError):
            return int((self.cwd / name).read_text())
        return None

    def wait_for_pid(self, name: str, other_than: int | None = None) -> int:
        def found() -> int | None:
            pid = self.pid_in(name)
            return pid if pid != other_than else None

        return wait_until(found, 60, f"the PID file {name}")

    def kill(self) -> None:
        """Kill everything that was started, detached processes among them."""
        for running in self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            running.popen.wait()
        for pid in self._marked():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _marked(self) -> list[int]:
        """Return the processes with this test's mark in their environment."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if self.mark.encode() in path.read_bytes():
                    found.append(int(path.parent.name))
        return found


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie whose parent is this test counts as gone.
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory) -> Path:
    """A SQLite file with djcelery's tables; copied for each test."""
    path = tmp_path_factory.mktemp("database") / "db.sqlite3"
    env = {"PATH": os.environ["PATH"], "DATABASE_URL": f"sqlite:///{path}"}
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=PROJECT, env=env, check=True)
    return path


def broker_env(kind: str) -> dict[str, str]:
    """Return the environment that chooses a broker; skip if it isn't running."""
    if kind == "redis":
        services.redis().close()
        return {"BROKER_URL": services.REDIS_URL}
    if kind == "rabbitmq":
        services.rabbitmq().release()
        return {"BROKER_URL": services.RABBITMQ_URL}
    return {"BROKER_URL": "filesystem://"}


@pytest.fixture
def broker(request) -> str:
    """The kind of broker; overridden by ``parametrize("broker", …)``. The file system needs no server."""
    return getattr(request, "param", "filesystem")


@pytest.fixture
def programs(tmp_path, migrated_database, broker):
    """Start real programs."""
    shutil.copy(migrated_database, tmp_path / "db.sqlite3")
    started = Programs(tmp_path, broker_env(broker))
    yield started
    started.kill()
    _clean(broker, started.env["BROKER_PREFIX"])


def _clean(broker: str, prefix: str) -> None:
    """Remove what a test has left on a server that others use."""
    if broker == "redis":
        client = services.redis()
        keys = list(client.scan_iter(f"{prefix}*", count=1000))
        if keys:
            client.delete(*keys)
        client.close()
    elif broker == "rabbitmq":
        with services.rabbitmq() as connection:
            channel = connection.default_channel
            for name in ("celery", "production"):
                channel.queue_delete(f"{prefix}{name}")
                channel.exchange_delete(f"{prefix}{name}")
            for camera in CAMERAS:
                channel.queue_delete(f"{prefix}celeryev.djcelery.{camera}")
            for name in ("pidbox", "events"):
                channel.exchange_delete(f"{prefix}{name}")
                channel.exchange_delete(f"reply.{prefix}{name}")
