"""Measure deleting expired results: all at once, few of many, and beside rows that are kept for ever.

Usage, from the root of the repository::

    python bench/cleanup.py                                   1,000,000 rows on PostgreSQL, 3 rounds
    python bench/cleanup.py --engine mysql sqlite --rows 200000

Kinds: "djcelery" is ``DatabaseBackend.cleanup()``; "raw" is one hand-written DELETE of the same rows from the
same table; "dcr" is the ``cleanup()`` of django-celery-results, if it is installed, on its own table with its own
indexes. They take turns, each in a process of its own on a table filled anew; medians are printed. "longest" is
the longest statement, which is how long its locks are held; "memory" is how much the process grew.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ENGINES = ("postgresql", "mysql", "sqlite")
KINDS = ("raw", "djcelery", "dcr")
#: By case: what it is, and how many of the rows are expired.
CASES: dict[str, tuple[str, float]] = {
    "all": ("every row is expired", 1),
    "receiver": ("the same, with a receiver of post_delete", 1),
    "instant": ("the same, all written at one instant", 1),
    "few": ("one row of 200 is expired", 0.005),
    "none": ("no row is expired", 0),
    "state": ("every second row is a FAILURE, kept for ever by a rule", 0.5),
    "task": ("every second row is of a task kept for ever by a rule", 0.5),
}
RETENTION: dict[str, dict[str, Any]] = {"state": {"FAILURE": None}, "task": {"shop.tasks.even": None}}
DAY_S = 86400

EXPIRED = {
    "postgresql": "now() - interval '10 days' + {n} * interval '1 microsecond'",
    "mysql": "utc_timestamp(6) - interval 10 day + interval {n} microsecond",
    "sqlite": "strftime('%Y-%m-%d %H:%M:%S', 'now', '-10 days') || '.' || substr('00000' || ({n} % 1000000), -6)",
}
FRESH = {"postgresql": "now()", "mysql": "utc_timestamp(6)", "sqlite": "strftime('%Y-%m-%d %H:%M:%S', 'now')"}


def fill(connection: Any, table: str, case: str, rows: int) -> int:
    """Put *rows* results of about 500 bytes into *table*; return how many of them a cleanup deletes."""
    vendor, few = connection.vendor, CASES[case][1]
    expired = EXPIRED[vendor].format(n="0" if case == "instant" else "n")
    if few == 0.005:
        expired = f"CASE WHEN n % 200 = 0 THEN {expired} ELSE {FRESH[vendor]} END"
    prefix = "0e27fb9a-7d4a-4a1e-95e0-"
    task_id = {
        "postgresql": f"'{prefix}' || lpad(n::text, 12, '0')",
        "mysql": f"concat('{prefix}', lpad(n, 12, '0'))",
        "sqlite": f"printf('{prefix}%012d', n)",
    }[vendor]
    values = {
        "task_id": task_id,
        "status": "CASE WHEN n % 2 = 0 THEN 'FAILURE' ELSE 'SUCCESS' END" if case == "state" else "'SUCCESS'",
        "date_done": expired if few else FRESH[vendor],
        "date_created": FRESH[vendor],
        "hidden": "false",
        "content_type": "'application/json'",
        "content_encoding": "'utf-8'",
        "result": f'\'{{"ok": true, "text": "{"x" * 100}"}}\'',
        "meta": "'{\"children\": []}'",
        "task_args": "'[1, 2]'",
        "task_kwargs": "'{}'",
        "args": "'[1, 2]'",
        "kwargs": "'{}'",
        "worker": "'celery@host1.example.com'",
        "queue": "'celery'",
        "name": "CASE WHEN n % 2 = 0 THEN 'shop.tasks.even' ELSE 'shop.tasks.odd' END",
        "retries": "0",
    }
    numbers = {
        "postgresql": f"generate_series(1, {rows}) AS n",
        "mysql": f"(SELECT seq AS n FROM seq_1_to_{rows}) AS v",
        "sqlite": f"(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {rows}) SELECT n FROM s)",
    }[vendor]
    with connection.cursor() as cursor:
        there = [column.name for column in connection.introspection.get_table_description(cursor, table)]
        names = [name for name in values if name in there]
        chosen = ", ".join(values[name] for name in names)
        sql = f"INSERT INTO {table} ({', '.join(names)}) SELECT {chosen} FROM {numbers}"
        cursor.execute(sql)
        analyze = {"postgresql": f"VACUUM ANALYZE {table}", "mysql": f"ANALYZE TABLE {table}", "sqlite": "SELECT 1"}
        cursor.execute(analyze[vendor])
        cursor.fetchall() if vendor != "postgresql" else None
    return round(rows * few)


def measure(kind: str, case: str, rows: int) -> dict[str, float]:
    """Clean up once and return what it took; runs in a process whose empty database is set already."""
    import django
    from django.conf import settings

    settings.CELERY_RESULT_EXPIRES = DAY_S
    settings.DJCELERY_RETENTION = RETENTION.get(case, {})
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, *(["django_celery_results"] if kind == "dcr" else [])]
    django.setup()
    from celery import Celery
    from django.core.management import call_command
    from django.db import connection
    from django.db.models.signals import post_delete

    from djcelery import LOADER

    call_command("migrate", verbosity=0)
    if connection.vendor == "sqlite":
        connection.cursor().execute("PRAGMA journal_mode = WAL").fetchall()
    app = Celery("bench", loader=LOADER)
    backend = app.backend
    table = "celery_taskmeta"
    if kind == "dcr":
        from django_celery_results.backends import DatabaseBackend

        backend, table = DatabaseBackend(app=app), "django_celery_results_taskresult"
    backend.cleanup()
    expected = fill(connection, table, case, rows)
    if case == "receiver":
        post_delete.connect(_receiver, weak=False)

    def raw() -> None:
        where = {"state": "AND status <> 'FAILURE'", "task": "AND name <> 'shop.tasks.even'"}.get(case, "")
        old = {"postgresql": "now() - interval '1 day'", "mysql": "utc_timestamp(6) - interval 1 day"}
        limit = old.get(connection.vendor, "strftime('%Y-%m-%d %H:%M:%S', 'now', '-1 day')")
        with connection.cursor() as cursor:
            cursor.execute(f"DELETE FROM {table} WHERE date_done < {limit} {where}")

    taken: list[float] = []

    def timed(execute: Any, *args: Any) -> Any:
        started = time.perf_counter()
        try:
            return execute(*args)
        finally:
            taken.append(time.perf_counter() - started)

    # Linux: from now on the peak is a new one.
    Path("/proc/self/clear_refs").write_text("5")
    before_kb = peak_kb()
    with connection.execute_wrapper(timed):
        started = time.perf_counter()
        raw() if kind == "raw" else backend.cleanup()
        total_s = time.perf_counter() - started
    grown_kb = peak_kb() - before_kb
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table}")
        (left,) = cursor.fetchone()
    # The peer has no rules.
    if kind != "dcr" or case not in RETENTION:
        assert left == rows - expected, (kind, case, left)
    return {"total_s": total_s, "longest_s": max(taken), "statements": len(taken), "grown_mb": grown_kb / 1024}


def peak_kb() -> int:
    """Return the most memory that this process had in use at once."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1])


def _receiver(sender: Any, **kwargs: Any) -> None:
    pass


def child(engine: str, kind: str, case: str, rows: int) -> dict[str, float]:
    """Measure in a process of its own, in a database that is dropped afterwards."""
    from tests.migrations import databases

    with tempfile.TemporaryDirectory() as folder, databases.new_database(engine, Path(folder)) as database:
        line = [sys.executable, __file__, "--measure", kind, "--case", case, "--rows", str(rows)]
        env = {**os.environ, "DATABASE_URL": database.url, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(line, env=env, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{engine} {kind} {case} failed.")
    return {name: float(value) for name, value in (row.split("\t") for row in done.stdout.strip().splitlines())}


def report(engine: str, case: str, rows: int, rounds: int, kinds: list[str]) -> None:
    """Measure one case on one engine and print a line for each kind."""
    got: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind in kinds:
            # The peer has no rules, and with a receiver takes half a minute each time.
            if kind == "dcr" and (case in RETENTION or (case == "receiver" and got[kind])):
                continue
            got[kind].append(child(engine, kind, case, rows))
    middle = {
        kind: {name: statistics.median(one[name] for one in every) for name in every[0]}
        for kind, every in got.items()
        if every
    }
    for kind, one in middle.items():
        ratio = f"{one['total_s'] / middle['raw']['total_s']:>6.2f}x" if "raw" in middle else ""
        print(
            f"{engine:<11} {case:<9} {kind:<9} {one['total_s']:>8.2f} s {ratio} {one['longest_s'] * 1000:>8.0f} ms "
            f"{one['statements']:>10.0f} {one['grown_mb']:>8.1f} MB",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", nargs="+", choices=ENGINES, default=["postgresql"])
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--rows", type=int, default=1_000_000, help="results in the table")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    sys.path.insert(0, str(ROOT))
    if options.measure:
        for name, value in measure(options.measure, options.case[0], options.rows).items():
            print(name, value, sep="\t")
        return
    import django

    django.setup()
    kinds = [kind for kind in options.kind if kind != "dcr" or find_spec("django_celery_results")]
    print(f"{options.rows:,} rows; the median of {options.rounds}. Cases:")
    for case in options.case:
        print(f"  {case:<9} {CASES[case][0]}")
    columns = f"{'in all':>10} {'x raw':>7} {'longest':>11} {'statements':>10} {'memory':>11}"
    print(f"{'engine':<11} {'case':<9} {'kind':<9} {columns}")
    for engine in options.engine:
        for case in options.case:
            report(engine, case, options.rows, options.rounds, kinds)


if __name__ == "__main__":
    main()
