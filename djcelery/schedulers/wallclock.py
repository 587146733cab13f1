"""What a crontab means on a clock on the wall: the minutes that match, and when the clock reaches them.

Called by ``nexttime`` alone. Knows the calendar and the clocks of zones, and nothing else; writes nothing.
Sets of numbers are bits of an int: small, shared between crontabs, and searched in one step.

Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

import calendar
from bisect import bisect_left
from datetime import MAXYEAR, MINYEAR, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from celery.schedules import ParseException, crontab_parser

from djcelery.exceptions import ScheduleError

#: What crontab_parser is told of each field: how many values there are, and the first of them.
FIELDS = {
    "minute": (60, 0),
    "hour": (24, 0),
    "day_of_week": (7, 0),
    "day_of_month": (31, 1),
    "month_of_year": (12, 1),
}
#: Any day of a month that exists falls on any weekday within this time: 29 February takes longest, over 2100.
SEARCH_YEARS = 40
#: Multiplied with seven bits, one per weekday, this repeats them for the six weeks that a month can touch.
_SIX_WEEKS = sum(1 << 7 * week for week in range(6))
_LONGEST = (0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

UTC = timezone.utc


class Fields:
    """The five fields of a crontab, read. Times that go in and out are of the wall: their offset is not looked at."""

    __slots__ = ("days", "months", "times", "weeks")

    def __init__(self, minute: str, hour: str, day_of_week: str, day_of_month: str, month_of_year: str) -> None:
        minutes, hours = _bits("minute", minute), _bits("hour", hour)
        self.times = sum(minutes << 60 * value for value in range(24) if hours >> value & 1)
        self.weeks = _bits("day_of_week", day_of_week) * _SIX_WEEKS
        self.days = _bits("day_of_month", day_of_month)
        self.months = _possible_months(self.days, _bits("month_of_year", month_of_year))

    def first_after(self, wall: datetime) -> datetime | None:
        """Return the first matching minute of the calendar after *wall*."""
        year, month, day = wall.year, wall.month, wall.day
        times = self.times >> (from_minute := wall.hour * 60 + wall.minute + 1)
        if times and self._matches_day(wall):
            return _at(wall, year, month, day, from_minute + _lowest(times))
        day += 1
        for in_year in range(year, min(year + SEARCH_YEARS, MAXYEAR) + 1):
            months = self.months >> month << month
            while months:
                in_month = _lowest(months)
                days = self._days(in_year, in_month)
                if in_year == year and in_month == wall.month:
                    days = days >> day << day
                if days:
                    return _at(wall, in_year, in_month, _lowest(days), _lowest(self.times))
                months &= months - 1
            month = 1
        return None

    def last_until(self, wall: datetime) -> datetime | None:
        """Return the last matching minute of the calendar up to *wall*."""
        year, month, day = wall.year, wall.month, wall.day
        times = _up_to(self.times, wall.hour * 60 + wall.minute)
        if times and self._matches_day(wall):
            return _at(wall, year, month, day, _highest(times))
        for in_year in range(year, max(year - SEARCH_YEARS, MINYEAR) - 1, -1):
            months = _up_to(self.months, month)
            while months:
                in_month = _highest(months)
                days = self._days(in_year, in_month)
                if in_year == year and in_month == wall.month:
                    days = _up_to(days, day - 1)
                if days:
                    return _at(wall, in_year, in_month, _highest(days), _highest(self.times))
                months ^= 1 << in_month
            month = 12
        return None

    def count_between(self, start: datetime, end: datetime) -> int:
        """Return how many minutes match after *start* and up to *end*, at most a day of the same offset later."""
        from_minute = start.hour * 60 + start.minute + 1
        upto = _up_to(self.times, end.hour * 60 + end.minute)
        if start.day == end.day:
            return (upto >> from_minute).bit_count() if self._matches_day(start) else 0
        first = (self.times >> from_minute).bit_count() if self._matches_day(start) else 0
        return first + (upto.bit_count() if self._matches_day(end) else 0)

    def _matches_day(self, wall: datetime) -> int:
        return self.months >> wall.month & self.days >> wall.day & self.weeks >> wall.isoweekday() & 1

    def _days(self, year: int, month: int) -> int:
        """Return the matching days of a month as bits 1 to 31."""
        monday_based, length = calendar.monthrange(year, month)
        # Bit d is the weekday of day d; Sunday is bit 0 of a week.
        return _up_to(self.weeks >> (monday_based + 1) % 7 << 1 & self.days, length)


@lru_cache(maxsize=4096)
def read_fields(minute: str, hour: str, day_of_week: str, day_of_month: str, month_of_year: str) -> Fields:
    """Return the fields of a crontab; equal texts share one object.

    Raises:
        ScheduleError: A field can't be read; the message names it and its text.
    """
    return Fields(minute, hour, day_of_week, day_of_month, month_of_year)


def read_zone(zone: str | tzinfo) -> tzinfo:
    """Return the zone of that name; a zone of pytz, which doesn't know ``fold``, is taken by its name.

    Raises:
        ScheduleError: There is no zone of that name.
    """
    name = zone if isinstance(zone, str) else getattr(zone, "zone", None)
    if not isinstance(name, str):
        assert isinstance(zone, tzinfo)
        return zone
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as exc:
        raise ScheduleError(f"The time zone {name!r} is unknown. Give a name such as 'Europe/Brussels'.") from exc


def first_reached(wall: datetime) -> datetime:
    """Return the instant (UTC) at which the clocks of *wall*'s zone first show *wall* or later."""
    before, after = offset(wall), offset(wall.replace(fold=1))
    in_utc = wall.replace(tzinfo=UTC)
    if before >= after:
        return in_utc - before
    # A skipped minute: with the offset from before the change it is too late, with that from after too early.
    early = in_utc - after

    def is_reached(second: int) -> bool:
        # Two times of one zone are compared as the clock shows them.
        return (early + timedelta(seconds=second)).astimezone(wall.tzinfo) >= wall

    seconds = range(int((after - before).total_seconds()))
    return early + timedelta(seconds=bisect_left(seconds, True, key=is_reached))


def offset(local: datetime) -> timedelta:
    """Return how far the clock that shows *local* is ahead of UTC."""
    return local.utcoffset() or timedelta(0)


def _at(wall: datetime, year: int, month: int, day: int, minute_of_day: int) -> datetime:
    return datetime(year, month, day, minute_of_day // 60, minute_of_day % 60, tzinfo=wall.tzinfo)


@lru_cache(maxsize=4096)
def _bits(field: str, text: str) -> int:
    """Return the values that *text* stands for as bits of an int."""
    try:
        return sum(1 << value for value in crontab_parser(*FIELDS[field]).parse(text))
    except (ValueError, ParseException) as exc:
        raise ScheduleError(f"The crontab field {field} = {text!r} can't be read: {exc}") from exc


def _possible_months(days: int, months: int) -> int:
    """Return *months* without those that are too short for every one of *days*."""
    return sum(1 << month for month in range(1, 13) if months >> month & 1 and _up_to(days, _LONGEST[month]))


def _up_to(bits: int, highest: int) -> int:
    return bits & (2 << highest) - 1


def _lowest(bits: int) -> int:
    return (bits & -bits).bit_length() - 1


def _highest(bits: int) -> int:
    return bits.bit_length() - 1
