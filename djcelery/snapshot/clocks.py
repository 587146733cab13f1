"""By how much the clocks of workers are ahead of the camera's, from when their heartbeats were sent and when they came.

Called by ``dirty``. An event that was long on its way looks like one from a clock that is behind: while the broker
delivers what it has kept, heartbeats come much faster than they were sent, and say nothing. Pure.
Next: ``docs/explain/life-of-a-task-event.rst``.
"""

from __future__ import annotations

from collections import deque

#: A clock that is less than this ahead or behind counts as right, in seconds.
TOLERANCE_S = 1.0
#: Heartbeats that are looked at, and how many of them it takes to say that a clock is behind.
_LATEST, _LEAST = 4, 2


class Clock:
    """The clock of one worker."""

    __slots__ = ("_ahead", "_came_at", "_sent_at")

    def __init__(self) -> None:
        self._sent_at: float | None = None
        self._came_at = 0.0
        self._ahead: deque[float] = deque(maxlen=_LATEST)

    @property
    def heard_at(self) -> float:
        """When the latest heartbeat came, by the camera's clock."""
        return self._came_at

    def hear(self, sent_at: float, came_at: float) -> None:
        """Take in a heartbeat, sent at *sent_at* by the worker's clock, that came at *came_at* by the camera's."""
        ahead = sent_at - came_at
        is_live = self._sent_at is not None and came_at - self._came_at >= (sent_at - self._sent_at) / 2 >= 0
        # Nothing comes before it is sent.
        if is_live or ahead > 0:
            self._ahead.append(ahead)
        self._sent_at, self._came_at = sent_at, came_at

    @property
    def skew_s(self) -> float | None:
        """Seconds by which the clock is ahead, below 0 if it is behind; None if it is not known."""
        if not self._ahead:
            return None
        # What was longest on its way tells least.
        skew = max(self._ahead)
        if skew < 0 and len(self._ahead) < _LEAST:
            return None
        return 0.0 if abs(skew) < TOLERANCE_S else skew

    def corrected(self, sent_at: float, came_at: float) -> float:
        """Return *sent_at* by the camera's clock; never later than *came_at*."""
        return min(sent_at - (self.skew_s or 0.0), came_at)
