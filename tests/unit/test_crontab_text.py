"""Crontabs in words."""

from __future__ import annotations

import pytest
from django.utils import translation
from hypothesis import given
from hypothesis import strategies as st

from djcelery.humanize import crontab_text
from tests.strategies import quick


def text(line, zone=""):
    return crontab_text(*line.split(), zone=zone)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("* * * * *", "every minute"),
        ("*/10 * * * *", "every 10 minutes"),
        ("0,10,20,30,40,50 * * * *", "every 10 minutes"),
        ("0-59/30 * * * *", "every 30 minutes"),
        ("0 * * * *", "every hour"),
        ("15 * * * *", "every hour, at minute 15"),
        ("5,20 * * * *", "every hour, at the minutes 5 and 20"),
        ("0 */2 * * *", "every 2 hours"),
        ("15 */6 * * *", "every 6 hours, at minute 15"),
        ("0 */12 * * *", "at 00:00 and 12:00 every day"),
        ("30 9-17 * * *", "every hour from 09:30 to 17:30"),
        ("*/15 9-17 * * *", "every 15 minutes from 09:00 to 17:45"),
        ("* 9 * * *", "every minute from 09:00 to 09:59"),
        ("0,30 9 * * *", "at 09:00 and 09:30 every day"),
        ("30 2 * * *", "at 02:30 every day"),
        ("0 8,12,18 * * *", "at 08:00, 12:00 and 18:00 every day"),
        ("0 */5 * * *", "at 00:00, 05:00, 10:00, 15:00 and 20:00 every day"),
    ],
)
def test_times_of_the_day_are_said_as_a_person_would(line, words):
    assert text(line) == words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("30 2 mon-fri * *", "at 02:30 on weekdays"),
        ("30 2 1-5 * *", "at 02:30 on weekdays"),
        ("30 2 fri,mon,tue,thu,wed * *", "at 02:30 on weekdays"),
        ("30 2 sat,sun * *", "at 02:30 at weekends"),
        ("30 2 0 * *", "at 02:30 on Sunday"),
        ("30 2 mon,wed * *", "at 02:30 on Monday and Wednesday"),
        ("30 2 sun,mon * *", "at 02:30 on Monday and Sunday"),
        ("30 2 tue-sat * *", "at 02:30 from Tuesday to Saturday"),
        ("30 2 0-6 * *", "at 02:30 every day"),
        ("*/10 * mon-fri * *", "every 10 minutes on weekdays"),
    ],
)
def test_days_of_the_week_are_named_from_monday_on(line, words):
    assert text(line) == words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 0 * 1 *", "at 00:00 on day 1 of the month"),
        ("0 0 * 1,15 *", "at 00:00 on the days 1 and 15 of the month"),
        ("0 0 * 1-7 *", "at 00:00 on the days 1 to 7 of the month"),
        ("0 0 mon 1-7 *", "at 00:00 on Monday, but only on the days 1 to 7 of the month"),
        ("0 0 * * 1", "at 00:00 every day in January"),
        ("0 0 * 1 1,7", "at 00:00 on day 1 of the month in January and July"),
        ("0 0 * 1 */3", "at 00:00 on day 1 of the month in January, April, July and October"),
        ("0 3 sun * 3-10", "at 03:00 on Sunday from March to October"),
        ("0 0 * 31 2", "at 00:00 on day 31 of the month in February"),
        ("0 * * * 12", "every hour in December"),
    ],
)
def test_days_of_the_month_and_months_are_said_and_that_a_day_must_be_both(line, words):
    assert text(line) == words


@pytest.mark.parametrize(
    "line",
    [
        "*/7 * * * *",
        "10-20 * * * *",
        "* */2 * * *",
        "*/10 8,20 * * *",
        "0 0 * */2 *",
        "0 0 * * 1,2,3,5,6,7,8",
        "61 * * * *",
        "*/0 * * * *",
        "soon * * * *",
        "0 0 * 1,,2 *",
        "0 0 * * 13",
    ],
)
def test_what_would_be_too_long_or_can_not_be_read_is_shown_as_it_is(line):
    assert text(line) == line
    assert text(line, "Asia/Kolkata") == f"{line}, Asia/Kolkata"


def test_spaces_and_numbers_make_no_difference():
    assert crontab_text("0, 30", 9, "mon - fri", "*", "*") == "at 09:00 and 09:30 on weekdays"


def test_the_zone_is_named_if_there_is_one():
    assert text("30 2 mon-fri * *", "Europe/Brussels") == "at 02:30 on weekdays, Europe/Brussels"


def test_names_of_days_come_in_the_active_language():
    with translation.override("es"):
        assert "lunes" in text("30 2 mon * *").lower()


FIELD = st.sampled_from(["*", "0", "1", "5", "*/2", "*/5", "*/7", "1-4", "2,5", "1-5/2", "0-6", "", "x", "99"])


@given(st.tuples(*(FIELD for _ in range(5))))
@quick
def test_there_are_words_for_anything(fields):
    assert isinstance(crontab_text(*fields, zone="UTC"), str)
