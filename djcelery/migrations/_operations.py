"""The operations of djcelery's migrations that Django has none for.

Used by the numbered migrations; ``_adopt`` does the work on legacy tables.
Next: ``docs/explain/tables.rst``.
"""

from __future__ import annotations

from typing import Any

from django.db import migrations
from django.db.migrations.operations.base import Operation

from djcelery.exceptions import SchemaUnknown
from djcelery.migrations import _adopt


class CreateMissingModel(migrations.CreateModel):
    """Create a model's table unless it exists.

    ``--fake-initial`` skips 0001 only if every table exists, but django-celery up to 2.5 may have
    made some of them.
    """

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        table = to_state.apps.get_model(app_label, self.name)._meta.db_table
        if schema_editor.collect_sql or table not in _adopt.table_names(schema_editor.connection):
            super().database_forwards(app_label, schema_editor, from_state, to_state)


class AddMissingField(migrations.AddField):
    """Add a field's column unless a run that was interrupted has added it: MySQL can't roll that back.

    Raises:
        SchemaUnknown: The project gave the table a column of that name, which can't hold the field's values.
    """

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        model = to_state.apps.get_model(app_label, self.model_name)
        field = model._meta.get_field(self.name)
        connection, table = schema_editor.connection, model._meta.db_table
        if not schema_editor.collect_sql and table in _adopt.table_names(connection):
            present = _adopt.columns(connection, table).get(field.column)
            problem = present and _adopt.misfit(connection, field, present)
            if problem:
                raise SchemaUnknown(
                    f"The table {table} has a column {field.column} already, which {problem}. "
                    "Rename the column, and run migrate again."
                )
            if present:
                return
        super().database_forwards(app_label, schema_editor, from_state, to_state)


class _LegacyOperation(Operation):
    """Work on the legacy tables in the database alone: models and their state stay as they are.

    Going back leaves the tables as they are.
    """

    reduces_to_sql = False
    reversible = True

    def state_forwards(self, app_label: str, state: Any) -> None:
        pass

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        pass


class CompleteLegacyTables(_LegacyOperation):
    """Check the legacy tables, and add the columns that old releases didn't make.

    It must come before any operation that makes SQLite remake a table: a remake reads the quoted
    name of a missing column as a string, and writes ``meta`` into every row.
    """

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        models = _adopt.migrated_models(from_state.apps, schema_editor.connection)
        _adopt.check_tables(schema_editor.connection, models, complete=True)
        _adopt.complete_tables(schema_editor, models)

    def describe(self) -> str:
        return "Check the tables of django-celery and add the columns that old releases lack"


class IndexLegacyTables(_LegacyOperation):
    """Create each index of 0001 whose column has none, under any name; concurrently on PostgreSQL."""

    atomic = False

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        models = _adopt.migrated_models(from_state.apps, schema_editor.connection)
        _adopt.create_missing_indexes(schema_editor, models)

    def describe(self) -> str:
        return "Create the indexes that old tables of django-celery lack"


class UseDynamicRows(_LegacyOperation):
    """Give the result table of MySQL 5 or MariaDB 10.1 the row format of today.

    A row of the formats COMPACT and REDUNDANT ends at 8 KB, of which each text takes up to 788 bytes,
    and a part of an index at 767 bytes: the new columns don't fit. This rewrites the table; nothing else does.
    """

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        connection = schema_editor.connection
        model = from_state.apps.get_model(app_label, "taskmeta")
        if connection.vendor != "mysql" or not self.allow_migrate_model(connection.alias, model):
            return
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT row_format FROM information_schema.tables "
                "WHERE table_schema = DATABASE() AND table_name = %s AND engine = 'InnoDB'",
                [model._meta.db_table],
            )
            formats = {str(row[0]).upper() for row in cursor.fetchall()}
        if formats & {"COMPACT", "REDUNDANT"}:
            schema_editor.execute(f"ALTER TABLE {schema_editor.quote_name(model._meta.db_table)} ROW_FORMAT=DYNAMIC")

    def describe(self) -> str:
        return "Give a result table that an old MySQL made the row format that the new columns need"


class AddIndexWithoutLock(migrations.AddIndex):
    """Create an index unless it exists; on PostgreSQL concurrently, and a try that failed half-way is replaced."""

    atomic = False

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        model = to_state.apps.get_model(app_label, self.model_name)
        connection = schema_editor.connection
        if not self.allow_migrate_model(connection.alias, model):
            return
        present = None if schema_editor.collect_sql else self._is_valid(schema_editor, model)
        if present is False:
            schema_editor.remove_index(model, self.index, **_concurrently(connection))
        if not present:
            schema_editor.add_index(model, self.index, **_concurrently(connection))

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        model = from_state.apps.get_model(app_label, self.model_name)
        connection = schema_editor.connection
        if not self.allow_migrate_model(connection.alias, model):
            return
        if schema_editor.collect_sql or self._is_valid(schema_editor, model) is not None:
            schema_editor.remove_index(model, self.index, **_concurrently(connection))

    def _is_valid(self, schema_editor: Any, model: Any) -> bool | None:
        """Tell whether the index serves; None if there is none."""
        found = _adopt.indexes(schema_editor.connection, model._meta.db_table)
        return {index.name: index.valid for index in found}.get(self.index.name)


def _concurrently(connection: Any) -> dict[str, bool]:
    # Another engine's schema editor doesn't know the word.
    return {"concurrently": True} if connection.vendor == "postgresql" else {}
