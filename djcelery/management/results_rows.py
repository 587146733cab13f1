"""Rewrite the pickles of django-celery as JSON, wherever nothing is lost by it.

Called by ``results_convert``, the sub-command. Reads the rows of ``TaskMeta`` and ``TaskSetMeta`` that
name no content type; writes their values and the content type, and no other column.
Next: ``docs/explain/trust.rst``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from django.db import NotSupportedError, connections, models, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import ExpressionWrapper, F, TextField
from django.db.models.functions import Coalesce, Length

from djcelery import db
from djcelery.management.results_json import Lossy, Values
from djcelery.models import TaskMeta, TaskSetMeta
from djcelery.texts import fitting

__all__ = ("Conversion", "Skipped", "Summary")

CONTENT_TYPE, CONTENT_ENCODING = "application/json", "utf-8"
#: How many encoded bytes of values are in memory at once, but for a single row that is larger.
BATCH_BYTES = 16 * 1024 * 1024
#: How often a row is looked at again that a worker wrote in the meantime.
MAX_LOOKS = 3
#: How many reasons a summary tells apart, and how many rows it names for each.
MAX_REASONS, MAX_NAMED = 50, 5
OTHER_REASONS = "other reasons"


@dataclass(frozen=True)
class Skipped:
    """A row that stays as it is. ``key`` is its task or group id."""

    table: str
    pk: Any
    key: str
    reason: str


@dataclass
class Summary:
    """What a conversion has done so far. Counts are rows."""

    total: int = 0
    seen: int = 0
    converted: int = 0
    #: Of the converted ones: those whose tuples are lists now.
    with_tuples: int = 0
    skipped: int = 0
    #: Written by others again and again while they were looked at.
    contested: int = 0
    #: How many rows were skipped, and the ids of the first of them, by reason.
    reasons: dict[str, tuple[int, list[str]]] = field(default_factory=dict)

    def add(self, row: Skipped) -> None:
        """Count *row* among those that stay."""
        self.skipped += 1
        reason = row.reason
        if reason not in self.reasons and len(self.reasons) >= MAX_REASONS:
            reason = OTHER_REASONS
        count, named = self.reasons.get(reason, (0, []))
        self.reasons[reason] = (count + 1, named if len(named) == MAX_NAMED else [*named, f"{row.key} (row {row.pk})"])


@dataclass(frozen=True)
class _Converted:
    pk: Any
    old: tuple[str | None, ...]
    new: tuple[str | None, ...]
    has_tuples: bool


class Conversion:
    """One run over both tables, in batches by primary key; see ``run``."""

    def __init__(
        self,
        database: str | None = None,
        *,
        batch_rows: int = 500,
        is_dry_run: bool = False,
        on_progress: Callable[[Summary], Any] | None = None,
        on_skipped: Callable[[Skipped], Any] | None = None,
        should_stop: Callable[[], Any] = lambda: False,
    ) -> None:
        """Prepare a run.

        Args:
            database: Alias; None is where the router sends writes of each model.
            batch_rows: Rows per transaction, at most; fewer if their values are large.
            is_dry_run: Whether to look only.
            on_progress: Called after each batch; costs a count of the rows at the start.
            on_skipped: Called for each row that stays, once its batch is written.
            should_stop: Asked after each batch.
        """
        self.database = database
        self.batch_rows = batch_rows
        self.is_dry_run = is_dry_run
        self.on_progress = on_progress
        self.on_skipped = on_skipped
        self.should_stop = should_stop
        self.values = Values()
        self.summary = Summary()

    def run(self) -> Summary:
        """Convert what can be converted, until all is done or ``should_stop`` says so.

        What is converted has a content type, so a later run goes on with the rest.

        Raises:
            django.db.Error: The database failed for longer than ``db.retry_transient`` waits.

        Database: per batch two SELECTs and a transaction of UPDATEs by primary key.
        """
        if self.on_progress:
            self.summary.total = sum(self._rows(model).count() for model in _SHAPES)
        for model in _SHAPES:
            for keys in self._batches(model):
                self._convert(model, keys)
                self.summary.seen += len(keys)
                if self.on_progress:
                    self.on_progress(self.summary)
                if self.should_stop():
                    return self.summary
        return self.summary

    def _rows(self, model: type[models.Model]) -> models.QuerySet:
        alias = self.database or router.db_for_write(model)
        # A row without values, such as that of a published task, has nothing to convert.
        has_value = models.Q(*((f"{name}__isnull", False) for name in _SHAPES[model][1]), _connector=models.Q.OR)
        return model._base_manager.using(alias).filter(has_value, content_type__isnull=True).order_by("pk")

    def _batches(self, model: type[models.Model]) -> Iterator[list[Any]]:
        """Yield the primary keys of the rows, so many at a time as memory allows."""
        size = sum((Coalesce(Length(name), 0) for name in _SHAPES[model][1]), start=models.Value(0))
        rows, last = self._rows(model).values_list("pk", size), None
        while True:
            found = list((rows if last is None else rows.filter(pk__gt=last))[: self.batch_rows])
            if not found:
                return
            keys = fitting(found, BATCH_BYTES)
            yield keys
            last = keys[-1]

    def _convert(self, model: type[models.Model], keys: list[Any]) -> None:
        for _ in range(MAX_LOOKS):
            converted, skipped = self._read(model, keys)
            written = self._write(model, converted)
            self.summary.converted += written
            self.summary.with_tuples += min(written, sum(row.has_tuples for row in converted))
            for row in skipped:
                self.summary.add(row)
                if self.on_skipped:
                    self.on_skipped(row)
            if written == len(converted):
                break
            # Others wrote in between. What has a content type now, theirs or ours, is not read again.
            keys = [row.pk for row in converted]
        self.summary.contested += len(converted) - written

    def _read(self, model: type[models.Model], keys: list[Any]) -> tuple[list[_Converted], list[Skipped]]:
        converted, skipped = [], []
        key, columns = _SHAPES[model]
        # As text, without the field's own decoding.
        texts = {f"{name}_text": ExpressionWrapper(F(name), output_field=TextField()) for name in columns}
        state = ["status"] if model is TaskMeta else []
        for row in self._rows(model).filter(pk__in=keys).values("pk", key, *state, **texts):
            old = tuple(row[name] for name in texts)
            self.values.has_tuples = False
            try:
                new = self._encoded(old, row.get("status"))
            except Lossy as exc:
                skipped.append(Skipped(model._meta.db_table, row["pk"], row[key], str(exc)))
            except Exception as exc:  # noqa: BLE001 - classes of the project may fail in their own ways
                reason = f"it can't be looked at ({type(exc).__name__}: {exc})"
                skipped.append(Skipped(model._meta.db_table, row["pk"], row[key], reason))
            else:
                converted.append(_Converted(row["pk"], old, new, self.values.has_tuples))
        return converted, skipped

    def _encoded(self, old: tuple[str | None, ...], state: str | None) -> tuple[str | None, ...]:
        if state is None:
            return (self.values.group_result(old[0]),)
        result = self.values.task_result(old[0], state)
        try:
            return result, self.values.task_meta(old[1])
        except Lossy as exc:
            raise Lossy(f"in the column meta: {exc}") from exc

    def _write(self, model: type[models.Model], rows: list[_Converted]) -> int:
        """Write *rows* that nobody has changed in the meantime; return how many those are."""
        if self.is_dry_run or not rows:
            return len(rows)
        alias = self._rows(model).db

        def update(connection: BaseDatabaseWrapper) -> int:
            sql = _update_sql(connection, model)
            with transaction.atomic(using=alias), connection.cursor() as cursor:
                cursor.executemany(sql, [[*row.new, row.pk, *row.old] for row in rows])
                return cursor.rowcount

        what = f"convert rows {rows[0].pk} to {rows[-1].pk} of {model._meta.db_table}"
        return db.retry_transient(update, lambda: connections[alias], what)


#: The column of the id, and those of values.
_SHAPES: dict[type[models.Model], tuple[str, tuple[str, ...]]] = {
    TaskMeta: ("task_id", ("result", "meta")),
    TaskSetMeta: ("taskset_id", ("result",)),
}

# MySQL's collations take texts for the same that differ in case, which matters in base64.
_SAME_TEXT = {
    "postgresql": "{} IS NOT DISTINCT FROM %s",
    "sqlite": "{} IS %s",
    "mysql": "CAST(CONVERT({} USING utf8mb4) AS BINARY) <=> %s",
}


def _update_sql(connection: BaseDatabaseWrapper, model: type[models.Model]) -> str:
    """Return the UPDATE of one row whose parameters are the new texts, the primary key and the old texts."""
    quote = connection.ops.quote_name
    same = _SAME_TEXT.get(connection.vendor)
    if same is None:
        raise NotSupportedError(
            f"Results are converted on PostgreSQL, MySQL, MariaDB and SQLite, not on {connection.display_name}."
        )
    columns = [quote(name) for name in _SHAPES[model][1]]
    sets = [
        *(f"{column} = %s" for column in columns),
        f"content_type = '{CONTENT_TYPE}'",
        f"content_encoding = '{CONTENT_ENCODING}'",
    ]
    where = [
        f"{quote(model._meta.pk.column)} = %s",
        "content_type IS NULL",
        *(same.format(column) for column in columns),
    ]
    return f"UPDATE {quote(model._meta.db_table)} SET {', '.join(sets)} WHERE {' AND '.join(where)}"  # noqa: S608 - names of the model
