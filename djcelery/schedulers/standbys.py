"""The beats that stand by, for people to see.

Called by ``scheduler`` while it doesn't lead. Writes ``BeatStandby``; who leads is not decided here, so an error of
the database costs nothing but the row.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta

from django.db import Error, connections
from django.db.models import Q

from djcelery import db, utils
from djcelery.models import BeatStandby
from djcelery.schedulers.lease import Lease, monotonic

logger = logging.getLogger(__name__)

#: A beat says so often that it stands by, in seconds.
TELL_EVERY_S = 10.0
#: A row that was not written for so long is of a beat that was killed.
GONE_AFTER = timedelta(minutes=1)


class Standby:
    """The row of this beat.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, alias: str, lease: Lease, clock: Callable[[], float] = monotonic) -> None:
        self.alias, self.lease, self._clock = alias, lease, clock
        self._told_mono: float | None = None

    def tell(self) -> None:
        """Say that this beat stands by, unless it has just said so.

        Database: up to four statements every ten seconds.
        """
        if self._told_mono is not None and self._clock() - self._told_mono < TELL_EVERY_S:
            return
        self._told_mono = self._clock()
        values = {"name": self.lease.name, "seen_at": utils.now()}
        self._try(
            lambda: BeatStandby.objects.using(self.alias).update_or_create(holder=self.lease.holder, defaults=values)
        )

    def forget(self) -> None:
        """Delete this beat's row, and those of beats that were killed. Database: one DELETE."""
        self._told_mono = None
        gone = Q(holder=self.lease.holder) | Q(seen_at__lt=utils.now() - GONE_AFTER)
        rows = BeatStandby.objects.using(self.alias).filter(gone)
        self._try(lambda: rows._raw_delete(self.alias))

    def _try(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Error as exc:
            logger.debug("beat: the row of this beat, which stands by, can't be written: %s", exc)
            db.close_broken(connections[self.alias])
