"""What beat keeps in memory of each periodic task, and when each of them is due.

Made by ``loading`` from rows, used by ``scheduler``. Small, since there may be a hundred thousand: what many
tasks have in common (options, rules, crontabs) is one object. Writes nothing.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from djcelery.schedulers.nexttime import Interval, Schedule


class Options(NamedTuple):
    """What of a row goes into the message beside the arguments. ``headers`` is JSON."""

    queue: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    priority: int | None = None
    headers: str | None = None
    expires: datetime | None = None
    expire_seconds: int | None = None


class Rules(NamedTuple):
    """What of a row says whether and when to fire, beside its times."""

    missed_runs: str | None = None
    grace: timedelta | None = None
    no_overlap: bool = False
    overlap_timeout: int | None = None
    jitter_seconds: int = 0
    one_off: bool = False


class Plan:
    """One enabled row: what to send, and when. All instants are aware and in UTC.

    ``since``: all firings up to then are decided. ``due``: the next one; None if there is none. ``delay``: the
    jitter, by which each firing is later than its instant. ``wake``: the key in the heap. ``is_troubled``: the
    row has a ``last_error``.
    """

    __slots__ = (
        "args",
        "delay",
        "due",
        "is_troubled",
        "kwargs",
        "name",
        "options",
        "pk",
        "rules",
        "schedule",
        "since",
        "task",
        "wake",
    )

    def __init__(
        self,
        pk: int,
        name: str,
        task: str,
        args: str,
        kwargs: str,
        schedule: Schedule,
        since: datetime,
        options: Options,
        rules: Rules,
        delay: timedelta,
    ) -> None:
        self.pk, self.name, self.task = pk, name, task
        self.args, self.kwargs = args, kwargs
        self.schedule, self.since = schedule, since
        self.options, self.rules, self.delay = options, rules, delay
        self.due: datetime | None = None
        self.wake: float | None = None
        self.is_troubled = False
        self.decided(since)

    def decided(self, until: datetime) -> None:
        """Take all firings up to *until* as decided, and find the next one. A clock set back changes nothing."""
        self.since = max(self.since, until)
        due = self.schedule.next_after(self.since)
        expires = self.options.expires
        self.due = None if due is None or (expires is not None and due >= expires) else due

    def carry_on(self, before: Plan, is_adrift: bool) -> bool:
        """Keep the times of *before*, the plan so far of the same row, if an edit left them as they were; tell whether.

        Args:
            is_adrift: The anchor of the interval is the last run, so it moves by itself.
        """
        mine, old = self.schedule, before.schedule
        if mine != old:
            intervals = isinstance(mine, Interval) and isinstance(old, Interval)
            if not (is_adrift and intervals and (mine.period, mine.first) == (old.period, old.first)):  # type: ignore[attr-defined]
                return False
        self.schedule = old
        self.decided(before.since)
        return True

    @property
    def wakes_at(self) -> datetime | None:
        """When the next firing is to be sent: its instant and the jitter."""
        return None if self.due is None else self.due + self.delay


class Agenda:
    """All plans by key, and a heap of those that will fire. Each operation takes logarithmic time."""

    def __init__(self, plans: Iterable[Plan] = ()) -> None:
        self.plans: dict[int, Plan] = {}
        self._heap: list[tuple[float, int]] = []
        for plan in plans:
            self.plans[plan.pk] = plan
            if (item := _item(plan)) is not None:
                self._heap.append(item)
        heapq.heapify(self._heap)

    def put(self, plan: Plan) -> None:
        """Add *plan*, or put it where its next firing belongs; an older plan of the same task is forgotten."""
        self.plans[plan.pk] = plan
        if (item := _item(plan)) is not None:
            heapq.heappush(self._heap, item)
        if len(self._heap) > 2 * len(self.plans) + 1000:
            self._heap = [item for plan in self.plans.values() if (item := _item(plan)) is not None]
            heapq.heapify(self._heap)

    def remove(self, pk: int) -> None:
        """Forget the plan of task *pk*, if there is one."""
        self.plans.pop(pk, None)

    def next_wake(self) -> float | None:
        """Return the timestamp at which the next plan is due; None if none ever is."""
        while self._heap and not self._is_valid(*self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take_due(self, now: datetime, limit: int) -> list[Plan]:
        """Take up to *limit* due plans off the heap, the longest due first; ``put()`` puts each back."""
        until = now.timestamp()
        due: list[Plan] = []
        while len(due) < limit and (wake := self.next_wake()) is not None and wake <= until:
            plan = self.plans[heapq.heappop(self._heap)[1]]
            plan.wake = None
            due.append(plan)
        return due

    def _is_valid(self, wake: float, pk: int) -> bool:
        # What is outdated stays in the heap until it comes up.
        plan = self.plans.get(pk)
        return plan is not None and plan.wake == wake


def _item(plan: Plan) -> tuple[float, int] | None:
    """Return what stands for *plan* in the heap."""
    wakes_at = plan.wakes_at
    plan.wake = None if wakes_at is None else wakes_at.timestamp()
    return None if plan.wake is None else (plan.wake, plan.pk)
