"""Measure the admin's lists of tasks and of results: each page at 1,000,000 rows beside the same page at 5,000.

Usage, from the root of the repository::

    python bench/admin.py                            both lists on PostgreSQL, 5,000 and 1,000,000 rows
    python bench/admin.py --list tasks --rows 100000
    python bench/admin.py indexes                    what the indexes of the tasks cost the camera at 1,000,000 rows

The rows are made by SQL, in databases that are dropped afterwards. One name has 60 % of all tasks and always succeeds,
so that "the hot task failed" matches nothing among many; the other pairs that match nothing follow from remainders.
Times are whole requests through Django's test client as a superuser, medians; "sql" is what of it the queries took.
The table ends with the highest ratio; 2 is what the goal allows.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

ROOT = Path(__file__).parents[1]
SMALL = 5_000

#: By column, an SQL expression over the row number g; the newest row has number 1.
COMMON = {
    "task_id": "md5(g::text)::uuid::text",
    "name": "CASE WHEN g % 10 < 6 THEN 'shop.tasks.hot' ELSE 'shop.tasks.task_' || (g % 50) END",
    "args": "'[' || g || ', \"a text that is as long as most are\"]'",
    "kwargs": "'{\"order\": ' || g || '}'",
    "queue": "'queue_' || (g % 3)",
    "root_id": "CASE WHEN g % 20 = 0 THEN md5((g - 1)::text)::uuid::text ELSE md5(g::text)::uuid::text END",
    "parent_id": "CASE WHEN g % 20 = 0 THEN md5((g - 1)::text)::uuid::text END",
    "runtime": "g % 100 / 100.0",
}
STATE = "(ARRAY['SUCCESS','SUCCESS','SUCCESS','SUCCESS','SUCCESS','SUCCESS','SUCCESS','SUCCESS','FAILURE','RETRY'])"
AT = "now() - g * interval '2.5 seconds'"
COLUMNS = {
    "djcelery_taskstate": {
        **COMMON,
        "args": f"{COMMON['args']}",
        "state": f"{STATE}[1 + g % 10]",
        "tstamp": AT,
        "result": "'{''ok'': True, ''row'': ' || g || ', ''text'': ''' || repeat('x', 100) || '''}'",
        "worker_id": "1 + g % 20",
        "retries": "0",
        "hidden": "false",
        "eta": f"CASE WHEN g % 40 = 0 THEN {AT} END",
        "sent_at": AT,
        "received_at": AT,
        "started_at": AT,
        "finished_at": AT,
    },
    "celery_taskmeta": {
        **COMMON,
        "args": f"({COMMON['args']})::jsonb",
        "kwargs": f"({COMMON['kwargs']})::jsonb",
        "status": f"{STATE}[1 + g % 10]",
        "date_done": AT,
        "result": "'{\"ok\": true, \"row\": ' || g || ', \"text\": \"' || repeat('x', 100) || '\"}'",
        "content_type": "'application/json'",
        "worker": "'celery@host' || (g % 20)",
        "hidden": "false",
    },
}


def fill(table: str, rows: int) -> None:
    from django.db import connection

    columns = COLUMNS[table]
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO djcelery_workerstate (id, hostname, last_heartbeat) "
            "SELECT 1 + g, 'celery@host' || g, now() FROM generate_series(0, 20) g ON CONFLICT DO NOTHING"
        )
        # The highest key is the newest row's, as it would be.
        cursor.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(columns.values())} "
            f"FROM generate_series({rows}, 1, -1) g"
        )
        cursor.execute(
            "INSERT INTO djcelery_taskhistory (period, start, name, state, count, runtime_count, runtime_sum, "
            "waiting_count, waiting_sum, runtime_histogram, waiting_histogram) "
            "SELECT 'total', 'epoch', 'shop.tasks.task_' || g, 'SUCCESS', g, 0, 0, 0, 0, '', '' "
            "FROM generate_series(1, 50) g ON CONFLICT DO NOTHING"
        )
        cursor.execute(f"VACUUM ANALYZE {table}")
        cursor.execute("VACUUM ANALYZE djcelery_workerstate")


def pages(kind: str, rows: int) -> dict[str, str]:
    """Return the pages by name, each as its query."""
    from djcelery.admin.keyset import Cursor
    from djcelery.models import TaskMeta, TaskState

    model, at, state = {"tasks": (TaskState, "tstamp", "state"), "results": (TaskMeta, "date_done", "status")}[kind]
    worker = {"tasks": "worker__id__exact", "results": "worker"}[kind]
    hosts = (lambda n: str(n + 1)) if kind == "tasks" else (lambda n: f"celery@host{n}")
    ordered = model.objects.order_by(f"-{at}", "-pk").only("task_id", at)
    middle, late = ordered[rows // 2], ordered[rows - 50]
    failed = ordered.filter(**{state: "FAILURE"})[rows // 20]
    hot, rare, state_is = "shop.tasks.hot", "shop.tasks.task_7", f"{state}__exact"

    def after(row: Any, **more: str) -> dict[str, str]:
        return {"after": str(Cursor(getattr(row, at), row.pk)), **more}

    queries: dict[str, dict[str, str]] = {
        "first page": {},
        "second page": after(ordered[99]),
        "page in the middle": after(middle),
        "last page": after(late),
        "page before the last": {"before": str(Cursor(getattr(late, at), late.pk))},
        "oldest first": {"o": {"tasks": "7", "results": "3"}[kind]},
        "state, many": {state_is: "SUCCESS"},
        "state, some": {state_is: "FAILURE"},
        "state, none": {state_is: "REVOKED"},
        "state, in the middle": after(failed, **{state_is: "FAILURE"}),
        "name, most": {"name": hot},
        "name, some": {"name": rare},
        "name, none": {"name": "shop.tasks.gone"},
        "worker, some": {worker: hosts(3)},
        "worker, none": {worker: hosts(20)},
        "last hour": {"within": "hour"},
        "time, none": {f"{at}__gte": "2035-01-01", f"{at}__lt": "2036-01-01"},
        "state and name, many": {state_is: "SUCCESS", "name": hot},
        "state and name, some": {state_is: "FAILURE", "name": "shop.tasks.task_8"},
        "state and name, none": {state_is: "FAILURE", "name": rare},
        "state and hot name, none": {state_is: "FAILURE", "name": hot},
        "state and worker, some": {state_is: "FAILURE", worker: hosts(8)},
        "state and worker, none": {state_is: "FAILURE", worker: hosts(3)},
        "name and worker, many": {"name": hot, worker: hosts(3)},
        "name and worker, some": {"name": "shop.tasks.task_8", worker: hosts(8)},
        "name and worker, none": {"name": rare, worker: hosts(3)},
        "hot name and worker, none": {"name": hot, worker: hosts(8)},
        "(all three, none)": {state_is: "FAILURE", "name": hot, worker: hosts(8)},
        "search id": {"q": middle.task_id},
        "search beginning of id": {"q": middle.task_id[:7]},
        "search nothing": {"q": "zzzznothere"},
        "search id: name: state:": {"q": f"id:{middle.task_id} state:SUCCESS"},
        "search state: worker:": {"q": "state:FAILURE worker:celery@host8"},
        "search name:…*": {"q": "name:shop.tasks.task_1*"},
        "search root:": {"q": f"root:{middle.task_id}"},
        "(search args: last day)": {"q": "args:nothere"},
    }
    if kind == "tasks":
        queries |= {"ETA, scheduled": {"eta": "scheduled"}, "ETA, none": {"eta": "none"}}
    else:
        queries |= {"state, other": {state_is: "other"}}
    base = f"/admin/djcelery/{model._meta.model_name}/"
    found = {name: f"{base}?{urlencode(query, quote_via=quote)}" for name, query in queries.items()}
    return {**found, "one row": f"{base}{middle.pk}/change/"}


def measure(kind: str, rows: int) -> None:
    """Make the rows, then request each page that is asked for; runs in a process whose database is set already."""
    import django

    django.setup()
    from django.contrib.auth import get_user_model
    from django.core.management import call_command
    from django.db import connection
    from django.test import Client
    from django.test.utils import setup_test_environment

    setup_test_environment(debug=False)
    call_command("migrate", verbosity=0)
    fill({"tasks": "djcelery_taskstate", "results": "celery_taskmeta"}[kind], rows)
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("root"))
    urls = pages(kind, rows)
    spent: list[float] = []

    def timed(execute: Any, *args: Any) -> Any:
        began = time.perf_counter()
        try:
            return execute(*args)
        finally:
            spent.append(time.perf_counter() - began)

    print(json.dumps(list(urls)), flush=True)
    for line in sys.stdin:
        spent.clear()
        began = time.perf_counter()
        with connection.execute_wrapper(timed):
            response = client.get(urls[line.strip()])
        found = {"ms": (time.perf_counter() - began) * 1000, "sql_ms": sum(spent) * 1000, "queries": len(spent)}
        assert response.status_code == 200, (line, response.status_code)
        shown = response.context.get("cl")
        print(json.dumps(found | {"rows": len(shown.result_list) if shown else 1}), flush=True)


@contextmanager
def child(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run this script in a process of its own, on a new database that is dropped afterwards."""
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    import django

    django.setup()
    from tests.migrations import databases

    with tempfile.TemporaryDirectory() as folder, databases.new_database("postgresql", Path(folder)) as database:
        env = {**os.environ, "DATABASE_URL": database.url, "PYTHONPATH": str(ROOT)}
        line = [sys.executable, __file__, *arguments]
        with subprocess.Popen(line, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
            yield run
        if run.returncode:
            raise SystemExit(f"{arguments} failed")


def compare(kind: str, rows: int, runs: int) -> float:
    """Print the pages of a list at both sizes; return the highest ratio of those that the goal names."""
    with (
        child("--measure", kind, "--rows", str(SMALL)) as small,
        child("--measure", kind, "--rows", str(rows)) as large,
    ):
        names, _same = (json.loads(answer(each)) for each in (small, large))
        print(f"\n{kind + ' on PostgreSQL':<30} {SMALL:>9,} {rows:>11,}")
        print(f"{'':<30} {'ms':>9} {'ms':>11} {'ratio':>6} {'sql ms':>7} {'queries':>8} {'shown':>6}")
        worst = 0.0
        for page in names:
            # In turn, so that what else the machine does slows both down.
            turns = [[json.loads(answer(each, page)) for each in (small, large)] for _turn in range(runs + 1)]
            (ours, base), line = _medians(turns[1:]), turns[-1][1]
            ratio = ours["ms"] / base["ms"]
            worst = worst if page.startswith("(") else max(worst, ratio)
            shown = f"{ours['ms']:>11.1f} {ratio:>6.2f} {ours['sql_ms']:>7.1f} {line['queries']:>8} {line['rows']:>6}"
            print(f"{page:<30} {base['ms']:>9.1f} {shown}", flush=True)
        print(f"{'highest ratio':<30} {worst:>28.2f}")
    return worst


def _medians(turns: list[list[dict[str, float]]]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the medians of the large table and of the small one."""
    large, small = (
        {key: statistics.median(turn[side][key] for turn in turns) for key in ("ms", "sql_ms")} for side in (1, 0)
    )
    return large, small


def answer(process: subprocess.Popen[str], line: str = "") -> str:
    """Return the next line of *process*, after it was sent *line*."""
    assert process.stdin is not None
    assert process.stdout is not None
    if line:
        print(line, file=process.stdin, flush=True)
    return process.stdout.readline()


# -- what indexes cost the camera ----------------------------------------------------------------


BATCH = 1000
UPSERT = (
    "INSERT INTO {table} ({columns}) SELECT {values} FROM generate_series({first}, {last}) g "
    "ON CONFLICT (task_id) DO UPDATE SET state = excluded.state, tstamp = excluded.tstamp, "
    "runtime = excluded.runtime, result = excluded.result, finished_at = excluded.finished_at"
)
#: What django-celery's tables have, and what 0010 adds.
CONTENDERS = ("the key and the id", "as django-celery", "with those of 0010")


def measure_indexes(rows: int, runs: int) -> None:
    """Print what a changed task costs three copies of the table; runs in a process whose database is set already."""
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connection

    call_command("migrate", verbosity=0)
    columns = dict(COLUMNS["djcelery_taskstate"])
    took: dict[tuple[str, str], list[float]] = {}
    with connection.cursor() as cursor:
        for number, contender in enumerate(CONTENDERS):
            table = f"bench_{number}"
            cursor.execute(f"CREATE TABLE {table} (LIKE djcelery_taskstate INCLUDING ALL)")
            for name in _dropped(cursor, table, contender):
                cursor.execute(f'DROP INDEX "{name}"')
            cursor.execute(
                f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(columns.values())} "
                f"FROM generate_series({rows}, 1, -1) g"
            )
            cursor.execute(f"VACUUM ANALYZE {table}")
        for turn in range(runs + 1):
            first = rows + 1 + turn * BATCH
            # Tasks that are new, then the same ones finished; the tables in turn, since other programs slow all down.
            for what, state in (("new", "'STARTED'"), ("changed", columns["state"])):
                values = {**columns, "state": state, "tstamp": "clock_timestamp()"}
                parts = {"columns": ", ".join(values), "values": ", ".join(values.values())}
                for number, contender in enumerate(CONTENDERS):
                    sql = UPSERT.format(table=f"bench_{number}", first=first, last=first + BATCH - 1, **parts)
                    began = time.perf_counter()
                    cursor.execute(sql)
                    if turn:
                        took.setdefault((contender, what), []).append((time.perf_counter() - began) / BATCH * 1e6)
        print(f"{'µs per task at ' + format(rows, ',') + ' rows':<32} {'new':>8} {'changed':>8} {'MB':>8}")
        for number, contender in enumerate(CONTENDERS):
            cursor.execute(f"SELECT pg_indexes_size('bench_{number}') / 1e6")
            times = " ".join(f"{statistics.median(took[contender, what]):>8.1f}" for what in ("new", "changed"))
            print(f"{contender:<32} {times} {cursor.fetchone()[0]:>8.0f}", flush=True)


def _dropped(cursor: Any, table: str, contender: str) -> list[str]:
    """Return the indexes that a copy of the table goes without."""
    cursor.execute("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s", [table])
    found = {name: definition for name, definition in cursor.fetchall() if "UNIQUE" not in definition}
    if contender == CONTENDERS[0]:
        return list(found)
    if contender == CONTENDERS[2]:
        return []
    # Those of 0010 have several columns, or a condition.
    return [name for name, text in found.items() if "WHERE" in text or "," in text[text.index("(") :]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("pages", "indexes"), default="pages")
    parser.add_argument("--list", choices=("tasks", "results"), help="only this list")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure == "indexes":
        measure_indexes(options.rows, options.runs)
    elif options.measure:
        measure(options.measure, options.rows)
    elif options.what == "indexes":
        with child("--measure", "indexes", "--rows", str(options.rows), "--runs", str(options.runs)) as run:
            assert run.stdout is not None
            for line in run.stdout:
                print(line, end="", flush=True)
    else:
        kinds = [options.list] if options.list else ["tasks", "results"]
        worst = max(compare(kind, options.rows, options.runs) for kind in kinds)
        print(f"\nhighest ratio of all: {worst:.2f}")


if __name__ == "__main__":
    main()
