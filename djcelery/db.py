"""The lifetime of database connections, which database errors pass, and bounded retries.

Called by the signals that ``apps`` connects (a worker starts, a pool process was forked) and by
every engine that writes. Decides, for both ways of starting Celery, when a connection is closed:

* A task's own connections follow Django: ``CONN_MAX_AGE``, health checks and pools mean what they
  mean in a web process, and nothing is inherited over a fork.
* Storing results must not pay for a new connection per task. Where the project's connection would
  be closed after each task (``CONN_MAX_AGE`` 0 and no pool), a worker process keeps one connection
  per thread and alias that stores results and nothing else; see ``result_connection``.

Next: ``docs/explain/connections.rst``.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from celery.fixups.django import DjangoFixup, DjangoWorkerFixup
from django.db import Error, InterfaceError, OperationalError, close_old_connections, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import atomic
from kombu.utils.compat import detect_environment

from djcelery import eventloop
from djcelery.conf import conf
from djcelery.texts import execute_text, is_bad_text, largest_text, storable, three_byte

__all__ = (
    "atomic",
    "commit_on_success",
    "execute_text",
    "is_bad_text",
    "is_deadlock",
    "is_transient",
    "largest_text",
    "outside_transaction",
    "ready",
    "result_connection",
    "retry_transient",
    "short_transaction",
    "storable",
    "three_byte",
)

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Waits between tries, in seconds: 0.02, 0.04, … at most 2 s each, about 9 s in all.
RETRY_WAITS_S = tuple(min(2.0, 0.02 * 2**n) for n in range(10))
#: No further try begins so many seconds after the first: each may itself wait long, such as for a lock.
LAST_TRY_S = 120.0
#: A statement of this length passes everywhere; a longer one may not.
SAFE_STATEMENT_BYTES = 1_000_000

# PostgreSQL: connection lost, transaction rolled back, shutdown, statement timeout, too many connections, lock timeout.
_SQLSTATES = ("08", "40", "57P", "57014", "53300", "55P03")
# MariaDB and MySQL: too many connections, shutdown, network errors, timeouts, deadlock, gone away, killed.
_MYSQL_ERRNOS = frozenset(
    {1020, 1040, 1042, 1043, 1047, 1053, 1077, 1079, 1080, 1205, 1213, 1290, 1927, 1969, 2002, 2003, 2006, 2013, 2055}
    | {1152, *range(1154, 1162), 3024, 4031}
)
_SQLITE_BUSY, _SQLITE_LOCKED = 5, 6
_DEADLOCKS = ("40P01", 1213)


def is_transient(exc: BaseException) -> bool:
    """Tell whether the same statement may succeed when it is tried again.

    True for lost connections, deadlocks, serialisation failures and a busy SQLite file. Judged by
    the driver's code, never by words, but for SQLite on Python 3.10, which has no code.
    """
    if not isinstance(exc, Error):
        return False
    cause = exc.__cause__
    if isinstance(exc, InterfaceError):
        return True
    code = getattr(cause, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in (_SQLITE_BUSY, _SQLITE_LOCKED)
    if hasattr(cause, "sqlstate"):
        state = cause.sqlstate
        # psycopg has no state where the connection itself broke.
        return isinstance(exc, OperationalError) if state is None else state.startswith(_SQLSTATES)
    first = cause.args[0] if cause is not None and cause.args else None
    if isinstance(first, int):
        return first in _MYSQL_ERRNOS
    # The second may name the table.
    return str(cause).startswith(("database is locked", "database table is locked"))


def is_deadlock(exc: BaseException) -> bool:
    """Tell whether the server ended the transaction for the sake of another one that waited for it."""
    cause = exc.__cause__
    codes = {getattr(cause, "sqlstate", None), *getattr(cause, "args", ())[:1]}
    return isinstance(exc, Error) and not codes.isdisjoint(_DEADLOCKS)


def retry_transient(
    work: Callable[[BaseDatabaseWrapper], T],
    connection: Callable[[], BaseDatabaseWrapper],
    what: str,
    waits_s: tuple[float, ...] | None = None,
) -> T:
    """Call ``work(connection())``, again after each transient error, and return its value.

    Args:
        work: One self-contained statement or transaction; it may run more than once.
        connection: Asked anew before every try.
        what: Named in the log, such as ``"store the result of task …"``.
        waits_s: Seconds to wait before each further try; its length bounds the tries. None is
            ``RETRY_WAITS_S``. A worker's event loop is always quick; see ``eventloop``.

    Raises:
        django.db.Error: The error was not transient, the tries are used up, or the connection is
            inside an ``atomic()`` block or has autocommit off, where a retry can't help.
    """
    if waits_s is None or eventloop.runs_here():
        waits_s = eventloop.QUICK_WAITS_S if eventloop.runs_here() else RETRY_WAITS_S
    began = time.monotonic()
    for attempt in range(len(waits_s) + 1):
        current = connection()
        try:
            return work(current)
        except Error as exc:
            last = attempt == len(waits_s) or time.monotonic() - began > LAST_TRY_S
            if last or is_callers(current) or not is_transient(exc):
                raise
            wait = waits_s[attempt] * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, not a secret
            logger.warning("Could not %s (%s); trying again in %.2f s.", what, exc, wait)
            close_broken(current)
            time.sleep(wait)
    raise AssertionError("unreachable")


@contextmanager
def short_transaction(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Run the block in a transaction of its own on *connection*; inside ``atomic()`` in the caller's.

    For connections that ``transaction.atomic`` can't name: it looks them up by alias. An exception
    rolls back; a connection on which that fails is closed. As part of ``retry_transient`` the block
    may run again. With autocommit off it is in the caller's transaction, too, who commits.
    """
    if is_callers(connection):
        yield
        return
    connection.ensure_connection()
    connection.set_autocommit(False, force_begin_transaction_with_broken_autocommit=True)
    try:
        yield
        connection.commit()
    except BaseException:
        try:
            connection.rollback()
        except Error:
            connection.close()
        raise
    finally:
        if connection.connection is not None:
            try:
                connection.set_autocommit(True)
            except Error:
                connection.close()


def is_callers(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether its user commits what is written on *connection*: in ``atomic()``, or autocommit is off."""
    if connection.in_atomic_block or connection.connection is None:
        return connection.in_atomic_block or not connection.settings_dict["AUTOCOMMIT"]
    return not connection.autocommit


def ready(connection: BaseDatabaseWrapper) -> BaseDatabaseWrapper:
    """Return *connection*, outside ``atomic()`` in autocommit mode: with ``AUTOCOMMIT`` off nobody would commit.

    For connections of our own programs: what was written on it before is committed.
    """
    if not connection.in_atomic_block and is_callers(connection):
        # PostgreSQL's driver changes the mode between transactions only.
        connection.commit()
        connection.set_autocommit(True)
    return connection


def close_broken(connection: BaseDatabaseWrapper) -> None:
    """Close *connection* if the server doesn't answer on it; the next use opens a new one."""
    if not connection.in_atomic_block and connection.connection is not None and not connection.is_usable():
        connection.close()


# -- the connection that stores results --------------------------------------------------------


class _Kept(threading.local):
    """The kept connections of one thread, by alias, and the process that opened them."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.by_alias: dict[str, BaseDatabaseWrapper] = {}


_kept = _Kept()
_is_worker = False
# Each greenlet would keep a connection of its own.
_has_greenlets = False
# Connections inherited over a fork: their destructors would say goodbye on the parent's socket.
_inherited: list[Any] = []


def result_connection(alias: str, *, eager: bool = False) -> BaseDatabaseWrapper:
    """Return the connection on which a result is stored in database *alias*.

    Outside worker processes, in eager mode, and where the project's own connection stays open between tasks, that
    is ``connections[alias]``. Else, and where the project commits by itself (``AUTOCOMMIT`` off), it is one that this
    thread keeps open, in autocommit mode, so a result costs one statement and no connect. On SQLite a second one would
    wait for a transaction that the task has open: there, too.
    """
    shared = connections[alias]
    if eager or not _is_worker or not (_closes_after_each_task(shared) or _is_committed_by_hand(shared)):
        return shared
    if _has_transaction(shared) and (shared.vendor == "sqlite" or _in_testcase(shared)):
        return shared
    if _kept.pid != os.getpid():
        _inherited.append(_kept.by_alias)
        _kept.pid, _kept.by_alias = os.getpid(), {}
    if alias not in _kept.by_alias:
        _kept.by_alias[alias] = _own_connection(alias)
    return _kept.by_alias[alias]


def _own_connection(alias: str) -> BaseDatabaseWrapper:
    connection = connections.create_connection(alias)
    connection.settings_dict = {**connection.settings_dict, "AUTOCOMMIT": True}
    return connection


@contextmanager
def outside_transaction(alias: str) -> Iterator[Callable[[], BaseDatabaseWrapper]]:
    """Yield a function that returns a connection whose writes others see at once.

    That is ``result_connection(alias)``, but inside ``atomic()`` or with autocommit off one that is opened for the
    block: messages that the caller sends don't wait for the caller's commit, so what they rely on can't
    either. On SQLite, and in a ``TestCase``, it is the caller's transaction all the same.
    """
    shared = result_connection(alias)
    if not is_callers(shared) or shared.vendor == "sqlite" or _in_testcase(shared):
        yield lambda: result_connection(alias)
        return
    own = _own_connection(alias)
    try:
        yield lambda: own
    finally:
        own.close()


def _closes_after_each_task(connection: BaseDatabaseWrapper) -> bool:
    options = connection.settings_dict.get("OPTIONS") or {}
    return (
        conf.DJCELERY_KEEP_RESULT_CONNECTION
        and not _has_greenlets
        and connection.settings_dict["CONN_MAX_AGE"] == 0
        and not options.get("pool")
        and not conf.CELERY_DB_REUSE_MAX
        and not _is_in_memory(connection)
    )


def _is_committed_by_hand(connection: BaseDatabaseWrapper) -> bool:
    return not connection.in_atomic_block and is_callers(connection) and not _is_in_memory(connection)


def _is_in_memory(connection: BaseDatabaseWrapper) -> bool:
    return connection.vendor == "sqlite" and connection.is_in_memory_db()


def _has_transaction(connection: BaseDatabaseWrapper) -> bool:
    return connection.in_atomic_block or getattr(connection.connection, "in_transaction", False)


def _in_testcase(connection: BaseDatabaseWrapper) -> bool:
    return any(getattr(block, "_from_testcase", False) for block in connection.atomic_blocks)


# -- closing connections around tasks ----------------------------------------------------------


class WorkerFixup(DjangoWorkerFixup):
    """Celery's Django fix-up for workers, with Django's own rules for closing connections.

    Celery's closes every connection before and after each task, and psycopg's pools with it,
    whatever the project configured.
    """

    def install(self) -> WorkerFixup:
        """Connect to the task signals. Called in the worker's main process, before it forks."""
        global _is_worker, _has_greenlets
        super().install()
        eventloop.starts_here()
        self._close_database()
        _close_pools()
        _is_worker, _has_greenlets = True, detect_environment() != "default"
        return self

    def close_database(self, **kwargs: Any) -> None:
        """Close what ``CONN_MAX_AGE`` or ``CELERY_DB_REUSE_MAX`` says. Called before and after each task."""
        if self.db_reuse_max:
            super().close_database(**kwargs)
        else:
            close_old_connections()
        if _has_greenlets:
            while _kept.by_alias:
                _kept.by_alias.popitem()[1].close()

    def _close_database(self) -> None:
        for connection in connections.all(initialized_only=True):
            if not connection.in_atomic_block:
                connection.close()


def use_worker_fixup(instance: Any, **kwargs: Any) -> None:
    """Replace the worker fix-up of the app of worker *instance*. Receiver of ``celeryd_init``."""
    _replace_fixup(instance.app)


def _replace_fixup(app: Any) -> list[DjangoFixup]:
    fixups = [fixup for fixup in app._fixups if isinstance(fixup, DjangoFixup)]
    for fixup in fixups:
        fixup.worker_fixup = WorkerFixup(app)
    return fixups


def after_fork(**kwargs: Any) -> None:
    """Forget every connection of the parent process. Receiver of ``worker_process_init`` and ``beat_embedded_init``.

    They are neither used nor closed: closing would end the parent's session on the server.
    """
    if os.environ.get("FORKED_BY_MULTIPROCESSING") and not _is_worker:
        _install_in_spawned_process()
    if _main_pid == os.getpid():
        return
    for connection in connections.all(initialized_only=True):
        _inherited.append(connection)
        pools = getattr(connection, "_connection_pools", {})
        if connection.alias in pools:
            _inherited.append(pools.pop(connection.alias))
        del connections[connection.alias]


def _install_in_spawned_process() -> None:
    # With --pool-start-method=spawn a pool process imports everything afresh and never sees worker_init.
    from celery import current_app

    for fixup in _replace_fixup(current_app):
        fixup.worker_fixup.install()
    eventloop.is_elsewhere()


_main_pid = os.getpid()


def _close_pools() -> None:
    for connection in connections.all(initialized_only=True):
        if hasattr(connection, "close_pool"):
            connection.close_pool()


# -- names of the legacy package ---------------------------------------------------------------


@contextmanager
def commit_on_success(using: str | None = None) -> Iterator[None]:
    """Run the block in a transaction: another name of ``transaction.atomic``."""
    with transaction.atomic(using=using):
        yield


def commit_unless_managed(*args: Any, **kwargs: Any) -> None:
    """Do nothing; Django commits by itself since 1.6."""


rollback_unless_managed = commit_unless_managed


def get_queryset(manager: Any) -> Any:
    """Return the queryset of *manager*."""
    return manager.get_queryset()
