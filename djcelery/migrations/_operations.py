"""The operations of djcelery's migrations that Django has none for.

Used by the numbered migrations; ``_adopt`` does the work on legacy tables.
Next: ``docs/explain/tables.rst``.
"""

from __future__ import annotations

from typing import Any

from django.db import migrations
from django.db.migrations.operations.base import Operation

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
    """Add a field's column unless it exists."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        model = to_state.apps.get_model(app_label, self.model_name)
        column = model._meta.get_field(self.name).column
        connection, table = schema_editor.connection, model._meta.db_table
        if (
            not schema_editor.collect_sql
            and table in _adopt.table_names(connection)
            and column in _adopt.columns(connection, table)
        ):
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


class AddIndexWithoutLock(migrations.AddIndex):
    """Create an index; concurrently on PostgreSQL, where a former try that failed half-way is replaced."""

    atomic = False

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        connection = schema_editor.connection
        if connection.vendor != "postgresql" or schema_editor.collect_sql:
            super().database_forwards(app_label, schema_editor, from_state, to_state)
            return
        model = to_state.apps.get_model(app_label, self.model_name)
        if not self.allow_migrate_model(connection.alias, model):
            return
        present = {index.name: index.valid for index in _adopt.indexes(connection, model._meta.db_table)}
        if present.get(self.index.name) is False:
            schema_editor.remove_index(model, self.index, concurrently=True)
        if not present.get(self.index.name):
            schema_editor.add_index(model, self.index, concurrently=True)
