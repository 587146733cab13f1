"""The lease: which of several beats sends, and until when.

Called by ``scheduler`` (acquire, renew, release) and by ``claims``, whose transactions it fences. Writes
the row of ``BeatLease`` and nothing else. Whether a lease has run out is decided inside each statement,
by the database's clock; the clocks of the machines are never compared.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import socket
import time
from collections.abc import Callable
from typing import Any

from django.db import Error, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from djcelery.exceptions import LeaseLost
from djcelery.models import BeatLease
from djcelery.schedulers import statements

logger = logging.getLogger(__name__)

#: This part of the lease is not used: clocks of two machines don't run equally fast.
MARGIN = 0.1
#: A beat that stands by looks again at least this often, in seconds.
POLL_S = 1.0
#: The longest time-out that PostgreSQL takes, in milliseconds.
_MOST_MS = 2**31 - 1


def monotonic() -> float:
    """Return seconds that no clock change moves and, on Linux, that a sleeping machine counts, too."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Lease:
    """The right to send, held by at most one beat per *name* in database *alias*.

    Args:
        length_s: Seconds for which the lease is taken; a beat that dies is replaced within that time.
        holder: Who asks; None makes a name of host, process and a random part.
        clock: Seconds that never go back.
    """

    def __init__(
        self, alias: str, name: str, length_s: float, holder: str | None = None, clock: Callable[[], float] = monotonic
    ) -> None:
        self.alias = alias
        self.name = name
        self.length_s = float(length_s)
        self.holder = holder or f"{socket.gethostname()[:200]}:{os.getpid()}:{secrets.token_hex(4)}"
        #: Grows with each holder; None while the lease is not held.
        self.token: int | None = None
        #: Who had the lease when it was last looked at, None if nobody.
        self.held_by: str | None = None
        self._clock = clock
        self._deadline_mono = -math.inf
        self._look_again_mono = -math.inf
        self._problem: str | None = None
        self._guarded: Any = None

    def is_held(self) -> bool:
        """Tell whether this beat may claim and send now. Asks its own clock only, no query."""
        return self.token is not None and self._clock() < self._deadline_mono

    def wait_s(self) -> float:
        """Return the seconds until the lease is to be renewed, or for one that isn't held, to be asked for again."""
        due = self._deadline_mono - self.length_s * (2 / 3 - MARGIN) if self.is_held() else self._look_again_mono
        return max(0.0, due - self._clock())

    def acquire(self) -> bool:
        """Take the lease if it is free, has run out or is mine already; tell whether it is held now.

        Each time it is taken the token grows. A database error is logged once, and False.

        Database: a beat that stands by runs one SELECT. Taking the lease is a transaction of an UPDATE and a
            SELECT, with an INSERT in between the very first time.
        """
        self.token, self._deadline_mono = None, -math.inf
        self._look_again_mono = self._clock() + min(POLL_S, self.length_s)
        try:
            self.token = statements.attempt(self.alias, self._acquire, lambda: True)
        except Error as exc:
            self._tell(f"beat: can't ask for the lease {self.name!r}: {exc}")
            return False
        self._tell(None)
        return self.is_held()

    def renew(self) -> bool:
        """Hold the lease for its full length from now; False if another beat has it, which demotes this one.

        A database error is logged once, and False; until the deadline the lease is held all the same.

        Database: one UPDATE.
        """
        if self.token is None:
            return False
        try:
            statements.attempt(self.alias, lambda connection, _: self.fence(connection), lambda: self.token is not None)
        except LeaseLost:
            return False
        except Error as exc:
            self._tell(f"beat: can't renew the lease {self.name!r}: {exc}")
            return False
        self._tell(None)
        return self.is_held()

    def release(self) -> None:
        """Give the lease up, so that another beat need not wait. An error is logged; the lease then runs out.

        Database: one UPDATE, none if the lease is not held.
        """
        token, self.token = self.token, None
        self._deadline_mono = -math.inf
        if token is None:
            return
        try:
            statements.attempt(self.alias, lambda connection, _: self._expire(connection, token), lambda: True)
        except Error as exc:
            logger.warning("beat: can't give up the lease %r (%s); it runs out by itself.", self.name, exc)

    def fence(self, connection: BaseDatabaseWrapper) -> None:
        """Make sure, as the first statement of a transaction, that the lease is mine until its end; renew it, too.

        Until the transaction ends no other beat can take the lease. The renewal counts once it is committed.

        Raises:
            LeaseLost: Another beat has taken the lease. This object doesn't hold it any more.

        Database: one UPDATE, in the caller's transaction.
        """
        if self.token is None:
            raise LeaseLost(f"This beat ({self.holder}) doesn't hold the lease {self.name!r}.")
        token, before_mono = self.token, self._clock()
        kind = statements.engine(connection)
        self._guard(connection)
        sql = (
            f"UPDATE {statements.table(connection, BeatLease)} "  # noqa: S608 - quoted name of the model
            f"SET expires_at = {statements.NOW_PLUS[kind]} WHERE name = %s AND holder = %s AND token = %s"
        )
        if not statements.execute(
            connection, sql + self._unfreeze(kind), [self.length_s, self.name, self.holder, token]
        ):
            self.token, self._deadline_mono = None, -math.inf
            self._look_again_mono = self._clock() + min(POLL_S, self.length_s)
            raise LeaseLost(f"Another beat has taken the lease {self.name!r} from {self.holder} (token {token}).")
        connection.on_commit(lambda: self._extend(token, before_mono))

    def condition(self, connection: BaseDatabaseWrapper) -> tuple[str, list[Any]]:
        """Return an SQL condition that is true while the lease is mine, and its parameters."""
        table = statements.table(connection, BeatLease)
        sql = f"EXISTS (SELECT 1 FROM {table} WHERE name = %s AND holder = %s AND token = %s)"  # noqa: S608 - as above
        return sql, [self.name, self.holder, self.token or 0]

    # the statements

    def _acquire(self, connection: BaseDatabaseWrapper, is_retry: bool) -> int | None:
        """Return the new token; None if another beat has the lease, and note until when."""
        kind, table = statements.engine(connection), statements.table(connection, BeatLease)
        left = statements.SECONDS_UNTIL[kind].format("expires_at")
        rows = statements.fetch(
            connection,
            f"SELECT holder, {left} FROM {table} WHERE name = %s",  # noqa: S608 - as above
            [self.name],
        )
        self.held_by = rows[0][0] if rows else None
        if rows and rows[0][1] > 0 and self.held_by != self.holder:
            # To look first costs no lock, which on SQLite would be the one lock of the whole file.
            self._look_again_mono = self._clock() + min(float(rows[0][1]) + 0.001, POLL_S)
            return None
        before_mono = self._clock()
        token = self._take(connection, kind, table)
        if token is not None:
            self.held_by = self.holder
            self._deadline_mono = before_mono + self.length_s * (1 - MARGIN)
        return token

    def _take(self, connection: BaseDatabaseWrapper, kind: str, table: str) -> int | None:
        now, until = statements.NOW[kind], statements.NOW_PLUS[kind]
        self._guard(connection)
        with transaction.atomic(using=self.alias, durable=True):
            sql = (
                f"UPDATE {table} SET token = token + 1, holder = %s, expires_at = {until}, acquired_at = {now} "  # noqa: S608
                f"WHERE name = %s AND (expires_at <= {now} OR holder = %s)"
            )
            values = [self.holder, self.length_s, self.name, self.holder]
            if not statements.execute(connection, sql + self._unfreeze(kind), values):
                verb, ending = statements.INSERT_NEW[kind]
                sql = (
                    f"{verb} {table} (name, holder, token, expires_at, acquired_at) "
                    f"VALUES (%s, %s, 1, {until}, {now}){ending}"
                )
                if not statements.execute(connection, sql, [self.name, self.holder, self.length_s]):
                    return None
            # The row is locked by what was written, so this is what was written.
            rows = statements.fetch(connection, f"SELECT token FROM {table} WHERE name = %s", [self.name])  # noqa: S608
            return rows[0][0]

    def _expire(self, connection: BaseDatabaseWrapper, token: int) -> None:
        now = statements.NOW[statements.engine(connection)]
        sql = (
            f"UPDATE {statements.table(connection, BeatLease)} SET expires_at = {now} "  # noqa: S608 - as above
            "WHERE name = %s AND holder = %s AND token = %s"
        )
        statements.execute(connection, sql, [self.name, self.holder, token])

    def _extend(self, token: int, before_mono: float) -> None:
        if self.token == token:
            self._deadline_mono = max(self._deadline_mono, before_mono + self.length_s * (1 - MARGIN))

    # a beat that freezes inside a transaction must not keep the others waiting on its lock

    def _unfreeze(self, kind: str) -> str:
        """Return the end of a condition that has PostgreSQL abandon this transaction if it stands still."""
        if kind != "postgresql":
            return ""
        milliseconds = min(max(1000, int(self.length_s * 1000)), _MOST_MS)
        return f" AND set_config('idle_in_transaction_session_timeout', '{milliseconds}', true) IS NOT NULL"

    def _guard(self, connection: BaseDatabaseWrapper) -> None:
        """Have MariaDB and MySQL do the same. They know it per session only: once per connection."""
        is_done = self._guarded is not None and self._guarded is connection.connection
        if connection.vendor != "mysql" or is_done:
            return
        seconds = max(1, math.ceil(self.length_s))
        if connection.mysql_is_mariadb:
            sql = f"SET SESSION idle_write_transaction_timeout = {seconds}"
        else:
            # MySQL ends idle connections only; beat's is never idle for this long.
            sql = f"SET SESSION wait_timeout = {max(60, 4 * seconds)}"
        statements.execute(connection, sql)
        self._guarded = connection.connection

    def _tell(self, problem: str | None) -> None:
        """Log *problem* when it is not the one of the last time."""
        if problem != self._problem:
            if problem:
                logger.error("%s", problem)
            elif self._problem:
                logger.info("beat: the lease %r can be asked for again.", self.name)
        self._problem = problem
