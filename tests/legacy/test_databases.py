"""Whole databases that the real django-celery wrote are upgraded by ``manage.py migrate --fake-initial``."""

from __future__ import annotations

import pytest

from tests.migrations import databases
from tests.migrations.test_adoption import assert_same_values
from tests.migrations.test_drift import NAMES

WRITTEN = ("2.5.5-sqlite", "3.1.17-sqlite", "3.1.17-postgresql", "3.1.17-mysql")
#: How many results, groups, periodic tasks and task states each holds.
COUNTS = {
    "2.5.5-sqlite": (19, 1, 5, 19),
    "3.1.17-sqlite": (19, 1, 6, 21),
    "3.1.17-postgresql": (18, 1, 6, 40),
    "3.1.17-mysql": (18, 1, 6, 40),
}
COUNTED = ("celery_taskmeta", "celery_tasksetmeta", "djcelery_periodictask", "djcelery_taskstate")


@pytest.fixture(params=WRITTEN)
def written(request, make_database, tmp_path):
    """Each of the databases, as it was written."""
    release, vendor = request.param.split("-")
    if vendor == "sqlite":
        database = make_database(vendor, databases.legacy_file(tmp_path, release))
    else:
        database = make_database(vendor)
        database.load_dump(databases.DATA / f"django-celery-{release}.{vendor}.sql")
    database.name = request.param
    return database


def test_one_command_upgrades_the_whole_project_and_every_value_survives(written):
    before = written.contents()
    assert tuple(len(before[table]) for table in COUNTED) == COUNTS[written.name]

    printed = written.manage("migrate", "--fake-initial")

    assert f"djcelery.{NAMES[-1]}... OK" in printed
    after = written.contents()
    assert_same_values(before, after)
    assert set(after) == set(databases.TABLES)
    again = written.manage("migrate", "--fake-initial")
    assert "No migrations to apply" in again
    assert "changes that are not yet reflected" not in again
    assert written.contents() == after
    assert written.records() == NAMES


def test_no_index_is_dropped_renamed_or_doubled(written):
    before = written.schema()
    written.manage("migrate", "--fake-initial")
    after = written.schema()
    for table, (columns, constraints) in before.items():
        kept = after[table][1]
        added = databases.LATER_INDEXES.get(table, {}).keys()
        indexes = {
            name: entry
            for name, entry in constraints.items()
            # Of an index of the reference to the worker, schema() doesn't tell once another one serves it.
            if (entry["index"] or entry["unique"]) and (written.vendor != "mysql" or entry["columns"] != ["worker_id"])
        }
        assert {name: kept.get(name) for name in indexes} == indexes
        assert {name for name, entry in kept.items() if entry["index"] or entry["unique"]} == indexes.keys() | added
        assert after[table][0][: len(columns)] == columns


def test_sqlite_tables_keep_their_text_and_their_rowids(make_database, tmp_path):
    for release in ("2.5.5", "3.1.17"):
        database = make_database("sqlite", databases.legacy_file(tmp_path, release))
        before = (database.ddl(), database.rows("SELECT rowid, id FROM celery_taskmeta ORDER BY rowid"))
        database.manage("migrate", "--fake-initial")
        after = database.ddl()
        assert database.rows("SELECT rowid, id FROM celery_taskmeta ORDER BY rowid") == before[1]
        for name, text in before[0].items():
            assert after[name].startswith(text.rstrip(")").rstrip()), name


def test_every_row_of_an_upgraded_database_can_be_read_and_dumped(written):
    written.manage("migrate", "--fake-initial")
    dumped = written.manage("dumpdata", "djcelery", "--indent", "1")
    assert dumped.count('"model": "djcelery.taskmeta"') == COUNTS[written.name][0]


def test_the_permissions_of_old_users_are_still_theirs(make_database, tmp_path):
    database = make_database("sqlite", databases.legacy_file(tmp_path, "2.5.5"))
    models = [table.rpartition("_")[2] for table in databases.TABLES]
    sql = (
        "SELECT p.id, p.codename, c.model FROM auth_permission p JOIN django_content_type c "
        "ON c.id = p.content_type_id WHERE c.app_label = 'djcelery' AND p.codename NOT LIKE 'view_%' "
        f"AND c.model IN ({', '.join(f'{name!r}' for name in models)}) ORDER BY p.id"
    )
    before = database.rows(sql)
    database.manage("migrate", "--fake-initial")
    assert database.rows(sql)[: len(before)] == before
