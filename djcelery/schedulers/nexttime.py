"""When a schedule fires: a schedule and an instant go in, aware UTC instants come out.

Called by the scheduler (its heap of next instants, missed runs, the dry run) and by the admin (the next
runs). Writes nothing, and reads neither a clock, a setting, a Celery app nor a database: all that it
knows is in its arguments, so any beat computes the same instants for the same row.

A crontab fires when the clock on the wall in its own zone shows a matching minute *or a later one* for
the first time. That one sentence is the rule for clock changes: a minute that a change skips fires at
the first instant after the change, together with all others that are skipped and with one that is due
at that very instant; a minute that comes twice fires the first time.

Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime, timedelta, tzinfo
from typing import Any

from djcelery.exceptions import ScheduleError
from djcelery.schedulers.wallclock import UTC, first_reached, offset, read_fields, read_zone

__all__ = (
    "SOLAR_EVENTS",
    "Clocked",
    "Crontab",
    "Interval",
    "Schedule",
    "Solar",
    "StartingAt",
    "instants_between",
    "jitter_offset",
    "upcoming",
)

DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
#: The smallest step between two instants.
TICK = timedelta(microseconds=1)

#: The events that Celery knows, and for each: what ephem's Observer looks for, and the horizon in degrees.
SOLAR_EVENTS = {
    "dawn_astronomical": ("rising", "-18"),
    "dawn_nautical": ("rising", "-12"),
    "dawn_civil": ("rising", "-6"),
    "sunrise": ("rising", "-0:34"),
    "solar_noon": ("transit", "0"),
    "sunset": ("setting", "-0:34"),
    "dusk_civil": ("setting", "-6"),
    "dusk_nautical": ("setting", "-12"),
    "dusk_astronomical": ("setting", "-18"),
}
#: The hour of the mean solar day that is farthest from the event: days that start there hold it whole.
_DAY_STARTS_H = {"rising": -6, "transit": 0, "setting": 6}
_SOLAR_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
#: No event of the sun stays away longer than this and comes back.
SEARCH_DAYS = 366


class Schedule:
    """What all schedules here can do. Instants that come in are aware, those that go out are aware in UTC.

    Two schedules are equal if they are of one kind and say the same, in whatever notation.
    """

    __slots__: tuple[str, ...] = ()

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first firing after *instant*, never *instant* itself; None if there is none."""
        raise NotImplementedError

    def last_until(self, instant: datetime) -> datetime | None:
        """Return the latest firing at or before *instant*; None if there is none."""
        raise NotImplementedError

    def count_between(self, after: datetime, until: datetime) -> int:
        """Return how many firings are after *after*, and not after *until*."""
        return sum(1 for _ in upcoming(self, after, until))

    def _state(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __eq__(self, other: object) -> bool:
        return self._state() == other._state() if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), self._state()))


class Interval(Schedule):
    """Fires at *anchor* plus every whole number of periods, to the microsecond.

    Args:
        period: Longer than zero.
        anchor: Where counting starts; a firing itself only if *at_anchor*, as a start time is.

    Raises:
        ScheduleError: The period is not longer than zero, or the anchor is naive.
    """

    __slots__ = ("anchor", "first", "period")

    def __init__(self, period: timedelta, anchor: datetime, at_anchor: bool = False) -> None:
        if period <= timedelta(0):
            raise ScheduleError(f"The period {period!r} is not longer than zero. Give a longer one.")
        self.period = period
        self.anchor = _as_utc(anchor)
        self.first = 0 if at_anchor else 1

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first firing after *instant*; None only past the year 9999."""
        try:
            return self.anchor + max(self._periods_until(instant) + 1, self.first) * self.period
        except OverflowError:
            return None

    def last_until(self, instant: datetime) -> datetime | None:
        """Return the latest firing at or before *instant*; None before the first one."""
        periods = self._periods_until(instant)
        return self.anchor + periods * self.period if periods >= self.first else None

    def count_between(self, after: datetime, until: datetime) -> int:
        """Return how many firings are after *after*, and not after *until*, however many they are."""
        return max(0, self._periods_until(until) - max(self._periods_until(after), self.first - 1))

    def _periods_until(self, instant: datetime) -> int:
        return (instant - self.anchor) // self.period


class Crontab(Schedule):
    """Fires at the minutes that match all five fields, on the clocks of *zone*.

    A day must match ``day_of_week`` **and** ``day_of_month``, as in Celery and unlike in cron.

    Args:
        minute, hour, day_of_week, day_of_month, month_of_year: Celery's notation, such as ``*/5`` or ``mon-fri``.
        zone: The name of a zone, or a ``tzinfo`` that follows ``fold``; pytz's zones are taken by their name.

    Raises:
        ScheduleError: A field can't be read or the zone is unknown; the message names it.
    """

    __slots__ = ("_found", "fields", "zone")

    def __init__(
        self,
        minute: str | int = "*",
        hour: str | int = "*",
        day_of_week: str | int = "*",
        day_of_month: str | int = "*",
        month_of_year: str | int = "*",
        zone: str | tzinfo = UTC,
    ) -> None:
        self.fields = read_fields(str(minute), str(hour), str(day_of_week), str(day_of_month), str(month_of_year))
        self.zone = read_zone(zone)
        # A gap between two firings, as it was found last: thousands of rows share a crontab, and most of them ask
        # about the same gap.
        self._found: tuple[datetime, datetime] | None = None

    @property
    def never_fires(self) -> bool:
        """True if no such day exists, as on 31 February."""
        return not self.fields.months

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first firing after *instant*; None if it never fires, or only past the year 9999."""
        found = self._found
        if found is not None and instant.tzinfo is not None and found[0] <= instant < found[1]:
            return found[1]
        try:
            wall = self.fields.first_after(self._local(instant))
            # Only in the second pass of a repeated hour has a later minute on the wall been there before.
            while wall is not None and (fires_at := first_reached(wall)) <= instant:
                wall = self.fields.first_after(wall)
        except OverflowError:
            return None
        if wall is None:
            return None
        self._found = instant, fires_at
        return fires_at

    def last_until(self, instant: datetime) -> datetime | None:
        """Return the latest firing at or before *instant*; None if there is none."""
        local = self._local(instant)
        if local.fold:
            local += offset(local.replace(fold=0)) - offset(local)
        wall = self.fields.last_until(local)
        while wall is not None and (fired_at := first_reached(wall)) > instant:
            wall = self.fields.last_until(wall - MINUTE)
        return None if wall is None else fired_at

    def count_between(self, after: datetime, until: datetime) -> int:
        """Return how many firings are after *after*, and not after *until*; takes about 3 µs a day."""
        count = 0
        start, local = _as_utc(after), self._local(after)
        while start < until:
            end = min(until, start + DAY)
            local_end = self._local(end)
            if local.fold or offset(local) != offset(local_end):
                count += super().count_between(start, end)
            else:
                count += self.fields.count_between(local, local_end)
            start, local = end, local_end
        return count

    def _state(self) -> tuple[Any, ...]:
        fields = self.fields
        return fields.times, fields.weeks, fields.days, fields.months, self.zone

    def _local(self, instant: datetime) -> datetime:
        if instant.tzinfo is None:
            raise ScheduleError(f"The instant {instant!r} is naive. Give an aware one.")
        return instant.astimezone(self.zone)


class Solar(Schedule):
    """Fires at an event of the sun, to the whole second; passes over days on which it doesn't happen.

    Args:
        event: One of ``SOLAR_EVENTS``.
        latitude, longitude: Degrees, north and east positive.

    Raises:
        ScheduleError: An argument is out of range, or the package ``ephem`` is not installed.
    """

    __slots__ = ("event", "latitude", "longitude")

    def __init__(self, event: str, latitude: float, longitude: float) -> None:
        if event not in SOLAR_EVENTS:
            raise ScheduleError(f"The solar event {event!r} is unknown. Give one of: {', '.join(SOLAR_EVENTS)}.")
        for name, degrees, most in (("latitude", latitude, 90), ("longitude", longitude, 180)):
            if not -most <= degrees <= most:
                raise ScheduleError(f"The {name} {degrees!r} is not between -{most} and {most} degrees.")
        _import_ephem()
        self.event = event
        self.latitude = float(latitude)
        self.longitude = float(longitude)

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first event after *instant*; None if there is none within 366 days. About 0.1 ms a day."""
        today = self._day_of(instant)
        events = (self._event_on(day) for day in range(today, today + SEARCH_DAYS + 1))
        return next((event for event in events if event is not None and event > instant), None)

    def last_until(self, instant: datetime) -> datetime | None:
        """Return the latest event at or before *instant*; None if there is none within 366 days."""
        today = self._day_of(instant)
        events = (self._event_on(day) for day in range(today, today - SEARCH_DAYS - 1, -1))
        return next((event for event in events if event is not None and event <= instant), None)

    def _day_start(self, day: int) -> datetime:
        kind, _ = SOLAR_EVENTS[self.event]
        return _SOLAR_EPOCH + timedelta(days=day, hours=_DAY_STARTS_H[kind] - self.longitude / 15)

    def _day_of(self, instant: datetime) -> int:
        return (instant - self._day_start(0)) // DAY

    def _event_on(self, day: int) -> datetime | None:
        # ephem's answer depends a little on where its search starts, so an event is always searched from
        # the start of its day: asked for the next one after an event, it is not found a second time.
        ephem = _import_ephem()
        kind, horizon = SOLAR_EVENTS[self.event]
        observer = ephem.Observer()
        observer.lat, observer.lon, observer.horizon = str(self.latitude), str(self.longitude), horizon
        observer.elev = observer.pressure = 0
        centre = {"use_center": True} if self.event.startswith(("dawn", "dusk")) else {}
        start = self._day_start(day)
        try:
            found = getattr(observer, f"next_{kind}")(
                ephem.Sun(), start=ephem.Date(start.replace(tzinfo=None)), **centre
            )
        except ephem.CircumpolarError:
            return None
        event = found.datetime().replace(microsecond=0, tzinfo=UTC)
        return event if event < start + DAY else None


class Clocked(Schedule):
    """Fires once, at *instant*."""

    __slots__ = ("instant",)

    def __init__(self, instant: datetime) -> None:
        self.instant = _as_utc(instant)

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the firing if it is after *instant*, else None."""
        return self.instant if self.instant > instant else None

    def last_until(self, instant: datetime) -> datetime | None:
        """Return the firing if it is at or before *instant*, else None."""
        return self.instant if self.instant <= instant else None


class StartingAt(Schedule):
    """Fires as *schedule* does, but never before *start*, which may itself be a firing.

    An interval needs no such wrapper: its start is its anchor (``Interval(…, at_anchor=True)``).
    """

    __slots__ = ("before_start", "schedule")

    def __init__(self, schedule: Schedule, start: datetime) -> None:
        self.schedule = schedule
        self.before_start = _as_utc(start) - TICK

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first firing after *instant* and not before the start; None if there is none."""
        return self.schedule.next_after(max(instant, self.before_start))

    def last_until(self, instant: datetime) -> datetime | None:
        """Return the latest firing at or before *instant* and not before the start; None if there is none."""
        last = self.schedule.last_until(instant)
        return last if last is not None and last > self.before_start else None

    def count_between(self, after: datetime, until: datetime) -> int:
        """Return how many firings are after *after*, not after *until*, and not before the start."""
        return self.schedule.count_between(max(after, self.before_start), until)


def upcoming(schedule: Schedule, after: datetime, until: datetime | None = None) -> Iterator[datetime]:
    """Yield the firings after *after* in order, up to and with *until*; None is without end."""
    instant = schedule.next_after(after)
    while instant is not None and (until is None or instant <= until):
        yield instant
        instant = schedule.next_after(instant)


def instants_between(schedule: Schedule, after: datetime, until: datetime, limit: int) -> tuple[list[datetime], int]:
    """Return the last *limit* firings after *after* and up to *until*, in order, and how many earlier ones there are.

    Takes time for those that it returns, not for those that it counts, but for solar events.
    """
    kept: list[datetime] = []
    rest = until
    while len(kept) < limit and (last := schedule.last_until(rest)) is not None and last > after:
        kept.append(last)
        rest = last - TICK
    dropped = schedule.count_between(after, rest) if len(kept) >= limit else 0
    return kept[::-1], dropped


def jitter_offset(key: str, seconds: float) -> timedelta:
    """Return a delay from zero up to below *seconds* that depends on *key* alone, on every machine the same."""
    draw = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
    return timedelta(microseconds=draw * int(seconds * 1_000_000) >> 64)


def _as_utc(instant: datetime) -> datetime:
    if instant.tzinfo is None:
        raise ScheduleError(f"The instant {instant!r} is naive. Give an aware one.")
    return instant.astimezone(UTC)


def _import_ephem() -> Any:
    try:
        import ephem
    except ImportError as exc:
        raise ScheduleError(
            "Solar schedules need the package ephem, which is not installed. Run: pip install 'djcelery[solar]'"
        ) from exc
    return ephem
