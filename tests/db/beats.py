"""Beats as processes of their own, for the tests of the lease and of claims.

``python -m tests.db.beats <command> <lease name> <seconds>`` runs one of the commands below on the database of
``DATABASE_URL`` and prints a line of JSON for each thing that happens.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).parents[2]
START = datetime(2026, 3, 1, tzinfo=timezone.utc)

pause = threading.Event().wait


# -- the side of the tests ---------------------------------------------------------------------


@contextmanager
def shared_database(folder):
    """Yield the URL of the test's database; SQLite's, which is in memory, becomes a file that others can open."""
    from django.db import connection, connections

    options = connection.settings_dict
    if connection.vendor != "sqlite":
        scheme = "mysql" if connection.vendor == "mysql" else "postgresql"
        password = f":{quote(options['PASSWORD'])}" if options["PASSWORD"] else ""
        yield f"{scheme}://{options['USER']}{password}@{options['HOST']}:{options['PORT']}/{options['NAME']}"
        return
    import sqlite3

    path = folder / "beats.sqlite3"
    connection.ensure_connection()
    copy = sqlite3.connect(path)
    connection.connection.backup(copy)
    copy.close()
    in_memory = connections["default"]
    in_file = connections.create_connection("default")
    in_file.settings_dict = {**options, "NAME": str(path)}
    connections["default"] = in_file
    try:
        yield f"sqlite:///{path}"
    finally:
        in_file.close()
        connections["default"] = in_memory


def end_session():
    """End this process's session on the server, as a restart of the server does; wait until it has ended."""
    from django.db import connections

    from tests.services import wait_until

    victim = connections["default"]
    is_postgresql = victim.vendor == "postgresql"
    with victim.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()" if is_postgresql else "SELECT CONNECTION_ID()")
        number = cursor.fetchone()[0]
    killer = connections.create_connection("default")
    with killer.cursor() as cursor:

        def is_gone():
            # Servers end it some time after they have said so.
            table, key = ("pg_stat_activity", "pid") if is_postgresql else ("information_schema.processlist", "id")
            cursor.execute(f"SELECT count(*) FROM {table} WHERE {key} = {number}")
            return cursor.fetchone()[0] == 0

        cursor.execute(f"SELECT pg_terminate_backend({number})" if is_postgresql else f"KILL {number}")
        wait_until(is_gone, 30, "the end of the session")
    killer.close()


class Beat:
    """A process that runs *command*, and the lines that it has printed."""

    def __init__(self, url, command, *args):
        environment = {**os.environ, "DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "tests.settings"}
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "tests.db.beats", command, *map(str, args)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.popen.stdout:
            self.lines.append(json.loads(line))

    def seen(self, event):
        return [line for line in self.lines if line["event"] == event]

    def send(self, number):
        os.kill(self.popen.pid, number)

    def end(self):
        """Wait for its end and for its last line."""
        status = self.popen.wait(180)
        self._reader.join(10)
        self.popen.stdout.close()
        return status

    def kill(self):
        if self.popen.poll() is None:
            self.send(signal.SIGKILL)
        self.end()


@contextmanager
def running(url):
    """Yield a function that starts a ``Beat``; all of them are killed at the end."""
    started = []

    def start(command, *args):
        started.append(Beat(url, command, *args))
        return started[-1]

    try:
        yield start
    finally:
        for beat in started:
            beat.kill()


# -- the side of the processes -----------------------------------------------------------------


def say(event, **values):
    sys.stdout.write(json.dumps({"event": event, **values}) + "\n")
    sys.stdout.flush()


def database_clock():
    from django.db import connection

    from djcelery.schedulers import statements

    sql = {
        "postgresql": "SELECT EXTRACT(EPOCH FROM clock_timestamp())",
        "mysql": "SELECT TIMESTAMPDIFF(MICROSECOND, '2020-01-01', UTC_TIMESTAMP(6)) / 1000000",
        "sqlite": "SELECT (julianday('now') - 2458849.5) * 86400",
    }
    return float(statements.fetch(connection, sql[connection.vendor])[0][0])


def contend(lease, seconds):
    """Take the lease whenever it is free; hold it, give it up or fall asleep with it, by chance."""
    chance, until = random.Random(os.getpid()), time.monotonic() + seconds
    while time.monotonic() < until:
        if not lease.acquire():
            pause(chance.uniform(0, 0.05))
            continue
        for _ in range(chance.randrange(1, 8)):
            before, now = (lease.is_held() and lease.token), database_clock()
            # Held before and after the database's clock was read: held then.
            if before and lease.is_held():
                say("held", token=before, at=now)
            lease.renew()
            pause(chance.uniform(0, 0.05))
        if chance.random() < 0.5:
            lease.release()
        elif chance.random() < 0.5:
            # Fast asleep: another one takes the lease, and this one finds out by itself.
            pause(lease.length_s * chance.uniform(0.5, 1.5))


def hold(lease, seconds):
    """Take the lease and renew it, and claim now and then, until it is lost."""
    from djcelery.exceptions import LeaseLost
    from djcelery.schedulers.claims import Claims, Firing

    until, claims, number = time.monotonic() + seconds, Claims("default", lease), 0
    while time.monotonic() < until:
        if not lease.is_held():
            if lease.acquire():
                say("leads", token=lease.token, at=time.time())
            else:
                say("waits") if not number else None
            number += 1
            pause(min(lease.wait_s(), 0.05))
            continue
        try:
            say("claimed", ids=[run.task_id for run in claims.claim([Firing(1, "t", utc_now())], utc_now())])
        except LeaseLost:
            say("lost")
        pause(0.05)


def utc_now():
    return datetime.now(timezone.utc)


def claim(lease, seconds):
    """Claim the same 200 firings as every other process, twenty at a time."""
    from djcelery.schedulers.claims import Claims, Firing

    claims, firings = Claims("default", lease), [Firing(n % 20 + 1, "t", START + timedelta(0, n)) for n in range(200)]
    random.Random(os.getpid()).shuffle(firings)
    say("ready")
    for start in range(0, len(firings), 20):
        while not lease.is_held() and not lease.acquire():
            pause(0.01)
        runs = claims.claim(firings[start : start + 20], utc_now())
        say("claimed", ids=[run.task_id for run in runs])
    lease.release()


def stand_still(lease, seconds):
    """Claim, but stop for ever between the INSERT and the COMMIT."""
    from djcelery.schedulers.claims import Claims, Firing

    class Frozen(Claims):
        def _count(self, *args):
            say("inserted")
            pause(seconds)

    lease.acquire()
    Frozen("default", lease).claim([Firing(1, "t", START)], utc_now())


if __name__ == "__main__":
    import django
    from django.conf import settings

    if "sqlite" in settings.DATABASES["default"]["ENGINE"]:
        # A busy machine may keep a process from its turn for long.
        settings.DATABASES["default"]["OPTIONS"] = {"timeout": 60}
    django.setup()

    from djcelery.schedulers.lease import Lease

    commands = {"contend": contend, "hold": hold, "claim": claim, "stand_still": stand_still}
    _command, _name, _length_s, _seconds = sys.argv[1:]
    commands[_command](Lease("default", _name, float(_length_s)), float(_seconds))
