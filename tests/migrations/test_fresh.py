"""On an empty database the migrations make what Django's own operations would, and can be undone."""

from __future__ import annotations

import pytest
from django.core.management import call_command
from django.db import migrations
from django.db.migrations.state import ProjectState

from djcelery.migrations import _adopt, _operations
from tests.migrations.databases import LATER, LATER_INDEXES, RESULT_TABLES, TABLES
from tests.migrations.test_drift import NAMES

# SCHEMA.md, part 4: the names that Django 1.11 and later give.
INDEXES = {
    "celery_taskmeta_hidden_23fd02dc",
    "celery_tasksetmeta_hidden_593cfc24",
    "djcelery_periodictask_crontab_id_75609bab",
    "djcelery_periodictask_interval_id_b426ab02",
    "djcelery_workerstate_last_heartbeat_4539b544",
    "djcelery_taskstate_state_53543be4",
    "djcelery_taskstate_name_8af9eded",
    "djcelery_taskstate_tstamp_4c3f93a1",
    "djcelery_taskstate_hidden_c3905e57",
    "djcelery_taskstate_worker_id_f7f57a05",
}
LIKE_INDEXES = {
    "celery_taskmeta_task_id_9558b198_like",
    "celery_tasksetmeta_taskset_id_a5a1d4ae_like",
    "djcelery_periodictask_name_cb62cda9_like",
    "djcelery_workerstate_hostname_b31c7fab_like",
    "djcelery_taskstate_task_id_9d2efdb5_like",
}


def plain_operations():
    """Return the operations of 0001 as Django's own classes."""
    initial = __import__("djcelery.migrations.0001_initial", fromlist=["Migration"]).Migration
    for operation in initial.operations:
        _, args, kwargs = operation.deconstruct()
        kind = migrations.CreateModel if isinstance(operation, _operations.CreateMissingModel) else migrations.AddField
        yield kind(*args, **kwargs)


def test_0001_makes_the_tables_that_djangos_own_operations_make(make_database):
    for vendor in ("sqlite", "postgresql", "mysql"):
        ours, plain = make_database(vendor), make_database(vendor)
        ours.migrate("djcelery", "0001", fake_initial=False)
        migration = migrations.Migration("0001_initial", "djcelery")
        migration.operations = list(plain_operations())
        with plain.connection.schema_editor() as editor:
            migration.apply(ProjectState(), editor)
        assert ours.schema() == plain.schema()
        if vendor == "sqlite":
            assert ours.ddl() == plain.ddl()


def test_the_operations_and_their_order_are_those_on_record():
    initial = __import__("djcelery.migrations.0001_initial", fromlist=["Migration"]).Migration
    assert [getattr(operation, "model_name", operation.name) for operation in initial.operations] == [
        "CrontabSchedule", "IntervalSchedule", "PeriodicTask", "PeriodicTasks", "TaskMeta", "TaskSetMeta",
        "TaskState", "WorkerState", "taskstate",
    ]  # fmt: skip
    assert initial.operations[-1].name == "worker"
    assert (initial.initial, initial.dependencies) == (True, [])


def test_index_names_are_those_that_django_gives(database):
    database.migrate()
    with database.connection.cursor() as cursor:
        found = {
            name
            for table in TABLES
            for name, entry in database.connection.introspection.get_constraints(cursor, table).items()
            if entry["index"]
        }
    # A foreign key of MySQL is its own index.
    expected = {name for name in INDEXES if database.vendor != "mysql" or "_id_" not in name}
    assert expected <= found
    if database.vendor == "postgresql":
        assert {name for name in found if name.endswith("_like")} >= LIKE_INDEXES


def test_keys_stay_32_bit_whatever_the_project_says(database, settings):
    settings.DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
    database.migrate()
    kinds = {table: _adopt.columns(database.connection, table) for table in TABLES}
    keys = {columns["id"].kind for columns in kinds.values() if "id" in columns}
    assert keys <= {"AutoField", "IntegerField"}


def test_every_migration_can_be_undone_and_done_again(database):
    database.migrate()
    whole = database.schema()
    database.execute("INSERT INTO djcelery_intervalschedule (every, period) VALUES (1, 'days')")
    database.migrate("djcelery", "0001", fake_initial=False)
    assert database.records() == ["0001_initial"]
    database.migrate()
    assert database.schema() == whole
    assert database.rows("SELECT every FROM djcelery_intervalschedule") == [(1,)]
    database.migrate("djcelery", "zero", fake_initial=False)
    assert not database.tables() & set(TABLES)


@pytest.mark.parametrize("name", NAMES)
def test_sqlmigrate_works_for_every_migration_both_ways(name, capsys, database):
    # Going back, it looks at the foreign keys that there are.
    database.migrate("djcelery")
    call_command("sqlmigrate", "djcelery", name, database=database.alias)
    assert "-- " in capsys.readouterr().out
    call_command("sqlmigrate", "djcelery", name, database=database.alias, backwards=True)
    assert "-- " in capsys.readouterr().out


def test_sqlmigrate_shows_the_tables_even_where_they_exist(sqlite, capsys):
    sqlite.migrate()
    call_command("sqlmigrate", "djcelery", "0001", database=sqlite.alias)
    assert 'CREATE TABLE "celery_taskmeta"' in capsys.readouterr().out


def test_the_plan_says_in_words_what_will_happen(sqlite):
    printed = sqlite.migrate(plan=True)
    assert "Check the tables of django-celery and add the columns that old releases lack" in printed
    assert "Create the indexes that old tables of django-celery lack" in printed
    assert sqlite.tables() == set()


def test_the_only_difference_to_0001_in_the_database_are_nullable_columns_and_named_indexes(database):
    database.migrate("djcelery", "0001")
    before = database.schema()
    database.migrate()
    after = database.schema()
    for table in TABLES:
        added = [column[0] for column in after[table][0][len(before[table][0]) :]]
        assert after[table][0][: len(before[table][0])] == before[table][0]
        columns = _adopt.columns(database.connection, table)
        assert all(columns[name].null for name in added)
        encoding = ["content_type", "content_encoding"] if table in RESULT_TABLES else []
        assert added == [*encoding, *LATER.get(table, ())]
        # SQLite numbers checks and references, and those of the new columns shift the numbers.
        old, new = (
            {
                tuple(entry["columns"]) if entry["foreign_key"] else name: entry
                for name, entry in found[table][1].items()
                if not entry["check"]
            }
            for found in (before, after)
        )
        assert {name: new[name] for name in old} == old
        indexes = {name for name in new.keys() - old.keys() if not new[name]["foreign_key"]}
        assert indexes == LATER_INDEXES.get(table, {}).keys()


def test_an_index_whose_concurrent_build_failed_is_built_again(make_database):
    database = make_database("postgresql")
    database.migrate("djcelery", "0003")
    name = "djcelery_taskstate_state_53543be4"
    database.execute(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{name}'::regclass")
    database.migrate("djcelery")
    assert database.rows(f"SELECT indisvalid FROM pg_index WHERE indexrelid = '{name}'::regclass") == [(True,)]
