"""Switching the events of tasks on, in workers that were started without ``-E``.

Called by ``program``: ``saw`` with each event of a worker, in the receiver's thread, ``step`` in the writer's. What is
said goes to the broker in a thread of its own.
Next: ``docs/explain/receiving-events.rst``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Any

from djcelery.brokers import bounded, control_over
from djcelery.snapshot.news import WorkerNews

__all__ = ("Switch",)

logger = logging.getLogger(__name__)

#: A worker is told at its first heartbeat, and once more: at the first it may not listen yet.
_AT_HEARTBEATS = frozenset({1, 3})
#: Workers that are remembered, and that are named in one go; if there are more to tell, all are told.
_MOST_WORKERS = 10_000
#: Most seconds for one call to the broker, and until the next try when it is away.
LIMIT_S, _PAUSE_S = 4.0, 10.0


class Switch:
    """Tells all workers at the start, and each that appears, to send events of tasks. *app* is Celery's."""

    def __init__(self, app: Any):
        self.app = app
        # Heartbeats of each process, by node name.
        self._beats: dict[str, tuple[int | None, int]] = {}
        self._tell: deque[str] = deque()
        self._tell_all = True
        self._not_before_mono = 0.0
        self._thread: threading.Thread | None = None

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
            if len(self._tell) >= _MOST_WORKERS:
                self._tell.clear()
                self._tell_all = True
            self._tell.append(news.hostname)

    def step(self) -> None:
        """Begin to send what is to be said, if there is anything, in a thread of its own: the writer waits for nobody.

        A broker that is away is logged, and tried again later.
        """
        if self._thread is not None and self._thread.is_alive():
            return
        if not (self._tell or self._tell_all) or time.monotonic() < self._not_before_mono:
            return
        # It ends with the process: what is not said then needs no saying.
        self._thread = threading.Thread(target=self._say, name="celerycam switch", daemon=True)
        self._thread.start()

    def _say(self) -> None:
        is_all, self._tell_all = self._tell_all, False
        names = sorted({self._tell.popleft() for _ in range(len(self._tell))})
        try:
            self._send(None if is_all else names)
        except Exception as exc:  # noqa: BLE001 - a transport may raise anything, and the thread has nobody above it
            logger.warning("Could not tell workers to send events: %s; trying again.", exc)
            self._tell.extend(names)
            self._tell_all |= is_all
            self._not_before_mono = time.monotonic() + _PAUSE_S
            return
        logger.info("Told %s to send events of tasks.", "all workers" if is_all else ", ".join(names))

    def _send(self, destination: list[str] | None) -> None:
        with bounded(self.app, LIMIT_S) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=LIMIT_S)
            mailbox = control_over(self.app, connection).mailbox(connection)
            if destination is None:
                mailbox.abcast("enable_events")
            else:
                mailbox.cast(destination, "enable_events")
