"""What the models of the schedule share: each change leaves a note for beat, in its own transaction.

Base of the models in ``schedule`` and ``periodic``; writes ``ScheduleChange``. Changes by querysets are
``managers.NotedQuerySet``'s.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, ClassVar

from django.db import models, router, transaction

from djcelery import managers, utils
from djcelery.models.beat import ScheduleChange

#: Stands for a column that was not read from the database.
_UNREAD = object()


class NotedModel(models.Model):
    """A row of the schedule, which knows what of it the database held when it was read.

    The class attributes name columns. Those of ``definition`` say when to fire; if they change, the column
    ``stamp_field`` becomes the present, and instants up to it don't count. Those of ``bookkeeping`` are
    beat's: to write nothing else leaves no note, and a row is saved without them unless they were set. So it is with
    what else beat writes, by ``_written_by_beat()``.
    """

    change_kind: ClassVar[str]
    stamp_field: ClassVar[str] = "changed_at"
    definition: ClassVar[frozenset[str]]
    bookkeeping: ClassVar[frozenset[str]] = frozenset()
    is_noted_when_new: ClassVar[bool] = False

    #: True on an instance whose ``save()`` a running beat need not notice.
    no_changes = False
    _is_whole = False

    objects = managers.NotedManager()

    class Meta:
        abstract = True

    @classmethod
    def from_db(cls, db: str | None, field_names: Any, values: Any, **options: Any) -> Any:
        """Make an instance of a row, as Django does, and remember what was read."""
        instance = super().from_db(db, field_names, values, **options)
        values_of = instance.__dict__
        # A few µs a row: beat reads 100,000.
        values_of["_read"] = {name: values_of[name] for name in cls._watched() if name in values_of}
        return instance

    @classmethod
    @functools.cache
    def _watched(cls) -> tuple[str, ...]:
        """Return the columns whose values are remembered."""
        return (*cls.definition, *cls.bookkeeping, cls.stamp_field)

    def refresh_from_db(self, *args: Any, **kwargs: Any) -> None:
        """Read the row again, as Django does, and remember what was read."""
        fields = kwargs.get("fields") or (args[1] if len(args) > 1 else None)
        super().refresh_from_db(*args, **kwargs)
        self.remember(None if fields is None else [self._meta.get_field(name).attname for name in fields])

    def remember(self, columns: Iterable[str] | None = None) -> None:
        """Take the present values of *columns* (None: of all) for those of the database."""
        wanted = set(self._watched()) if columns is None else set(self._watched()) & set(columns)
        kept = {name: self.__dict__[name] for name in wanted if name in self.__dict__}
        self._read = {**self.__dict__.get("_read", {}), **kept}

    def _was(self, column: str) -> Any:
        return self.__dict__.get("_read", {}).get(column, _UNREAD)

    def _is_set(self, column: str) -> bool:
        """Tell whether *column* has a value here that differs from what the database held."""
        return column in self.__dict__ and self.__dict__[column] != self._was(column)

    def stamp(self, is_new: bool) -> bool:
        """Move the instant from which the row counts, if its definition has changed; tell whether.

        A stamp that the caller has set stays.
        """
        mine = self.__dict__.get(self.stamp_field)
        is_given = mine is not None and self._is_set(self.stamp_field)
        if is_given or not (self.is_noted_when_new if is_new else self._is_redefined()):
            return is_given
        setattr(self, self.stamp_field, utils.now())
        return True

    def _is_redefined(self) -> bool:
        return any(self._is_set(column) for column in self.definition)

    def save_base(
        self,
        raw: bool = False,
        force_insert: Any = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Any = None,
    ) -> None:
        """Write the row, and the note of the change in the same transaction. ``save()`` calls it.

        Database: the statements of Django's own, one INSERT, and BEGIN and COMMIT.
        """
        alias = using or router.db_for_write(type(self), instance=self)
        is_new = bool(force_insert) or self._state.adding or self.pk is None or self._state.db != alias
        columns = None if update_fields is None else {self._meta.get_field(name).attname for name in update_fields}
        if columns is None or columns & self.definition:
            stamped = self.stamp(is_new)
            update_fields = frozenset({*update_fields, self.stamp_field}) if columns and stamped else update_fields
        is_noted = not self.no_changes and not (columns and columns <= self.bookkeeping)
        # A row of a schedule that nothing uses yet changes nothing, unless it may overwrite one.
        is_noted = is_noted and (not is_new or self.is_noted_when_new or self.pk is not None)
        self._is_whole = columns is None and not is_new
        with transaction.atomic(using=alias, savepoint=False):
            super().save_base(
                raw=raw, force_insert=force_insert, force_update=force_update, using=alias, update_fields=update_fields
            )
            if is_noted:
                self.note_changes([self.pk], using=alias)
        self.remember(columns and columns | {self.stamp_field})

    def _do_update(self, base_qs: Any, using: Any, pk_val: Any, values: Any, *args: Any, **kwargs: Any) -> Any:
        # Django's own, which UPDATEs a row: beat may have counted a run since this one was read.
        if self._is_whole:
            kept = {column for column in self._written_by_beat() if self._is_as_read(column)}
            values = [value for value in values if value[0].attname not in kept]
        return super()._do_update(base_qs, using, pk_val, values, *args, **kwargs)  # type: ignore[misc]

    def _written_by_beat(self) -> frozenset[str]:
        """Return the columns that a whole save leaves as they are in the database, unless they were set."""
        return self.bookkeeping

    def _is_as_read(self, column: str) -> bool:
        return self._was(column) is not _UNREAD and not self._is_set(column)

    def delete(self, using: str | None = None, keep_parents: bool = False) -> tuple[int, dict[str, int]]:
        """Delete the row, and leave a note in the same transaction.

        Raises:
            ProtectedError: A periodic task uses the row.
        """
        alias, key = using or router.db_for_write(type(self), instance=self), self.pk
        with transaction.atomic(using=alias):
            deleted = super().delete(using=alias, keep_parents=keep_parents)
            if not self.no_changes:
                self.note_changes([key], using=alias)
        return deleted

    @classmethod
    def note_changes(cls, keys: Iterable[int | None], using: str) -> None:
        """Note that the rows *keys* have changed; a None among them stands for "any". Call it in the transaction."""
        ScheduleChange.objects.note(cls.change_kind, keys, using=using)


def noted_raw_save(instance: NotedModel, using: str, raw: bool = False, **kwargs: Any) -> None:
    """Note a row that ``loaddata`` has written past ``save()``. Receiver of ``post_save``."""
    if raw:
        instance.note_changes([instance.pk], using=using)
