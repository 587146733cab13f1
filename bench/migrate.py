"""Measure how long ``migrate`` takes to adopt big tables of django-celery, and that it rewrites none.

Usage, from the root of the repository::

    python bench/migrate.py                       1,000,000 results, SQLite, PostgreSQL and MariaDB
    python bench/migrate.py --rows 10000000 --engine postgresql

The servers are those of the test suite (``TEST_POSTGRES_URL``, ``TEST_MARIADB_URL``); each database is dropped
at the end.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

import django

django.setup()

from tests.migrations import databases, legacy_schema  # noqa: E402 - Django comes first

#: The adoption with most to do, and the usual one.
RELEASES = ("2.4-south", "3.1.17")
STEPS = {
    "0004": "complete the legacy tables, index hidden if it has no index",
    "0005": "add the columns of a task's life",
    "0006": "build two indexes",
}
RESULT = "gAJ9cQEoVQRraW5kcQJVBWRhaWx5cQNVBXRvdGFscQRjZGVjaW1hbApEZWNpbWFsCnEFVQUxMi41MHEGhXEHUnEIdS4="
BATCH_ROWS = 50_000


def fill(database: databases.Database, release: legacy_schema.Release, rows: int) -> None:
    """Make the tables of *release*, with *rows* task results of about 300 bytes."""
    database.execute(*release.statements(database.vendor))
    columns = [name for name in release.columns()["celery_taskmeta"] if name != "id"]
    values = {"status": "'SUCCESS'", "result": f"'{RESULT}'", "traceback": "NULL", "meta": "NULL"}
    values["date_done"] = "'2012-04-19 13:46:05'"
    values["hidden"] = "false"
    chosen = ", ".join(values.get(name, "id") for name in columns)
    for start in range(0, rows, BATCH_ROWS):
        ids = ", ".join(f"('task-{number:032}')" for number in range(start, min(start + BATCH_ROWS, rows)))
        if database.vendor == "mysql":
            numbers = (
                f"(SELECT concat('task-', seq) AS id FROM seq_{start}_to_{min(start + BATCH_ROWS, rows) - 1}) AS v"
            )
            database.execute(f"INSERT INTO celery_taskmeta ({', '.join(columns)}) SELECT {chosen} FROM {numbers}")
        else:
            casts = chosen.replace("'2012-04-19 13:46:05'", "CAST('2012-04-19 13:46:05' AS timestamptz)")
            chosen_here = casts if database.vendor == "postgresql" else chosen
            database.execute(
                f"WITH v(id) AS (VALUES {ids}) "
                f"INSERT INTO celery_taskmeta ({', '.join(columns)}) SELECT {chosen_here} FROM v"
            )
    if release.recorded:
        database.migrate("djcelery", "0001", fake=True)


def identity(database: databases.Database) -> object:
    """Return what changes if the result table is written anew."""
    if database.vendor == "postgresql":
        return database.rows("SELECT relfilenode FROM pg_class WHERE relname = 'celery_taskmeta'")
    if database.vendor == "sqlite":
        return database.rows("SELECT rootpage FROM sqlite_master WHERE name = 'celery_taskmeta'")
    return database.rows(
        "SELECT space FROM information_schema.innodb_sys_tables WHERE name = concat(database(), '/celery_taskmeta')"
    )


def measure(vendor: str, name: str, rows: int) -> None:
    """Adopt one table and print a line of the report for each step."""
    with tempfile.TemporaryDirectory() as folder, databases.new_database(vendor, Path(folder)) as database:
        fill(database, legacy_schema.BY_NAME[name], rows)
        for step, what in STEPS.items():
            before = identity(database)
            started = time.perf_counter()
            database.migrate("djcelery", step)
            took_s = time.perf_counter() - started
            rewritten = "no" if identity(database) == before else "YES"
            print(f"{vendor:<11} {name:<10} {rows:>12,}  {step} {took_s:>8.2f} s   {rewritten:<9}  {what}", flush=True)
        assert database.rows("SELECT count(*) FROM celery_taskmeta") == [(rows,)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="task results in the table")
    parser.add_argument("--engine", nargs="+", choices=databases.VENDORS, default=list(databases.VENDORS))
    options = parser.parse_args()
    print(f"{'engine':<11} {'release':<10} {'results':>12}  {'migrate':>15}   rewritten  what it does")
    for vendor in options.engine:
        for name in RELEASES:
            measure(vendor, name, options.rows)


if __name__ == "__main__":
    main()
