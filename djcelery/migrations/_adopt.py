"""Take over the tables that a release of django-celery made, whatever its age.

``before_migrate`` is called by Django before any migration runs and refuses what no release made;
the operations in ``_operations`` call the rest. What a legacy table must look like is read from
0001_initial alone, so it can't drift with the models.
Next: ``docs/explain/tables.rst``.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any, NamedTuple

from django.db import connections, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.recorder import MigrationRecorder
from django.db.migrations.state import ProjectState

from djcelery.exceptions import SchemaUnknown

INITIAL = ("djcelery", "0001_initial")
COMPLETED = ("djcelery", "0002_legacy_columns")
VENDORS = ("mysql", "postgresql", "sqlite")

#: What releases before 3.0 didn't make, by table: the default of rows that are there already. A column
#: without one is nullable. The literals mean the same on every engine.
LATER_COLUMNS: dict[str, dict[str, str | None]] = {
    "celery_taskmeta": {"hidden": "false", "meta": None},
    "celery_tasksetmeta": {"hidden": "false"},
    "djcelery_crontabschedule": {"day_of_month": "'*'", "month_of_year": "'*'"},
    "djcelery_periodictask": {"description": "''"},
    "djcelery_taskstate": {"retries": "0"},
}

#: How many rows of one table a notice names.
NAMED_ROWS = 20

_WHOLE = {
    f"{prefix}{size}{kind}Field"
    for prefix in ("", "Positive")
    for size in ("", "Big", "Small")
    for kind in ("Integer", "Auto")
}
# The types that may hold a field, as Django's introspection calls them. Lengths are not compared: people
# shortened varchar columns for MySQL's key limit.
_KINDS: dict[str, set[str]] = {
    "AutoField": _WHOLE,
    "IntegerField": _WHOLE,
    "PositiveIntegerField": _WHOLE,
    "SmallIntegerField": _WHOLE,
    "ForeignKey": _WHOLE,
    "CharField": {"CharField", "TextField"},
    "TextField": {"CharField", "TextField"},
    "BooleanField": {"BooleanField"},
    "DateTimeField": {"DateTimeField"},
    "FloatField": {"FloatField"},
    "JSONField": {"JSONField"},
}
# MySQL has no boolean; SQLite doesn't care.
_INTEGER_BOOLEANS = ("mysql", "sqlite")


class Column(NamedTuple):
    """A column as the database has it; *kind* is Django's name of its type, None if that is unknown."""

    name: str
    kind: str | None
    type: Any
    null: bool
    fills_itself: bool


class Index(NamedTuple):
    """An index by its first *column* (None: an expression); *unique* if that column alone is unique by it."""

    name: str
    column: str | None
    unique: bool
    valid: bool


# -- what is there -----------------------------------------------------------------------------


def table_names(connection: BaseDatabaseWrapper) -> set[str]:
    """Return the names of all tables; in lower case where the engine ignores case."""
    names = connection.introspection.table_names()
    return {_fold(connection, name) for name in names}


def columns(connection: BaseDatabaseWrapper, table: str) -> dict[str, Column]:
    """Return the columns of *table* by name."""
    with connection.cursor() as cursor:
        described = connection.introspection.get_table_description(cursor, table)
    found = {}
    for info in described:
        try:
            kind = connection.introspection.get_field_type(info.type_code, info)
        except KeyError:
            kind = None
        name = info.name if connection.vendor == "postgresql" else info.name.casefold()
        fills_itself = (
            info.default is not None
            or bool(getattr(info, "is_autofield", False))
            or bool(getattr(info, "extra", ""))
            or bool(getattr(info, "pk", False))
        )
        found[name] = Column(name, kind, getattr(info, "data_type", info.type_code), bool(info.null_ok), fills_itself)
    return found


def indexes(connection: BaseDatabaseWrapper, table: str) -> list[Index]:
    """Return the indexes of *table*, those of unique constraints and the primary key included."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # Django's introspection tells neither that an index is partial, nor that it serves LIKE alone, nor
            # that building it failed.
            cursor.execute(
                "SELECT c.relname, CASE WHEN o.opcdefault THEN a.attname END, "
                "i.indisunique AND i.indnkeyatts = 1 AND i.indpred IS NULL, i.indisvalid "
                "FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_opclass o ON o.oid = i.indclass[0] "
                "LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] AND a.attnum > 0 "
                "WHERE i.indrelid = to_regclass(%s)",
                [connection.ops.quote_name(table)],
            )
            return [Index(*row) for row in cursor.fetchall()]
        if connection.vendor == "sqlite":
            return list(_sqlite_indexes(cursor, connection, table))
        constraints = connection.introspection.get_constraints(cursor, table)
    return [
        Index(name, entry["columns"][0].casefold(), entry["unique"] and len(entry["columns"]) == 1, True)
        for name, entry in constraints.items()
        if entry["columns"] and (entry["index"] or entry["unique"])
    ]


def _sqlite_indexes(cursor: Any, connection: BaseDatabaseWrapper, table: str) -> Iterator[Index]:
    # Django's introspection parses the text of the table, which tools and hands have written.
    cursor.execute(f"PRAGMA index_list({connection.ops.quote_name(table)})")
    for _, name, unique, _, partial in cursor.fetchall():
        cursor.execute(f"PRAGMA index_info({connection.ops.quote_name(name)})")
        parts = [part for _, _, part in cursor.fetchall()]
        first = parts[0].casefold() if parts[0] else None
        yield Index(name, first, bool(unique and not partial and len(parts) == 1), True)
    key = connection.introspection.get_primary_key_columns(cursor, table)
    if key:
        yield Index("PRIMARY", key[0].casefold(), len(key) == 1, True)


def _fold(connection: BaseDatabaseWrapper, name: str) -> str:
    return name.casefold() if connection.features.ignores_table_name_case else name


def _is_recorded(connection: BaseDatabaseWrapper, migration: tuple[str, str]) -> bool:
    return migration in MigrationRecorder(connection).applied_migrations()


# -- what must be there ------------------------------------------------------------------------


def legacy_apps() -> Any:
    """Return the registry of the models of 0001_initial, which are those of django-celery 3.x."""
    module = import_module(f"djcelery.migrations.{INITIAL[1]}")
    return module.Migration(INITIAL[1], INITIAL[0]).mutate_state(ProjectState(), preserve=False).apps


def migrated_models(apps: Any, connection: BaseDatabaseWrapper) -> list[Any]:
    """Return those models of djcelery in the registry *apps* that the routers allow in this database.

    None on an engine that these rules were not tried on; Django's own operations do all there is then.
    """
    if connection.vendor not in VENDORS:
        return []
    models = apps.get_app_config(INITIAL[0]).get_models()
    return [model for model in models if router.allow_migrate_model(connection.alias, model)]


def before_migrate(using: str, plan: Any = (), stdout: Any = None, **kwargs: Any) -> None:
    """Refuse a schema that no release made, and clear references to rows that are gone (SQLite).

    Receiver of ``pre_migrate``: MySQL can't roll a migration back, so the check comes before all of them.

    Raises:
        SchemaUnknown: A table of djcelery is not as any release made it; nothing was changed.
    """
    if not plan:
        return
    connection = connections[using]
    models = migrated_models(legacy_apps(), connection)
    forwards = {(migration.app_label, migration.name) for migration, backwards in plan if not backwards}
    if forwards & {INITIAL, COMPLETED}:
        check_tables(connection, models, complete=_is_recorded(connection, INITIAL))
    if connection.vendor == "sqlite":
        clear_dangling(connection, models, stdout)


def check_tables(connection: BaseDatabaseWrapper, models: list[Any], *, complete: bool) -> None:
    """Check that the tables of *models* are as a release made them.

    Args:
        complete: Whether 0001 has been applied, so that no table may be missing.

    Raises:
        SchemaUnknown: Names the table and the column, and says what to do.

    Database: reads the catalogue, and at most one row.
    """
    existing = table_names(connection)
    for model in models:
        table = model._meta.db_table
        if table in existing:
            _check_table(connection, model, existing)
        elif complete:
            raise SchemaUnknown(
                f"The table {table} doesn't exist, but django_migrations records djcelery.{INITIAL[1]}, which "
                "created it. Nothing was changed. Restore the table from a backup; or, to get an empty one, run "
                "'manage.py migrate --fake djcelery zero' and then 'manage.py migrate djcelery'."
            )


def _check_table(connection: BaseDatabaseWrapper, model: Any, existing: set[str]) -> None:
    """Check one table that exists."""
    table = model._meta.db_table
    found = columns(connection, table)
    unique = {index.column for index in indexes(connection, table) if index.unique and index.valid}
    fields = {field.column: field for field in model._meta.local_concrete_fields}
    for name, field in fields.items():
        if name in found:
            if problem := misfit(connection, field, found[name]):
                raise _unknown(table, name, problem)
            if field.unique and name not in unique:
                raise _unknown(table, name, "has no unique index of its own")
            if field.remote_field and field.related_model._meta.db_table not in existing:
                raise _unknown(
                    table, name, f"refers to the table {field.related_model._meta.db_table}, which doesn't exist"
                )
        elif name not in LATER_COLUMNS.get(table, ()) and not _is_half_made(connection, table, name):
            raise _unknown(table, name, "is missing")
    for name in found.keys() - fields.keys():
        if not found[name].null and not found[name].fills_itself:
            raise _unknown(table, name, "is unknown, NOT NULL and has no default, so no row could be added")


def misfit(connection: BaseDatabaseWrapper, field: Any, column: Column) -> str | None:
    """Return in words why *column* can't hold the values of *field*; None if it can."""
    kind = field.get_internal_type()
    allowed = _KINDS[kind]
    if kind == "BooleanField" and connection.vendor in _INTEGER_BOOLEANS:
        allowed = allowed | _WHOLE
    # SQLite takes any word for a type, and knows what is stored by itself.
    undeclared = column.kind is None and connection.vendor == "sqlite"
    if column.kind not in allowed and not undeclared:
        return f"is of type {column.kind or column.type}, where a {kind} is expected"
    if field.null and not column.null:
        return "is NOT NULL, where NULL is needed"
    return None


def _is_half_made(connection: BaseDatabaseWrapper, table: str, column: str) -> bool:
    """Tell whether 0001 itself was interrupted, on MySQL, before it added its last column."""
    if (table, column) != ("djcelery_taskstate", "worker_id") or _is_recorded(connection, INITIAL):
        return False
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM djcelery_taskstate LIMIT 1")
        return cursor.fetchone() is None


def _unknown(table: str, column: str, problem: str) -> SchemaUnknown:
    return SchemaUnknown(
        f"The table {table} is not as any release of django-celery 2.0 to 3.3 made it: the column {column} "
        f"{problem}. Nothing was changed. Repair the column, or rename the table, and run migrate again."
    )


# -- completing old tables ---------------------------------------------------------------------


def complete_tables(schema_editor: Any, models: list[Any]) -> None:
    """Add the columns that old releases lack, and widen the ones that they or hand-written ALTERs made too narrow.

    Every statement is a plain ALTER TABLE; none copies a table but the widening on MySQL.
    """
    connection = schema_editor.connection
    for model in models:
        table = model._meta.db_table
        found = columns(connection, table)
        for field in model._meta.local_concrete_fields:
            if field.column not in found:
                _add_column(schema_editor, table, field, LATER_COLUMNS[table][field.column])
            elif field.get_internal_type() == "TextField" and _is_narrow(connection, found[field.column]):
                _widen_column(schema_editor, table, field)
        if connection.vendor == "sqlite":
            _make_booleans(schema_editor, model, found)


def _add_column(schema_editor: Any, table: str, field: Any, default: str | None) -> None:
    connection = schema_editor.connection
    quoted, column = schema_editor.quote_name(table), schema_editor.quote_name(field.column)
    # MySQL's texts take no default, and fill old rows with '' by themselves.
    with_default = default is not None and not schema_editor.skip_default(field)
    constraint = "NULL" if field.null else "NOT NULL"
    definition = f"{column} {field.db_type(connection)} {f'DEFAULT {default} ' if with_default else ''}{constraint}"
    schema_editor.execute(f"ALTER TABLE {quoted} ADD COLUMN {definition}")
    # SQLite would have to copy the table to lose the default.
    if with_default and connection.vendor != "sqlite":
        schema_editor.execute(f"ALTER TABLE {quoted} ALTER COLUMN {column} DROP DEFAULT")


def _is_narrow(connection: BaseDatabaseWrapper, column: Column) -> bool:
    """Tell whether a column for long texts is too short: varchar in 2.1.0, MySQL's 64 KB text by hand."""
    if connection.vendor == "mysql":
        return str(column.type).lower() != "longtext"
    return connection.vendor == "postgresql" and column.kind == "CharField"


def _widen_column(schema_editor: Any, table: str, field: Any) -> None:
    quoted, column = schema_editor.quote_name(table), schema_editor.quote_name(field.column)
    type_ = field.db_type(schema_editor.connection)
    if schema_editor.connection.vendor == "mysql":
        change = f"MODIFY {column} {type_} {'NULL' if field.null else 'NOT NULL'}"
    else:
        change = f"ALTER COLUMN {column} TYPE {type_}"
    schema_editor.execute(f"ALTER TABLE {quoted} {change}")


def _make_booleans(schema_editor: Any, model: Any, found: dict[str, Column]) -> None:
    """Turn the texts TRUE and FALSE into booleans.

    SQLite before 3.23 read the ``DEFAULT FALSE`` of django-celery 2.5's ALTER statements as a text.
    """
    for field in model._meta.local_concrete_fields:
        if field.get_internal_type() == "BooleanField" and field.column in found:
            table, column = map(schema_editor.quote_name, (model._meta.db_table, field.column))
            schema_editor.execute(
                f"UPDATE {table} SET {column} = upper({column}) IN ('TRUE', 'T') WHERE typeof({column}) = 'text'"  # noqa: S608
            )


def clear_dangling(connection: BaseDatabaseWrapper, models: list[Any], stdout: Any) -> None:
    """Set references to rows that are gone to NULL, and print which.

    Django 1.4 let SQLite keep them; Django checks them at the end of every migration, of any app, and would fail.

    Database: a SELECT per foreign key, and an UPDATE for those that need it, in one transaction.
    """
    existing = table_names(connection)
    found = {table: columns(connection, table) for model in models if (table := model._meta.db_table) in existing}
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        for model in models:
            table = model._meta.db_table
            for field in model._meta.local_concrete_fields:
                target = field.related_model._meta.db_table if field.remote_field else ""
                # A migration of other apps comes here without the check of the schema.
                if {"id", "name", field.column} <= found.get(table, {}).keys() and "id" in found.get(target, ()):
                    _clear_reference(cursor, table, field.column, target, stdout)


def _clear_reference(cursor: Any, table: str, column: str, target: str, stdout: Any) -> None:
    where = f'WHERE "{column}" IS NOT NULL AND "{column}" NOT IN (SELECT "id" FROM "{target}")'  # noqa: S608
    cursor.execute(f'SELECT "id", "name", "{column}" FROM "{table}" {where} ORDER BY "id"')  # noqa: S608
    rows = cursor.fetchall()
    if not rows:
        return
    cursor.execute(f'UPDATE "{table}" SET "{column}" = NULL {where}')  # noqa: S608
    if stdout is None:
        return
    stdout.write(f"djcelery: {table}.{column} named rows of {target} that are gone. It is NULL now in:")
    for key, name, reference in rows[:NAMED_ROWS]:
        stdout.write(f"  id {key} ({name}), which named {reference}")
    if len(rows) > NAMED_ROWS:
        stdout.write(f"  and {len(rows) - NAMED_ROWS} more")


# -- indexes -----------------------------------------------------------------------------------


def create_missing_indexes(schema_editor: Any, models: list[Any]) -> None:
    """Create an index on each column of *models* that should have one and is not first in any.

    On PostgreSQL concurrently, outside a transaction; a former try that failed half-way is replaced.
    """
    connection = schema_editor.connection
    for model in models:
        table = model._meta.db_table
        present = indexes(connection, table)
        covered = {index.column for index in present if index.valid}
        broken = {index.name for index in present if not index.valid}
        for field in model._meta.local_concrete_fields:
            if field.db_index and not field.unique and field.column not in covered:
                _create_index(schema_editor, table, field.column, broken)


def _create_index(schema_editor: Any, table: str, column: str, broken: set[str]) -> None:
    name = schema_editor._create_index_name(table, [column])
    quote = schema_editor.quote_name
    concurrently = "CONCURRENTLY " if schema_editor.connection.vendor == "postgresql" else ""
    if name in broken:
        schema_editor.execute(f"DROP INDEX {concurrently}{quote(name)}")
    schema_editor.execute(f"CREATE INDEX {concurrently}{quote(name)} ON {quote(table)} ({quote(column)})")
