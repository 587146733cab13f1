"""A schema that no release made is refused by name, before anything is changed."""

from __future__ import annotations

import pytest

from djcelery.exceptions import SchemaUnknown
from tests.migrations import legacy_schema

RELEASE = legacy_schema.Release("3.0")


def release_with(table, *, without=(), **columns):
    """Return release 3.0 with other *columns* in *table*."""
    release = legacy_schema.Release("odd")
    made = release.columns()
    made[table] = {name: kind for name, kind in {**made[table], **columns}.items() if name not in without}
    release.columns = lambda: made
    indexed = {name: [c for c in cols if c in made[name]] for name, cols in release.indexed().items()}
    release.indexed = lambda: indexed
    return release


def make(database, release):
    """Make the tables of *release* and a row in the result table."""
    database.execute(*release.statements(database.vendor))
    row = legacy_schema.ROWS["celery_tasksetmeta"][0]
    names = ("id", "taskset_id", "result", "date_done", "hidden")
    with database.connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO celery_tasksetmeta ({', '.join(names)}) VALUES (%s, %s, %s, %s, %s)",
            [legacy_schema._adapt(database, row[name]) for name in names],
        )


def assert_refused(database, table, column, problem, *args):
    """Check that the migration names *table* and *column*, and leaves the database as it was."""
    before = (database.contents(), database.schema(), database.tables(), database.records())
    with pytest.raises(SchemaUnknown) as refusal:
        database.migrate(*args)
    message = str(refusal.value)
    assert f"table {table} " in message
    assert f"column {column} " in message
    assert problem in message
    assert "Nothing was changed" in message
    assert (database.contents(), database.schema(), database.tables(), database.records()) == before


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("djcelery_periodictask", "task"),
        ("djcelery_periodictask", "interval_id"),
        ("djcelery_taskstate", "tstamp"),
        ("djcelery_crontabschedule", "minute"),
        ("celery_taskmeta", "status"),
        ("celery_tasksetmeta", "result"),
    ],
)
def test_a_column_that_every_release_made_must_be_there(database, table, column):
    release = release_with(table, without=[column])
    if table == "celery_tasksetmeta":
        database.execute(*release.statements(database.vendor))
    else:
        make(database, release)
    assert_refused(database, table, column, "is missing")


@pytest.mark.parametrize(
    ("table", "column", "kind"),
    [
        ("celery_taskmeta", "status", "int"),
        ("djcelery_periodictask", "total_run_count", "time"),
        ("djcelery_taskstate", "tstamp", "text"),
        ("djcelery_taskstate", "hidden", "text"),
        ("djcelery_taskstate", "runtime", "text null"),
        ("djcelery_intervalschedule", "every", "text"),
    ],
)
def test_a_column_of_a_wrong_type_is_refused(make_database, table, column, kind):
    # The rule is the engine's; one with types and one without show it.
    for vendor in ("sqlite", "postgresql"):
        database = make_database(vendor)
        release = release_with(table, **{column: kind})
        release.indexed = dict
        make(database, release)
        assert_refused(database, table, column, "is of type")


def test_a_key_that_is_text_is_refused(database):
    release = release_with("djcelery_crontabschedule", id="varchar(20) primary")
    made = release.columns()
    made["djcelery_periodictask"]["crontab_id"] = "int null"
    release.columns = lambda: made
    make(database, release)
    assert_refused(database, "djcelery_crontabschedule", "id", "is of type CharField")


def test_a_column_that_must_take_null_is_refused_if_it_does_not(database):
    make(database, release_with("celery_taskmeta", traceback="text"))
    assert_refused(database, "celery_taskmeta", "traceback", "is NOT NULL")


def test_a_task_id_without_a_unique_index_is_refused(database):
    make(database, release_with("celery_taskmeta", task_id="varchar(255)"))
    assert_refused(database, "celery_taskmeta", "task_id", "has no unique index")


def test_a_partial_unique_index_does_not_count(make_database):
    for vendor in ("sqlite", "postgresql"):
        database = make_database(vendor)
        make(database, release_with("celery_taskmeta", task_id="varchar(255)"))
        database.execute("CREATE UNIQUE INDEX some_ids ON celery_taskmeta (task_id) WHERE status = 'SUCCESS'")
        assert_refused(database, "celery_taskmeta", "task_id", "has no unique index")


def test_an_unknown_column_that_no_row_could_fill_is_refused(database):
    make(database, release_with("djcelery_taskstate", tenant="int"))
    assert_refused(database, "djcelery_taskstate", "tenant", "is unknown, NOT NULL and has no default")


def test_unknown_columns_that_fill_themselves_are_kept(database):
    legacy_schema.fill(database, RELEASE)
    database.execute(
        "ALTER TABLE djcelery_taskstate ADD COLUMN note varchar(20) NULL",
        "ALTER TABLE djcelery_taskstate ADD COLUMN tenant integer DEFAULT 7 NOT NULL",
    )
    before = database.contents()
    database.migrate()
    after = database.contents()
    assert [row["tenant"] for row in after["djcelery_taskstate"]] == [7, 7, 7]
    assert all(new.items() >= old.items() for old, new in zip(before["djcelery_taskstate"], after["djcelery_taskstate"],
                                                             strict=True))  # fmt: skip


def test_lengths_and_wider_keys_of_the_users_own_making_are_kept(database):
    release = release_with("djcelery_taskstate", name="varchar(255) null", task_id="varchar(191) unique")
    legacy_schema.fill(database, release)
    before = database.schema()["djcelery_taskstate"][0]
    database.migrate()
    assert database.schema()["djcelery_taskstate"][0][: len(before)] == before


def test_a_table_without_the_one_it_refers_to_is_refused(sqlite):
    legacy_schema.fill(sqlite, RELEASE)
    sqlite.execute("PRAGMA foreign_keys = OFF", "DROP TABLE djcelery_intervalschedule")
    assert_refused(sqlite, "djcelery_periodictask", "interval_id", "refers to the table djcelery_intervalschedule")


def test_a_recorded_migration_whose_table_is_gone_is_an_error(database):
    legacy_schema.fill(database, legacy_schema.BY_NAME["3.1.17"])
    database.migrate("djcelery", "0001", fake=True)
    database.execute("DROP TABLE celery_taskmeta")
    before = (database.contents(), database.schema(), database.records())
    with pytest.raises(SchemaUnknown, match=r"celery_taskmeta doesn't exist, but .* records djcelery.0001_initial"):
        database.migrate()
    assert (database.contents(), database.schema(), database.records()) == before


def test_the_way_out_that_the_message_names_gives_an_empty_table(sqlite):
    legacy_schema.fill(sqlite, legacy_schema.BY_NAME["3.1.17"])
    sqlite.migrate("djcelery", "0001", fake=True)
    sqlite.execute("DROP TABLE celery_taskmeta")
    sqlite.migrate("djcelery", "zero", fake=True, fake_initial=False)
    sqlite.migrate("djcelery", fake_initial=False)
    assert sqlite.contents()["celery_taskmeta"] == []
    assert len(sqlite.contents()["djcelery_periodictask"]) == 5


def test_task_states_without_their_worker_column_are_refused(sqlite):
    """An interrupted first migration leaves such a table empty; one with rows is something else."""
    make(sqlite, release_with("djcelery_taskstate", without=["worker_id"]))
    sqlite.execute(
        "INSERT INTO djcelery_taskstate (state, task_id, tstamp, retries, hidden) "
        "VALUES ('SUCCESS', 'a', '2012-01-01', 0, 0)"
    )
    assert_refused(sqlite, "djcelery_taskstate", "worker_id", "is missing")


def test_the_check_runs_in_the_migration_too_for_those_who_call_no_command(sqlite):
    from django.db.migrations.executor import MigrationExecutor

    make(sqlite, release_with("djcelery_periodictask", without=["task"]))
    executor = MigrationExecutor(sqlite.connection)
    with pytest.raises(SchemaUnknown, match="column task is missing"):
        executor.migrate([("djcelery", "0004_legacy_indexes")], fake_initial=True)
    assert "0002_legacy_columns" not in sqlite.records()


def test_the_command_line_prints_the_reason_without_a_traceback(sqlite):
    make(sqlite, release_with("djcelery_periodictask", without=["task"]))
    printed = sqlite.manage("migrate", "--fake-initial", check=False)
    assert "Traceback" not in printed
    assert "SchemaUnknown: The table djcelery_periodictask is not as any release" in printed
    assert "django_migrations" not in sqlite.tables()


def test_a_migration_of_other_apps_does_not_look_at_djcelerys_tables(sqlite):
    make(sqlite, release_with("djcelery_periodictask", without=["task", "name"]))
    sqlite.migrate("sessions")
    assert "django_session" in sqlite.tables()
