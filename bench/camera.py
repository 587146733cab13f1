"""Measure the camera: statements and time per changed task, events per second, and memory after a million tasks.

Usage, from the root of the repository::

    python bench/camera.py                            all of it; about six minutes
    python bench/camera.py shutters --engine postgresql --tasks 10000
    python bench/camera.py sustained --seconds 60     PostgreSQL
    python bench/camera.py memory --tasks 1000000

*shutters*: a shutter of so many tasks that the table doesn't know ("new": received), with no news since ("unchanged"),
after their end ("update"), and of tasks whose whole life fell into one shutter ("life": three events each). Beside it
the legacy algorithm, written after its description: per task ``get_or_create`` and ``save()``, for unfinished tasks at
every shutter; and a floor: a multi-row upsert of nine columns into a table with nothing but a primary key.

*state*: how many events per second Celery's own ``State`` digests, and how many ours does, without a database.

*sustained*: from the raw event on until it is committed: one thread reads events, one writes. "held up" is the longest
time that reading 24 events, as one message has them, took: what the writing thread and the machine do to it.

*memory*: what the process has grown by after so many tasks, measured from the first hundred thousand on.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ENGINES = ("postgresql", "mysql", "sqlite")
#: Legacy takes this many tasks only; its time per task doesn't depend on it.
LEGACY_TASKS = 1000
WORKERS = [f"celery@host{number}" for number in range(8)]
EVENTS_PER_MESSAGE = 24


class Feed:
    """Events as workers send them."""

    def __init__(self) -> None:
        self.clock = 0

    def event(self, kind: str, worker: str, **fields: Any) -> dict[str, Any]:
        self.clock += 1
        now = time.time()
        event = {"type": kind, "hostname": worker, "timestamp": now, "local_received": now, "clock": self.clock}
        return {**event, "utcoffset": 0, "pid": 1, **fields}

    def beats(self) -> list[dict[str, Any]]:
        said = {"freq": 2.0, "active": 0, "processed": 0, "loadavg": [0, 0, 0], "sw_ident": "py-celery"}
        return [self.event("worker-heartbeat", name, **said) for name in WORKERS]

    def received(self, number: int, task_id: str) -> dict[str, Any]:
        what = {"name": f"shop.tasks.charge{number % 10}", "args": "(1, 'two')", "kwargs": "{'three': 3}"}
        more = {"root_id": task_id, "parent_id": None, "retries": 0, "eta": None, "expires": None}
        return self.event("task-received", WORKERS[number % 8], uuid=task_id, **what, **more)

    def started(self, number: int, task_id: str) -> dict[str, Any]:
        return self.event("task-started", WORKERS[number % 8], uuid=task_id)

    def succeeded(self, number: int, task_id: str) -> dict[str, Any]:
        return self.event("task-succeeded", WORKERS[number % 8], uuid=task_id, result="{'ok': True}", runtime=0.0123)

    def life(self, number: int, task_id: str) -> list[dict[str, Any]]:
        return [make(number, task_id) for make in (self.received, self.started, self.succeeded)]


def new_ids(count: int) -> list[str]:
    return [str(uuid.uuid4()) for _ in range(count)]


# -- contenders --------------------------------------------------------------------------------


class Ours:
    """celerycam without its receiver."""

    def __init__(self) -> None:
        from djcelery.snapshot.dirty import Dirty
        from djcelery.snapshot.writer import Writer

        self.dirty, self.writer = Dirty(10_000_000), Writer("bench", 1.0)

    def digest(self, events: list[dict[str, Any]]) -> None:
        from djcelery.snapshot import intake

        for event in events:
            self.dirty.add(intake.read(event, event["local_received"]))

    def shutter(self) -> None:
        while True:
            batch = self.dirty.take(5000)
            self.writer.write(batch)
            if not self.dirty.waiting:
                return


class Legacy:
    """django-celery's camera, as its documents describe it; on Celery's State."""

    def __init__(self) -> None:
        from celery.events.state import State

        self.state = State(max_tasks_in_memory=10_000_000)
        self.workers: dict[str, tuple[float, Any]] = {}

    def digest(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            self.state.event(event)

    def shutter(self) -> None:
        from celery import states

        for hostname, worker in self.state.workers.items():
            self.worker(hostname, worker)
        for task_id, task in list(self.state.tasks.items()):
            self.task(task_id, task)
            if task.state in states.READY_STATES:
                del self.state.tasks[task_id]

    def worker(self, hostname: str, worker: Any) -> Any:
        from djcelery import utils
        from djcelery.models import WorkerState

        written, row = self.workers.get(hostname, (0.0, None))
        if row is None or time.monotonic() - written > 60:
            beat = utils.fromtimestamp(worker.heartbeats[-1]) if worker.heartbeats else None
            row, _ = WorkerState.objects.update_or_create(hostname=hostname, defaults={"last_heartbeat": beat})
            self.workers[hostname] = (time.monotonic(), row)
        return row

    def task(self, task_id: str, task: Any) -> None:
        from djcelery import utils
        from djcelery.models import TaskState

        names = ("name", "args", "kwargs", "state", "traceback", "runtime")
        fields = {name: getattr(task, name) for name in names if getattr(task, name) is not None}
        fields |= {"tstamp": utils.fromtimestamp(task.timestamp), "result": task.result or task.exception}
        fields["worker"] = self.worker(task.worker.hostname, task.worker)
        row, created = TaskState.objects.get_or_create(task_id=task_id, defaults=fields)
        if not created:
            for name, value in fields.items():
                setattr(row, name, value)
            row.save()


class Floor:
    """The least that a database does: a multi-row upsert of 1,000 rows a statement."""

    columns = ("task_id", "state", "name", "tstamp", "args", "kwargs", "result", "runtime", "worker_id")

    def __init__(self) -> None:
        from django.db import connection

        self.connection = connection
        kinds = ("varchar(36) PRIMARY KEY", "varchar(64)", "varchar(200)", "varchar(40)", *("text",) * 3)
        types = (*kinds, "double precision", "integer")
        with connection.cursor() as cursor:
            columns = ", ".join(f"{name} {kind}" for name, kind in zip(self.columns, types, strict=True))
            cursor.execute(f"CREATE TABLE bench_floor ({columns})")
        mysql = connection.vendor == "mysql"
        new = "VALUES({})" if mysql else "excluded.{}"
        sets = ", ".join(f"{name} = {new.format(name)}" for name in self.columns[1:])
        self.ending = f" ON {'DUPLICATE KEY UPDATE' if mysql else 'CONFLICT (task_id) DO UPDATE SET'} {sets}"
        self.ids: dict[str, None] = {}

    def digest(self, events: list[dict[str, Any]]) -> None:
        self.ids = dict.fromkeys(event["uuid"] for event in events if "uuid" in event)

    def shutter(self) -> None:
        ids = list(self.ids)
        for start in range(0, len(ids), 1000):
            part = ids[start : start + 1000]
            rest = ["SUCCESS", "shop.tasks.charge", "2026-01-01T00:00:00", "(1, 'two')", "{'three': 3}", "{}", 0.1, 1]
            values = [value for task_id in part for value in (task_id, *rest)]
            marks = ", ".join([f"({', '.join(['%s'] * 9)})"] * len(part))
            with self.connection.cursor() as cursor:
                cursor.execute(f"INSERT INTO bench_floor VALUES {marks}{self.ending}", values)
        self.ids = {}


# -- shutters ----------------------------------------------------------------------------------


def measure(tasks: int, rounds: int) -> None:
    """Print a line per phase and contender; runs in a process whose database is set already."""
    prepare()
    contenders = {"ours": (Ours(), tasks), "floor": (Floor(), tasks), "legacy": (Legacy(), min(tasks, LEGACY_TASKS))}
    took: dict[tuple[str, str], list[tuple[float, float, int]]] = {}
    for turn in range(rounds + 1):
        for name, (contender, count) in contenders.items():
            for phase, result in one_round(contender, count):
                if turn:  # The first round warms up.
                    took.setdefault((phase, name), []).append(result)
    from django.db import connection

    for (phase, name), results in took.items():
        wall, cpu, statements = (statistics.median(column) for column in zip(*results, strict=True))
        count = contenders[name][1]
        print(
            f"{connection.vendor:<11} {phase:<10} {name:<7} {count:>7} {1000 * wall / count:>9.4f} "
            f"{1000 * cpu / count:>8.4f} {1000 * statements / count:>12.1f}",
            flush=True,
        )


def one_round(contender: Any, count: int) -> Iterator[tuple[str, tuple[float, float, int]]]:
    feed, ids = Feed(), new_ids(count)
    yield "new", shutter(contender, [*feed.beats(), *(feed.received(n, i) for n, i in enumerate(ids))])
    yield "unchanged", shutter(contender, [])
    yield "update", shutter(contender, [*feed.beats(), *(feed.succeeded(n, i) for n, i in enumerate(ids))])
    lives = [event for n, i in enumerate(new_ids(count)) for event in feed.life(n, i)]
    yield "life", shutter(contender, [*feed.beats(), *lives])


def shutter(contender: Any, events: list[dict[str, Any]]) -> tuple[float, float, int]:
    """Return wall time, own CPU time and statements, BEGIN and COMMIT not counted."""
    from django.db import connection

    contender.digest(events)
    statements = 0

    def count(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal statements
        statements += 1
        return execute(sql, params, many, context)

    with connection.execute_wrapper(count):
        began, began_cpu = time.perf_counter(), time.process_time()
        contender.shutter()
        return time.perf_counter() - began, time.process_time() - began_cpu, statements


def prepare() -> None:
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connection

    call_command("migrate", verbosity=0)
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode = wal")
            cursor.execute("PRAGMA synchronous = normal")


# -- without a database ------------------------------------------------------------------------


def state(tasks: int, rounds: int) -> None:
    """Print how many events per second are digested."""
    prepare()
    feed = Feed()
    events = [event for n, i in enumerate(new_ids(tasks)) for event in feed.life(n, i)]
    for name, contender in (("Celery's State", Legacy), ("intake and dirty set", Ours)):
        rates = []
        for _ in range(rounds):
            one = contender()
            began = time.perf_counter()
            one.digest(events)
            rates.append(len(events) / (time.perf_counter() - began))
        print(f"{name:<22} {statistics.median(rates):>9,.0f} events/s", flush=True)


# -- sustained ---------------------------------------------------------------------------------


class Sustained:
    """One thread reads, the other writes, as in celerycam."""

    def __init__(self) -> None:
        self.ours = Ours()
        self.is_over = False
        self.events = self.tasks = 0
        self.longest_s = 0.0
        self.waits: list[float] = []

    def run(self, seconds: float, tasks: int) -> float:
        """Read for so many seconds, or so many tasks, and return the time until all was written."""
        writer = threading.Thread(target=self.write)
        began = time.perf_counter()
        writer.start()
        feed = Feed()
        while time.perf_counter() - began < seconds and self.tasks < tasks:
            self.read([event for n, i in enumerate(new_ids(100)) for event in feed.life(n, i)])
            self.read(feed.beats() if self.tasks % 10_000 == 0 else [])
            self.tasks += 100
            # What a broker does that hands over no more than is acknowledged.
            while self.ours.dirty.waiting > 50_000:
                time.sleep(0.01)
        self.is_over = True
        writer.join()
        return time.perf_counter() - began

    def read(self, events: list[dict[str, Any]]) -> None:
        for start in range(0, len(events), EVENTS_PER_MESSAGE):
            part = events[start : start + EVENTS_PER_MESSAGE]
            began = time.perf_counter()
            self.ours.digest(part)
            self.waits.append(time.perf_counter() - began)
            self.events += len(part)

    def write(self) -> None:
        while True:
            is_last = self.is_over
            self.ours.writer.write(self.ours.dirty.take(5000))
            if is_last and not self.ours.dirty.waiting:
                return
            if self.ours.dirty.waiting < 1000:
                time.sleep(0.05)


def sustained(seconds: float, tasks: int) -> None:
    prepare()
    from djcelery.models import TaskHistory, TaskState

    # The process that takes events apart is paid for making them, too: about 4 µs each.
    run = Sustained()
    took = run.run(seconds, tasks)
    counts = dict(TaskHistory.objects.filter(period="total").values_list("state", "count").order_by("name"))
    totals = dict.fromkeys(counts, 0)
    for name, number in TaskHistory.objects.filter(period="total").values_list("state", "count"):
        totals[name] += number
    rows = TaskState.objects.filter(state="SUCCESS").count()
    waits = sorted(run.waits)
    print(
        f"{run.events:,} events of {run.tasks:,} tasks in {took:.1f} s: {run.events / took:,.0f} events/s, "
        f"{run.tasks / took:,.0f} tasks/s\n"
        f"rows of finished tasks {rows:,}, history {totals}, dropped {run.ours.dirty.counts.dropped}\n"
        f"a message of 24 events is read in {1000 * statistics.median(waits):.2f} ms (median), "
        f"{1000 * waits[int(len(waits) * 0.999)]:.1f} ms (99.9 %), held up at most {1000 * waits[-1]:.0f} ms",
        flush=True,
    )


def memory(tasks: int) -> None:
    """Print by how much the process has grown."""
    prepare()
    ours, feed, first = Ours(), Feed(), min(100_000, tasks // 2)
    began = time.perf_counter()
    at_first = 0
    for done in range(0, tasks, 5000):
        ours.digest([event for n, i in enumerate(new_ids(5000)) for event in feed.life(n, i)])
        ours.shutter()
        if done + 5000 == first:
            at_first = resident_mb()
    from djcelery.models import TaskState

    last = resident_mb()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"{tasks:,} tasks in {time.perf_counter() - began:.0f} s: {at_first} MB after {first:,}, {last} MB at the end, "
        f"grown by {last - at_first} MB; peak {peak} MB; rows {TaskState.objects.count():,}",
        flush=True,
    )


def resident_mb() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 2**20


# -- the command -------------------------------------------------------------------------------


def child(engine: str, *line: str) -> None:
    """Run this script in a process of its own, in a database that is dropped afterwards."""
    from tests.migrations import databases

    with tempfile.TemporaryDirectory() as folder, databases.new_database(engine, Path(folder)) as database:
        env = {**os.environ, "DATABASE_URL": database.url, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, __file__, "--measure", *line], env=env, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("all", "shutters", "state", "sustained", "memory"), default="all")
    parser.add_argument("--engine", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--tasks", type=int, default=0, help="tasks of a shutter (10,000), or in all (1,000,000)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30.0, help="of sustained")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    what, tasks = options.what, str(options.tasks or (1_000_000 if options.what == "memory" else 10_000))
    if options.measure:
        run = {
            "shutters": lambda: measure(int(tasks), options.rounds),
            "state": lambda: state(int(tasks), options.rounds),
            "sustained": lambda: sustained(options.seconds, options.tasks or 10**9),
            "memory": lambda: memory(int(tasks)),
        }
        run[what]()
        return
    import django

    django.setup()
    rounds = ["--rounds", str(options.rounds)]
    if what in ("all", "shutters"):
        print(
            f"{'engine':<11} {'phase':<10} {'':<7} {'tasks':>7} {'ms/task':>9} {'cpu ms':>8} {'stmts/1,000':>12}",
            flush=True,
        )
        for engine in options.engine:
            child(engine, "shutters", "--tasks", tasks, *rounds)
    if what in ("all", "state"):
        child("sqlite", "state", "--tasks", "20000", *rounds)
    if what in ("all", "sustained"):
        child("postgresql", "sustained", "--seconds", str(options.seconds), "--tasks", str(options.tasks))
    if what in ("all", "memory"):
        child("postgresql", "memory", "--tasks", tasks if what == "memory" else "1000000")


if __name__ == "__main__":
    main()
