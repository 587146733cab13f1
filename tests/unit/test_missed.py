"""The missed-run policy: which of the firings that were missed are made up for."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from djcelery.schedulers import missed
from djcelery.schedulers.nexttime import Clocked, Crontab, Interval

UTC = timezone.utc
NOW = datetime(2026, 3, 4, 12, 0, 30, tzinfo=UTC)
NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAILY_AT_7 = Crontab("0", "7")
WEEKLY = Crontab("0", "12", day_of_week="1")


def every(period, anchor=NOON - timedelta(days=2)):
    return Interval(period, anchor)


@pytest.mark.parametrize("policy", [None, "once"])
def test_once_fires_the_latest_and_passes_over_the_others(policy):
    assert missed.decide(policy, None, every(HOUR), NOON - 3 * HOUR, NOW) == ([NOON], 2, 0)


def test_nothing_due_is_nothing_to_decide():
    for policy in ("skip", "once", "all"):
        assert missed.decide(policy, None, every(HOUR), NOON, NOW) == ([], 0, 0)


def test_once_without_a_grace_time_reaches_back_one_period():
    at_7 = datetime(2026, 3, 4, 7, 0, tzinfo=UTC)
    assert missed.decide(None, None, DAILY_AT_7, at_7 - timedelta(days=1), NOW).fire == [at_7]


def test_once_without_a_grace_time_reaches_back_a_day_at_most():
    monday = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
    last = monday - timedelta(days=7)
    assert missed.decide(None, None, WEEKLY, last, monday + timedelta(hours=23)) == ([monday], 0, 0)
    assert missed.decide(None, None, WEEKLY, last, monday + timedelta(hours=25)) == ([], 1, 0)


def test_a_single_instant_has_a_day_of_grace():
    assert missed.decide(None, None, Clocked(NOON), NOON - HOUR, NOON + timedelta(hours=23)).fire == [NOON]
    assert missed.decide(None, None, Clocked(NOON), NOON - HOUR, NOON + timedelta(hours=25)).fire == []


@pytest.mark.parametrize("policy", ["skip", "once", "all"])
@pytest.mark.parametrize(("late_s", "count"), [(59, 1), (60, 1), (61, 0)])
def test_a_grace_time_of_its_own_counts_to_the_second(policy, late_s, count):
    now = NOON + timedelta(seconds=late_s)
    decision = missed.decide(policy, timedelta(seconds=60), every(HOUR), NOON - HOUR, now)
    assert (len(decision.fire), decision.skipped_count) == (count, 1 - count)


def test_skip_fires_what_is_on_time_and_nothing_that_is_late():
    assert missed.decide("skip", None, every(HOUR), NOON - 3 * HOUR, NOON + missed.ON_TIME) == ([NOON], 2, 0)
    late = NOON + missed.ON_TIME + timedelta(seconds=1)
    assert missed.decide("skip", None, every(HOUR), NOON - 3 * HOUR, late) == ([], 3, 0)


def test_all_fires_all_in_order():
    decision = missed.decide("all", None, every(HOUR), NOON - 3 * HOUR, NOW)
    assert decision == ([NOON - 2 * HOUR, NOON - HOUR, NOON], 0, 0)


def test_all_is_capped_and_says_what_it_drops():
    decision = missed.decide("all", None, every(timedelta(minutes=1)), NOON - 5 * HOUR, NOW, cap=10)
    assert decision.fire == [NOON - timedelta(minutes=n) for n in range(9, -1, -1)]
    assert (decision.skipped_count, decision.dropped_count) == (0, 290)


def test_all_with_a_grace_time_passes_over_what_is_older():
    decision = missed.decide("all", timedelta(minutes=90), every(HOUR), NOON - 5 * HOUR, NOW)
    assert decision == ([NOON - HOUR, NOON], 3, 0)


def test_all_counts_apart_what_the_cap_and_what_the_grace_time_cut_off():
    minutely = every(timedelta(minutes=1))
    decision = missed.decide("all", timedelta(minutes=20), minutely, NOON - HOUR, NOW, cap=10)
    # Of 60, 20 are within the grace time, and 10 are sent.
    assert (len(decision.fire), decision.skipped_count, decision.dropped_count) == (10, 40, 10)


def test_the_default_cap_is_a_hundred():
    decision = missed.decide("all", None, every(timedelta(seconds=1)), NOON - HOUR, NOON)
    assert (len(decision.fire), decision.dropped_count) == (100, 3500)


def test_a_claimed_run_is_worth_sending_for_a_minute_at_least():
    seconds = every(timedelta(seconds=1))
    for policy in ("skip", "once", None):
        assert missed.is_worth_sending(policy, None, seconds, NOON, NOON + timedelta(seconds=59))
        assert not missed.is_worth_sending(policy, None, seconds, NOON, NOON + timedelta(seconds=61))
    assert missed.is_worth_sending("all", None, seconds, NOON, NOON + timedelta(days=400))
    assert missed.is_worth_sending("once", None, every(HOUR), NOON, NOON + timedelta(minutes=59))


def test_a_grace_time_of_its_own_counts_for_claimed_runs_too():
    assert missed.is_worth_sending("once", timedelta(seconds=5), every(HOUR), NOON, NOON + timedelta(seconds=5))
    assert not missed.is_worth_sending("once", timedelta(seconds=5), every(HOUR), NOON, NOON + timedelta(seconds=6))
