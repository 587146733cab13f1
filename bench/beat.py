"""Measure the database scheduler: djcelery and django-celery-beat ("dcb") in one run, on tables of several sizes.

Usage, from the root of the repository::

    python bench/beat.py                                        PostgreSQL and SQLite, 100 to 100,000 entries
    python bench/beat.py --engine postgresql --entries 100 100000 --rounds 1

Half of the entries are crontabs. Each round is a process of its own on tables filled anew, the contenders take
turns, and messages go to Redis; medians are printed. dcb runs up to 10,000 entries, if it is installed. Statements
count BEGIN and COMMIT. The beats are driven tick by tick. djcelery's clock goes forward by what each tick asks to
wait, so its minute of idle ticks is a minute of beat; dcb is given 12 idle ticks and 100 entries that are overdue,
and what it would need for 1,000 is worked out from them. "x floor" is over a publish or a plain fetch in the same
process. "memory" is what Python has allocated for a beat that runs. "applied" is the tick that applies a change.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ENGINES = ("postgresql", "sqlite")
SIZES = (100, 1_000, 10_000, 100_000)
PEER, PEER_MOST = "django_celery_beat", 10_000
QUEUE = "bench-beat"
#: Beat needs no admin.
APPS = ["django.contrib.contenttypes", "djcelery"]
#: Entries that are due one at a time, entries due at one instant, and those that dcb finds overdue.
SINGLES, AT_ONCE, OVERDUE = 15, 1_000, 100
CHANGES, IDLE_TICKS, IDLE_S = 9, 12, 60.0
#: By measure: unit, and what is to be reached: a number, "<measure> * number", or None.
MEASURES: dict[str, tuple[str, float | tuple[str, float] | None]] = {
    "idle tick: CPU": ("ms", 1),
    "idle tick: statements": ("", 1),
    "idle minute: ticks": ("", None),
    "idle minute: renewals": ("", None),
    "renewal: CPU": ("ms", None),
    "comparison: CPU": ("ms", None),
    "comparison: statements": ("", None),
    "comparison: longest slice": ("ms", None),
    "save(): statements": ("", 4),
    "change applied": ("ms", 10),
    "change applied: statements": ("", 3),
    "change applied: rows read": ("", 1),
    "publish": ("ms", None),
    "publish: CPU": ("ms", None),
    "one due: tick": ("ms", ("publish", 2)),
    "one due: CPU": ("ms", ("publish: CPU", 2)),
    "one due: until sent": ("ms", None),
    "one due: statements": ("", None),
    "1,000 due: wall": ("s", 1),
    "1,000 due: statements": ("", 10),
    "bookkeeping an entry": ("ms", 0.3),
    "plain fetch": ("s", None),
    "start": ("s", ("plain fetch", 2)),
    "plain fetch: CPU": ("s", None),
    "start: CPU": ("s", ("plain fetch: CPU", 2)),
    "start: statements": ("", 10),
    "memory an entry": ("KB", 1.5),
    "memory an entry, RSS": ("KB", None),
}


class Clock:
    """A clock that is put forward instead of waited for."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def now(self) -> datetime:
        return datetime.now(timezone.utc) + timedelta(seconds=self.ahead_s)

    def mono(self) -> float:
        return time.monotonic() + self.ahead_s

    def go_to(self, instant: datetime) -> None:
        self.ahead_s += max(0.0, (instant - self.now()).total_seconds())


class Meter:
    """Adds up calls, wall time and CPU of a function that it stands in for."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.walls: list[float] = []
        self.cpu_s = self.ended = 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        began, began_cpu = time.perf_counter(), time.process_time()
        try:
            return self.function(*args, **kwargs)
        finally:
            self.ended = time.perf_counter()
            self.walls.append(self.ended - began)
            self.cpu_s += time.process_time() - began_cpu


def ms(seconds: float) -> float:
    return seconds * 1e3


def wall_of(function: Callable[[], Any]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def statements_of(function: Callable[[], Any]) -> list[str]:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as queries:
        function()
    return [query["sql"] for query in queries]


@contextmanager
def counted_rows() -> Any:
    """Yield a list to which the size of each bunch of rows that the ORM reads is added."""
    from django.db.models.sql import compiler

    real, rows = compiler.cursor_iter, []

    def counting(*args: Any) -> Any:
        for bunch in real(*args):
            rows.append(len(bunch))
            yield bunch

    compiler.cursor_iter = counting
    try:
        yield rows
    finally:
        compiler.cursor_iter = real


def rss_kb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1024


# -- the rows ----------------------------------------------------------------------------------


def fill(models: Any, entries: int, at: datetime, is_peer: bool) -> None:
    """Make *entries* enabled rows: up to 1,000 due at *at*, for dcb 100 overdue ones, and the others not for hours."""
    now = datetime.now(timezone.utc)
    zone = {"timezone": "UTC"}
    day = {"day_of_week": "*", "day_of_month": "*", "month_of_year": "*"}
    make_interval, make_crontab = models.IntervalSchedule.objects.create, models.CrontabSchedule.objects.create
    intervals = [make_interval(every=6 * 3600 + n, period="seconds") for n in range(1, 51)]
    crontabs = [
        make_crontab(minute=str(n % 60), hour=str((at.hour + 3 + n // 60) % 24), **day, **zone) for n in range(240)
    ]
    six_hours, five_hours = make_interval(every=6, period="hours"), make_interval(every=5, period="hours")
    at_crontab = make_crontab(minute="0", hour=str(at.hour), **day, **zone)
    rows = []
    for number in range(entries):
        half = number // 2
        due: dict[str, Any] = {"interval": intervals[half % 50], "last_run_at": now}
        if is_peer and number % 2 == 0 and half < OVERDUE:
            due = {"interval": six_hours, "last_run_at": now - timedelta(hours=7)}
        elif not is_peer and number < AT_ONCE and number % 2 == 0:
            due = {"interval": six_hours, "scheduled_from": at - timedelta(hours=6)}
        elif number % 2:
            crontab = at_crontab if number < AT_ONCE and not is_peer else crontabs[half % 240]
            due = {"crontab": crontab, "last_run_at": now}
        rows.append({"name": f"task number {number:06d}", **due})
    if not is_peer:
        for number in range(SINGLES):
            last = at - timedelta(hours=5, minutes=30) + timedelta(seconds=10 * number)
            rows.append({"name": f"single {number}", "interval": five_hours, "scheduled_from": last})
    make = models.PeriodicTask
    tasks = [make(task="bench.noop", args="[]", kwargs=f'{{"n": {n}}}', **row) for n, row in enumerate(rows)]
    make.objects.bulk_create(tasks, batch_size=2000 if entries > 300 else None)


def plain_fetch(models: Any) -> Callable[[], Any]:
    """Return a function that reads all rows with what they refer to, and does nothing else."""
    from django.db import connection

    task, interval, crontab = (
        model._meta.db_table for model in (models.PeriodicTask, models.IntervalSchedule, models.CrontabSchedule)
    )
    sql = (
        f"SELECT p.*, i.*, c.* FROM {task} p LEFT JOIN {interval} i ON i.id = p.interval_id "
        f"LEFT JOIN {crontab} c ON c.id = p.crontab_id WHERE p.enabled"
    )

    def run() -> None:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            cursor.fetchall()

    return run


# -- one round ---------------------------------------------------------------------------------


def measure(contender: str, entries: int, redis: int) -> dict[str, float]:
    """Return a value per measure; runs in a process whose empty database is set already."""
    import importlib

    import django
    from django.conf import settings

    is_peer = contender == "dcb"
    settings.INSTALLED_APPS = [*APPS, *([PEER] if is_peer else [])]
    settings.TIME_ZONE = "UTC"
    django.setup()
    from celery import Celery
    from django.core.management import call_command
    from django.db import connection

    call_command("migrate", verbosity=0)
    if connection.vendor == "sqlite":
        connection.cursor().execute("PRAGMA journal_mode = WAL").fetchall()
        connection.cursor().execute("PRAGMA synchronous = NORMAL")
    app = Celery("bench", broker=f"redis://127.0.0.1:6379/{redis}", set_as_current=True)
    app.conf.update(timezone="UTC", task_default_queue=QUEUE, task_ignore_result=True, result_expires=None)

    @app.task(name="bench.noop")
    def task(n: int) -> None:
        return None

    app.finalize()
    models = importlib.import_module(f"{PEER}.models" if is_peer else "djcelery.models")
    at = (datetime.now(timezone.utc) + timedelta(hours=3)).replace(minute=0, second=0, microsecond=0)
    fill(models, entries, at, is_peer)
    if connection.vendor == "postgresql":
        connection.cursor().execute("VACUUM ANALYZE")
    fetch = Meter(plain_fetch(models))
    for _ in range(5):
        fetch()
    took = {"plain fetch": statistics.median(fetch.walls), "plain fetch: CPU": fetch.cpu_s / 5}
    with app.producer_pool.acquire(block=True) as producer:
        send = Meter(task.apply_async)
        for _ in range(300):
            send((), {"n": 1}, producer=producer, retry=False, headers={"a": 1})
        took.update({"publish": ms(statistics.median(send.walls)), "publish: CPU": ms(send.cpu_s) / 300})
    try:
        return {**took, **(measure_peer if is_peer else measure_ours)(app, models, entries, at)}
    finally:
        with app.connection_for_write() as broker:
            client = broker.default_channel.client
            # One list per priority, too.
            client.delete(QUEUE, *client.scan_iter(f"*{QUEUE}*"))


def memory_of(start: Callable[[], Any], entries: int) -> float:
    """Return the kilobytes an entry that Python has allocated for what *start* returns."""
    gc.collect()
    tracemalloc.start()
    made = start()
    gc.collect()
    kilobytes = tracemalloc.get_traced_memory()[0] / 1024
    tracemalloc.stop()
    made.close()
    return kilobytes / entries


def measure_ours(app: Any, models: Any, entries: int, at: datetime) -> dict[str, float]:
    from djcelery.schedulers import DatabaseScheduler

    clock = Clock()

    def start() -> Any:
        beat = DatabaseScheduler(app, nowfun=clock.now, clock=clock.mono)
        beat.tick()
        return beat

    gc.collect()
    before_kb, starting, made = rss_kb(), Meter(start), []
    beat = starting()
    took = {"memory an entry, RSS": (rss_kb() - before_kb) / entries}
    for _ in range(2):
        beat.close()
        gc.collect()
        beat = starting()
    beat.close()
    took.update({"start": statistics.median(starting.walls), "start: CPU": starting.cpu_s / 3})
    took["start: statements"] = len(statements_of(lambda: made.append(start())))
    made.pop().close()
    took["memory an entry"] = memory_of(start, entries)
    beat = start()
    took.update(_idle(beat, clock))
    took.update(_comparison(beat, clock))
    took.update(_changes(beat, clock, models))
    took.update(_dispatch(beat, clock, models, entries, at))
    beat.close()
    return took


def _idle(beat: Any, clock: Clock) -> dict[str, float]:
    """Let a minute pass."""
    beat._comparison._next_mono = clock.mono() + 1e9
    beat.tick()
    beat.lease.renew = renew = Meter(beat.lease.renew)
    ticks, until, tick = 0, clock.mono() + IDLE_S, Meter(beat.tick)

    def minute() -> None:
        nonlocal ticks
        while clock.mono() < until:
            clock.ahead_s += tick()
            ticks += 1

    sqls = statements_of(minute)
    renewals = [sql for sql in sqls if "beatlease" in sql.lower()]
    # Again without the log of statements, for the time.
    until, ticks = clock.mono() + IDLE_S, 0
    tick.cpu_s, renew.cpu_s, renew.walls = 0.0, 0.0, []
    minute()
    del beat.lease.renew
    return {
        "idle tick: CPU": ms(tick.cpu_s - renew.cpu_s) / ticks,
        "idle tick: statements": (len(sqls) - len(renewals)) / ticks,
        "idle minute: ticks": ticks,
        "idle minute: renewals": len(renewals),
        "renewal: CPU": ms(renew.cpu_s) / max(1, len(renew.walls)),
    }


def _comparison(beat: Any, clock: Clock) -> dict[str, float]:
    """Compare all rows once."""
    comparison = beat._comparison
    took: dict[str, float] = {}
    for counts in (True, False):
        comparison._next_mono = clock.mono()
        comparison.step = step = Meter(comparison.step)

        def whole() -> None:
            beat.tick()
            while comparison.is_running:
                beat.tick()

        if counts:
            took["comparison: statements"] = sum("periodictask" in sql for sql in statements_of(whole))
        else:
            whole()
        del comparison.step
    comparison._next_mono = clock.mono() + 1e9
    return {**took, "comparison: CPU": ms(step.cpu_s), "comparison: longest slice": ms(max(step.walls))}


def _changes(beat: Any, clock: Clock, models: Any) -> dict[str, float]:
    """Change one row, then another, and let the beat see it."""
    walls, found = [], {}
    names = models.PeriodicTask.objects.exclude(name__startswith="single").order_by("pk")
    keys = list(names.values_list("pk", flat=True))
    beat._purged_mono = clock.mono() + 1e9
    for number in range(CHANGES + 1):
        task = models.PeriodicTask.objects.get(pk=keys[number * len(keys) // (CHANGES + 1)])
        task.priority = number
        found["save(): statements"] = len(statements_of(task.save))
        clock.ahead_s += 1.1
        beat.lease.renew()
        if number == 0:
            with counted_rows() as rows:
                found["change applied: statements"] = len(statements_of(beat.tick))
            found["change applied: rows read"] = sum(rows)
        else:
            walls.append(wall_of(beat.tick))
        assert beat._book.agenda.plans[task.pk].options.priority == number, "the change was not applied"
    return {**found, "change applied": ms(statistics.median(walls))}


def _dispatch(beat: Any, clock: Clock, models: Any, entries: int, at: datetime) -> dict[str, float]:
    """Let entries be due one after another, then 1,000 at once."""
    took: dict[str, float] = {}
    beat._outbox.looked(has_more=False)
    _ = beat.producer
    beat.apply_async = publish = Meter(beat.apply_async)
    tick, until_sent, first = Meter(beat.tick), [], at - timedelta(minutes=30)
    for number in range(SINGLES):
        clock.go_to(first + timedelta(seconds=10 * number, milliseconds=5))
        beat.lease.renew()
        publish.walls.clear()
        if number == 0:
            took["one due: statements"] = len(statements_of(beat.tick))
            continue
        began = time.perf_counter()
        tick()
        until_sent.append(publish.ended - began)
        assert len(publish.walls) == 1, f"{len(publish.walls)} messages instead of one"
    took["one due: tick"] = ms(statistics.median(tick.walls))
    took["one due: CPU"] = ms(tick.cpu_s) / len(tick.walls)
    took["one due: until sent"] = ms(statistics.median(until_sent))
    due = min(AT_ONCE, entries)
    publish.walls.clear()
    clock.go_to(at + timedelta(milliseconds=5))
    beat.lease.renew()
    box: list[float] = []

    def all_of_them() -> None:
        box.append(wall_of(beat.tick))

    took["1,000 due: statements"] = len(statements_of(all_of_them))
    assert len(publish.walls) == due, f"{len(publish.walls)} messages instead of {due}"
    took["1,000 due: wall"] = box[0] * AT_ONCE / due
    took["bookkeeping an entry"] = ms(box[0] - sum(publish.walls)) / due
    return took


def measure_peer(app: Any, models: Any, entries: int, at: datetime) -> dict[str, float]:
    from django_celery_beat.schedulers import DatabaseScheduler

    due = min(OVERDUE, entries // 2)

    def start() -> Any:
        beat = DatabaseScheduler(app=app, lazy=False)
        beat.tick()
        return beat

    gc.collect()
    before_kb, starting = rss_kb(), Meter(start)
    beat = starting()
    took = {
        "start": starting.walls[0],
        "start: CPU": starting.cpu_s,
        "memory an entry, RSS": (rss_kb() - before_kb) / entries,
    }
    tick = Meter(beat.tick)
    box: list[int] = []

    def drain() -> None:
        # A tick that sends returns 0. The first one was part of the start.
        while tick() == 0 and len(tick.walls) < 2 * due:
            box.append(1)

    drain()
    fired = max(1, len(box))
    # The last one found nothing due.
    took["one due: CPU"] = ms(tick.cpu_s) / len(tick.walls)
    took["one due: tick"] = ms(statistics.median(tick.walls[:fired]))
    began = time.perf_counter()
    synced = statements_of(beat.sync)
    took["bookkeeping an entry"] = ms(time.perf_counter() - began) / (fired + 1)
    took["1,000 due: wall"] = sum(tick.walls[:fired]) / fired * AT_ONCE
    took["1,000 due: statements"] = len(synced) / (fired + 1) * AT_ONCE
    beat.tick()
    tick = Meter(beat.tick)
    for _ in range(IDLE_TICKS):
        tick()
    took["idle tick: CPU"] = ms(tick.cpu_s) / IDLE_TICKS
    took["idle tick: statements"] = len(statements_of(beat.tick))
    walls = []
    for number in range(4):
        task = models.PeriodicTask.objects.get(name=f"task number {entries - 1 - number:06d}")
        task.priority = number
        took["save(): statements"] = len(statements_of(task.save))
        time.sleep(0.01)
        if number == 0:
            with counted_rows() as rows:
                took["change applied: statements"] = len(statements_of(beat.tick))
            took["change applied: rows read"] = sum(rows)
        else:
            walls.append(wall_of(beat.tick))
    took["change applied"] = ms(statistics.median(walls))
    took["start: statements"] = len(statements_of(start))
    took["memory an entry"] = memory_of(start, entries)
    return took


# -- all rounds --------------------------------------------------------------------------------


def one_round(engine: str, contender: str, entries: int, redis: int) -> dict[str, float]:
    """Measure in a process of its own, in a database that is dropped afterwards."""
    from tests.migrations import databases

    with tempfile.TemporaryDirectory() as folder, databases.new_database(engine, Path(folder)) as database:
        line = [sys.executable, __file__, "--measure", contender, "--entries", str(entries), "--redis", str(redis)]
        env = {**os.environ, "DATABASE_URL": database.url, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(line, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def report(engine: str, entries: int, ours: list[dict[str, float]], peer: list[dict[str, float]]) -> None:
    """Print a line per measure: djcelery, dcb, how many times more dcb takes, and whether the target is met."""
    medians = [
        {name: statistics.median(round_[name] for round_ in rounds) for name in rounds[0]} if rounds else {}
        for rounds in (ours, peer)
    ]
    for name, (unit, target) in MEASURES.items():
        mine, its = (values.get(name) for values in medians)
        if mine is None:
            continue
        ratio = f"{its / mine:.1f}" if its is not None and mine else "-"
        limit, of_floor = target, ""
        if isinstance(target, tuple):
            limit = medians[0][target[0]] * target[1]
            of_floor = f"{mine / medians[0][target[0]]:.1f} x {target[0]}"
        verdict = "" if limit is None else f"{'met' if mine <= limit else 'MISSED'} ({limit:.3g})"
        print(
            f"{engine:<11} {entries:>7} {name:<27} {mine:>9.3f} {'-' if its is None else f'{its:.2f}':>9} "
            f"{ratio:>8}  {unit:<3} {verdict:<16} {of_floor}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--entries", nargs="+", type=int, default=SIZES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--redis", type=int, default=15, help="number of the Redis database; one list of it is used")
    parser.add_argument("--measure", choices=("djcelery", "dcb"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    if options.measure:
        print(json.dumps(measure(options.measure, options.entries[0], options.redis)))
        return
    import django
    from django.conf import settings

    settings.INSTALLED_APPS = APPS
    django.setup()
    print(f"{'engine':<11} {'entries':>7} {'':<27} {'djcelery':>9} {'dcb':>9} {'dcb : us':>8}  unit and target")
    for engine in options.engine:
        for entries in options.entries:
            rounds: dict[str, list[dict[str, float]]] = {"djcelery": [], "dcb": []}
            for _ in range(options.rounds):
                rounds["djcelery"].append(one_round(engine, "djcelery", entries, options.redis))
                if find_spec(PEER) and entries <= PEER_MOST:
                    rounds["dcb"].append(one_round(engine, "dcb", entries, options.redis))
            report(engine, entries, *rounds.values())


if __name__ == "__main__":
    main()
