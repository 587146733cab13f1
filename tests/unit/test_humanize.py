from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from django.utils import translation

from djcelery import humanize, utils

NOW = datetime(2026, 11, 21, 15, 30, tzinfo=timezone.utc)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    from django.utils import timezone as django_timezone

    monkeypatch.setattr(utils, "now", lambda: django_timezone.localtime(NOW))


def ago(**kwargs) -> str:
    return humanize.naturaldate(NOW - timedelta(**kwargs))


@pytest.mark.parametrize(
    ("age", "text"),
    [
        ({"seconds": 0}, "just now"),
        ({"seconds": 59}, "just now"),
        ({"seconds": 65}, "1 minute ago"),
        ({"minutes": 59, "seconds": 59}, "59 minutes ago"),
        ({"hours": 1}, "1 hour ago"),
        ({"hours": 23, "minutes": 59}, "23 hours ago"),
        ({"hours": 25}, "yesterday at 15:30"),
        ({"days": 2}, "2 days ago"),
        ({"days": 6}, "6 days ago"),
        ({"days": 8}, "1 week ago"),
        ({"days": 40}, "1 month ago"),
        ({"days": 364}, "12 months ago"),
        ({"days": 400}, "1 year ago"),
        ({"days": 800}, "2 years ago"),
    ],
)
def test_ages_are_said_in_the_unit_a_person_would_use(age, text):
    assert ago(**age) == text


def test_the_future_is_just_now():
    assert ago(hours=-5) == "just now"


def test_no_date_is_no_text():
    assert humanize.naturaldate(None) == ""


def test_seconds_are_counted_on_request_only():
    moment = NOW - timedelta(seconds=30)
    assert humanize.naturaldate(moment, include_seconds=True) == "30 seconds ago"
    assert humanize.naturaldate(NOW - timedelta(seconds=1), include_seconds=True) == "1 second ago"
    assert humanize.naturaldate(NOW, include_seconds=True) == "just now"


def test_yesterday_is_that_of_the_project_s_calendar_and_clock():
    # 23:05 UTC on the 19th is 00:05 on the 20th in Brussels.
    assert humanize.naturaldate(datetime(2026, 11, 19, 23, 5, tzinfo=timezone.utc)) == "yesterday at 00:05"
    assert humanize.naturaldate(datetime(2026, 11, 19, 22, 55, tzinfo=timezone.utc)) == "2 days ago"


def test_a_change_of_the_clocks_adds_no_hour(monkeypatch):
    from django.utils import timezone as django_timezone

    # Brussels, 25 October 2026: 03:00 summer time became 02:00.
    after = datetime(2026, 10, 25, 1, 10, tzinfo=timezone.utc)
    monkeypatch.setattr(utils, "now", lambda: django_timezone.localtime(after))
    assert humanize.naturaldate(after - timedelta(minutes=20)) == "20 minutes ago"


def test_naive_local_time_is_understood_without_use_tz(settings, monkeypatch):
    settings.USE_TZ = False
    now = datetime(2026, 11, 21, 15, 30)
    monkeypatch.setattr(utils, "now", lambda: now)
    assert humanize.naturaldate(now - timedelta(hours=3)) == "3 hours ago"
    assert humanize.naturaldate(datetime(2026, 11, 21, 12, 30, tzinfo=timezone.utc)) == "2 hours ago"


def test_a_naive_date_under_use_tz_is_taken_as_utc_instead_of_failing():
    assert humanize.naturaldate(NOW.replace(tzinfo=None) - timedelta(hours=2)) == "2 hours ago"


def test_the_legacy_names_give_a_text_that_may_be_formatted_again():
    assert humanize.pluralize_year(1).format(num=1) == "1 year ago"
    assert humanize.pluralize_month(2).format(num=2) == "2 months ago"
    assert humanize.pluralize_week(3) == "3 weeks ago"
    assert humanize.pluralize_day(1) == "1 day ago"
    assert [chunk for chunk, _ in humanize.OLDER_CHUNKS] == [365, 30, 7, 1]
    with translation.override("en"):
        assert humanize._un(("one", "many"), 1) == "one"
        assert humanize._un(("one", "many"), 2) == "many"
