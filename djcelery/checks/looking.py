"""A short look into the database for the checks that need one: bounded, quiet, on a connection of its own.

Called by the checks of ``databases`` and ``schedule``. Reads; writes nothing.
Next: ``docs/reference/checks.rst``.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from django.core.exceptions import ImproperlyConfigured
from django.db import Error, connections, router
from django.db.backends.base.base import BaseDatabaseWrapper

__all__ = ("LIMIT_S", "alias_of", "look")

T = TypeVar("T")

#: Seconds after which a program starts without the answer; a server that is away may take minutes to say so.
LIMIT_S = 3.0
#: When each database that did not answer in time was asked, by alias; not again in this start.
_silent_since_mono: dict[str, float] = {}


def alias_of(model: Any, *, reading: bool = False) -> str | None:
    """Return the alias that the project's routers give for *model*; None if they can't say."""
    try:
        return router.db_for_read(model) if reading else router.db_for_write(model)
    except Exception:  # noqa: BLE001 - a router is the project's code; a check must not be what fails by it
        return None


def look(work: Callable[[BaseDatabaseWrapper], T], alias: str | None) -> T | None:
    """Return ``work(connection)``; None if the database is away, slow, in memory, or has no such table.

    Args:
        work: A few short SELECTs.

    Database: one connection, opened and closed here; the thread's own stays as it is.
    """
    if alias is None or alias not in connections or _in_memory(connections[alias]):
        return None
    if time.monotonic() - _silent_since_mono.get(alias, -math.inf) < 60.0:
        return None
    found: list[T] = []
    # A connection attempt can't be called off, so whoever asks stops waiting for it.
    thread = threading.Thread(target=_work, args=(work, alias, found), name="djcelery-checks", daemon=True)
    thread.start()
    thread.join(LIMIT_S)
    if thread.is_alive():
        _silent_since_mono[alias] = time.monotonic()
    return found[0] if found else None


def _work(work: Callable[[BaseDatabaseWrapper], T], alias: str, found: list[T]) -> None:
    try:
        connection = connections.create_connection(alias)
        # A pool would stay behind, with threads of its own, in a process that is about to fork.
        options = {name: value for name, value in connection.settings_dict["OPTIONS"].items() if name != "pool"}
        connection.settings_dict = {**connection.settings_dict, "OPTIONS": options}
        try:
            found.append(work(connection))
        finally:
            connection.close()
    except (Error, ImproperlyConfigured):
        # The program itself will say it, with its own words and retries.
        return


def _in_memory(connection: Any) -> bool:
    """Tell whether another connection would see another database."""
    return connection.vendor == "sqlite" and connection.is_in_memory_db()
