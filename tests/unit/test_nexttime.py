"""When schedules fire: worked examples, Celery as a second opinion, and a naive oracle that walks the minutes."""

from __future__ import annotations

import calendar
import itertools
import os
import sys
from datetime import date, datetime, timedelta, timezone, tzinfo
from functools import cache, lru_cache
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest
from celery.schedules import crontab as celery_crontab
from hypothesis import given, settings
from hypothesis import strategies as st

from djcelery.exceptions import ScheduleError
from djcelery.schedulers.nexttime import (
    SOLAR_EVENTS,
    Clocked,
    Crontab,
    Interval,
    Solar,
    StartingAt,
    instants_between,
    jitter_offset,
    upcoming,
)
from djcelery.schedulers.wallclock import SEARCH_YEARS

UTC = timezone.utc
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
TICK = timedelta(microseconds=1)
quick = settings(max_examples=120)


def utc(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def texts(instants):
    return [instant.isoformat(" ").removesuffix("+00:00").removesuffix(":00") for instant in instants]


def firings(schedule, after, count):
    return texts(itertools.islice(upcoming(schedule, utc(after)), count))


# The oracle: nothing of it is shared with the code under test.


def walk(zone, start, end):
    """Walk the minutes of UTC; yield those that show or have skipped new times on the wall, and these."""
    zone = ZoneInfo(zone)
    seen = set()
    before = None
    instant = start - 26 * HOUR
    while instant <= end:
        wall = instant.astimezone(zone).replace(tzinfo=None)
        new = []
        if before is not None and wall > before + MINUTE:
            skipped = before + MINUTE
            while skipped < wall:
                new.append(skipped)
                skipped += MINUTE
        if wall not in seen:
            new.append(wall)
        seen.update(new)
        before = wall
        if instant >= start and new:
            yield instant, new
        instant += MINUTE


@lru_cache(maxsize=200)
def walked(zone, start, end):
    return [
        (instant, [(wall.minute, wall.hour, wall.isoweekday() % 7, wall.day, wall.month) for wall in walls])
        for instant, walls in walk(zone, start, end)
    ]


def oracle(sets, minutes):
    """Return the instants at which a time on the wall came up that all five *sets* hold."""
    return [
        instant
        for instant, walls in minutes
        if any(all(value in allowed for value, allowed in zip(wall, sets, strict=True)) for wall in walls)
    ]


@cache
def changes(zone):
    """Return the first minutes of UTC after each change of the clocks in 2024–2030."""
    found = []
    at, zone = utc("2024-01-01"), ZoneInfo(zone)
    while at < utc("2031-01-01"):
        if at.astimezone(zone).utcoffset() != (at + HOUR).astimezone(zone).utcoffset():
            found.append(
                next(
                    minute
                    for minute in (at + n * MINUTE for n in range(1, 61))
                    if minute.astimezone(zone).utcoffset() != at.astimezone(zone).utcoffset()
                )
            )
        at += HOUR
    return found


ZONES_AND_CHANGES = {
    "Europe/Brussels": 14,
    "Europe/London": 14,
    "America/New_York": 14,
    "America/Sao_Paulo": 0,
    "America/Santiago": 14,
    "Australia/Lord_Howe": 14,
    "Pacific/Auckland": 14,
    "Pacific/Chatham": 14,
    "Africa/Cairo": 14,
    "Asia/Beirut": 14,
    "Asia/Kolkata": 0,
    "Asia/Kathmandu": 0,
    "UTC": 0,
}

LIMITS = {
    "minute": (0, 59),
    "hour": (0, 23),
    "day_of_week": (0, 6),
    "day_of_month": (1, 31),
    "month_of_year": (1, 12),
}


@st.composite
def field(draw, name, rare=False):
    """Draw a text in Celery's notation, and the numbers that it means."""
    low, high = LIMITS[name]
    every = list(range(low, high + 1))
    number = st.sampled_from(every)
    kind = draw(st.sampled_from(["*", "number", "list", "step", "range", "range/step"] + ["*"] * (3 if rare else 0)))
    if kind == "*":
        return "*", set(every)
    if kind in ("number", "list"):
        numbers = draw(st.lists(number, min_size=1, max_size=1 if kind == "number" else 5))
        return ",".join(map(str, numbers)), set(numbers)
    step = draw(st.integers(1, high))
    if kind == "step":
        return f"*/{step}", set(every[::step])
    first, last = draw(number), draw(number)
    spanned = every[first - low : last - low + 1] if first <= last else every[first - low :] + every[: last - low + 1]
    if kind == "range":
        return f"{first}-{last}", set(spanned)
    return f"{first}-{last}/{step}", set(spanned[::step])


@st.composite
def fields(draw, days_rare=True):
    """Draw the five texts of a crontab in Celery's order, and the five sets of numbers."""
    drawn = [draw(field(name, rare=days_rare and name not in ("minute", "hour"))) for name in LIMITS]
    return [text for text, _ in drawn], [numbers for _, numbers in drawn]


def assert_same(schedule, expected, start, end):
    """Assert that *schedule* fires at *expected* and at nothing else after *start* up to *end*, asked in any way."""
    assert list(upcoming(schedule, start, end)) == expected
    assert instants_between(schedule, start, end, len(expected) + 1) == (expected, 0)
    assert instants_between(schedule, start, end, 3) == (expected[-3:], max(0, len(expected) - 3))
    assert schedule.count_between(start, end) == len(expected)


def assert_same_at(schedule, expected, start, end, instant):
    """Assert that *schedule* knows the neighbours of *instant* in *expected*, all firings from *start* to *end*."""
    later = [firing for firing in expected if firing > instant]
    earlier = [firing for firing in expected if firing <= instant]
    following, last = schedule.next_after(instant), schedule.last_until(instant)
    assert following == later[0] if later else following is None or following > end
    assert last == earlier[-1] if earlier else last is None or last < start
    assert schedule.count_between(start - TICK, instant) == len(earlier)
    assert schedule.count_between(instant, end) == len(later)


# Crontabs and clock changes


@pytest.mark.long
@pytest.mark.parametrize("zone", ZONES_AND_CHANGES)
def test_around_every_change_of_2024_to_2030_a_crontab_fires_as_the_walk_over_all_minutes_says(zone):
    assert len(changes(zone)) == ZONES_AND_CHANGES[zone]
    for change in changes(zone) or [utc("2027-02-28T23:17")]:
        start, end = change - 150 * MINUTE, change + 150 * MINUTE
        minutes = [row for row in walked(zone, start, end) if row[0] > start]
        local = change.astimezone(ZoneInfo(zone))
        before = (change - MINUTE).astimezone(ZoneInfo(zone))
        everything = [set(range(low, high + 1)) for low, high in LIMITS.values()]
        for times in (
            ("*", "*"),
            ("*/15", "*"),
            ("7", "*"),
            (f"{local.minute},{(local.minute + 30) % 60}", f"{(local.hour - 1) % 24},{local.hour}"),
            (f"{(before.minute + 1) % 60}-{before.minute}/10", f"{before.hour}-{(before.hour + 2) % 24}"),
            ("30", str((before.hour + 1) % 24)),
            ("0", "0"),
        ):
            parsed = celery_crontab(*times)
            expected = oracle([parsed.minute, parsed.hour, *everything[2:]], minutes)
            crontab = Crontab(*times, zone=zone)
            assert_same(crontab, expected, start, end)
            for instant in (start + n * timedelta(minutes=14, seconds=30) for n in range(20)):
                assert_same_at(crontab, [at for at in expected if at > start], start + TICK, end, instant)


@given(st.data(), st.sampled_from([zone for zone, number in ZONES_AND_CHANGES.items() if number]), fields())
@quick
def test_near_a_change_any_crontab_asked_at_any_instant_agrees_with_the_walk(data, zone, drawn):
    texts_, sets = drawn
    change = data.draw(st.sampled_from(changes(zone)))
    start, end = change - 6 * HOUR, change + 6 * HOUR
    expected = oracle(sets, walked(zone, start, end))
    crontab = Crontab(*texts_, zone=zone)
    instant = start + timedelta(microseconds=data.draw(st.integers(0, int(12 * HOUR / TICK))))
    assert_same_at(crontab, expected, start, end, instant)


@given(
    st.sampled_from(list(ZONES_AND_CHANGES)),
    fields(),
    st.datetimes(datetime(2024, 1, 1), datetime(2030, 12, 30), timezones=st.just(UTC)),
)
@quick
def test_at_any_time_of_2024_to_2030_any_crontab_agrees_with_the_walk(zone, drawn, instant):
    texts_, sets = drawn
    start = instant.replace(second=0, microsecond=0) + MINUTE
    end = start + DAY
    assert_same(Crontab(*texts_, zone=zone), oracle(sets, walked(zone, start, end)), instant, end)


@given(
    st.sampled_from(sorted(ZONES_AND_CHANGES)),
    fields(),
    st.lists(
        st.datetimes(datetime(2024, 1, 1), datetime(2030, 12, 31), timezones=st.just(UTC)), min_size=2, max_size=6
    ),
    st.timedeltas(timedelta(0), timedelta(hours=3)),
)
@quick
def test_what_a_crontab_was_asked_before_does_not_change_its_answer(zone, drawn, instants, step):
    asked = Crontab(*drawn[0], zone=zone)
    for instant in [*instants, *(instant + step for instant in instants), *instants[::-1]]:
        assert asked.next_after(instant) == Crontab(*drawn[0], zone=zone).next_after(instant)


@given(
    st.sampled_from(list(ZONES_AND_CHANGES)),
    fields(days_rare=False),
    st.datetimes(datetime(1950, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)),
)
@quick
def test_between_the_last_firing_and_the_instant_there_is_no_other(zone, drawn, instant):
    crontab = Crontab(*drawn[0], zone=zone)
    last = crontab.last_until(instant)
    assert (last is None) == crontab.never_fires
    if last is not None:
        assert last <= instant
        assert crontab.next_after(last - TICK) == last
        assert crontab.next_after(last) == crontab.next_after(instant) > instant


EXAMPLES = {
    # zone, the five fields, after, the firings in UTC
    "a skipped time fires at the first instant after the gap": (
        "Europe/Brussels", "30 2 * * *", "2026-03-28", ["2026-03-28 01:30", "2026-03-29 01:00", "2026-03-30 00:30"],
    ),
    "skipped times fire once, together with one that is due at the end of the gap": (
        "Europe/Brussels", "*/20 * * * *", "2026-03-29T00:30",
        ["2026-03-29 00:40", "2026-03-29 01:00", "2026-03-29 01:20"],
    ),
    "a repeated time fires the first time": (
        "Europe/Brussels", "30 2 * * *", "2026-10-24", ["2026-10-24 00:30", "2026-10-25 00:30", "2026-10-26 01:30"],
    ),
    "an hourly crontab is silent in the second pass": (
        "Europe/Brussels", "0 * * * *", "2026-10-24T22:30",
        ["2026-10-24 23:00", "2026-10-25 00:00", "2026-10-25 02:00"],
    ),
    "asked in the second pass it waits for its end": (
        "Europe/Brussels", "*/30 * * * *", "2026-10-25T01:10", ["2026-10-25 02:00", "2026-10-25 02:30"],
    ),
    "half an hour of daylight saving, gap": (
        "Australia/Lord_Howe", "0,15,30,45 2 * * *", "2026-10-03T15:20",
        ["2026-10-03 15:30", "2026-10-03 15:45", "2026-10-04 15:00"],
    ),
    "half an hour of daylight saving, fold": (
        "Australia/Lord_Howe", "15,45 1,2 * * *", "2026-04-04T14:00",
        ["2026-04-04 14:15", "2026-04-04 14:45", "2026-04-04 15:45", "2026-04-04 16:15", "2026-04-05 14:45"],
    ),
    "a zone of half an hour": ("Asia/Kolkata", "0 9 * * *", "2026-01-01", ["2026-01-01 03:30", "2026-01-02 03:30"]),
    "a zone of a quarter of an hour": (
        "Asia/Kathmandu", "0 0 1 * *", "2026-01-01", ["2026-01-31 18:15", "2026-02-28 18:15"],
    ),
    "a gap at a quarter to three": (
        "Pacific/Chatham", "0 3 * * *", "2026-09-25T14:15", ["2026-09-26 14:00", "2026-09-27 13:15"],
    ),
    "a midnight that is skipped, São Paulo": (
        "America/Sao_Paulo", "0 0 * * *", "2018-11-03",
        ["2018-11-03 03:00", "2018-11-04 03:00", "2018-11-05 02:00"],
    ),
    "a midnight that is skipped fires on its own day only, Cairo": (
        "Africa/Cairo", "30 0 24 4 *", "2026-01-01", ["2026-04-23 22:00", "2027-04-23 22:30"],
    ),
    "a midnight that is skipped, Beirut": (
        "Asia/Beirut", "0 0 * * sun", "2026-03-22", ["2026-03-28 22:00", "2026-04-04 21:00"],
    ),
    "a fold over midnight, Santiago: Saturday's last hour comes twice": (
        "America/Santiago", "30 23 * * sat", "2026-04-01", ["2026-04-05 02:30", "2026-04-12 03:30"],
    ),
    "a day that was skipped": (
        "Pacific/Apia", "0 12 * * *", "2011-12-29", ["2011-12-29 22:00", "2011-12-30 10:00", "2011-12-30 22:00"],
    ),
    "a day that was skipped has no midnight of its own": (
        "Pacific/Apia", "0 0 * * *", "2011-12-28T12:00", ["2011-12-29 10:00", "2011-12-30 10:00", "2011-12-31 10:00"],
    ),
    "local mean time: 17 minutes and 30 seconds": (
        "Europe/Brussels", "0 12 * * *", "1879-12-30",
        ["1879-12-30 11:42:30", "1879-12-31 11:42:30"],
    ),
    "local mean time that changes by 8 seconds": (
        "Asia/Kolkata", "0 0 1 1 *", "1853-01-01", ["1853-12-31 18:06:32", "1854-12-31 18:06:40"],
    ),
    "Celery's rule: weekday and day of month both must match": (
        "UTC", "0 0 13 * fri", "2026-01-01", ["2026-02-13 00:00", "2026-03-13 00:00", "2026-11-13 00:00"],
    ),
    "31 means the months that have it": (
        "UTC", "0 0 31 * *", "2026-01-31", ["2026-03-31 00:00", "2026-05-31 00:00", "2026-07-31 00:00"],
    ),
    "leap days": ("UTC", "0 0 29 2 *", "2026-01-01", ["2028-02-29 00:00", "2032-02-29 00:00"]),
    "leap days on one weekday, over the year 2100": (
        "UTC", "0 0 29 2 mon", "2072-01-01", ["2072-02-29 00:00", "2112-02-29 00:00", "2140-02-29 00:00"],
    ),
    "ranges that wrap": (
        "UTC", "0 22-2/2 * * fri-mon", "2026-05-07T12:00",
        ["2026-05-08 00:00", "2026-05-08 02:00", "2026-05-08 22:00", "2026-05-09 00:00"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("rule", EXAMPLES)
def test_worked_example(rule):
    zone, text, after, expected = EXAMPLES[rule]
    minute, hour, day_of_month, month_of_year, day_of_week = text.split()
    crontab = Crontab(minute, hour, day_of_week, day_of_month, month_of_year, zone)
    assert firings(crontab, after, len(expected)) == expected
    last = datetime.fromisoformat(expected[-1]).replace(tzinfo=UTC)
    assert texts(instants_between(crontab, utc(after), last, len(expected))[0]) == expected


# Crontabs: fields


@given(fields(days_rare=False), st.datetimes(datetime(2024, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC)))
@settings(quick, max_examples=300)
def test_in_utc_a_crontab_fires_next_when_celery_says(drawn, instant):
    texts_, sets = drawn
    crontab = Crontab(*texts_)
    app = SimpleNamespace(timezone=UTC, conf=SimpleNamespace(enable_utc=True))
    try:
        theirs = celery_crontab(*texts_, nowfun=lambda: instant, app=app)
        assert [theirs.minute, theirs.hour, theirs.day_of_week, theirs.day_of_month, theirs.month_of_year] == sets
        last, delta, _ = theirs.remaining_delta(instant, tz=UTC)
    except (ValueError, RuntimeError):
        # 31 February: Celery 5.7 refuses it, Celery 5.6 gives up searching.
        assert crontab.never_fires
        assert crontab.next_after(instant) is None
        return
    assert crontab.next_after(instant) == last + delta


def test_names_of_days_and_months_are_read_as_celery_reads_them():
    assert Crontab(0, 0, "mon,Wednesday,fri-sun", "*", "jan,mar-May") == Crontab(0, 0, "0,1,3,5,6", "*", "1,3,4,5")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("minute", "60"),
        ("minute", "*/0"),
        ("minute", ""),
        ("minute", "1,,2"),
        ("hour", "24"),
        ("hour", "-1"),
        ("day_of_week", "7"),
        ("day_of_week", "someday"),
        ("day_of_month", "0"),
        ("day_of_month", "1-32"),
        ("month_of_year", "13"),
        ("month_of_year", "*/"),
    ],
)
def test_a_field_that_cannot_be_read_is_named_with_its_text(name, text):
    with pytest.raises(ValueError, match=f"^The crontab field {name} = '{text}' can't be read: ".replace("*", r"\*")):
        Crontab(**{name: text})


@pytest.mark.parametrize("name", ["Europe/Atlantis", "", "../etc/passwd", "/etc/localtime", "Europe", "a\0b", "é"])
def test_an_unknown_zone_is_named(name):
    with pytest.raises(ValueError, match=r"^The time zone .* is unknown\.") as caught:
        Crontab(zone=name)
    assert repr(name) in str(caught.value)


def test_a_zone_may_be_given_as_tzinfo():
    assert Crontab(zone=ZoneInfo("Asia/Tokyo")) == Crontab(zone="Asia/Tokyo")
    fixed = Crontab(0, 9, zone=timezone(timedelta(hours=5, minutes=30)))
    assert fixed.next_after(utc("2026-01-01")) == utc("2026-01-01T03:30")


def test_a_zone_of_pytz_is_taken_by_its_name():
    class PytzLike(tzinfo):
        zone = "Europe/Brussels"

    assert Crontab(zone=PytzLike()) == Crontab(zone="Europe/Brussels")


def test_a_naive_instant_is_refused():
    naive = datetime(2026, 1, 1)
    crontab = Crontab(zone="UTC")
    crontab.next_after(datetime(2025, 12, 31, 23, 59, tzinfo=UTC))
    with pytest.raises(ScheduleError, match="is naive"):
        crontab.next_after(naive)
    for call in (Crontab().next_after, Crontab().last_until, Clocked, lambda at: Interval(HOUR, at)):
        with pytest.raises(ScheduleError, match="is naive"):
            call(naive)


def test_31_february_never_fires():
    crontab = Crontab(0, 0, "*", "31", "2,4,6,9,11")
    assert crontab.never_fires
    assert crontab.next_after(utc("2026-01-01")) is None
    assert crontab.last_until(utc("2026-01-01")) is None
    assert instants_between(crontab, utc("2020-01-01"), utc("2026-01-01"), 5) == ([], 0)
    assert not Crontab(0, 0, "*", "29-31", "2").never_fires


def test_no_day_of_the_calendar_stays_away_from_a_weekday_for_longer_than_the_search():
    # The calendar repeats after 400 years, which are whole weeks. A crontab's days are those of all its
    # combinations of month, day and weekday, so the longest wait of one combination bounds every crontab.
    first, cycle = date(2000, 1, 1), date(2400, 1, 1).toordinal() - date(2000, 1, 1).toordinal()
    assert cycle % 7 == 0
    years = {}
    for ordinal in range(first.toordinal(), first.toordinal() + cycle):
        day = date.fromordinal(ordinal)
        years.setdefault((day.month, day.day, day.weekday()), []).append(day.year)
    assert len(years) == 366 * 7
    longest = {
        combination: max(b - a for a, b in itertools.pairwise([*seen, seen[0] + 400]))
        for combination, seen in years.items()
    }
    assert max(longest.values()) == SEARCH_YEARS
    assert {(month, day) for (month, day, _), wait in longest.items() if wait == SEARCH_YEARS} == {(2, 29)}


@given(st.dates(date(1800, 1, 1), date(2400, 1, 1)), st.integers(0, 6))
@quick
def test_a_leap_day_on_a_weekday_is_found_from_anywhere(start, weekday):
    found = Crontab(0, 0, weekday, 29, 2).next_after(datetime(start.year, start.month, start.day, tzinfo=UTC))
    expected = next(
        date(year, 2, 29)
        for year in itertools.count(start.year)
        if calendar.isleap(year) and date(year, 2, 29).isoweekday() % 7 == weekday and date(year, 2, 29) > start
    )
    assert found.date() == expected


def test_past_the_year_9999_nothing_fires():
    end = datetime.max.replace(tzinfo=UTC)
    for zone in ("UTC", "America/New_York", "Asia/Tokyo"):
        assert Crontab(0, 0, zone=zone).next_after(end - HOUR) is None
    assert Interval(DAY, end - HOUR).next_after(end - MINUTE) is None


# Intervals


def test_an_interval_fires_at_whole_periods_from_its_anchor_and_not_at_the_anchor():
    interval = Interval(timedelta(hours=36), utc("2026-03-01T06:00"))
    assert firings(interval, "2020-01-01", 2) == ["2026-03-02 18:00", "2026-03-04 06:00"]
    assert interval.next_after(utc("2026-03-02T18:00")) == utc("2026-03-04T06:00")
    assert interval.last_until(utc("2026-03-02T17:59")) is None
    assert interval.last_until(utc("2026-03-02T18:00")) == utc("2026-03-02T18:00")


def test_an_anchor_that_is_a_start_time_is_a_firing_too():
    interval = Interval(DAY, utc("2026-03-01T06:00"), at_anchor=True)
    assert firings(interval, "2020-01-01", 2) == ["2026-03-01 06:00", "2026-03-02 06:00"]


def test_an_interval_counts_elapsed_time_whatever_zone_its_anchor_is_in():
    brussels = ZoneInfo("Europe/Brussels")
    interval = Interval(DAY, datetime(2026, 3, 28, 12, tzinfo=brussels))
    following = interval.next_after(datetime(2026, 3, 28, 12, tzinfo=brussels))
    assert following == utc("2026-03-29T11:00")
    assert following.tzinfo is UTC


@given(
    st.timedeltas(timedelta(microseconds=1), timedelta(days=4000)),
    st.datetimes(datetime(1990, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)),
    st.datetimes(datetime(1990, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)),
    st.booleans(),
)
@quick
def test_next_and_last_of_an_interval_enclose_the_instant(period, anchor, instant, at_anchor):
    interval = Interval(period, anchor, at_anchor)
    first = anchor if at_anchor else anchor + period
    following, last = interval.next_after(instant), interval.last_until(instant)
    assert following > instant
    assert following >= first
    assert (following - anchor) % period == timedelta(0)
    if last is None:
        assert following == first
    else:
        assert last <= instant
        assert following - last == period
    assert interval.count_between(instant, following) == 1
    assert interval.count_between(instant, following - TICK) == 0


@pytest.mark.parametrize("period", [timedelta(0), -DAY])
def test_a_period_that_is_not_longer_than_zero_is_refused(period):
    with pytest.raises(ScheduleError, match="is not longer than zero"):
        Interval(period, utc("2026-01-01"))


# Missed firings, start times, jitter


def test_of_a_billion_missed_firings_the_last_are_given_and_the_others_counted():
    interval = Interval(timedelta(milliseconds=1), utc("2026-01-01"))
    given_, dropped = instants_between(interval, utc("2026-01-01"), utc("2026-01-21"), 2)
    assert given_ == [utc("2026-01-21") - timedelta(milliseconds=1), utc("2026-01-21")]
    assert dropped == 20 * 86_400_000 - 2


def test_the_firings_of_a_crontab_are_counted_over_years():
    crontab = Crontab("*", "*", zone="Europe/Brussels")
    given_, dropped = instants_between(crontab, utc("2024-01-01"), utc("2026-01-01"), 1)
    # Two years of minutes: an hour that comes twice fires once, an hour that is skipped fires with the next one.
    assert len(given_) + dropped == (366 + 365) * 1440 - 2 * 60


def test_a_limit_of_zero_only_counts():
    assert instants_between(Crontab(0), utc("2026-01-01"), utc("2026-01-02"), 0) == ([], 24)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Brussels", "Pacific/Chatham"])
def test_the_instants_that_come_in_may_be_of_any_zone(zone):
    # On this day of 25 hours in New York there are two midnights in UTC.
    after = datetime(2026, 10, 31, 19, 30, tzinfo=ZoneInfo("America/New_York"))
    until = datetime(2026, 11, 3, tzinfo=ZoneInfo(zone))
    for schedule in (Crontab(0, zone=zone), Interval(HOUR, after), StartingAt(Crontab(0, zone=zone), after)):
        expected = list(upcoming(schedule, after.astimezone(UTC), until.astimezone(UTC)))
        assert_same(schedule, expected, after, until)
        assert all(instant.tzinfo is UTC for instant in expected)


def test_nothing_fires_before_the_start_time_but_at_it():
    daily = StartingAt(Crontab(0, 0), utc("2026-05-07"))
    assert firings(daily, "2020-01-01", 2) == ["2026-05-07 00:00", "2026-05-08 00:00"]
    assert daily.last_until(utc("2026-05-06T23:59")) is None
    assert instants_between(daily, utc("2020-01-01"), utc("2026-05-08"), 9) == (
        [utc("2026-05-07"), utc("2026-05-08")],
        0,
    )
    assert daily.count_between(utc("2020-01-01"), utc("2026-05-08")) == 2


def test_a_clocked_schedule_fires_once():
    clocked = Clocked(datetime(2026, 5, 7, 12, tzinfo=ZoneInfo("Asia/Tokyo")))
    assert firings(clocked, "2026-01-01", 9) == ["2026-05-07 03:00"]
    assert clocked.next_after(utc("2026-05-07T03:00")) is None
    assert clocked.last_until(utc("2026-05-07T02:59")) is None
    assert instants_between(clocked, utc("2026-01-01"), utc("2027-01-01"), 9) == ([utc("2026-05-07T03:00")], 0)
    assert StartingAt(clocked, utc("2026-06-01")).next_after(utc("2026-01-01")) is None


def test_jitter_depends_on_the_key_alone():
    # Written down once: another machine or another Python must draw the same.
    assert jitter_offset("17", 60.0) == timedelta(microseconds=16_204_219)
    assert jitter_offset("17", 0) == timedelta(0)


@given(st.text(), st.floats(0, 86_400))
@quick
def test_jitter_stays_below_its_seconds(key, seconds):
    assert timedelta(0) <= jitter_offset(key, seconds) <= timedelta(seconds=seconds)


def test_jitter_spreads_keys_evenly():
    tenths = [int(jitter_offset(str(key), 10) / timedelta(seconds=1)) for key in range(2000)]
    assert all(150 < tenths.count(tenth) < 250 for tenth in range(10))


def test_schedules_that_say_the_same_are_equal():
    assert Crontab("*/30", zone="Asia/Tokyo") == Crontab("0,30", zone="Asia/Tokyo")
    assert hash(Crontab("*/30")) == hash(Crontab("0,30"))
    assert Crontab("*/30") != Crontab("*/30", zone="Asia/Tokyo")
    assert Interval(HOUR, utc("2026-01-01")) != Interval(HOUR, utc("2026-01-01"), at_anchor=True)
    assert Clocked(utc("2026-01-01")) != Interval(HOUR, utc("2026-01-01"))


# The sun


@pytest.fixture
def ephem():
    """The package ephem: needed in CI, skipped over on a laptop without it."""
    if os.environ.get("CI"):
        import ephem

        return ephem
    return pytest.importorskip("ephem")


@pytest.mark.parametrize("event", SOLAR_EVENTS)
@pytest.mark.parametrize("place", [(50.85, 4.35), (-33.87, 151.21), (69.65, 18.96), (0, -180)])
def test_the_events_of_the_sun_are_those_of_celery(ephem, event, place):
    from celery.schedules import solar

    at = utc("2026-01-01")
    ours = Solar(event, *place)
    for _ in range(8):
        theirs = solar(event, *place, nowfun=lambda now=at: now, app=SimpleNamespace(timezone=UTC))
        following = ours.next_after(at)
        if following - at < DAY:
            # Celery before 5.7 fails where there is none on the first day.
            assert abs(at + theirs.remaining_estimate(at) - following) < timedelta(seconds=3)
        at = following + timedelta(days=23, hours=7)


@pytest.mark.parametrize("event", SOLAR_EVENTS)
def test_an_event_of_the_sun_comes_once_a_day_asked_forward_or_backward(ephem, event):
    solar = Solar(event, 51.5, -0.1)
    found = list(upcoming(solar, utc("2026-01-01"), utc("2027-01-01")))
    gaps = [b - a for a, b in itertools.pairwise(found)]
    assert all(gap > 23 * HOUR for gap in gaps)
    # In the short nights of London it doesn't get quite dark.
    assert sum(gap > 25 * HOUR for gap in gaps) == event.endswith("astronomical")
    assert instants_between(solar, utc("2026-01-01"), utc("2027-01-01"), 500) == (found, 0)
    assert all(instant.microsecond == 0 for instant in found)


def test_in_the_polar_night_the_next_sunrise_is_weeks_away(ephem):
    tromso = Solar("sunrise", 69.65, 18.96)
    assert texts([tromso.next_after(utc("2026-11-30"))])[0].startswith("2027-01-1")
    assert texts([tromso.last_until(utc("2026-12-30"))])[0].startswith("2026-11-2")


def test_where_an_event_never_happens_there_is_no_next(ephem):
    assert Solar("dawn_civil", 90, 0).next_after(utc("2026-01-01")) is None
    assert Solar("dawn_civil", 90, 0).last_until(utc("2026-01-01")) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("moonrise", 0, 0), r"The solar event 'moonrise' is unknown\. Give one of: dawn_astronomical, "),
        (("sunset", 90.1, 0), r"The latitude 90.1 is not between -90 and 90 degrees"),
        (("sunset", float("nan"), 0), r"The latitude nan is not between"),
        (("sunset", 0, -181), r"The longitude -181 is not between -180 and 180 degrees"),
    ],
)
def test_a_solar_schedule_that_cannot_be_is_refused(arguments, words):
    with pytest.raises(ScheduleError, match=words):
        Solar(*arguments)


def test_without_ephem_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ephem", None)
    with pytest.raises(ScheduleError, match=r"pip install 'djcelery\[solar\]'"):
        Solar("sunset", 0, 0)
