"""Reading the history of tasks: counts by time and by name, and how long tasks waited and ran.

Called by the overview, the metrics and people's own code through ``TaskHistory.objects``. Writes nothing; no model is
imported here. A method that returns figures runs its queries at once, each of a bounded number of rows.
Next: ``docs/monitor.rst``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from django.db import connections, models
from django.db.models import ExpressionWrapper, F, Max, Sum
from django.utils.dateparse import parse_datetime

from djcelery import utils
from djcelery.managers.base import ExtendedQuerySet

if TYPE_CHECKING:
    from djcelery.managers.history import Histogram

#: The states in which a task has come to its end. Not LOST: another worker may run it, and it is counted again then.
FINISHED = ("SUCCESS", "FAILURE", "REVOKED", "REJECTED")
#: Names whose figures are read unless the caller says otherwise.
TOP = 20
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass
class Lengths:
    """How long tasks waited or ran: seconds, of ``count`` tasks. ``longest`` is None if nothing is known."""

    count: int = 0
    total: float = 0.0
    longest: float | None = None
    texts: list[str] = field(default_factory=list)

    def add(self, count: int, total: float, longest: float | None, text: str) -> None:
        """Add the columns of one row."""
        self.count += count
        self.total += total
        if longest is not None:
            self.longest = longest if self.longest is None else max(self.longest, longest)
        if text:
            self.texts.append(text)

    @property
    def mean(self) -> float | None:
        """The mean; None if nothing is known."""
        return self.total / self.count if self.count else None

    @property
    def histogram(self) -> Histogram:
        """All rows as one histogram."""
        # That module takes its base class from this one.
        from djcelery.managers.history import Histogram

        merged = Histogram()
        # Most parts come again and again, and counting them is much quicker than reading them.
        parts = Counter(",".join(self.texts).split(",")) if self.texts else {}
        for part, times in parts.items():
            for bucket, count in Histogram.load(part).counts.items():
                merged.counts[bucket] += count * times
        return merged

    def percentiles(self, *fractions: float) -> list[float | None]:
        """Return, for each of *fractions* (0 to 1), the seconds that so many took at most; None if nothing is known."""
        if not self.count:
            return [None] * len(fractions)
        from djcelery.managers.history import BOUNDS_S

        merged, most = self.histogram, self.longest
        found = [merged.percentile(fraction) for fraction in fractions]
        # Inside of a bucket it is an estimate, which must not be beyond what was measured; the last one has no end.
        return [
            value if value is None or most is None else most if value >= BOUNDS_S[-1] else min(value, most)
            for value in found
        ]


@dataclass(eq=False)
class NameFigures:
    """What the history has of one task name: counts by state, waiting and running. ``name`` is "" if it isn't known."""

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    runtime: Lengths = field(default_factory=Lengths)
    waiting: Lengths = field(default_factory=Lengths)
    #: How many came to an end, by the start of the period (aware, in UTC).
    finished_at: Counter[datetime] = field(default_factory=Counter)

    @property
    def finished(self) -> int:
        """How many came to an end."""
        return sum(self.counts[state] for state in FINISHED)

    @property
    def failed_share(self) -> float:
        """The share of the finished that failed, 0 to 1."""
        return self.counts["FAILURE"] / self.finished if self.finished else 0.0


class TaskHistoryQuerySet(ExtendedQuerySet):
    """Counts and times per period, name and state."""

    def minutes(self, since: datetime, until: datetime | None = None) -> TaskHistoryQuerySet:
        """Return the rows of the minutes that begin in *since* or later, and before *until* (None: without end)."""
        return self._periods(self.model.MINUTE, since, until)

    def hours(self, since: datetime, until: datetime | None = None) -> TaskHistoryQuerySet:
        """Return the rows of the hours that begin in *since* or later, and before *until* (None: without end)."""
        return self._periods(self.model.HOUR, since, until)

    def totals(self) -> TaskHistoryQuerySet:
        """Return the rows that count since the beginning; they never shrink."""
        return self.filter(period=self.model.TOTAL, start=utils.correct_awareness(EPOCH))

    def named(self, *names: str) -> TaskHistoryQuerySet:
        """Return the rows of the tasks *names*."""
        return self.filter(name__in=names)

    def in_state(self, *states: str) -> TaskHistoryQuerySet:
        """Return the rows of the *states*, such as ``"FAILURE"``."""
        return self.filter(state__in=states)

    def _periods(self, period: str, since: datetime, until: datetime | None) -> TaskHistoryQuerySet:
        found = self.filter(period=period, start__gte=utils.correct_awareness(since))
        return found if until is None else found.filter(start__lt=utils.correct_awareness(until))

    def by_state(self) -> dict[str, int]:
        """Return how many tasks came to each state.

        Database: 1 query.
        """
        return dict(self.order_by().values_list("state").annotate(number=Sum("count")))

    def by_start(self) -> dict[datetime, dict[str, int]]:
        """Return how many tasks came to each state in each period, by its start (aware, in UTC); none for empty ones.

        Database: 1 query, a row per period and state.
        """
        found: dict[datetime, dict[str, int]] = {}
        for start, state, number in self.order_by().values_list("start", "state").annotate(number=Sum("count")):
            found.setdefault(utils.to_utc(start), {})[state] = number
        return found

    def busiest(self, limit: int = TOP) -> list[str]:
        """Return the names that were run most often, retries included, the busiest first, *limit* at most.

        Database: 1 query.
        """
        rows = self.order_by().in_state(*FINISHED, "RETRY").values_list("name").annotate(number=Sum("count"))
        return [row[0] for row in rows.order_by("-number", "name")[:limit]]

    def by_name(self, limit: int = TOP) -> list[NameFigures]:
        """Return the figures of the *limit* busiest names, the busiest first.

        Database: 2 queries; the second has a row per period and state of these names.
        """
        return self.figures_of(self.busiest(limit))

    def figures_of(self, names: Collection[str]) -> list[NameFigures]:
        """Return the figures of *names*, in that order.

        Database: 1 query, a row per period and state; none for no *names*.
        """
        if not names:
            return []
        found = {name: NameFigures(name) for name in names}
        # A server that doesn't tell case in names groups them under one spelling, and returns them in others.
        spellings = {name.lower(): figures for name, figures in found.items()}
        # To convert each instant would take longer than all the rest; there are few different ones.
        start = ExpressionWrapper(F("start"), output_field=models.TextField())
        rows = self.order_by().named(*names).annotate(raw_start=start).values_list("raw_start", *COLUMNS)
        raw: dict[NameFigures, Counter[Any]] = {figures: Counter() for figures in found.values()}
        for raw_start, name, state, number, *lengths in rows:
            figures = found.get(name) or spellings[name.lower()]
            add_row(figures, state, number, *lengths)
            if state in FINISHED:
                raw[figures][raw_start] += number
        zone = connections[self.db].timezone
        starts = {value: _instant(value, zone) for counts in raw.values() for value in counts}
        for figures, counts in raw.items():
            figures.finished_at = Counter({starts[value]: number for value, number in counts.items()})
        return list(found.values())

    def latest_start(self) -> datetime | None:
        """Return the start of the latest period, aware in UTC; None if there is none.

        Database: 1 query.
        """
        found = self.order_by().aggregate(latest=Max("start"))["latest"]
        return None if found is None else utils.to_utc(found)


#: The columns of a row, as ``add_row()`` takes them, after its name.
COLUMNS = (
    *("name", "state", "count"),
    *(f"{kind}_{column}" for kind in ("runtime", "waiting") for column in ("count", "sum", "max", "histogram")),
)


def add_row(figures: NameFigures, state: str, number: int, *lengths: Any) -> None:
    """Add a row to *figures*; *lengths* are those of running, then those of waiting."""
    figures.counts[state] += number
    if lengths[0]:
        figures.runtime.add(*lengths[:4])
    if lengths[4]:
        figures.waiting.add(*lengths[4:])


def _instant(value: Any, zone: Any) -> datetime:
    """Return what a driver gave for an instant, aware in UTC; *zone* is that of naive ones, None for local time."""
    moment = parse_datetime(value) if isinstance(value, str) else value
    return utils.to_utc(moment.replace(tzinfo=zone) if zone and moment.tzinfo is None else moment)
