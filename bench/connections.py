"""Measure what storing a result costs in a worker, by who owns the connection.

Usage, from the root of the repository::

    python bench/connections.py                     PostgreSQL, MariaDB and SQLite, 300 results, 5 rounds
    python bench/connections.py --engine postgresql --results 1000

``CONN_MAX_AGE`` is 0. "celery" closes the connection around each task, as Celery's own fix-up does; "kept" is
djcelery's default; "given up" is ``DJCELERY_KEEP_RESULT_CONNECTION = False``. The floor is the same statement,
written by hand, on one connection. All four take turns in each round; medians are printed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENGINES = ("postgresql", "mysql", "sqlite")


def measure(results: int, rounds: int) -> dict[str, float]:
    """Return the median of results per second, by kind; runs in a process whose database is set already."""
    import django
    from django.test import override_settings

    django.setup()
    from celery import Celery
    from celery.fixups.django import DjangoWorkerFixup
    from django.core.management import call_command
    from django.db import connection, connections

    from djcelery import LOADER, db

    call_command("migrate", verbosity=0)
    app = Celery("bench", loader=LOADER)
    celerys, ours = DjangoWorkerFixup(app), db.WorkerFixup(app)
    db._is_worker = True
    store = app.backend.store_result

    def in_task(fixup: DjangoWorkerFixup, keep: bool) -> Callable[[list[str]], None]:
        def run(task_ids: list[str]) -> None:
            with override_settings(DJCELERY_KEEP_RESULT_CONNECTION=keep):
                for task_id in task_ids:
                    fixup.close_database()
                    store(task_id, {"a": 1}, "SUCCESS")
                    fixup.close_database()

        return run

    with db.connections.create_connection("default").cursor() as cursor:
        sql = _statement(connection.vendor)

        def floor(task_ids: list[str]) -> None:
            for task_id in task_ids:
                cursor.execute(sql, [task_id, "SUCCESS", '{"a": 1}', "2026-01-01 00:00:00", False])

        kinds = {
            "celery": in_task(celerys, keep=False),
            "given up": in_task(ours, keep=False),
            "kept": in_task(ours, keep=True),
            "floor": floor,
        }
        taken: dict[str, list[float]] = {name: [] for name in kinds}
        for turn in range(rounds + 1):
            for name, run in kinds.items():
                task_ids = [f"{name}-{turn}-{number}" for number in range(results)]
                started = time.perf_counter()
                run(task_ids)
                taken[name].append(results / (time.perf_counter() - started))
    connections.close_all()
    # The first round warms up.
    return {name: statistics.median(values[1:]) for name, values in taken.items()}


def _statement(vendor: str) -> str:
    insert = "INSERT INTO celery_taskmeta (task_id, status, result, date_done, hidden) VALUES (%s, %s, %s, %s, %s)"
    if vendor == "mysql":
        return f"{insert} ON DUPLICATE KEY UPDATE status = VALUES(status), result = VALUES(result)"
    return f"{insert} ON CONFLICT (task_id) DO UPDATE SET status = excluded.status, result = excluded.result"


def child(engine: str, results: int, rounds: int) -> dict[str, float]:
    """Measure one engine in a process of its own, in a database that is dropped afterwards."""
    sys.path.insert(0, str(ROOT))
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    import django

    django.setup()
    from tests.migrations import databases

    with tempfile.TemporaryDirectory() as folder, databases.new_database(engine, Path(folder)) as database:
        line = [sys.executable, __file__, "--measure", "--results", str(results), "--rounds", str(rounds)]
        env = {**os.environ, "DATABASE_URL": database.url, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(line, env=env, check=True, capture_output=True, text=True)
    return dict((name, float(value)) for name, value in (row.split("\t") for row in done.stdout.strip().splitlines()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--results", type=int, default=300, help="results in each turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        for name, value in measure(options.results, options.rounds).items():
            print(name, value, sep="\t")
        return
    print(f"{'engine':<11} {'celery/s':>9} {'given up/s':>11} {'kept/s':>9} {'floor/s':>9}   kept:celery  floor:kept")
    for engine in options.engine:
        got = child(engine, options.results, options.rounds)
        ratios = f"{got['kept'] / got['celery']:>10.1f}x {got['floor'] / got['kept']:>10.2f}x"
        rates = " ".join(f"{got[n]:>{w}.0f}" for n, w in (("celery", 9), ("given up", 11), ("kept", 9), ("floor", 9)))
        print(f"{engine:<11} {rates}   {ratios}")


if __name__ == "__main__":
    main()
