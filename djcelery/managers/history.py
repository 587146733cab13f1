"""Managers of what the monitor keeps for longer than rows of tasks, and the histograms in it.

Called by the camera, which writes, and by whoever reads ``TaskHistory``; see ``history_reads``.
Next: ``docs/explain/life-of-a-task-event.rst``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

from djcelery.managers.base import ExtendedManager
from djcelery.managers.history_reads import TaskHistoryQuerySet

#: Upper bounds of the buckets, in seconds, each bound within its bucket; one more bucket is without end.
#: Stored histograms count by the number of the bucket, so these never change.
BOUNDS_S = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    120.0,
    300.0,
    600.0,
    1800.0,
    3600.0,
)


class Histogram:
    """How many durations fell into each bucket of ``BOUNDS_S``. ``counts`` is by number of the bucket, from 0."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()

    @classmethod
    def load(cls, text: str) -> Histogram:
        """Return the histogram that ``dump()`` wrote as *text*; parts that it can't have written are left out."""
        loaded = cls()
        for part in text.split(",") if text else ():
            bucket, _, count = part.partition(":")
            if bucket.isdecimal() and count.isdecimal() and int(bucket) <= len(BOUNDS_S):
                loaded.counts[int(bucket)] += int(count)
        return loaded

    def dump(self) -> str:
        """Return the histogram as text: ``bucket:count,bucket:count``, empty buckets left out."""
        return ",".join(f"{bucket}:{count}" for bucket, count in sorted(self.counts.items()) if count)

    def add(self, duration_s: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(BOUNDS_S, duration_s)] += 1

    def merge(self, other: Histogram) -> None:
        """Count what *other* has counted."""
        self.counts.update(other.counts)

    @property
    def total(self) -> int:
        """How many durations were counted."""
        return sum(self.counts.values())

    def percentile(self, fraction: float) -> float | None:
        """Return below which length *fraction* (0 to 1) of the durations were, in seconds; None if there are none.

        Within a bucket they are taken as evenly spread. Beyond the last bound that bound is returned.
        """
        total = self.total
        if not total:
            return None
        wanted, below = min(max(fraction, 0.0), 1.0) * total, 0
        for bucket, count in sorted(self.counts.items()):
            if count and below + count >= wanted:
                if bucket >= len(BOUNDS_S):
                    break
                low = BOUNDS_S[bucket - 1] if bucket else 0.0
                return low + (BOUNDS_S[bucket] - low) * max(0.0, wanted - below) / count
            below += count
        return BOUNDS_S[-1]


class TaskHistoryManager(ExtendedManager.from_queryset(TaskHistoryQuerySet)):  # type: ignore[misc]
    """Counts and times per period, name and state."""


class CameraStateManager(ExtendedManager):
    """The cameras that write the monitor's tables."""
