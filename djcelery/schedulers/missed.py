"""What becomes of firings that were missed: a policy, a schedule and two instants in, a decision out.

Called by the scheduler for every due entry, and for runs that could not be sent in time. Pure: it reads no
clock and no database, and writes nothing.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from djcelery.schedulers.nexttime import DAY, Schedule, instants_between

SKIP, ONCE, ALL = "skip", "once", "all"

#: A firing that is no later than this is on time, whatever the policy: beat was busy, or another took over.
ON_TIME = timedelta(seconds=30)
#: A run that was claimed is sent at least this long, unless its task has a grace time of its own.
CLAIMED_GRACE = timedelta(seconds=60)
#: No more missed firings of one entry are made up for at once.
CAP = 100


class Decision(NamedTuple):
    """The instants to fire now, oldest first; how many the policy passes over, and how many the cap cuts off."""

    fire: list[datetime]
    skipped_count: int
    dropped_count: int


def decide(
    policy: str | None,
    grace: timedelta | None,
    schedule: Schedule,
    last: datetime,
    now: datetime,
    cap: int = CAP,
) -> Decision:
    """Decide on the firings after *last* and up to *now*.

    ``once`` (and None) fires the latest one, ``all`` fires all, the latest *cap* at most, ``skip`` the latest one
    if it is on time. None fires one that is later than its grace time.

    Args:
        grace: How late a firing may be. None: for ``once`` one period, at most a day; for ``all`` without end;
            for ``skip`` what is on time.
    """
    limit = max(cap, 1) if policy == ALL else 1
    instants, earlier = instants_between(schedule, last, now, limit)
    fresh = [instant for instant in instants if now - instant <= longest(policy, grace, schedule, instant)]
    late = len(instants) - len(fresh)
    if policy != ALL:
        return Decision(fresh, earlier + late, 0)
    # Of the firings that the cap cuts off, those that are too late anyway count as passed over.
    cut_off = earlier if grace is None else _fresh_count(schedule, last, now, grace, len(fresh))
    return Decision(fresh, late + earlier - cut_off, cut_off)


def longest(policy: str | None, grace: timedelta | None, schedule: Schedule, instant: datetime) -> timedelta:
    """Return how late the firing of *instant* may be sent."""
    if policy == ALL:
        return timedelta.max if grace is None else grace
    if grace is not None:
        return grace
    if policy == SKIP:
        return ON_TIME
    following = schedule.next_after(instant)
    return DAY if following is None else min(following - instant, DAY)


def is_worth_sending(
    policy: str | None, grace: timedelta | None, schedule: Schedule, instant: datetime, now: datetime
) -> bool:
    """Tell whether a run that was claimed for *instant* and could not be sent then is still to be sent."""
    allowed = longest(policy, grace, schedule, instant)
    return now - instant <= (allowed if grace is not None else max(allowed, CLAIMED_GRACE))


def _fresh_count(schedule: Schedule, last: datetime, now: datetime, grace: timedelta, kept: int) -> int:
    """Return how many firings within *grace* there are beside the *kept* ones."""
    since = max(last, now - grace)
    return max(0, schedule.count_between(since, now) - kept)
