"""Switching the events of tasks on, in workers that were started without ``-E``.

Called by ``program``: ``saw`` with each event of a worker, in the receiver's thread, ``step`` in the writer's.
Next: ``docs/explain/receiving-events.rst``.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import Any

from djcelery.snapshot.news import WorkerNews

__all__ = ("Switch",)

logger = logging.getLogger(__name__)

#: A worker is told at its first heartbeat, and once more: at the first it may not listen yet.
_AT_HEARTBEATS = frozenset({1, 3})
#: Workers that are remembered.
_MOST_WORKERS = 10_000
#: Seconds until the next try when the broker is away.
_PAUSE_S = 10.0


class Switch:
    """Tells all workers at the start, and each that appears, to send events of tasks.

    Args:
        app: The Celery app.
        errors: What its broker raises when it is away.
    """

    def __init__(self, app: Any, errors: tuple[type[BaseException], ...]):
        self.app, self.errors = app, errors
        # Heartbeats of each process, by node name.
        self._beats: dict[str, tuple[int | None, int]] = {}
        self._tell: deque[str] = deque()
        self._tell_all = True
        self._not_before_mono = 0.0

    def saw(self, news: WorkerNews) -> None:
        """Take what an event says of a worker."""
        if news.event != "heartbeat":
            return
        pid, count = self._beats.get(news.hostname, (None, 0))
        count = count + 1 if pid == news.pid else 1
        if len(self._beats) >= _MOST_WORKERS:
            self._beats.clear()
        self._beats[news.hostname] = (news.pid, count)
        if count in _AT_HEARTBEATS:
            self._tell.append(news.hostname)

    def step(self) -> None:
        """Send what is to be said, if there is anything. A broker that is away is logged, and tried again later."""
        if not (self._tell or self._tell_all) or time.monotonic() < self._not_before_mono:
            return
        names = sorted({self._tell.popleft() for _ in range(len(self._tell))})
        try:
            # Nobody waits for an answer.
            self.app.control.enable_events(destination=None if self._tell_all else names)
        except self.errors as exc:
            logger.warning("Could not tell workers to send events: %s; trying again.", exc)
            self._tell.extend(names)
            self._not_before_mono = time.monotonic() + _PAUSE_S
            return
        logger.info("Told %s to send events of tasks.", "all workers" if self._tell_all else ", ".join(names))
        self._tell_all = False
