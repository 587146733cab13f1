"""The kinds of index that Django has none of.

Used by ``Meta.indexes`` of the models, and by the migrations that build them.
Next: ``docs/explain/tables.rst``.
"""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models import Model, Q


class SparseIndex(models.Index):
    """An index of the rows in which the field *present* isn't NULL; of all rows where the database has no such indexes.

    Rows without the value cost nothing. A ``condition`` would do the same, but Django warns of one on MySQL whenever
    it checks the project.
    """

    def __init__(self, *, present: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.present = present

    def create_sql(self, model: type[Model], schema_editor: Any, using: str = "", **kwargs: Any) -> Any:
        """Return the statement that builds the index."""
        if not schema_editor.connection.features.supports_partial_indexes:
            return super().create_sql(model, schema_editor, using=using, **kwargs)
        condition = Q(**{f"{self.present}__isnull": False})
        partial = models.Index(fields=self.fields, name=self.name, opclasses=self.opclasses, condition=condition)
        return partial.create_sql(model, schema_editor, using=using, **kwargs)

    def deconstruct(self) -> Any:
        """Return what a migration writes."""
        path, expressions, kwargs = super().deconstruct()
        return path, expressions, {**kwargs, "present": self.present}


class FilterIndex(models.Index):
    """An index for filtered lists: the columns that a filter fixes, then the time that the list is ordered by.

    On PostgreSQL it serves lists that ask for NULLS LAST, and no others, though the time is never NULL. For those its
    planner can't walk through the index on the time alone, which it likes for being in the order of the table, and
    which is the whole table if what is filtered for is old, or is not there.
    """

    def create_sql(self, model: type[Model], schema_editor: Any, using: str = "", **kwargs: Any) -> Any:
        """Return the statement that builds the index."""
        if schema_editor.connection.vendor != "postgresql":
            return super().create_sql(model, schema_editor, using=using, **kwargs)
        built = models.Index(fields=self.fields, name=self.name, opclasses=self.opclasses)
        # Read backwards, this is what descending order with NULLS LAST needs.
        built.fields_orders = [*built.fields_orders[:-1], (self.fields[-1], "NULLS FIRST")]
        return built.create_sql(model, schema_editor, using=using, **kwargs)
