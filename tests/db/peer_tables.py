"""The tables of django-celery-results and django-celery-beat, written down from PEERS.md, and rows for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from django.conf import settings

from tests.migrations.legacy_schema import TYPES

RESULT, GROUP, CHORD = (f"django_celery_results_{name}" for name in ("taskresult", "groupresult", "chordcounter"))
TASK = "django_celery_beat_periodictask"
INTERVAL, CRONTAB, SOLAR, CLOCKED = (
    f"django_celery_beat_{name}schedule" for name in ("interval", "crontab", "solar", "clocked")
)
WHEN = datetime(2026, 3, 1, 12, 30, 1, 250000, tzinfo=timezone.utc)

#: column: (type, default of a test's row); a type with "null" may be NULL.
TABLES: dict[str, dict[str, tuple[str, Any]]] = {
    RESULT: {
        "task_id": ("varchar(255) unique", None),
        "periodic_task_name": ("varchar(255) null", None),
        "task_name": ("varchar(255) null", None),
        "task_args": ("text null", None),
        "task_kwargs": ("text null", None),
        "status": ("varchar(50)", "SUCCESS"),
        "worker": ("varchar(100) null", None),
        "content_type": ("varchar(128)", "application/json"),
        "content_encoding": ("varchar(64)", "utf-8"),
        "result": ("text null", None),
        "date_created": ("time", WHEN),
        "date_started": ("time null", None),
        "date_done": ("time", WHEN),
        "traceback": ("text null", None),
        "meta": ("text null", None),
    },
    GROUP: {
        "group_id": ("varchar(255) unique", None),
        "date_created": ("time", WHEN),
        "date_done": ("time", WHEN),
        "content_type": ("varchar(128)", "application/json"),
        "content_encoding": ("varchar(64)", "utf-8"),
        "result": ("text null", None),
    },
    CHORD: {"group_id": ("varchar(255) unique", None), "sub_tasks": ("text", "[]"), "count": ("count", 1)},
    INTERVAL: {"every": ("int", 10), "period": ("varchar(24)", "seconds")},
    CRONTAB: {
        "minute": ("varchar(240)", "*"),
        "hour": ("varchar(96)", "*"),
        "day_of_month": ("varchar(124)", "*"),
        "month_of_year": ("varchar(64)", "*"),
        "day_of_week": ("varchar(64)", "*"),
        "timezone": ("varchar(63)", "UTC"),
    },
    SOLAR: {
        "event": ("varchar(24)", "sunset"),
        "latitude": ("numeric(9,6)", "50.850000"),
        "longitude": ("numeric(9,6)", "4.350000"),
    },
    CLOCKED: {"clocked_time": ("time", WHEN)},
    TASK: {
        "name": ("varchar(200) unique", None),
        "task": ("varchar(200)", "shop.tasks.add"),
        "interval_id": ("int null", None),
        "crontab_id": ("int null", None),
        "solar_id": ("int null", None),
        "clocked_id": ("int null", None),
        "args": ("text", "[]"),
        "kwargs": ("text", "{}"),
        "queue": ("varchar(200) null", None),
        "exchange": ("varchar(200) null", None),
        "routing_key": ("varchar(200) null", None),
        "headers": ("text", "{}"),
        "priority": ("count null", None),
        "expires": ("time null", None),
        "expire_seconds": ("count null", None),
        "one_off": ("bool", False),
        "start_time": ("time null", None),
        "enabled": ("bool", True),
        "last_run_at": ("time null", None),
        "total_run_count": ("count", 0),
        "date_changed": ("time", WHEN),
        "description": ("text", ""),
    },
}


def statements(vendor: str, without: dict[str, tuple[str, ...]] | None = None) -> list[str]:
    """Return the CREATE TABLE of each table; *without* names columns that an old release lacked, or all of a table."""
    types = {**TYPES[vendor], **({"time": "datetime(6)"} if vendor == "mysql" else {})}
    made = []
    for table, columns in TABLES.items():
        missing = (without or {}).get(table, ())
        if missing == ("*",):
            continue
        parts = [f"id {types['key']}"]
        for name, (kind, _) in columns.items():
            first, *rest = kind.split()
            null = "" if "null" in rest else "NOT NULL"
            if name not in missing:
                parts.append(f"{name} {types.get(first, first)} {null} {'UNIQUE' if 'unique' in rest else ''}")
        made.append(f"CREATE TABLE {table} ({', '.join(parts)})")
    return made


@contextmanager
def made(connection: Any, without: dict[str, tuple[str, ...]] | None = None) -> Iterator[None]:
    """Make the tables for the time of the block."""
    lines = statements(connection.vendor, without)
    with connection.cursor() as cursor:
        for line in lines:
            cursor.execute(line)
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            for line in lines:
                cursor.execute(f"DROP TABLE {line.split()[2]}")


def add(connection: Any, table: str, **values: Any) -> int:
    """Insert a row; a list or dict becomes JSON, what isn't given is the default. Return its key."""
    with connection.cursor() as cursor:
        described = connection.introspection.get_table_description(cursor, table)
        present = [column.name for column in described if column.name != "id"]
        row = {name: default for name, (_, default) in TABLES[table].items() if name in present}
        row |= values
        bound = [_bound(connection, value) for value in row.values()]
        quote = connection.ops.quote_name
        cursor.execute(
            f"INSERT INTO {table} ({', '.join(map(quote, row))}) VALUES ({', '.join(['%s'] * len(row))})", bound
        )
        cursor.execute(f"SELECT MAX(id) FROM {table}")
        return cursor.fetchone()[0]


def _bound(connection: Any, value: Any) -> Any:
    if isinstance(value, (list, dict)):
        return json.dumps(value)
    if isinstance(value, datetime):
        # What a project with this setting has in its tables.
        return connection.ops.adapt_datetimefield_value(value if settings.USE_TZ else value.replace(tzinfo=None))
    return value
