"""Tables of every release of django-celery are taken over by ``migrate --fake-initial``, value by value."""

from __future__ import annotations

import pytest

from djcelery import models
from tests.migrations import legacy_schema
from tests.migrations.databases import LATER, LATER_INDEXES, RESULT_TABLES, TABLES

#: What a column that a release lacked holds after the adoption.
ADDED = {
    "hidden": (False, 0),
    "meta": (None,),
    "description": ("",),
    "day_of_month": ("*",),
    "month_of_year": ("*",),
    "retries": (0,),
    "content_type": (None,),
    "content_encoding": (None,),
}


def assert_same_values(before, after):
    for table, rows in before.items():
        assert len(after[table]) == len(rows), table
        for old, new in zip(rows, after[table], strict=True):
            assert {name: new[name] for name in old} == old
            for name in new.keys() - old.keys():
                added = (None,) if name in LATER.get(table, ()) else ADDED[name]
                assert new[name] in added, (table, name, new[name])


@pytest.mark.parametrize("release", legacy_schema.RELEASES, ids=lambda release: release.name)
def test_a_database_of_any_release_is_adopted_value_by_value(database, release):
    legacy_schema.fill(database, release)
    if release.recorded:
        database.migrate("djcelery", "0001", fake=True)
    before = database.contents()

    printed = database.migrate()

    whole = release.tables == "all"
    if not release.recorded:
        assert f"djcelery.0001_initial... {'FAKED' if whole else 'OK'}" in printed
    after = database.contents()
    assert_same_values(before, after)
    assert set(after) == set(TABLES)
    assert "No migrations to apply" in database.migrate()
    assert database.contents() == after


@pytest.mark.parametrize("release", legacy_schema.RELEASES, ids=lambda release: release.name)
def test_an_adopted_database_has_every_index_once_and_takes_new_rows(database, release):
    legacy_schema.fill(database, release)
    database.migrate("djcelery")
    expected = legacy_schema.BY_NAME["3.1.17"].indexed()
    with database.connection.cursor() as cursor:
        for table, columns in expected.items():
            found = database.connection.introspection.get_constraints(cursor, table).items()
            # A table that 0001 made on PostgreSQL has a second one, for LIKE.
            indexed = [entry["columns"] for name, entry in found if entry["index"] and not name.endswith("_like")]
            if database.vendor == "mysql" and table == "djcelery_taskstate":
                # Its own index of the reference goes when another one serves it.
                columns = [column for column in columns if column != "worker_id"]
            assert [indexed.count([column]) for column in columns] == [1] * len(columns), (table, indexed)
            later = {name: entry["columns"] for name, entry in found if name in LATER_INDEXES.get(table, ())}
            assert later == LATER_INDEXES.get(table, {})

    models.TaskMeta.objects.using(database.alias).create(task_id="new", status="SUCCESS", result=[1])
    interval = models.IntervalSchedule.objects.using(database.alias).create(every=1, period="days")
    task = models.PeriodicTask.objects.using(database.alias).create(name="new", task="t", interval=interval)
    worker = models.WorkerState.objects.using(database.alias).create(hostname="new")
    models.TaskState.objects.using(database.alias).create(
        task_id="new", state="SUCCESS", tstamp=task.date_changed, worker=worker, args="x" * 300
    )
    assert models.TaskMeta.objects.using(database.alias).get(task_id="new").result == [1]


@pytest.mark.parametrize("release", legacy_schema.RELEASES, ids=lambda release: release.name)
def test_sqlite_never_remakes_an_adopted_table(sqlite, release):
    legacy_schema.fill(sqlite, release)
    before = sqlite.ddl()
    sqlite.migrate()
    after = sqlite.ddl()
    for name, text in before.items():
        # ADD COLUMN writes its text in front of the closing parenthesis and leaves the rest as it was.
        assert after[name].startswith(text.rstrip(")").rstrip()), name
        assert 'CREATE TABLE "new__' not in after[name]


def test_postgresql_rewrites_no_table_that_gets_a_column(make_database):
    database = make_database("postgresql")
    legacy_schema.fill(database, legacy_schema.BY_NAME["2.4-south"])
    sql = "SELECT relname, relfilenode FROM pg_class WHERE relkind IN ('r', 'i') AND relname LIKE '%celery%'"
    before = dict(database.rows(sql))
    database.migrate()
    after = dict(database.rows(sql))
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("vendor", ["postgresql", "mysql"])
def test_added_columns_keep_no_default(make_database, vendor):
    database = make_database(vendor)
    legacy_schema.fill(database, legacy_schema.BY_NAME["2.1"])
    database.migrate()
    where = "table_schema = DATABASE()" if vendor == "mysql" else "table_schema = 'public'"
    kept = database.rows(
        "SELECT table_name, column_name, column_default FROM information_schema.columns "
        f"WHERE {where} AND table_name LIKE '%celery_%' AND column_default IS NOT NULL"
    )
    # MariaDB says 'NULL' of a nullable column; serial keys have a sequence.
    assert [row for row in kept if row[1] != "id" and row[2] != "NULL"] == []


@pytest.mark.parametrize("fake_initial", [True, False])
@pytest.mark.parametrize("missing", [RESULT_TABLES, RESULT_TABLES[:1], RESULT_TABLES[1:]])
def test_missing_result_tables_are_created_with_and_without_fake_initial(sqlite, missing, fake_initial):
    legacy_schema.fill(sqlite, legacy_schema.BY_NAME["2.5-south"])
    sqlite.execute(*(f"DROP TABLE {table}" for table in missing))
    before = sqlite.contents()
    sqlite.migrate("djcelery", fake_initial=fake_initial)
    after = sqlite.contents()
    assert_same_values(before, after)
    assert all(after[table] == [] for table in missing)


@pytest.mark.parametrize("release", ["2.0", "2.1", "2.5-south", "3.0"])
def test_fake_initial_is_not_needed_for_djcelerys_own_tables(sqlite, release):
    legacy_schema.fill(sqlite, legacy_schema.BY_NAME[release])
    before = sqlite.contents()
    assert "djcelery.0001_initial... OK" in sqlite.migrate("djcelery", fake_initial=False)
    assert_same_values(before, sqlite.contents())


def test_souths_own_records_are_left_alone(sqlite):
    legacy_schema.fill(sqlite, legacy_schema.BY_NAME["3.1-south"])
    sqlite.migrate()
    assert [row[0] for row in sqlite.rows("SELECT migration FROM south_migrationhistory ORDER BY id")] == [
        "0001_initial", "0002_v25_changes", "0003_v26_changes", "0004_v30_changes",
    ]  # fmt: skip


def test_the_order_of_columns_does_not_matter(database):
    release = legacy_schema.Release("shuffled")
    made = {table: dict(sorted(columns.items())) for table, columns in release.columns().items()}
    release.columns = lambda: made
    legacy_schema.fill(database, release)
    before = database.contents()
    database.migrate()
    assert_same_values(before, database.contents())
    row = models.TaskState.objects.using(database.alias).get(task_id="task-2")
    assert (row.state, row.worker.hostname, row.retries, row.runtime) == ("SUCCESS", "celery@vm", 2, 0.25)


def test_a_migration_that_was_interrupted_goes_on(database):
    """MySQL can't roll DDL back: what one run made, the next must not stumble over."""
    database.migrate("djcelery", "0001")
    database.migrate("djcelery", "zero", fake=True, fake_initial=False)
    database.execute("DROP TABLE celery_taskmeta", "DROP TABLE djcelery_taskstate", "DROP TABLE djcelery_workerstate")
    without_worker = legacy_schema.BY_NAME["3.1.17"].columns()["djcelery_taskstate"]
    without_worker = {name: kind for name, kind in without_worker.items() if name != "worker_id"}
    database.execute(legacy_schema._create(database.vendor, "djcelery_taskstate", without_worker))
    database.migrate("djcelery")
    assert set(TABLES) <= database.tables()
    assert "worker_id" in {column for column, *_ in database.schema()["djcelery_taskstate"][0]}


def test_texts_that_were_made_too_short_are_widened(make_database):
    """A varchar of 2.1.0, and the 64 KB text that the release notes had MySQL's users add."""
    for vendor, release, table, column in (
        ("postgresql", "2.1.0", "djcelery_taskstate", "args"),
        ("mysql", "2.1.0", "djcelery_taskstate", "kwargs"),
        ("mysql", "3.0-by-hand", "celery_taskmeta", "meta"),
        ("mysql", "2.5-by-hand", "djcelery_periodictask", "description"),
    ):
        database = make_database(vendor)
        legacy_schema.fill(database, legacy_schema.BY_NAME[release])
        database.migrate()
        assert database.rows(
            f"SELECT data_type FROM information_schema.columns WHERE table_name = '{table}' AND "
            f"column_name = '{column}' AND table_schema IN ('public', '{database.connection.settings_dict['NAME']}')"
        ) == [("text" if vendor == "postgresql" else "longtext",)]
