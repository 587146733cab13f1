"""Adds to the history what one transaction has changed.

Called by ``writer`` and ``upkeep`` inside their transaction, behind the gate. Writes ``TaskHistory``.
Next: ``docs/explain/life-of-a-task-event.rst``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from djcelery.snapshot.statements import ADD, FILL, KEEP, Instants, Table, same_texts, select_keys, upsert
from djcelery.snapshot.tally import Key, Tallies, Tally, columns

_READ = ("runtime_max", "runtime_histogram", "waiting_max", "waiting_histogram")
_COLUMNS = {
    "period": "text",
    "start": "time",
    "name": "text",
    "state": "text",
    "count": "int",
    "runtime_count": "int",
    "runtime_sum": "float",
    "runtime_max": "float",
    "waiting_count": "int",
    "waiting_sum": "float",
    "waiting_max": "float",
    "runtime_histogram": "text",
    "waiting_histogram": "text",
}
_KEY = ("period", "start", "name", "state")
_UPDATES = {
    **dict.fromkeys(("count", "runtime_count", "runtime_sum", "waiting_count", "waiting_sum"), ADD),
    # Read before, if there is something to add.
    **dict.fromkeys(("runtime_max", "waiting_max"), FILL),
    **dict.fromkeys(("runtime_histogram", "waiting_histogram"), KEEP),
}
#: Rows per statement, when very many names are touched at once.
_ROWS = 5000


def add_to_history(connection: BaseDatabaseWrapper, instants: Instants, tallies: Tallies) -> None:
    """Add *tallies* to the rows of the history.

    Database: a SELECT and an INSERT that adds to the rows that are there, per 5,000 rows; none if nothing is to be
        added. On MySQL see also ``same_texts``. Caller's transaction.
    """
    # Not at import: this module may be imported before Django's setup.
    from djcelery.models import TaskHistory

    table = Table(TaskHistory._meta.db_table, _COLUMNS, _KEY, _UPDATES)
    rows = iter(_keyed(connection, table, instants, tallies).values())
    while part := list(islice(rows, _ROWS)):
        timed = [key for key, tally in part if tally.runtime.count or tally.waiting.count]
        stored = select_keys(connection, table, _READ, timed)
        upsert(connection, table, [(*key, *columns(tally, stored.get(key))) for key, tally in part])


def _keyed(
    connection: BaseDatabaseWrapper, table: Table, instants: Instants, tallies: Tallies
) -> dict[Any, tuple[tuple[Any, ...], Tally]]:
    """Return what is to be added by key as the database tells keys apart."""
    found: dict[Any, tuple[tuple[Any, ...], Tally]] = {}
    rows = list(_sorted(tallies))
    names = same_texts(connection, table.name, "name", (key.name for key, _ in rows))
    for key, tally in rows:
        stored = (key.period, instants.stored(key.start), key.name, key.state)
        same = (*stored[:2], names[key.name], key.state)
        if same in found:
            # Two names are one there, or two hours in autumn, without USE_TZ.
            merged = Tally()
            merged.merge(found[same][1])
            merged.merge(tally)
            found[same] = (found[same][0], merged)
        else:
            found[same] = (stored, tally)
    return found


def _sorted(tallies: Tallies) -> Iterator[tuple[Key, Tally]]:
    yield from sorted(tallies.rows(), key=lambda row: row[0])
