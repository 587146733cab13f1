"""The rule by which one state replaces another, and the hand-written statements that apply it.

Called by the managers of the result tables. Statements are built once per engine and set of
columns: building them by the ORM would cost more than the database does.
Next: ``docs/explain/life-of-a-result.rst``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from celery import states
from django.conf import settings
from django.db import NotSupportedError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.dateparse import parse_datetime
from django.utils.timezone import is_naive, make_aware

from djcelery import db

#: States that only another of these may replace.
FINAL_STATES = (states.SUCCESS, states.FAILURE, states.REVOKED)

_built: dict[tuple[Any, ...], str] = {}


def may_replace(old: str | None, new: str) -> bool:
    """Tell whether a write in state *new* replaces a row in state *old* (None: there is no row).

    SUCCESS is final. FAILURE and REVOKED give way to a final state only. PENDING replaces nothing.
    Among unfinished states, custom ones included, the later write wins.
    """
    return old is None or (new != states.PENDING and old not in _protected_from(new))


def _protected_from(new: str) -> tuple[str, ...]:
    """Return the states of a row that a write in state *new* other than PENDING leaves alone."""
    return (states.SUCCESS,) if new in FINAL_STATES else FINAL_STATES


def upsert(
    connection: BaseDatabaseWrapper,
    table: str,
    columns: tuple[str, ...],
    key: str,
    state: tuple[str, str] | None = None,
    kept: tuple[str, ...] = (),
) -> str:
    """Return the INSERT that updates the row of the same *key* instead, if ``may_replace`` allows it.

    Args:
        columns: Of the INSERT, in the order of its parameters.
        state: The column that holds the state, and the new state; None updates always.
        kept: Columns whose value stays, once they have one.

    Raises:
        NotSupportedError: djcelery has no statement for this engine.
    """
    engine = connection.vendor
    if engine == "mysql" and connection.mysql_is_mariadb:
        engine = "mariadb"
    column, new = state or (None, "")
    pending, protected = new == states.PENDING, _protected_from(new) if column else ()
    made_of = (engine, table, columns, key, column, pending, protected, kept)
    if made_of not in _built:
        if engine not in _NEW_VALUE:
            raise NotSupportedError(
                f"djcelery stores results on PostgreSQL, MySQL, MariaDB and SQLite, not on {connection.display_name}."
            )
        quote = connection.ops.quote_name
        names, marks = ", ".join(map(quote, columns)), ", ".join(["%s"] * len(columns))
        insert = f"INSERT INTO {quote(table)} ({names}) VALUES ({marks})"  # noqa: S608 - quoted names of the model
        updated = [] if pending else [name for name in columns if name not in (key, "hidden", column)]
        if column and not pending:
            # MySQL assigns from left to right, so the state, which its condition reads, comes last.
            updated.append(column)
        # Elsewhere a bare name could mean the new value, too; MariaDB takes longer the longer the text is.
        own = "" if engine == "mariadb" else f"{quote(table)}."
        condition = ""
        if protected:
            condition = f"{own}{quote(column)} NOT IN ({', '.join(map(repr, protected))})"
        build = _on_duplicate_key if connection.vendor == "mysql" else _on_conflict
        _built[made_of] = insert + build(engine, quote, own, updated, quote(key), condition, kept)
    return _built[made_of]


#: How a statement names the value that the INSERT brings.
_NEW_VALUE = {"postgresql": "excluded.{}", "sqlite": "excluded.{}", "mysql": "new.{}", "mariadb": "VALUES({})"}


def _assigned(engine: str, quote: Any, own: str, column: str, kept: tuple[str, ...]) -> str:
    new = _NEW_VALUE[engine].format(quote(column))
    return f"COALESCE({own}{quote(column)}, {new})" if column in kept else new


def _on_conflict(
    engine: str, quote: Any, own: str, updated: list[str], key: str, condition: str, kept: tuple[str, ...]
) -> str:
    if not updated:
        return f" ON CONFLICT ({key}) DO NOTHING"
    sets = ", ".join(f"{quote(column)} = {_assigned(engine, quote, own, column, kept)}" for column in updated)
    return f" ON CONFLICT ({key}) DO UPDATE SET {sets}" + (f" WHERE {condition}" if condition else "")


def _on_duplicate_key(
    engine: str, quote: Any, own: str, updated: list[str], key: str, condition: str, kept: tuple[str, ...]
) -> str:
    def value(column: str) -> str:
        new = _assigned(engine, quote, own, column, kept)
        return f"IF({condition}, {new}, {own}{quote(column)})" if condition else new

    sets = ", ".join(f"{quote(column)} = {value(column)}" for column in updated)
    alias = " AS new" if engine == "mysql" else ""
    return f"{alias} ON DUPLICATE KEY UPDATE {sets or f'{key} = {own}{key}'}"


def parameters(connection: BaseDatabaseWrapper, row: dict[str, Any]) -> list[Any]:
    """Return the values of *row* as parameters: instants as the engine takes them, text escaped."""
    instant = connection.ops.adapt_datetimefield_value
    return [instant(value) if isinstance(value, datetime) else db.storable(value) for value in row.values()]


def select(connection: BaseDatabaseWrapper, table: str, columns: tuple[str, ...], key: str, keys: int) -> str:
    """Return the SELECT of *columns* of the rows with one of so many *keys*."""
    made_of = (connection.vendor, table, columns, key, keys)
    if made_of not in _built:
        quote = connection.ops.quote_name
        names, marks = ", ".join(map(quote, columns)), ", ".join(["%s"] * keys)
        sql = f"SELECT {names} FROM {quote(table)} WHERE {quote(key)} IN ({marks})"  # noqa: S608 - as above
        if keys > 1:
            return sql
        _built[made_of] = sql
    return _built[made_of]


def instant(connection: BaseDatabaseWrapper, value: Any) -> datetime | None:
    """Return an instant read by hand as Django's fields give it: aware if ``USE_TZ`` is on."""
    if isinstance(value, str):
        value = parse_datetime(value)
    if value is not None and settings.USE_TZ and is_naive(value):
        return make_aware(value, connection.timezone)
    return value
