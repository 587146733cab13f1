"""Rows that old engines let in must not stop a migration, nor change by it."""

from __future__ import annotations

import pytest

from djcelery import models
from tests.migrations import legacy_schema

NEW = legacy_schema.BY_NAME["3.1.17"]


@pytest.fixture
def dangling(sqlite):
    """A SQLite database with references to rows that are gone; Django 1.4 enforced none there."""
    legacy_schema.fill(sqlite, legacy_schema.BY_NAME["2.5-south"])
    sqlite.execute(
        "PRAGMA foreign_keys = OFF",
        "UPDATE djcelery_periodictask SET interval_id = 77 WHERE id = 1",
        "UPDATE djcelery_periodictask SET crontab_id = 88 WHERE id = 2",
        "UPDATE djcelery_taskstate SET worker_id = 99 WHERE id IN (1, 2)",
        "PRAGMA foreign_keys = ON",
    )
    return sqlite


def test_references_to_rows_that_are_gone_become_null_and_are_named(dangling):
    before = dangling.contents()
    printed = dangling.migrate()

    assert "djcelery_periodictask.interval_id named rows of djcelery_intervalschedule that are gone" in printed
    assert "id 1 (two schedules), which named 77" in printed
    assert "id 2 (no schedule), which named 88" in printed
    assert "id 2 (shop.tasks.add), which named 99" in printed
    after = dangling.contents()
    changed = {
        (table, old["id"], name, new[name])
        for table, rows in before.items()
        for old, new in zip(rows, after[table], strict=True)
        for name in old
        if old[name] != new[name]
    }
    assert changed == {
        ("djcelery_periodictask", 1, "interval_id", None),
        ("djcelery_periodictask", 2, "crontab_id", None),
        ("djcelery_taskstate", 1, "worker_id", None),
        ("djcelery_taskstate", 2, "worker_id", None),
    }
    assert str(models.PeriodicTask.objects.using(dangling.alias).get(pk=2)) == "no schedule: {no schedule}"


def test_many_dangling_rows_are_counted_not_listed(dangling):
    with dangling.connection.cursor() as cursor:
        cursor.execute("PRAGMA foreign_keys = OFF")
        cursor.executemany(
            "INSERT INTO djcelery_taskstate (state, task_id, tstamp, retries, hidden, worker_id) "
            "VALUES ('SUCCESS', %s, '2012-01-01', 0, 0, 99)",
            [[f"many-{number}"] for number in range(100)],
        )
        cursor.execute("PRAGMA foreign_keys = ON")
    printed = dangling.migrate()
    assert "and 82 more" in printed
    assert dangling.rows("SELECT count(*) FROM djcelery_taskstate WHERE worker_id IS NOT NULL") == [(0,)]


def test_migrating_another_app_first_is_not_stopped_by_dangling_rows_either(dangling):
    assert "id 1 (two schedules), which named 77" in dangling.migrate("sessions")


def test_an_unknown_schema_leaves_even_dangling_rows_alone(dangling):
    dangling.execute("ALTER TABLE djcelery_taskstate ADD COLUMN tenant integer", "DROP TABLE celery_taskmeta",
                     "CREATE TABLE celery_taskmeta (id integer PRIMARY KEY, task_id text UNIQUE)")  # fmt: skip
    before = dangling.contents()
    with pytest.raises(Exception, match="celery_taskmeta"):
        dangling.migrate()
    assert dangling.contents() == before


def test_the_text_false_that_old_sqlite_stored_becomes_a_boolean(sqlite):
    """SQLite before 3.23 took the DEFAULT FALSE of the release notes for a text, and dumps carry it on."""
    legacy_schema.fill(sqlite, legacy_schema.BY_NAME["2.5-by-hand"])
    sqlite.execute("UPDATE celery_taskmeta SET hidden = 'FALSE' WHERE id IN (1, 2)",
                   "UPDATE celery_taskmeta SET hidden = 'TRUE' WHERE id = 3")  # fmt: skip
    sqlite.migrate()
    assert sqlite.rows("SELECT id, hidden, typeof(hidden) FROM celery_taskmeta ORDER BY id") == [
        (1, 0, "integer"), (2, 0, "integer"), (3, 1, "integer"), (7, 0, "integer"),
    ]  # fmt: skip
    assert models.TaskMeta.objects.using(sqlite.alias).filter(hidden=False).count() == 3


def test_odd_rows_are_read_as_a_person_expects(database):
    legacy_schema.fill(database, NEW)
    database.migrate("djcelery", "0001", fake=True)
    database.migrate()

    results = {row.task_id: row for row in models.TaskMeta.objects.using(database.alias)}
    assert results["plain"].to_dict()["result"] == 42
    assert results["plain"].to_dict()["children"] == [(("c1", None), None)]
    assert (results["meta-empty"].meta, results["meta-empty"].to_dict()["children"]) == ("", None)
    assert (results["meta-null"].meta, results["meta-null"].to_dict()["children"]) == (None, None)
    assert repr(results["meta-null"].result) == "KeyError('boom')"
    assert results["null"].result is None
    assert [results[name].hidden for name in ("plain", "meta-empty")] == [False, True]

    tasks = {row.name: row for row in models.PeriodicTask.objects.using(database.alias)}
    both = tasks["two schedules"]
    assert (both.interval.every, both.crontab.minute, both.enabled) == (10, "30", False)
    assert both.schedule == both.interval.schedule
    assert tasks["no schedule"].schedule is None
    assert tasks["every 0"].schedule.run_every.total_seconds() == 0
    assert (tasks["every 0"].args, tasks["every 0"].kwargs) == ("{}", "[]")
    assert (tasks["broken JSON"].args, tasks["broken JSON"].kwargs) == ("[1,", "kwargs")
    assert (tasks["empty texts"].args, tasks["empty texts"].exchange) == ("", "")
    assert tasks["empty texts"].routing_key == "täglich"
    assert tasks["broken JSON"].total_run_count == 4000
    # Equal schedules were never merged, and are not now.
    assert models.IntervalSchedule.objects.using(database.alias).filter(every=10).count() == 2
    states = models.TaskState.objects.using(database.alias)
    assert list(states.order_by("pk").values_list("state", "hidden", "worker_id", "retries")) == [
        ("RECEIVED", False, None, 1), ("SUCCESS", False, 1, 2), ("PROGRESS", True, None, 3),
    ]  # fmt: skip
