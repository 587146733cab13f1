"""What the camera counts: per minute, per hour and since the beginning, and how long tasks ran and waited."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone

import pytest
from django.db import connection, connections

from djcelery import utils
from djcelery.managers.history import Histogram
from djcelery.models import TaskHistory, TaskState
from djcelery.snapshot.history import add_to_history
from djcelery.snapshot.merging import Increment
from djcelery.snapshot.statements import Instants
from djcelery.snapshot.tally import Tallies
from tests.db.cameras import Feed

pytestmark = pytest.mark.django_db

#: 2026-05-28 20:26:40 UTC.
START = 1_780_000_000.0
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@pytest.fixture
def feed():
    return Feed(START)


def run(feed, task_id, at, runtime=0.5, name="x", waited=0.25, end="task-succeeded"):
    feed.received(task_id, at, name=name)
    feed.send("task-started", task_id, at + waited)
    feed.send(end, task_id, at + waited + runtime, result="1", runtime=runtime if end == "task-succeeded" else None)


def row(period, state="SUCCESS", **filters):
    return TaskHistory.objects.get(period=period, state=state, **filters)


def add(*increments, now_s=None):
    tallies = Tallies(now_s or time.time())
    for increment in increments:
        tallies.add(increment)
    add_to_history(connection, Instants(connection), tallies)


def test_each_period_has_counts_sums_maxima_and_histograms(feed):
    run(feed, "t1", 0, runtime=0.5)
    run(feed, "t2", 1, runtime=2.0, waited=0.5)
    run(feed, "t3", 120, runtime=0.5)
    feed.write()
    for period, count in (("hour", 3), ("total", 3)):
        found = row(period)
        assert (found.count, found.runtime_count, found.runtime_sum, found.runtime_max) == (count, 3, 3.0, 2.0)
        assert (found.waiting_count, found.waiting_sum, found.waiting_max) == (3, 1.0, 0.5)
        assert found.runtime_histogram == "8:2,10:1"
        assert found.waiting_histogram == "7:2,8:1"
    minutes = TaskHistory.objects.filter(period="minute", state="SUCCESS").order_by("start")
    assert [(utils.to_utc(each.start).isoformat(), each.count, each.runtime_sum) for each in minutes] == [
        ("2026-05-28T20:26:00+00:00", 2, 2.5),
        ("2026-05-28T20:28:00+00:00", 1, 0.5),
    ]
    assert utils.to_utc(row("hour").start).isoformat() == "2026-05-28T20:00:00+00:00"
    assert utils.to_utc(row("total").start) == EPOCH
    received = row("total", "RECEIVED")
    assert (received.count, received.runtime_count, received.runtime_max, received.runtime_histogram) == (
        3,
        0,
        None,
        "",
    )


def test_later_shutters_add_to_what_is_there(feed):
    for number, runtime in enumerate((0.5, 20.0, 1.0)):
        run(feed, f"t{number}", number, runtime=runtime)
        feed.write()
    # Of some only the end is seen, and of some not even how long they ran.
    feed.send("task-succeeded", "late", 5, result="1", runtime=None)
    feed.write()
    found = row("total", name="x")
    assert (found.count, found.runtime_count, found.runtime_sum, found.runtime_max) == (3, 3, 21.5, 20.0)
    assert Histogram.load(found.runtime_histogram).total == 3
    assert row("total", name="").count == 1
    run(feed, "t9", 6, runtime=0.1)
    feed.send("task-succeeded", "t9", 7, result="1", runtime=None)
    feed.write()
    found = row("total", name="x")
    assert (found.count, found.runtime_max, Histogram.load(found.runtime_histogram).total) == (4, 20.0, 4)


def test_counts_without_durations_leave_those_of_the_row_alone(feed):
    run(feed, "t1", 0, name="")
    feed.write()
    feed.send("task-succeeded", "t2", 1, result="1", runtime=None)
    feed.write()
    found = row("total", name="")
    assert (found.count, found.runtime_count, found.runtime_histogram, found.runtime_max) == (2, 1, "8:1", 0.5)


def test_names_and_states_are_counted_apart(feed):
    run(feed, "t1", 0, name="a")
    run(feed, "t2", 0, name="b")
    run(feed, "t3", 0, name="b", end="task-failed")
    feed.received("t4", 0, name="b")
    feed.send("task-revoked", "t4", 1, expired=True)
    feed.send("task-rejected", "t5", 1, requeue=False)
    feed.write()
    found = TaskHistory.objects.filter(period="total").values_list("name", "state", "count").order_by("name", "state")
    assert list(found) == [
        ("", "REJECTED", 1),
        ("a", "RECEIVED", 1),
        ("a", "SUCCESS", 1),
        ("b", "FAILURE", 1),
        ("b", "RECEIVED", 3),
        ("b", "REVOKED", 1),
        ("b", "SUCCESS", 1),
    ]
    assert row("total", "FAILURE").runtime_sum == pytest.approx(0.5)


def test_a_name_is_that_of_the_row_when_the_end_has_none(feed):
    feed.received("t1", 0, name="shop.add")
    feed.write()
    feed.send("task-failed", "t1", 3, exception="E()")
    feed.write()
    assert row("total", "FAILURE").name == "shop.add"


def test_a_clock_that_is_ahead_counts_now(feed):
    now = time.time()
    feed.dirty.add(feed.read("task-succeeded", "t1", now + 7200 - START, came=now - START, result="1", runtime=1))
    feed.write()
    assert abs(utils.to_utc(row("minute").start).timestamp() - now) < 120


def test_what_comes_after_the_rows_were_deleted_does_not_disturb(feed):
    run(feed, "t1", 0)
    feed.write()
    TaskState.objects.all().delete()
    feed.send("task-started", "t1", 1)
    feed.write()
    assert feed.counts() == {"RECEIVED": 1, "SUCCESS": 1}


def test_many_names_at_once_are_written_in_parts(monkeypatch, django_assert_num_queries):
    monkeypatch.setattr("djcelery.snapshot.history._ROWS", 100)
    increments = [Increment(START, f"name{number}", "SUCCESS", 1, 0.5, 0.1) for number in range(100)]
    for _ in range(2):
        with django_assert_num_queries(6):
            add(*increments)
    assert set(TaskHistory.objects.values_list("count", "runtime_count", "runtime_sum")) == {(2, 2, 1.0)}
    assert TaskHistory.objects.count() == 300


def test_many_events_of_few_names_take_two_statements(django_assert_num_queries):
    with django_assert_num_queries(2):
        add(*(Increment(START + number / 100, "x", "SUCCESS", 1, 0.5) for number in range(1000)))
    assert row("total").count == 1000


@pytest.mark.parametrize(
    "vendor_only", [pytest.param("mysql", marks=pytest.mark.skipif("connection.vendor != 'mysql'"))]
)
def test_names_that_the_database_takes_for_the_same_lose_no_counts(vendor_only):
    for _ in range(2):
        add(Increment(START, "Shop.Add", "SUCCESS", 1, 0.5), Increment(START, "shop.add", "SUCCESS", 2, 0.5))
    found = row("total")
    assert (found.count, found.runtime_count, Histogram.load(found.runtime_histogram).total) == (6, 4, 4)


NAMES = [
    *("tareas.ano", "tareas.año", "Tareas.ANO", "straße", "strasse", "strase", "x", "x ", "x\t", "søk", "sok"),
    *("ﬁn", "fin", "vw", "vv", "日本", "😀", "😁", "a\x01", "a"),
]


@pytest.fixture
def collated():
    """A function that gives the names of the history another collation."""
    table = TaskHistory._meta.db_table

    def change(collation):
        if "uca1400" not in collation:
            cursor.execute("SHOW COLLATION LIKE %s", [collation])
            if not cursor.fetchall():
                pytest.skip(f"{collation} is not known here")
        charset = collation.partition("_")[0]
        kind = f"varchar(200) CHARACTER SET {charset} COLLATE {collation} NOT NULL"
        cursor.execute(f"ALTER TABLE {table} MODIFY name {kind}")

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT collation_name FROM information_schema.columns "
            "WHERE table_schema = DATABASE() AND table_name = %s AND column_name = 'name'",
            [table],
        )
        before = cursor.fetchone()[0]
        yield change
        TaskHistory.objects.all().delete()
        change(before)


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("connection.vendor != 'mysql'", reason="elsewhere each name is its own")
@pytest.mark.parametrize("kind", ["general_ci", "unicode_ci", "unicode_520_ci", "bin", "swedish_ci", "danish_ci"])
def test_names_are_as_many_as_the_collation_says_and_lose_nothing(collated, kind):
    collated(f"utf8mb4_{kind}")
    _add_all_names()
    # The one that ends in a blank.
    assert kind != "bin" or TaskHistory.objects.filter(period="total").count() == len(NAMES) - 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("connection.vendor != 'mysql' or not connection.mysql_is_mariadb", reason="MariaDB's own")
@pytest.mark.parametrize("collation", ["utf8mb4_unicode_nopad_ci", "utf8mb4_uca1400_ai_ci"])
def test_collations_of_one_server_lose_nothing_either(collated, collation):
    collated(collation)
    _add_all_names()


def _add_all_names():
    for _ in range(2):
        # Shutters of some names, and of all.
        for names in (NAMES[:2], NAMES[1:2], NAMES):
            add(*(Increment(START, name, "SUCCESS", 1, 0.5) for name in names))
    found = list(TaskHistory.objects.filter(period="total", state="SUCCESS"))
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT COUNT(DISTINCT name) FROM {TaskHistory._meta.db_table}")
        assert cursor.fetchone()[0] == len(found)
    many = 2 * (len(NAMES) + 3)
    assert sum(row.count for row in found) == many
    assert sum(row.runtime_count for row in found) == many
    assert sum(Histogram.load(row.runtime_histogram).total for row in found) == many


def test_names_that_look_alike_lose_nothing():
    for _ in range(2):
        add(*(Increment(START, name, "SUCCESS", 1, 0.5) for name in NAMES))
    found = list(TaskHistory.objects.filter(period="total"))
    assert sum(row.count for row in found) == 2 * len(NAMES)
    assert sum(Histogram.load(row.runtime_histogram).total for row in found) == 2 * len(NAMES)
    if connection.vendor != "mysql":
        assert len(found) == len(NAMES)


def test_without_use_tz_the_hour_that_comes_twice_loses_no_counts(settings):
    settings.USE_TZ = False
    # 2025-10-26 in Brussels: 02:30 summer time, and 02:30 an hour later.
    first = datetime(2025, 10, 26, 0, 30, tzinfo=timezone.utc).timestamp()
    for _ in range(2):
        add(Increment(first, "x", "SUCCESS", 1, 0.5), Increment(first + 3600, "x", "SUCCESS", 1, 0.5))
    for period in ("minute", "hour", "total"):
        assert sum(TaskHistory.objects.filter(period=period).values_list("count", flat=True)) == 4


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="the test database in memory has one connection")
def test_cameras_that_write_at_the_same_time_count_exactly():
    """Four cameras, each in a thread with its own connection, see all events of the same tasks."""
    failed = []

    def take(number):
        try:
            feed = Feed(START, f"cam{number}")
            for task in range(60):
                run(feed, f"t{task}", task / 10, name=f"n{task % 3}")
                if task % (number + 3) == 0:
                    feed.write()
            feed.write()
        except Exception as exc:  # noqa: BLE001 - shown below
            failed.append(exc)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=take, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert Feed.counts() == {"RECEIVED": 60, "SUCCESS": 60}
    assert Feed.counts("minute") == {"RECEIVED": 60, "SUCCESS": 60}
    assert sum(TaskHistory.objects.filter(period="total").values_list("runtime_count", flat=True)) == 60


PROCESS = """
import sys, django
from django.conf import settings
# A busy machine may keep one of the three from its turn for long.
settings.DATABASES["default"]["OPTIONS"] = {"timeout": 60}
django.setup()
from tests.db.cameras import Feed
number = int(sys.argv[1])
feed = Feed(1_780_000_000.0, f"cam{number}")
for task in range(60):
    feed.received(f"t{task}", task / 10)
    feed.send("task-succeeded", f"t{task}", task / 10 + 1, result="1", runtime=0.5)
    if task % (number + 3) == 0:
        feed.write()
feed.write()
"""
SHOWN = """
import django
django.setup()
from tests.db.cameras import Feed
print(dict(Feed.counts()), dict(Feed.counts("minute")))
"""


@pytest.mark.integration
def test_cameras_of_one_sqlite_file_count_exactly(tmp_path):
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "DATABASE_URL": f"sqlite:///{tmp_path}/cameras.db"}
    python = [sys.executable, "-c"]

    def run(*line):
        return subprocess.Popen(line, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    migrated = run(sys.executable, "-m", "django", "migrate", "-v", "0")
    assert migrated.communicate()[1] == ""
    for camera in [run(*python, PROCESS, str(number)) for number in range(3)]:
        assert camera.communicate()[1] == ""
        assert camera.returncode == 0
    counts = {"RECEIVED": 60, "SUCCESS": 60}
    assert run(*python, SHOWN).communicate()[0] == f"{counts} {counts}\n"


def test_the_hour_of_an_event_is_that_of_utc(feed, settings):
    settings.TIME_ZONE = "Asia/Kolkata"
    run(feed, "t1", 0)
    feed.write()
    assert utils.to_utc(row("hour").start) == datetime(2026, 5, 28, 20, tzinfo=timezone.utc)
    assert row("hour").start - row("minute").start == -timedelta(minutes=26)
