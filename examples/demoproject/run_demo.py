#!/usr/bin/env python
"""Run worker, beat, camera and web server of the demo project, and show what they do.

Usage: run_demo.py [--seconds N] [--port N]

Without ``--seconds`` it runs until Ctrl-C. With it, it ends by itself, checks what is in the
database, and exits with 0 only if all is as it must be. Everything it writes is in ``.demo``.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import os
import secrets
import shutil
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO

from runner.processes import POLL_S, Console, Process, stop

HERE = Path(__file__).resolve().parent
STATE_DIR = HERE.parent.parent / ".demo"
USER = "demo"
READY_TIMEOUT_S = 60
SETTLE_TIMEOUT_S = 40
SEND_EVERY_S = 1.0
STATUS_EVERY_S = 10.0

# Exit statuses.
DONE, FAILED, INTERRUPTED = 0, 1, 130


class DemoError(Exception):
    """The demo can't go on; the text says why and what to do."""


class Interrupted(Exception):
    """Somebody asked the demo to end."""


def main() -> int:
    """Run the demo and return the exit status."""
    options = parse(sys.argv[1:])
    try:
        lock = take_lock(STATE_DIR)
        check_port(options.port)
    except DemoError as exc:
        print(f"make demo: {exc}", file=sys.stderr)
        return FAILED
    with lock:
        return Demo(options.seconds, options.port).run()


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line; empty values, as make passes them, mean the default."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=_seconds, default=None, help="end after N seconds (DEMO_SECONDS)")
    parser.add_argument("--port", type=_port, default=8000, help="port of the web server (DEMO_PORT)")
    return parser.parse_args(arguments)


def _seconds(text: str) -> float | None:
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"DEMO_SECONDS={text!r} is not a number of seconds, such as 40")
    return float(text)


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"DEMO_PORT={text!r} is not a port number, such as 8001")
    return int(text)


def take_lock(state_dir: Path) -> IO[str]:
    """Return the open lock file of this demo; the kernel frees it when this process ends.

    Raises:
        DemoError: Another demo runs in this clone.
    """
    state_dir.mkdir(exist_ok=True)
    lock = open(state_dir / "lock", "a+")  # noqa: SIM115 - held as long as the demo runs
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        raise DemoError(
            f"a demo is already running in this folder (process {holder}). "
            f"End it with Ctrl-C in its terminal, or with: kill {holder}"
        ) from None
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def check_port(port: int) -> None:
    """Find out before anything is started that the web server will get its port.

    Raises:
        DemoError: It won't.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as exc:
            why = "is in use by another program" if exc.errno == errno.EADDRINUSE else f"can't be used ({exc})"
            other = port + 1 if port < 65535 else 8001
            raise DemoError(f"port {port} on 127.0.0.1 {why}. Choose another: make demo DEMO_PORT={other}") from exc


class Demo:
    """One run of the demo, from an empty folder to the last process gone."""

    def __init__(self, seconds: float | None, port: int) -> None:
        self.seconds = seconds
        self.port = port
        self.console = Console()
        self.processes: list[Process] = []
        self.signals = 0

    def run(self) -> int:
        """Run until the time is over, somebody interrupts, or something breaks; return the exit status."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._count_signal)
        try:
            status = self._run()
        except Interrupted:
            # Ctrl-C is how a demo without an end is ended; one with an end has not made its checks.
            status = DONE if self.seconds is None else INTERRUPTED
        except DemoError as exc:
            self.say(f"FAIL  {exc}")
            status = FAILED
        finally:
            left = self._stop()
        if left:
            return FAILED
        return status

    def say(self, text: str) -> None:
        """Print a line of the demo itself."""
        self.console.line("demo", text)

    def _count_signal(self, number: int, frame: object) -> None:
        self.signals += 1

    def _stop(self) -> bool:
        """End every process; tell whether one is left."""
        self.say("stopping; a second Ctrl-C kills at once" if self.processes else "nothing to stop")
        before = self.signals
        left = stop(self.processes, hurry=lambda: self.signals > before)
        for pid, command in left.items():
            self.say(f"FAIL  process {pid} is left: {command}")
        if not left:
            self.say("OK    every process has ended")
        return bool(left)

    def _run(self) -> int:
        self._prepare()
        self._start_all()
        # Only now is there a project to import.
        from runner import checks
        from runner.load import Load

        site = self._make_login(checks)
        self._wait_until_ready(checks)
        self._banner(site)
        load = Load()
        self._send_load(load, checks)
        results = self._settle(load, checks, site)
        for check in results:
            self.say(f"{'OK  ' if check.ok else 'FAIL'}  {check.text}")
        return DONE if all(check.ok for check in results) else FAILED

    # starting

    def _prepare(self) -> None:
        """Empty the state folder and migrate a new database."""
        for path in STATE_DIR.iterdir():
            if path.name != "lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        (STATE_DIR / "tmp").mkdir()
        self.env = demo_environment()
        os.environ.clear()
        os.environ.update(self.env)
        migrate = self._start("migrate", "migrate", "--verbosity", "1")
        self._wait(lambda: migrate.exit_status() is not None, "the migrations", watch=False)
        self.processes.remove(migrate)
        migrate.reap()
        if migrate.exit_status() != 0:
            raise DemoError("the migrations failed; see the lines above.")
        import django

        django.setup()

    def _start(self, name: str, *arguments: str) -> Process:
        """Start ``manage.py`` with *arguments*."""
        command = [sys.executable, str(HERE / "manage.py"), *arguments]
        process = Process(name, command, self.env, STATE_DIR, self.console)
        self.processes.append(process)
        return process

    def _start_all(self) -> None:
        self._start("worker", "celeryd", "-E", "-l", "info", "-c", "2")
        self._start("beat", "celerybeat", "-S", "djcelery.schedulers.DatabaseScheduler", "-l", "info")
        self._start("camera", "celerycam", "-f", "2.0")
        self._start("web", "runserver", "--noreload", "--insecure", f"127.0.0.1:{self.port}")

    def _make_login(self, checks) -> object:
        from django.contrib.auth import get_user_model

        password = secrets.token_urlsafe(9)
        get_user_model().objects.create_superuser(USER, password=password)
        return checks.Site(self.port, USER, password)

    def _wait_until_ready(self, checks) -> None:
        from demoproject.celery import app
        from djcelery.models import PeriodicTask, WorkerState

        self._wait(self._web_answers, "the web server's first page")
        self._wait(lambda: app.control.ping(timeout=0.5), "the worker's answer to a ping")
        self._wait(PeriodicTask.objects.filter(name=checks.PERIODIC_NAME).exists, "beat's schedule in the database")
        self._wait(WorkerState.objects.exists, "the camera's first snapshot")

    def _web_answers(self) -> bool:
        browser = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            return browser.open(f"http://127.0.0.1:{self.port}/admin/login/", timeout=10).status == 200
        except urllib.error.HTTPError as exc:
            raise DemoError(f"the web server answers {exc}.") from exc
        except OSError:
            return False

    # running

    def _banner(self, site) -> None:
        rule = "-" * 70
        lines = [
            rule,
            f"Admin   {site.admin}   login {site.user}   password {site.password}",
            "Everything runs. Ctrl-C ends it." if self.seconds is None else f"Ends after {self.seconds:g} s.",
            rule,
        ]
        for line in lines:
            self.say(line)

    def _send_load(self, load, checks) -> None:
        """Send load and report what becomes of it until the time is over."""
        start = time.monotonic()
        next_send = next_status = start
        while self.seconds is None or time.monotonic() < start + self.seconds:
            self._watch()
            now = time.monotonic()
            if now >= next_send:
                sent = load.send_next()
                self.console.line("load", f"{sent.kind}: {sent.what}")
                next_send = now + SEND_EVERY_S
            self._report(load)
            if now >= next_status:
                self.say(checks.status_line())
                next_status = now + STATUS_EVERY_S
            time.sleep(POLL_S)

    def _report(self, load) -> None:
        for sent in load.news():
            verdict = "as expected" if sent.right else f"but {sent.expected!r} was expected"
            self.console.line("result", f"{sent.kind}: {sent.outcome!r}, {verdict}")

    def _settle(self, load, checks, site) -> list:
        """Return the checks as soon as all are right, or as they are when the time for it is over."""
        self.say("no more load; waiting for the last results and snapshots")
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        while True:
            self._watch()
            self._report(load)
            results = checks.run(load, self.processes, site)
            if all(check.ok for check in results) or time.monotonic() > deadline:
                return results
            time.sleep(1)

    def _watch(self) -> None:
        """Notice that it is time to end.

        Raises:
            Interrupted: A signal came, or nobody reads the output any more.
            DemoError: A process ended that should run.
        """
        if self.signals or self.console.closed:
            raise Interrupted
        for process in self.processes:
            status = process.exit_status()
            if status is not None:
                raise DemoError(f"[{process.name}] ended by itself with status {status}; see its lines above.")

    def _wait(self, probe: Callable[[], object], what: str, watch: bool = True) -> None:
        """Wait for a true value of ``probe()``.

        Raises:
            DemoError: It took too long.
            Interrupted: Somebody asked the demo to end.
        """
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not probe():
            if watch:
                self._watch()
            elif self.signals:
                raise Interrupted
            if time.monotonic() > deadline:
                raise DemoError(f"waited {READY_TIMEOUT_S} s in vain for {what}.")
            time.sleep(POLL_S)


def demo_environment() -> dict[str, str]:
    """Return the environment of all processes: the caller's, without what would change the demo."""
    foreign = ("CELERY", "DJANGO_", "PYTHONPATH", "DATABASE_URL", "BROKER_URL")
    env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    env.update(
        DJANGO_SETTINGS_MODULE="demoproject.settings",
        DEMO_DIR=str(STATE_DIR),
        DEMO_SECRET_KEY=secrets.token_urlsafe(32),
        PYTHONUNBUFFERED="1",
        # The folder broker moves each message through here; on the same disk that is a rename.
        TMPDIR=str(STATE_DIR / "tmp"),
    )
    return env


if __name__ == "__main__":
    sys.exit(main())
