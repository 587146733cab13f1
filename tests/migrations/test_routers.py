"""Where a router keeps djcelery off a database, nothing there is looked at or touched."""

from __future__ import annotations

from tests.migrations import legacy_schema
from tests.migrations.databases import TABLES


class NoDjcelery:
    """A router that keeps djcelery's tables off one database."""

    def __init__(self, alias):
        self.alias = alias

    def allow_migrate(self, db, app_label, **hints):
        return False if (db, app_label) == (self.alias, "djcelery") else None


class NoResults:
    """A router that keeps the result tables off one database."""

    def __init__(self, alias):
        self.alias = alias

    def allow_migrate(self, db, app_label, model_name=None, **hints):
        return False if db == self.alias and model_name in ("taskmeta", "tasksetmeta") else None


def test_no_table_is_made_where_djcelery_may_not_be(database, settings):
    settings.DATABASE_ROUTERS = [NoDjcelery(database.alias)]
    database.migrate()
    assert not database.tables() & set(TABLES)
    assert "No migrations to apply" in database.migrate()


def test_foreign_tables_of_that_name_are_neither_checked_nor_changed(sqlite, settings):
    settings.DATABASE_ROUTERS = [NoDjcelery(sqlite.alias)]
    sqlite.execute("CREATE TABLE djcelery_periodictask (id text, interval_id integer)",
                   "INSERT INTO djcelery_periodictask VALUES ('mine', 5)")  # fmt: skip
    before = (sqlite.contents(), sqlite.ddl())
    sqlite.migrate()
    assert (sqlite.contents(), sqlite.ddl()) == before


def test_a_router_may_part_results_from_schedules(sqlite, settings):
    settings.DATABASE_ROUTERS = [NoResults(sqlite.alias)]
    legacy_schema.fill(sqlite, legacy_schema.BY_NAME["2.3.0-without-results"])
    sqlite.migrate()
    assert "djcelery_periodictask" in sqlite.tables()
    assert "celery_taskmeta" not in sqlite.tables()
    assert [row["day_of_month"] for row in sqlite.contents()["djcelery_crontabschedule"]] == ["*", "*"]
