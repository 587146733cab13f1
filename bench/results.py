"""Measure storing and fetching results: djcelery, django-celery-results and a hand-written statement, in one run.

Usage, from the root of the repository::

    python bench/results.py                              three engines, 400 results, 7 rounds
    python bench/results.py --engine postgresql --results 1000
    python bench/results.py throughput                   no-op tasks through a real worker, Redis and PostgreSQL

All take turns in each round, in one process per engine; medians are printed. The floor is one hand-written upsert
of five columns into a table with nothing but a primary key, or one SELECT and the decoding of its JSON. "x floor" is
wall time over the floor's; "cpu" is the process's own time in microseconds. "in a worker" closes connections around
each result as Celery's fix-up does (``CONN_MAX_AGE`` 0, no pool); djcelery runs under its own fix-up there.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ENGINES = ("postgresql", "mysql", "sqlite")
RESULT = {"ok": True, "rows": 17, "text": "x" * 100}
PEER = "django_celery_results"

INSTANT = {"postgresql": "timestamptz", "mysql": "datetime(6)", "sqlite": "datetime"}
KEY = "task_id varchar(255) PRIMARY KEY, status varchar(50), result text, meta text, date_done"
INSERT = "INSERT INTO bench_floor VALUES (%s, %s, %s, %s, %s)"
NAMES = ("status", "result", "meta", "date_done")


def upsert(vendor: str) -> str:
    if vendor == "mysql":
        return f"{INSERT} ON DUPLICATE KEY UPDATE " + ", ".join(f"{n} = VALUES({n})" for n in NAMES)
    return f"{INSERT} ON CONFLICT (task_id) DO UPDATE SET " + ", ".join(f"{n} = excluded.{n}" for n in NAMES)


def context(task_id: str) -> Any:
    from celery.app.task import Context

    now = time.time()
    return Context(
        id=task_id,
        task="shop.tasks.charge",
        args=[1, "two"],
        kwargs={"three": 3},
        argsrepr="(1, 'two')",
        kwargsrepr="{'three': 3}",
        hostname="celery@host1",
        root_id=task_id,
        retries=0,
        delivery_info={"exchange": "", "routing_key": "celery"},
        # What djcelery's receivers note in a worker; the peer stores no such thing.
        djcelery_sent=now,
        djcelery_started=(now, time.monotonic()),
    )


#: Made before the clock runs: in a worker the request is there anyway.
request_of: dict[str, Any] = {}


def operations() -> dict[str, dict[str, Callable[[str], Any]]]:
    """Return what is measured: by operation, a function of a task id for each contender."""
    from celery import Celery
    from celery.fixups.django import DjangoWorkerFixup
    from django.db import connection
    from django.utils import timezone

    from djcelery import db

    backends = {"djcelery": Celery("ours", backend="djcelery-db").backend}
    if find_spec(PEER):
        path = f"{PEER}.backends.database:DatabaseBackend"
        backends["dcr"] = Celery("peer", backend=path, changes={"result_extended": True}).backend
    ours = backends["djcelery"]
    fixups = {"djcelery": db.WorkerFixup(ours.app), "dcr": DjangoWorkerFixup(ours.app)}
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE bench_floor ({KEY} {INSTANT[connection.vendor]})")
    statement = upsert(connection.vendor)

    def floor(task_id: str, status: str = "SUCCESS") -> None:
        with connection.cursor() as cursor:
            cursor.execute(statement, [task_id, status, ours.encode(RESULT), '{"children": []}', timezone.now()])

    def floor_get(task_id: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {', '.join(NAMES)} FROM bench_floor WHERE task_id = %s", [task_id])
            ours.decode(cursor.fetchone()[1])

    def storing(backend: Any) -> Callable[[str], Any]:
        return lambda task_id: backend.store_result(task_id, RESULT, "SUCCESS", request=request_of[task_id])

    def in_worker(name: str) -> Callable[[str], Any]:
        store, fixup = storing(backends[name]), fixups[name]

        def run(task_id: str) -> None:
            fixup.close_database()
            db._is_worker = name == "djcelery"
            store(task_id)
            db._is_worker = False
            fixup.close_database()

        return run

    def started(backend: Any) -> Callable[[str], Any]:
        return lambda task_id: backend.store_result(task_id, {"pid": 1}, "STARTED", request=request_of[task_id])

    stores = {name: storing(backend) for name, backend in backends.items()}
    return {
        "store new": {**stores, "floor": floor},
        "(STARTED)": {**{n: started(b) for n, b in backends.items()}, "floor": lambda t: floor(t, "STARTED")},
        "store update": {**stores, "floor": floor},
        "fetch": {
            **{n: lambda t, b=b: b.get_task_meta(t, cache=False) for n, b in backends.items()},
            "floor": floor_get,
        },
        "in a worker": {**{name: in_worker(name) for name in backends}, "floor": floor},
    }


def measure(results: int, rounds: int) -> None:
    """Print a line per operation; runs in a process whose database is set already."""
    import django
    from django.conf import settings

    settings.INSTALLED_APPS += [PEER] if find_spec(PEER) else []
    django.setup()
    from django.core.management import call_command
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    call_command("migrate", verbosity=0)
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode = wal")
            cursor.execute("PRAGMA synchronous = normal")
    what = operations()
    wall: dict[tuple[str, str], list[float]] = {}
    cpu: dict[tuple[str, str], list[float]] = {}
    ids: list[str] = []
    for turn in range(rounds + 1):
        for operation, contenders in what.items():
            if operation in ("store new", "(STARTED)", "in a worker"):
                ids = [str(uuid.uuid4()) for _ in range(results)]
                request_of.clear()
                request_of.update({task_id: context(task_id) for task_id in ids})
            elif operation == "store update" and turn == 0:
                continue
            for name, run in contenders.items():
                began, began_cpu = time.perf_counter(), time.process_time()
                for task_id in ids:
                    run(task_id)
                if turn:  # The first round warms up.
                    wall.setdefault((operation, name), []).append((time.perf_counter() - began) / results)
                    cpu.setdefault((operation, name), []).append((time.process_time() - began_cpu) / results)
    for operation, contenders in what.items():
        if operation.startswith("("):
            continue
        floor = statistics.median(wall[operation, "floor"])
        for name, run in contenders.items():
            task_id = str(uuid.uuid4())
            request_of[task_id] = context(task_id)
            if operation in ("store update", "fetch"):
                what["(STARTED)"][name](task_id)
            with CaptureQueriesContext(connection) as queries:
                run(task_id)
            took = statistics.median(wall[operation, name])
            print(
                f"{connection.vendor:<11} {operation:<13} {name:<9} {1 / took:>9.0f} {took / floor:>8.2f} "
                f"{statistics.median(cpu[operation, name]) * 1e6:>7.0f} {len(queries):>10}"
            )


def child(engine: str, results: int, rounds: int) -> None:
    """Measure one engine in a process of its own, in a database that is dropped afterwards."""
    from tests.migrations import databases

    with tempfile.TemporaryDirectory() as folder, databases.new_database(engine, Path(folder)) as database:
        line = [sys.executable, __file__, "--measure", "--results", str(results), "--rounds", str(rounds)]
        subprocess.run(line, env={**os.environ, "DATABASE_URL": database.url, "PYTHONPATH": str(ROOT)}, check=True)


# -- through a worker --------------------------------------------------------------------------

PROJECT = """
from tests.settings import *
INSTALLED_APPS = [*INSTALLED_APPS, {apps}]
CELERY_BROKER_URL = BROKER_URL = "redis://127.0.0.1:6379/{redis}"
CELERY_RESULT_BACKEND = "{backend}"
CELERY_TASK_DEFAULT_QUEUE = "bench-{backend}"
"""
APP = """
import os
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bench_settings")
from celery import Celery
app = Celery("bench_app")
app.config_from_object("django.conf:settings", namespace="CELERY")

@app.task(name="bench.noop")
def noop():
    return None
"""
COUNT = {
    "djcelery-db": "SELECT COUNT(*), MIN(date_done), MAX(date_done) FROM celery_taskmeta WHERE status = 'SUCCESS'",
    "django-db": f"SELECT COUNT(*), MIN(date_done), MAX(date_done) FROM {PEER}_taskresult WHERE status = 'SUCCESS'",
}


def throughput(tasks: int, rounds: int, redis: int) -> None:
    """Print no-op tasks per second of a real worker with two processes, for both backends in turn."""
    from tests.migrations import databases

    rates: dict[str, list[float]] = {backend: [] for backend in COUNT}
    for _ in range(rounds):
        for backend in COUNT:
            with (
                tempfile.TemporaryDirectory() as folder,
                databases.new_database("postgresql", Path(folder)) as database,
            ):
                apps = repr(PEER) if backend == "django-db" else ""
                Path(folder, "bench_settings.py").write_text(PROJECT.format(apps=apps, backend=backend, redis=redis))
                Path(folder, "bench_app.py").write_text(APP)
                path = os.pathsep.join([folder, str(ROOT)])
                env = {**os.environ, "DATABASE_URL": database.url, "PYTHONPATH": path}
                env["DJANGO_SETTINGS_MODULE"] = "bench_settings"
                rates[backend].append(_one_throughput(backend, tasks, env, folder))
    for backend, values in rates.items():
        print(f"{backend:<12} {statistics.median(values):>8.0f} tasks/s   (of {', '.join(f'{v:.0f}' for v in values)})")
    ours, peer = (statistics.median(rates[backend]) for backend in COUNT)
    print(f"djcelery-db : django-db = {ours / peer:.2f}")


def _one_throughput(backend: str, tasks: int, env: dict[str, str], folder: str) -> float:
    run = [sys.executable, "-c"]
    subprocess.run([sys.executable, "-m", "django", "migrate", "-v", "0"], env=env, check=True)
    send = (
        "from bench_app import app, noop\np = app.producer_pool.acquire(block=True)\n"
        f"[noop.apply_async(producer=p) for _ in range({tasks})]"
    )
    subprocess.run([*run, f"import django; django.setup()\n{send}"], env=env, check=True, cwd=folder)
    worker = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "bench_app",
            "worker",
            "-c",
            "2",
            "--loglevel",
            "ERROR",
            "--without-gossip",
        ],
        env=env,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    look = (
        "import django; django.setup()\nfrom django.db import connection as c\nimport time\n"
        f"cur = c.cursor()\nwhile True:\n    cur.execute({COUNT[backend]!r})\n    n, a, b = cur.fetchone()\n"
        f"    if n >= {tasks}: print((b - a).total_seconds()); break\n    time.sleep(0.5)"
    )
    try:
        done = subprocess.run(
            [*run, look], env=env, check=True, capture_output=True, text=True, cwd=folder, timeout=600
        )
    finally:
        worker.terminate()
        worker.wait(60)
    return tasks / float(done.stdout.strip())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("operations", "throughput"), default="operations")
    parser.add_argument("--engine", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--results", type=int, default=400, help="results in each turn")
    parser.add_argument("--tasks", type=int, default=5000, help="tasks of a throughput run")
    parser.add_argument("--rounds", type=int, default=0, help="7, and 3 for throughput")
    parser.add_argument("--redis", type=int, default=13, help="number of the Redis database for throughput")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    if options.measure:
        measure(options.results, options.rounds)
        return
    import django

    django.setup()
    if options.what == "throughput":
        throughput(options.tasks, options.rounds or 3, options.redis)
        return
    print(
        f"{'engine':<11} {'operation':<13} {'':<9} {'per s':>9} {'x floor':>8} {'cpu us':>7} {'statements':>10}",
        flush=True,
    )
    for engine in options.engine:
        child(engine, options.results, options.rounds or 7)


if __name__ == "__main__":
    main()
