"""What one transaction adds to the history: counts and durations by period, name and state.

Called by ``writer`` and ``upkeep``. Pure.
Next: ``docs/explain/life-of-a-task-event.rst``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from djcelery.managers.history import Histogram
from djcelery.snapshot.merging import Increment

MINUTE_S, HOUR_S = 60, 3600
#: As in ``TaskHistory``, which no pure module imports.
MINUTE, HOUR, TOTAL = "minute", "hour", "total"


class Key(NamedTuple):
    """What a row of the history is about; *start* in seconds since the epoch."""

    period: str
    start: float
    name: str
    state: str


class Durations:
    """How long tasks ran or waited, in seconds: number, sum, maximum and histogram."""

    __slots__ = ("count", "histogram", "longest", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.longest: float | None = None
        self.histogram = Histogram()

    def add(self, duration_s: float) -> None:
        """Count one duration."""
        self.count += 1
        self.total += duration_s
        self.longest = duration_s if self.longest is None else max(self.longest, duration_s)
        self.histogram.add(duration_s)

    def merge(self, other: Durations) -> None:
        """Count what *other* has counted."""
        if other.count:
            self.count += other.count
            self.total += other.total
            self.longest = other.longest if self.longest is None else max(self.longest, other.longest or 0.0)
            self.histogram.merge(other.histogram)

    def over(self, longest: float | None, histogram: str) -> tuple[float | None, str]:
        """Return maximum and histogram together with those of a stored row."""
        if not self.count:
            return longest, histogram
        merged = Histogram.load(histogram)
        merged.merge(self.histogram)
        found = self.longest if longest is None or self.longest is None else max(longest, self.longest)
        return found, merged.dump()


class Tally:
    """How often tasks came to one state, and how long they ran and waited."""

    __slots__ = ("count", "runtime", "waiting")

    def __init__(self) -> None:
        self.count = 0
        self.runtime = Durations()
        self.waiting = Durations()

    def merge(self, other: Tally) -> None:
        """Count what *other* has counted."""
        self.count += other.count
        self.runtime.merge(other.runtime)
        self.waiting.merge(other.waiting)


class Tallies:
    """What is to be added to the history. *now_s* is the present: nothing counts later, whatever a clock says."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s
        self._minutes: dict[tuple[float, str, str], Tally] = {}

    def add(self, increment: Increment) -> None:
        """Count *increment* in its minute."""
        at = min(increment.at, self.now_s)
        key = (at - at % MINUTE_S, increment.name, increment.state)
        tally = self._minutes.get(key)
        if tally is None:
            tally = self._minutes[key] = Tally()
        tally.count += increment.times
        if increment.runtime is not None:
            tally.runtime.add(increment.runtime)
        if increment.waiting is not None:
            tally.waiting.add(increment.waiting)

    def rows(self) -> Iterator[tuple[Key, Tally]]:
        """Yield each row that is touched and what to add to it: minutes, hours and totals."""
        wider: dict[Key, Tally] = {}
        for (start, name, state), tally in self._minutes.items():
            yield Key(MINUTE, start, name, state), tally
            for key in (Key(HOUR, start - start % HOUR_S, name, state), Key(TOTAL, 0.0, name, state)):
                wider.setdefault(key, Tally()).merge(tally)
        yield from wider.items()


def columns(tally: Tally, stored: tuple[Any, ...] | None) -> tuple[Any, ...]:
    """Return the columns of a row from ``count`` on: what to add to counts and sums, the new maxima and histograms.

    Args:
        stored: Of the row, if it is there, ``runtime_max``, ``runtime_histogram``, ``waiting_max`` and
            ``waiting_histogram``.
    """
    runtime, waiting = tally.runtime, tally.waiting
    ran_max, ran_histogram, waited_max, waited_histogram = stored or (None, "", None, "")
    ran_max, ran_histogram = runtime.over(ran_max, ran_histogram)
    waited_max, waited_histogram = waiting.over(waited_max, waited_histogram)
    return (
        tally.count,
        runtime.count,
        runtime.total,
        ran_max,
        waiting.count,
        waiting.total,
        waited_max,
        ran_histogram,
        waited_histogram,
    )
