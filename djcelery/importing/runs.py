"""What the imports of results and of the schedule share: one run, its counts, and what it lists.

Base of ``results`` and ``beat``; writes nothing itself.
Next: ``docs/coming-from-results-and-beat.rst``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import Error, connections, models, router

from djcelery.exceptions import DjCeleryError
from djcelery.importing.reading import Table, Unreadable

__all__ = ("Import", "LeftOut", "Listed", "Summary", "TableUnknown", "reason_of", "words")

#: What became of a row, in the order of a summary.
IMPORTED, UPDATED, MERGED, PRESENT, LEFT_OUT = "imported", "updated", "merged", "present", "left out"
#: How many reasons a summary tells apart, and how many rows it names for each.
MAX_REASONS, MAX_NAMED = 50, 5
OTHER_REASONS = "other reasons"


class TableUnknown(DjCeleryError):
    """A table that is to be read is not in the database, or lacks a column that every release of its app had."""


class LeftOut(Exception):
    """A row can't be imported; the text says why."""


@dataclass(frozen=True)
class Listed:
    """A row that was not imported. ``key`` is its task id, group id or name, ``outcome`` PRESENT or LEFT_OUT."""

    table: str
    pk: Any
    key: str
    outcome: str
    reason: str


@dataclass
class Summary:
    """What an import has done so far. Counts are rows."""

    total: int = 0
    seen: int = 0
    #: By what the rows are, such as "results", and what became of them.
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    #: How many rows were left out, and the keys of the first of them, by reason.
    reasons: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    #: The keys of the first rows that were there, by what they are.
    present: dict[str, list[str]] = field(default_factory=dict)

    @property
    def left_out(self) -> int:
        """How many rows could not be imported."""
        return sum(counts[LEFT_OUT] for counts in self.counts.values())

    def add(self, what: str, outcome: str, rows: int = 1) -> None:
        """Count *rows* of one kind and outcome."""
        if rows:
            self.counts.setdefault(what, Counter())[outcome] += rows

    def note(self, what: str, row: Listed) -> None:
        """Count *row*, and name it if it is among the first."""
        self.add(what, row.outcome)
        if row.outcome == PRESENT:
            self.present.setdefault(what, [])
            self.present[what] = _named(self.present[what], row.key)
            return
        reason = row.reason
        if reason not in self.reasons and len(self.reasons) >= MAX_REASONS:
            reason = OTHER_REASONS
        count, named = self.reasons.get(reason, (0, []))
        self.reasons[reason] = (count + 1, _named(named, f"{row.key} (row {row.pk})"))


def _named(names: list[str], name: str) -> list[str]:
    return names if len(names) == MAX_NAMED else [*names, name]


class Import:
    """One run over the tables of another app, in batches by primary key; see ``run`` of the sub-classes.

    Args:
        app: The Celery app.
        database: Alias of both their tables and ours; None is where the router sends writes of ours.
        batch_rows: Rows per transaction, at most; fewer if their values are large.
        is_dry_run: Whether to look only.
        on_progress: Called after each batch; costs a count of the rows at the start.
        on_listed: Called for each row that was there already or is left out.
        should_stop: Asked after each batch.
    """

    def __init__(
        self,
        app: Any,
        database: str | None = None,
        *,
        batch_rows: int = 500,
        is_dry_run: bool = False,
        on_progress: Callable[[Summary], Any] | None = None,
        on_listed: Callable[[Listed], Any] | None = None,
        should_stop: Callable[[], Any] = lambda: False,
    ) -> None:
        self.app = app
        self.database = database
        self.batch_rows = batch_rows
        self.is_dry_run = is_dry_run
        self.on_progress = on_progress
        self.on_listed = on_listed
        self.should_stop = should_stop
        self.summary = Summary()

    def alias_of(self, model: type[models.Model]) -> str:
        """Return the alias of the database."""
        return self.database or router.db_for_write(model)

    def table(self, alias: str, name: str, needed: Iterable[str]) -> Table:
        """Return the table *name*, which must have the columns *needed*.

        Raises:
            TableUnknown: It isn't there, or has another shape.
        """
        table = Table(connections[alias], name)
        if not table.columns:
            raise TableUnknown(
                f"The database {alias!r} has no table {name}. If it is in another one of DATABASES, "
                "name that: --database ALIAS."
            )
        if missing := sorted({"id", *needed} - table.columns):
            raise TableUnknown(f"The table {name} has no column {missing[0]}: no release made it so.")
        return table

    def done(self, rows: int) -> bool:
        """Note that a batch of so many *rows* is done; return whether to stop."""
        self.summary.seen += rows
        if self.on_progress:
            self.on_progress(self.summary)
        return bool(self.should_stop())

    def note(self, what: str, table: Table, pk: Any, key: Any, outcome: str, reason: str) -> None:
        """Count a row that is not imported, and hand it to whoever lists them."""
        row = Listed(table.name, pk, str(key), outcome, reason)
        self.summary.note(what, row)
        if self.on_listed:
            self.on_listed(row)


def reason_of(exc: Exception) -> str:
    """Return why a row is left out, as a sentence without its end."""
    if isinstance(exc, (LeftOut, Unreadable)):
        return str(exc)
    if isinstance(exc, Error):
        return f"the database refuses it ({' '.join(str(exc).split())})"
    return f"it can't be read ({type(exc).__name__}: {exc})"


def words(exc: ValidationError) -> str:
    """Return what is wrong, by field, as a sentence without its end."""
    if not hasattr(exc, "error_dict"):
        return "; ".join(exc.messages).rstrip(".")
    parts = ((name, " ".join(messages)) for name, messages in exc.message_dict.items())
    return "; ".join(text if name == NON_FIELD_ERRORS else f"{name}: {text}" for name, text in parts).rstrip(".")
