"""The search line of the lists: what its terms are, and that it never raises anything but its own error."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from djcelery.admin.search import MAX_TERMS, SearchError, Term, parse, span
from djcelery.exceptions import DjCeleryError
from tests.strategies import quick

KEYS = ("id", "name", "state", "args")
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=ZoneInfo("Europe/Brussels"))


def terms(line):
    return [(term.key, term.text, term.is_prefix) for term in parse(line, KEYS, {"uuid": "id"})]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("", []),
        ("  \t ", []),
        ("abc", [("", "abc", False)]),
        ("abc def", [("", "abc", False), ("", "def", False)]),
        ("state:FAILURE name:shop.tasks.add", [("state", "FAILURE", False), ("name", "shop.tasks.add", False)]),
        ("STATE:x Uuid:1", [("state", "x", False), ("id", "1", False)]),
        ("name:shop.*", [("name", "shop.", True)]),
        ("id:abc…", [("id", "abc", True)]),
        ("abc*", [("", "abc", True)]),
        ('args:"a b"', [("args", "a b", False)]),
        ('args:"a b*"', [("args", "a b*", False)]),
        ('name:"a b"*', [("name", "a b", True)]),
        ('"state:FAILURE"', [("", "state:FAILURE", False)]),
        (r'args:"say \"hi\" \\"', [("args", 'say "hi" \\', False)]),
        (r"args:a\b", [("args", "a\\b", False)]),
        ("args:a:b", [("args", "a:b", False)]),
        ("12:30", [("", "12:30", False)]),
        ("a*b", [("", "a*b", False)]),
        ("args:**", [("args", "*", True)]),
    ],
)
def test_a_line_is_read_as_terms(line, found):
    assert terms(line) == found


def test_a_star_that_makes_no_sense_for_a_key_can_be_had_back():
    (term,) = parse("args:a*", KEYS)
    assert term.raw == "a*"
    assert Term("args", "a").raw == "a"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("foo:1", "There is no “foo:”. The keys are id:, name:, state:, args:;"),
        ("http://x", "There is no “http:”"),
        ("state:", "“state:” needs a text"),
        ("state: FAILURE", "“state:” needs a text"),
        ('state:""', "“state:” needs a text"),
        ("*", "“*” needs a text"),
        ('"abc', "A quotation mark is missing at the end of “abc”"),
        ("a\x00b", "characters that no task has"),
        ("\ud800", "characters that no task has"),
        ("x" * 5000, "too long"),
        ("a " * (MAX_TERMS + 1), "more than 50 terms"),
    ],
)
def test_what_can_t_be_understood_says_why(line, said):
    with pytest.raises(SearchError, match=re.escape(said)) as caught:
        parse(line, KEYS)
    assert isinstance(caught.value, (DjCeleryError, ValueError))


@given(st.text(alphabet=st.characters() | st.sampled_from(list(' ":*\\…')), max_size=60))
@quick
def test_no_line_raises_anything_but_the_search_s_own_error(line):
    try:
        found = parse(line, KEYS)
    except SearchError:
        return
    assert all(term.text and term.key in ("", *KEYS) for term in found)
    assert len(found) <= MAX_TERMS


@given(st.lists(st.tuples(st.sampled_from(["", *KEYS]), st.text(min_size=1, max_size=10)), max_size=8))
@quick
def test_whatever_is_quoted_is_found_again(wanted):
    wanted = [(key, text) for key, text in wanted if "\x00" not in text]
    line = " ".join(
        (f"{key}:" if key else "") + '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for key, text in wanted
    )
    if any("\ud800" <= character <= "\udfff" for character in line):
        return
    assert [(term.key, term.text) for term in parse(line, KEYS)] == wanted


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("30m", NOW - timedelta(minutes=30), None),
        ("1h", NOW - timedelta(hours=1), None),
        ("2d", NOW - timedelta(days=2), None),
        ("1w", NOW - timedelta(weeks=1), None),
        ("2026-11-21", datetime(2026, 11, 21, tzinfo=NOW.tzinfo), datetime(2026, 11, 22, tzinfo=NOW.tzinfo)),
        ("2026-10-25..2026-11-01", datetime(2026, 10, 25, tzinfo=NOW.tzinfo), datetime(2026, 11, 2, tzinfo=NOW.tzinfo)),
    ],
)
def test_times_are_ages_days_or_days_from_one_to_another(text, start, end):
    assert span(text, NOW) == (start, end)


def test_a_day_in_which_the_clock_changes_has_its_25_hours():
    start, end = span("2026-10-25", NOW)
    assert end.astimezone(timezone.utc) - start.astimezone(timezone.utc) == timedelta(hours=25)


@pytest.mark.parametrize(
    "text", ["", "h", "1y", "99999h", "2026-13-01", "2026-1-1", "0001-01-01", "9999-12-31", "..", "x"]
)
def test_what_is_no_time_says_what_would_be(text):
    with pytest.raises(SearchError, match="is not a time such as 30m"):
        span(text, NOW)


@given(st.text(alphabet="0123456789-.mhdw", max_size=24))
@quick
def test_no_text_of_a_time_raises_anything_but_the_search_s_own_error(text):
    try:
        start, end = span(text, NOW)
    except SearchError:
        return
    assert end is None or start < end
