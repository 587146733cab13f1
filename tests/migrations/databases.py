"""Databases of their own for adoption tests: made empty, filled as django-celery would have, dropped again."""

from __future__ import annotations

import io
import itertools
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.core.management import call_command
from django.db import connections

from tests import services
from tests.settings import database

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "legacy" / "data"
VENDORS = ("sqlite", "postgresql", "mysql")
RESULT_TABLES = ("celery_taskmeta", "celery_tasksetmeta")
TABLES = (
    "djcelery_crontabschedule",
    "djcelery_intervalschedule",
    "djcelery_periodictask",
    "djcelery_periodictasks",
    *RESULT_TABLES,
    "djcelery_taskstate",
    "djcelery_workerstate",
)

#: The columns of celery_taskmeta that 0005 adds.
LIFE = (
    "name", "args", "kwargs", "worker", "queue", "periodic_task", "retries", "root_id", "parent_id", "group_id",
    "created", "started", "finished", "runtime", "progress", "flags",
)  # fmt: skip
#: The indexes that 0006 builds.
LIFE_INDEXES = {
    "djcelery_taskmeta_name_done": ["name", "date_done"],
    "djcelery_taskmeta_state_done": ["status", "date_done"],
}

#: All columns that came after django-celery and its contents' types, by table.
LATER = {
    "celery_taskmeta": LIFE,
    "djcelery_intervalschedule": ("changed_at",),
    "djcelery_crontabschedule": ("changed_at", "timezone"),
    "djcelery_periodictask": (
        "solar_id", "clocked_id", "one_off", "start_time", "priority", "headers", "expire_seconds", "scheduled_from",
        "missed_runs", "grace_seconds", "no_overlap", "overlap_timeout", "jitter_seconds", "last_error", "origin",
        "origin_digest",
    ),
    "djcelery_taskstate": (
        "client", "exception", "finished_at", "flags", "parent_id", "progress", "queue", "received_at", "retried_as",
        "root_id", "routing_key", "sent_at", "started_at",
    ),
    "djcelery_workerstate": (
        "active", "clock_skew", "frequency", "load", "missed", "offline_at", "online_at", "pid", "processed", "seen",
        "software", "system", "version",
    ),
}  # fmt: skip
#: All indexes that were built by name after those of django-celery, by table.
LATER_INDEXES = {
    "celery_taskmeta": {
        **LIFE_INDEXES,
        "djcelery_taskmeta_done": ["date_done"],
        "djcelery_taskmeta_name_state": ["name", "status", "date_done"],
        "djcelery_taskmeta_name_worker": ["name", "worker", "date_done"],
        "djcelery_taskmeta_root": ["root_id"],
        "djcelery_taskmeta_worker": ["worker", "date_done"],
        "djcelery_taskmeta_worker_state": ["worker", "status", "date_done"],
    },
    "celery_tasksetmeta": {"djcelery_tasksetmeta_done": ["date_done"]},
    "djcelery_taskstate": {
        "djcelery_task_again": ["retried_as"],
        "djcelery_task_eta": ["eta"],
        "djcelery_task_name": ["name", "tstamp"],
        "djcelery_task_name_state": ["name", "state", "tstamp"],
        "djcelery_task_name_worker": ["name", "worker_id", "tstamp"],
        "djcelery_task_root": ["root_id", "parent_id"],
        "djcelery_task_state": ["state", "tstamp"],
        "djcelery_task_worker": ["worker_id", "tstamp"],
        "djcelery_task_worker_state": ["worker_id", "state", "tstamp"],
    },
    "djcelery_periodictask": {
        "djcelery_periodictask_clocked": ["clocked_id"],
        "djcelery_periodictask_solar": ["solar_id"],
    },
}

_numbers = itertools.count(1)


class Database:
    """One database, and what tests do with it. ``alias`` is its name among Django's connections."""

    def __init__(self, vendor: str, url: str, folder: Path) -> None:
        self.vendor = vendor
        self.url = url
        self.folder = folder
        self.alias = f"adopted_{next(_numbers)}"
        # What settings.DATABASES would hold had it been known at the start.
        connections.settings[self.alias] = connections.configure_settings({"default": {}, self.alias: database(url)})[
            self.alias
        ]

    @property
    def connection(self) -> Any:
        return connections[self.alias]

    def close(self) -> None:
        self.connection.close()
        del connections[self.alias]
        del connections.settings[self.alias]

    def execute(self, *statements: str) -> None:
        with self.connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def rows(self, sql: str) -> list[tuple]:
        with self.connection.cursor() as cursor:
            cursor.execute(sql)
            return [tuple(row) for row in cursor.fetchall()]

    def tables(self) -> set[str]:
        return set(self.connection.introspection.table_names())

    def contents(self) -> dict[str, list[dict[str, Any]]]:
        """Return every value of djcelery's tables, as the driver gives it, by table, row and column."""
        found = {}
        for table in sorted(self.tables() & set(TABLES)):
            with self.connection.cursor() as cursor:
                cursor.execute(f"SELECT * FROM {table} ORDER BY 1")
                names = [column[0] for column in cursor.description]
                found[table] = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        return found

    def records(self) -> list[str]:
        """Return the names of djcelery's migrations that are recorded as applied."""
        if "django_migrations" not in self.tables():
            return []
        return [name for (name,) in self.rows("SELECT name FROM django_migrations WHERE app = 'djcelery' ORDER BY id")]

    def ddl(self) -> dict[str, str]:
        """Return the text of each of djcelery's tables and indexes (SQLite only)."""
        rows = self.rows("SELECT name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        return {name: sql for name, table, sql in rows if table in TABLES}

    def schema(self) -> dict[str, Any]:
        """Return a description of djcelery's tables that is equal for equal tables."""
        found: dict[str, Any] = {}
        introspection = self.connection.introspection
        with self.connection.cursor() as cursor:
            for table in sorted(self.tables() & set(TABLES)):
                columns = introspection.get_table_description(cursor, table)
                # display_size is that of the rows; the rest is the column's.
                described = [tuple(map(str, column._replace(display_size=None))) for column in columns]
                found[table] = (described, self._indexes(introspection.get_constraints(cursor, table)))
        return found

    def _indexes(self, found: dict[str, Any]) -> dict[str, Any]:
        """Return what describes *found*: MySQL drops the index of a reference once another one serves it."""
        if self.vendor != "mysql":
            return found
        is_served = any(name == "djcelery_task_worker" for name in found)
        kept = ("columns", "primary_key", "unique", "check", "foreign_key")
        return {
            name: {**{key: entry[key] for key in kept}, "index": False} if entry["foreign_key"] else entry
            for name, entry in found.items()
            if entry["foreign_key"] or not (is_served and entry["columns"] == ["worker_id"])
        }

    def migrate(self, *args: str, **options: Any) -> str:
        """Run ``migrate --fake-initial`` in this process; return what it prints."""
        out = io.StringIO()
        options = {"database": self.alias, "fake_initial": True, "verbosity": 1, "stdout": out, **options}
        call_command("migrate", *args, **options)
        return out.getvalue()

    def manage(self, *args: str, check: bool = True, env: dict[str, str] | None = None) -> str:
        """Run ``manage.py`` on this database in a process of its own; return all that it prints."""
        (self.folder / "adopted_settings.py").write_text(
            f"from tests.settings import *\nDATABASES = {{'default': database({self.url!r})}}\n"
            "DJCELERY_UNPICKLE_ALLOW = ['shop.tasks']\n"
        )
        path = os.pathsep.join([str(self.folder), str(ROOT), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "django", *args],
            env={**os.environ, "PYTHONPATH": path, "DJANGO_SETTINGS_MODULE": "adopted_settings", **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
        )
        assert not check or done.returncode == 0, done.stdout
        return done.stdout

    def load_dump(self, path: Path) -> None:
        """Load a dump with the server's own client."""
        if self.vendor == "postgresql":
            services.postgres_client("-q", "-v", "ON_ERROR_STOP=1", "-d", self.url, "-f", str(path))
            return
        client = services.require("the mysql client", _mysql_client)
        parts = urlsplit(self.url)
        with path.open() as dump:
            subprocess.run(
                [client, f"-h{parts.hostname}", f"-P{parts.port or 3306}", f"-u{parts.username}", parts.path[1:]],
                stdin=dump,
                check=True,
                env={**os.environ, "MYSQL_PWD": parts.password or ""},
            )


def _mysql_client() -> str:
    found = shutil.which("mariadb") or shutil.which("mysql")
    if found is None:
        raise FileNotFoundError("neither mariadb nor mysql is installed")
    return found


def legacy_file(folder: Path, release: str) -> str:
    """Copy the SQLite database of *release* into *folder* and return its URL."""
    copy = folder / f"{release}.sqlite"
    shutil.copyfile(DATA / f"django-celery-{release}.sqlite", copy)
    return f"sqlite:///{copy}"


@contextmanager
def new_database(vendor: str, folder: Path, url: str | None = None) -> Iterator[Database]:
    """Make an empty database (or use the SQLite file at *url*), and drop it at the end."""
    # Containers have the same process ids, and may share a server, or find what one that was killed has left there.
    name = f"djcelery_test_{os.getpid()}_{uuid.uuid4().hex[:8]}_{next(_numbers)}"
    if vendor == "sqlite":
        url = url or f"sqlite:///{folder / name}.sqlite"
        create = drop = lambda: None
    elif vendor == "postgresql":
        server = services.postgres()
        url = urlsplit(services.POSTGRES_URL)._replace(path=f"/{name}").geturl()
        create = lambda: server.execute(f'CREATE DATABASE "{name}"')  # noqa: E731
        drop = lambda: (server.execute(f'DROP DATABASE "{name}" WITH (FORCE)'), server.close())  # noqa: E731
    else:
        server = services.mariadb()
        url = urlsplit(services.MARIADB_URL)._replace(path=f"/{name}").geturl()
        create = lambda: server.query(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb3")  # noqa: E731
        drop = lambda: (server.query(f"DROP DATABASE `{name}`"), server.close())  # noqa: E731
    create()
    try:
        made = Database(vendor, url, folder)
        try:
            yield made
        finally:
            made.close()
    finally:
        drop()
