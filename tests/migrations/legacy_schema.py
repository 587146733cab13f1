"""The tables that each release of django-celery made, written down from SCHEMA.md, and rows for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

TYPES = {
    "sqlite": {"key": "integer NOT NULL PRIMARY KEY", "int": "integer", "small": "smallint", "bool": "bool",
               "time": "datetime", "text": "text", "float": "real", "count": "integer unsigned"},
    "postgresql": {"key": "serial NOT NULL PRIMARY KEY", "int": "integer", "small": "smallint", "bool": "boolean",
                   "time": "timestamp with time zone", "text": "text", "float": "double precision",
                   "count": "integer"},
    "mysql": {"key": "integer AUTO_INCREMENT NOT NULL PRIMARY KEY", "int": "integer", "small": "smallint",
              "bool": "bool", "time": "datetime", "text": "longtext", "float": "double precision",
              "count": "integer UNSIGNED"},
}  # fmt: skip

# column: (type, extra). "varchar(n)" stands for itself.
_TASKMETA = {
    "id": "key",
    "task_id": "varchar(255) unique",
    "status": "varchar(50)",
    "result": "text null",
    "date_done": "time",
    "traceback": "text null",
}
_TASKSETMETA = {"id": "key", "taskset_id": "varchar(255) unique", "result": "text", "date_done": "time"}
_CRONTAB = {"id": "key", "minute": "varchar(64)", "hour": "varchar(64)", "day_of_week": "varchar(64)"}
_INTERVAL = {"id": "key", "every": "int", "period": "varchar(24)"}
_CHANGES = {"ident": "small primary", "last_update": "time"}
_REFERENCES = {"interval_id": "ref djcelery_intervalschedule", "crontab_id": "ref djcelery_crontabschedule"}
_PERIODIC_HEAD = {"id": "key", "name": "varchar(200) unique", "task": "varchar(200)"}
_PERIODIC_TAIL = {
    "args": "text",
    "kwargs": "text",
    "queue": "varchar(200) null",
    "exchange": "varchar(200) null",
    "routing_key": "varchar(200) null",
    "expires": "time null",
    "enabled": "bool",
    "last_run_at": "time null",
    "total_run_count": "count",
    "date_changed": "time",
}
_WORKER = {"id": "key", "hostname": "varchar(255) unique", "last_heartbeat": "time null"}
_STATE = {
    "id": "key",
    "state": "varchar(64)",
    "task_id": "varchar(36) unique",
    "name": "varchar(200) null",
    "tstamp": "time",
    "args": "text null",
    "kwargs": "text null",
    "eta": "time null",
    "expires": "time null",
    "result": "text null",
    "traceback": "text null",
    "runtime": "float null",
    "retries": "int",
    "worker_id": "ref djcelery_workerstate",
    "hidden": "bool",
}


@dataclass
class Release:
    """What one release made, and how: which columns and indexes, in which order, under which names."""

    name: str
    hidden: bool = True
    description: bool = True
    meta: bool = True
    days: bool = True
    retries: bool = True
    state_indexes: bool = True
    tables: str = "all"
    indexes: str = "1.4"
    recorded: bool = False
    south: tuple[str, ...] = ()
    args: str = "text null"
    #: Columns that hand-written ALTER statements of the release notes made, which left defaults and no index.
    by_hand: dict[str, dict[str, str]] = field(default_factory=dict)

    def columns(self) -> dict[str, dict[str, str]]:
        """Return the columns of each table, in the order of the release."""
        hidden = {"hidden": "bool"} if self.hidden else {}
        late = self.indexes == "1.8"
        state = {**_STATE, "args": self.args, "kwargs": self.args}
        if not self.retries:
            del state["retries"]
        if late:
            state["worker_id"] = state.pop("worker_id")
        description = {"description": "text"} if self.description else {}
        periodic = (
            {**_PERIODIC_HEAD, **_PERIODIC_TAIL, **description, **dict(reversed(_REFERENCES.items()))}
            if late
            else {**_PERIODIC_HEAD, **_REFERENCES, **_PERIODIC_TAIL, **description}
        )
        days = {"day_of_month": "varchar(64)", "month_of_year": "varchar(64)"} if self.days else {}
        made = {
            "celery_taskmeta": {**_TASKMETA, **hidden, **({"meta": "text null"} if self.meta else {})},
            "celery_tasksetmeta": {**_TASKSETMETA, **hidden},
            "djcelery_intervalschedule": _INTERVAL,
            "djcelery_crontabschedule": {**_CRONTAB, **days},
            "djcelery_periodictasks": _CHANGES,
            "djcelery_periodictask": periodic,
            "djcelery_workerstate": _WORKER,
            "djcelery_taskstate": state,
        }
        if self.tables != "all":
            made = {name: body for name, body in made.items() if (name[:7] == "celery_") == (self.tables == "results")}
        return made

    def indexed(self) -> dict[str, list[str]]:
        """Return the columns with an index, by table."""
        hidden = ["hidden"] if self.hidden else []
        return {
            "celery_taskmeta": hidden,
            "celery_tasksetmeta": hidden,
            "djcelery_periodictask": ["interval_id", "crontab_id"],
            "djcelery_workerstate": ["last_heartbeat"],
            "djcelery_taskstate": ["name", "tstamp", "worker_id", *(["state", "hidden"] if self.state_indexes else [])],
        }

    def statements(self, vendor: str) -> list[str]:
        """Return the statements that make the tables, as this release's tools would on *vendor*."""
        made = self.columns()
        result = [_create(vendor, table, body) for table, body in made.items()]
        for table, columns in self.indexed().items():
            if table in made:
                result += [
                    f"CREATE INDEX {_index_name(self.indexes, vendor, table, column)} ON {table} ({column})"
                    for column in columns
                    # A foreign key of MySQL is its own index.
                    if not (vendor == "mysql" and column.endswith("_id"))
                ]
        result += [
            f"ALTER TABLE {table} ADD COLUMN {column}"
            for table, column in self.by_hand.get(vendor, {}).items()
            for column in ([column] if isinstance(column, str) else column)
        ]
        if self.south:
            key = TYPES[vendor]["key"]
            result.append(
                f"CREATE TABLE south_migrationhistory (id {key}, app_name varchar(255) NOT NULL, "
                f"migration varchar(255) NOT NULL, applied {TYPES[vendor]['time']} NOT NULL)"
            )
            result += [
                "INSERT INTO south_migrationhistory (app_name, migration, applied) "
                f"VALUES ('djcelery', '{name}', '2012-11-05 10:00:00')"
                for name in self.south
            ]
        return result


def _create(vendor: str, table: str, columns: dict[str, str]) -> str:
    types = TYPES[vendor]
    parts, constraints = [], []
    for name, kind in columns.items():
        first, *rest = kind.split()
        if first == "ref":
            reference = f"REFERENCES {rest[0]} (id)"
            if vendor == "mysql":
                constraints.append(f"CONSTRAINT {name}_refs_{table[9:]} FOREIGN KEY ({name}) {reference}")
                reference = ""
            elif vendor == "postgresql":
                reference += " DEFERRABLE INITIALLY DEFERRED"
            parts.append(f"{name} integer {reference}")
        elif first == "key":
            parts.append(f"{name} {types['key']}")
        else:
            check = f" CHECK ({name} >= 0)" if first == "count" and vendor == "postgresql" else ""
            nullness = "" if "null" in rest else "NOT NULL"
            extra = "PRIMARY KEY" if "primary" in rest else "UNIQUE" if "unique" in rest else ""
            parts.append(f"{name} {types.get(first, first)} {nullness} {extra}{check}")
    return f"CREATE TABLE {table} ({', '.join(parts + constraints)})"


# SCHEMA.md, part 4.
_NAMES_1_4 = {"hidden": "c91f1bf", "crontab_id": "7aa5fda", "interval_id": "17d2d99d", "last_heartbeat": "eb8ac7e4",
              "state": "355bfc27", "name": "52094d6e", "tstamp": "f0ba6500", "worker_id": "20fc5b84"}  # fmt: skip
_NAMES_1_8 = {"hidden": "662f707d", "crontab_id": "f3f0d72a", "interval_id": "1dcd7040", "last_heartbeat": "f129901a",
              "state": "9ed39e2e", "name": "b068931c", "tstamp": "863bb2ee", "worker_id": "ce77e6ef"}  # fmt: skip


def _index_name(django: str, vendor: str, table: str, column: str) -> str:
    if django == "1.8":
        return f"{table}_{_NAMES_1_8[column]}"
    return f"{table}_{column}" if vendor == "postgresql" else f"{table}_{_NAMES_1_4[column]}"


_OLD = {"hidden": False, "description": False, "meta": False, "days": False}
_SOUTH = ("0001_initial", "0002_v25_changes", "0003_v26_changes", "0004_v30_changes")

RELEASES = [
    Release("2.0", **_OLD, tables="results"),
    Release("2.1.0", **_OLD, retries=False, state_indexes=False, args="varchar(200) null"),
    Release("2.1", **_OLD, retries=False, state_indexes=False),
    Release("2.2", **_OLD),
    Release("2.3.0-without-results", **_OLD, tables="no results"),
    Release("2.3", **_OLD),
    Release("2.4-south", **_OLD, south=_SOUTH[:1]),
    Release("2.5-without-results", meta=False, days=False, tables="no results"),
    Release("2.5-south", meta=False, days=False, south=_SOUTH[:2]),
    Release(
        "2.5-by-hand",
        **_OLD,
        by_hand={
            "postgresql": {
                "celery_taskmeta": "hidden BOOLEAN NOT NULL DEFAULT FALSE",
                "celery_tasksetmeta": "hidden BOOLEAN NOT NULL DEFAULT FALSE",
                "djcelery_periodictask": "description TEXT NOT NULL DEFAULT ''",
            },
            "mysql": {
                "celery_taskmeta": "hidden TINYINT NOT NULL DEFAULT 0",
                "celery_tasksetmeta": "hidden TINYINT NOT NULL DEFAULT 0",
                "djcelery_periodictask": "description TEXT NOT NULL DEFAULT ''",
            },
            "sqlite": {
                "celery_taskmeta": "hidden BOOL NOT NULL DEFAULT FALSE",
                "celery_tasksetmeta": "hidden BOOL NOT NULL DEFAULT FALSE",
                "djcelery_periodictask": 'description VARCHAR(200) NOT NULL DEFAULT ""',
            },
        },
    ),
    Release("3.0"),
    Release(
        "3.0-by-hand",
        meta=False,
        days=False,
        by_hand={
            vendor: {
                "celery_taskmeta": f"meta TEXT NULL DEFAULT {quote}{quote}",
                "djcelery_crontabschedule": [
                    f"day_of_month VARCHAR(64) NOT NULL DEFAULT {quote}*{quote}",
                    f"month_of_year VARCHAR(64) NOT NULL DEFAULT {quote}*{quote}",
                ],
            }
            for vendor, quote in {"postgresql": "'", "mysql": "'", "sqlite": '"'}.items()
        },
    ),
    Release("3.1-south", south=_SOUTH),
    Release("3.1.17", indexes="1.8", recorded=True),
]
BY_NAME = {release.name: release for release in RELEASES}

_T = datetime(2012, 4, 19, 13, 46, 5, tzinfo=timezone.utc)
_META = "eJxrYKotZIjgYGBgSM7IzEkpSs0rZIwtZIpgAokYFjL7tRWyADFrYrEeAPPYC1M="

#: A row of every odd kind that exists in the wild; columns that a release lacks are left out of its rows.
ROWS: dict[str, list[dict[str, Any]]] = {
    "celery_taskmeta": [
        {"id": 1, "task_id": "plain", "status": "SUCCESS", "result": "gAJLKi4=", "date_done": _T, "traceback": None,
         "hidden": False, "meta": _META},
        {"id": 2, "task_id": "meta-empty", "status": "SUCCESS", "result": "gAKILg==", "date_done": _T,
         "traceback": "", "hidden": True, "meta": ""},
        {"id": 3, "task_id": "meta-null", "status": "FAILURE", "date_done": _T, "traceback": "Traceback …",
         "result": "gAJjZXhjZXB0aW9ucwpLZXlFcnJvcgpxAVUEYm9vbXEChXEDUnEELg==", "hidden": False, "meta": None},
        {"id": 7, "task_id": "null", "status": "PENDING", "result": None, "date_done": _T, "traceback": None,
         "hidden": False, "meta": None},
    ],
    "celery_tasksetmeta": [
        {"id": 1, "taskset_id": "group", "result": "gAJLKi4=", "date_done": _T, "hidden": False},
    ],
    "djcelery_intervalschedule": [
        {"id": 1, "every": 10, "period": "seconds"},
        {"id": 2, "every": 0, "period": "microseconds"},
        {"id": 3, "every": 10, "period": "seconds"},
    ],
    "djcelery_crontabschedule": [
        {"id": 1, "minute": "30", "hour": "7", "day_of_week": "mon-fri", "day_of_month": "1-7",
         "month_of_year": "*/3"},
        {"id": 4, "minute": "no crontab", "hour": "*", "day_of_week": "*", "day_of_month": "*",
         "month_of_year": "*"},
    ],
    "djcelery_periodictasks": [{"ident": 1, "last_update": _T}],
    "djcelery_periodictask": [
        {"id": number, "name": name, "task": "shop.tasks.add", "interval_id": interval, "crontab_id": crontab,
         "args": args, "kwargs": kwargs, "queue": None, "exchange": "", "routing_key": "täglich", "expires": None,
         "enabled": number % 2 == 0, "last_run_at": _T if number % 2 else None, "total_run_count": number * 1000,
         "date_changed": _T, "description": "Beschreibung"}
        for number, name, interval, crontab, args, kwargs in (
            (1, "two schedules", 1, 1, "[1, 2]", '{"k": 1}'),
            (2, "no schedule", None, None, "[]", "{}"),
            (3, "every 0", 2, None, "{}", "[]"),
            (4, "broken JSON", 3, None, "[1,", "kwargs"),
            (9, "empty texts", None, 4, "", ""),
        )
    ],
    "djcelery_workerstate": [
        {"id": 1, "hostname": "celery@vm", "last_heartbeat": _T},
        {"id": 2, "hostname": "silent", "last_heartbeat": None},
    ],
    "djcelery_taskstate": [
        {"id": number, "state": state, "task_id": f"task-{number}", "name": "shop.tasks.add" if number > 1 else None,
         "tstamp": _T, "args": "(1,)", "kwargs": "{}", "eta": None, "expires": _T, "result": "'ok'",
         "traceback": None, "runtime": 0.25, "retries": number, "worker_id": 1 if number == 2 else None,
         "hidden": number == 3}
        for number, state in ((1, "RECEIVED"), (2, "SUCCESS"), (3, "PROGRESS"))
    ],
}  # fmt: skip


def fill(database: Any, release: Release) -> None:
    """Make the tables of *release* in *database*, and put the rows in."""
    database.execute(*release.statements(database.vendor))
    by_hand = {
        (table, (column if isinstance(column, str) else part).split()[0])
        for table, column in release.by_hand.get(database.vendor, {}).items()
        for part in ([column] if isinstance(column, str) else column)
    }
    for table, columns in release.columns().items():
        names = [*columns, *(name for where, name in by_hand if where == table)]
        with database.connection.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(['%s'] * len(names))})",
                [[_adapt(database, row[name]) for name in names] for row in ROWS[table]],
            )
        if database.vendor == "postgresql" and "id" in columns:
            database.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), 100)")


def _adapt(database: Any, value: Any) -> Any:
    if isinstance(value, datetime) and database.vendor != "postgresql":
        return value.replace(tzinfo=None).isoformat(" ")
    return value
