"""How a camera does: its heartbeat and its sums, in ``CameraState``.

Called by ``writer``.
Next: ``docs/explain/life-of-a-task-event.rst``.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Any

from celery.utils.nodenames import gethostname
from django.db.models import F
from django.db.models.functions import Least

from djcelery import db, utils
from djcelery.snapshot.intake import MOST

logger = logging.getLogger(__name__)

#: Seconds between two writes, when there are events and when there are none.
BUSY_S, IDLE_S = 2.0, 5.0
_SUMS = ("events", "malformed", "dropped", "missed")
_ERROR_CHARACTERS = 2000


class Status:
    """What ``CameraState`` says of the camera *name*, which takes a shutter every *frequency* seconds."""

    def __init__(self, name: str, frequency: float, alias: str) -> None:
        self.name, self.frequency, self.alias = name[:255], frequency, alias
        #: Rows that the database has refused, since the start of this process.
        self.refused = 0
        self.started_at_s = time.time()
        self._sums = dict.fromkeys(_SUMS, 0)
        self._written: dict[str, int] = {}
        self._fields: dict[str, Any] = {"waiting": 0, "error": None}
        self._event_at_s: float | None = None
        self._written_error: str | None = None
        self._written_mono: float | None = None
        self._said: str | None = None

    def note(
        self, *, waiting: int | None = None, event_at_s: float | None = None, error: str | None = None, **sums: int
    ) -> None:
        """Remember what to write, see ``Writer.note``."""
        for name in sums:
            if name not in _SUMS:
                raise TypeError(f"CameraState has no sum {name!r}.")
        self._sums.update(sums)
        if waiting is not None:
            self._fields["waiting"] = min(waiting, 2**31 - 1)
        if event_at_s is not None:
            self._event_at_s = event_at_s
        self._fields["error"] = db.storable(error)[:_ERROR_CHARACTERS] if error else None

    def is_due(self, *, is_busy: bool) -> bool:
        """Tell whether it is time to write."""
        if self._written_mono is None or self._fields["error"] != self._written_error:
            return True
        return time.monotonic() - self._written_mono >= (BUSY_S if is_busy else IDLE_S)

    def write(self, has_stopped: bool = False) -> None:
        """Write the heartbeat, and add to the sums what is new since the last time.

        Database: one UPDATE; the very first time an INSERT and another UPDATE after it.
        """
        from djcelery.models import CameraState

        now = utils.now()
        sums = {name: min(total, MOST) for name, total in (*self._sums.items(), ("refused", self.refused))}
        fields: dict[str, Any] = {
            "hostname": gethostname()[:255],
            "pid": os.getpid(),
            "started_at": utils.fromtimestamp(self.started_at_s),
            "shutter_at": now,
            "stopped_at": now if has_stopped else None,
            "frequency": self.frequency,
            **self._fields,
        }
        if self._event_at_s is not None:
            fields["event_at"] = utils.fromtimestamp(self._event_at_s)
        added = {name: _sum(name, total - self._written.get(name, 0)) for name, total in sums.items()}
        cameras = CameraState.objects.using(self.alias)
        if not cameras.filter(name=self.name).update(**fields, **added):
            cameras.bulk_create([CameraState(name=self.name, **fields)], ignore_conflicts=True)
            cameras.filter(name=self.name).update(**fields, **added)
        self._written, self._written_error = sums, fields["error"]
        self._written_mono, self._said = time.monotonic(), None

    def failed(self, exc: Exception) -> None:
        """Note that it could not be written, and log why, once; it is tried again at the next shutter."""
        if str(exc) != self._said:
            self._said = str(exc)
            logger.error("How camera %s does can't be written: %s. Tasks and workers are.", self.name, exc)


def _sum(name: str, added: int) -> Any:
    """Return the column *name* with *added*, but no more than it holds."""
    return Least(F(name), MOST - added) + added
