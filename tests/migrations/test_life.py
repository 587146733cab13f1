"""0005 and 0006: the columns and indexes of a task's whole life come to old and new tables, and go again."""

from __future__ import annotations

import re
from contextlib import contextmanager

import pytest
from django.core.management import call_command
from django.db import connections

from djcelery import models
from djcelery.exceptions import SchemaUnknown
from djcelery.migrations import _adopt
from tests.migrations import legacy_schema
from tests.migrations.databases import LATER_INDEXES, LIFE, LIFE_INDEXES, TABLES

CHORDS = {"djcelery_chord", "djcelery_chordpart"}


def life_indexes(database):
    found = _adopt.indexes(database.connection, "celery_taskmeta")
    return {index.name: index.valid for index in found if index.name in LIFE_INDEXES}


def columns(database):
    return list(_adopt.columns(database.connection, "celery_taskmeta"))


@contextmanager
def recorded(database):
    """Yield a list that gets every statement sent to *database*."""
    statements = []

    def record(execute, sql, *rest):
        statements.append(str(sql))
        return execute(sql, *rest)

    with database.connection.execute_wrapper(record):
        yield statements


@pytest.fixture
def adopted(database):
    """The newest legacy tables on each engine, migrated up to what was before 0005."""
    legacy_schema.fill(database, legacy_schema.BY_NAME["3.1.17"])
    database.migrate("djcelery", "0004")
    return database


def test_rows_of_django_celery_are_read_with_empty_columns_and_keep_their_pickle_when_saved(adopted):
    before = adopted.contents()["celery_taskmeta"]
    adopted.migrate()
    for row in models.TaskMeta.objects.using(adopted.alias):
        assert [getattr(row, name) for name in LIFE] == [None] * len(LIFE)
        row.save()
    for old, new in zip(before, adopted.contents()["celery_taskmeta"], strict=True):
        kept = {name: value for name, value in new.items() if name != "date_done"}
        assert kept == {name: old.get(name) for name in kept}


def test_a_new_row_beside_old_ones_holds_its_whole_life(adopted):
    adopted.migrate()
    life = {"name": "shop.tasks.add", "args": [1, {"k": "é"}], "kwargs": {}, "retries": 2, "runtime": 0.25,
            "progress": None, "flags": "args_cut"}  # fmt: skip
    rows = models.TaskMeta.objects.using(adopted.alias)
    rows.create(task_id="new", status="SUCCESS", result=[1], **life)
    row = rows.get(task_id="new")
    assert {name: getattr(row, name) for name in life} == life
    assert rows.filter(args__1__k="é").get() == row


@pytest.mark.parametrize("target", ["0001", "0004"])
def test_going_back_takes_the_new_columns_and_tables_and_leaves_every_legacy_value(adopted, target):
    before = adopted.contents()
    adopted.migrate()
    assert set(LIFE) <= set(columns(adopted))
    assert adopted.tables() >= CHORDS
    assert life_indexes(adopted) == dict.fromkeys(LIFE_INDEXES, True)
    adopted.migrate("djcelery", target, fake_initial=False)
    assert not set(LIFE) & set(columns(adopted))
    assert not adopted.tables() & CHORDS
    assert life_indexes(adopted) == {}
    for table, rows in before.items():
        kept = adopted.contents()[table]
        assert len(kept) == len(rows)
        assert all(new.items() <= old.items() for old, new in zip(rows, kept, strict=True))
    adopted.migrate()
    assert adopted.contents().keys() == set(TABLES)


@pytest.mark.parametrize("done", [1, 3, 16])
def test_columns_of_a_run_that_was_interrupted_are_not_added_twice(adopted, done):
    """MySQL can't roll back the columns that were added before the server went away."""
    migration = __import__("djcelery.migrations.0005_result_columns", fromlist=["Migration"]).Migration
    names = [operation.name for operation in migration.operations if getattr(operation, "model_name", "")]
    assert tuple(names) == LIFE
    for name in names[:done]:
        field = models.TaskMeta._meta.get_field(name)
        with adopted.connection.schema_editor() as editor:
            editor.add_field(models.TaskMeta, field)
    adopted.migrate("djcelery")
    assert columns(adopted)[-len(LIFE) :] == list(LIFE)
    assert life_indexes(adopted) == dict.fromkeys(LIFE_INDEXES, True)


def test_indexes_of_a_run_that_was_interrupted_are_not_built_twice(adopted):
    adopted.migrate("djcelery", "0005")
    with adopted.connection.schema_editor() as editor:
        editor.add_index(models.TaskMeta, models.TaskMeta._meta.indexes[0])
    adopted.migrate("djcelery")
    assert life_indexes(adopted) == dict.fromkeys(LIFE_INDEXES, True)


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        ("runtime varchar(20) NULL", "runtime already, which is of type CharField, where a FloatField is expected"),
        ("name varchar(20) DEFAULT 'x' NOT NULL", "name already, which is NOT NULL, where NULL is needed"),
    ],
)
def test_a_column_of_the_users_own_that_cannot_hold_the_values_is_named(database, column, problem):
    legacy_schema.fill(database, legacy_schema.BY_NAME["3.1.17"])
    database.execute(f"ALTER TABLE celery_taskmeta ADD COLUMN {column}")
    before = database.contents()["celery_taskmeta"]
    with pytest.raises(SchemaUnknown, match=problem):
        database.migrate("djcelery")
    assert database.records()[-1] == "0004_legacy_indexes"
    for old, new in zip(before, database.contents()["celery_taskmeta"], strict=True):
        assert old.items() <= new.items()


def test_where_a_router_keeps_results_away_there_are_no_columns_to_add_or_to_take(database, settings):
    from tests.migrations.test_routers import NoResults

    settings.DATABASE_ROUTERS = [NoResults(database.alias)]
    database.migrate()
    assert "celery_taskmeta" not in database.tables()
    database.migrate("djcelery", "0004", fake_initial=False)
    assert "No migrations to apply" not in database.migrate()


# -- SQLite -----------------------------------------------------------------------------------


def test_sqlite_remakes_no_table_neither_forwards_nor_backwards(sqlite):
    legacy_schema.fill(sqlite, legacy_schema.BY_NAME["2.1"])
    sqlite.migrate("djcelery", "0004")
    before = sqlite.rows("SELECT rootpage FROM sqlite_master WHERE type = 'table' AND name = 'celery_taskmeta'")
    text = sqlite.ddl()["celery_taskmeta"]
    with recorded(sqlite) as statements:
        sqlite.migrate("djcelery")
        assert [sql for sql in statements if "new__" in sql] == []
        assert sqlite.ddl()["celery_taskmeta"].startswith(text.rstrip(")").rstrip())
        sqlite.migrate("djcelery", "0004", fake_initial=False)
    # To drop a reference, Django remakes its table; that of the periodic tasks is short.
    assert [sql for sql in statements if "new__" in sql and "djcelery_periodictask" not in sql] == []
    assert sqlite.ddl()["celery_taskmeta"] == text
    after = sqlite.rows("SELECT rootpage FROM sqlite_master WHERE type = 'table' AND name = 'celery_taskmeta'")
    assert after == before


# -- PostgreSQL -------------------------------------------------------------------------------


@pytest.fixture
def postgresql(make_database):
    """A legacy database on PostgreSQL, migrated up to 0005."""
    database = make_database("postgresql")
    legacy_schema.fill(database, legacy_schema.BY_NAME["3.1.17"])
    database.migrate("djcelery", "0005")
    return database


def test_an_index_whose_concurrent_build_was_interrupted_is_replaced(postgresql):
    name = "djcelery_taskmeta_state_done"
    other = _own_connection(postgresql)
    try:
        # The build waits for this transaction, until the server ends it.
        with other.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("UPDATE celery_taskmeta SET status = status")
            with pytest.raises(Exception, match="statement timeout"):
                postgresql.execute(
                    # Time enough for a busy machine to begin with it.
                    "SET statement_timeout = 3000",
                    f"CREATE INDEX CONCURRENTLY {name} ON celery_taskmeta (status, date_done)",
                )
            cursor.execute("ROLLBACK")
    finally:
        other.close()
    postgresql.execute("SET statement_timeout = 0")
    assert life_indexes(postgresql) == {name: False}

    postgresql.migrate("djcelery")

    assert life_indexes(postgresql) == dict.fromkeys(LIFE_INDEXES, True)


def _own_connection(database):
    other = connections.create_connection(database.alias)
    other.ensure_connection()
    return other


def test_indexes_come_and_go_without_a_lock(postgresql):
    with recorded(postgresql) as statements:
        postgresql.migrate("djcelery")
        postgresql.migrate("djcelery", "0005", fake_initial=False)
    changed = [sql.split('"')[0].strip() for sql in statements if "djcelery_taskmeta_" in sql and "INDEX" in sql]
    number = len(LATER_INDEXES["celery_taskmeta"])
    assert changed == ["CREATE INDEX CONCURRENTLY"] * number + ["DROP INDEX CONCURRENTLY IF EXISTS"] * number


def test_the_sql_that_is_shown_locks_nothing_either(postgresql, capsys):
    call_command("sqlmigrate", "djcelery", "0006", database=postgresql.alias)
    shown = capsys.readouterr().out
    assert shown.count("CREATE INDEX CONCURRENTLY") == 2
    assert "BEGIN" not in shown


def test_names_are_found_by_their_beginning_through_the_index_whatever_the_collation(postgresql):
    postgresql.migrate("djcelery")
    postgresql.execute("SET enable_seqscan = off")
    for condition in ("name LIKE 'shop.%'", "name = 'shop.tasks.add'"):
        plan = str(postgresql.rows(f"EXPLAIN SELECT id FROM celery_taskmeta WHERE {condition}"))
        assert re.search(r"djcelery_taskmeta_name_\w+ .*Index Cond: \(+name\)::text", plan), plan


# -- MySQL ------------------------------------------------------------------------------------


@pytest.mark.parametrize("row_format", ["COMPACT", "REDUNDANT"])
@pytest.mark.parametrize("charset", ["utf8mb3", "utf8mb4"])
def test_a_table_that_mysql_5_made_gets_room_for_the_columns_and_indexes(make_database, row_format, charset):
    """The rows of its formats end at 8 KB, and its indexes at 767 bytes."""
    database = make_database("mysql")
    # A longer key than 191 characters of four bytes was impossible there.
    release = legacy_schema.Release("of MySQL 5")
    made = release.columns()
    made["celery_taskmeta"]["task_id"] = "varchar(191) unique"
    release.columns = lambda: made
    legacy_schema.fill(database, release)
    database.execute(f"ALTER TABLE celery_taskmeta ROW_FORMAT={row_format}, CONVERT TO CHARACTER SET {charset}")
    before = database.contents()["celery_taskmeta"]
    database.migrate()
    after = database.contents()["celery_taskmeta"]
    assert [{name: row[name] for name in before[0]} for row in after] == before
    assert life_indexes(database) == dict.fromkeys(LIFE_INDEXES, True)
    assert models.TaskMeta.objects.using(database.alias).get(task_id="plain").result == 42
    long = dict.fromkeys(("name", "worker", "queue", "periodic_task", "root_id", "parent_id", "group_id"), "é" * 255)
    models.TaskMeta.objects.using(database.alias).create(task_id="new", args=["x" * 5000], result="y" * 5000, **long)


def test_a_table_of_todays_row_format_is_not_rewritten(make_database):
    database = make_database("mysql")
    legacy_schema.fill(database, legacy_schema.BY_NAME["3.1.17"])
    with recorded(database) as statements:
        database.migrate()
    assert [sql for sql in statements if "ROW_FORMAT" in sql] == []
