"""The bar of a task's times: its stretches, its words, and that it is always as wide as it should be."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from djcelery.admin.timeline import QUEUED, RUNNING, WAITING, bar, in_words, segments
from tests.strategies import quick

AT = datetime(2026, 11, 21, tzinfo=timezone.utc)


def at(seconds):
    return None if seconds is None else AT + timedelta(seconds=seconds)


def life(sent=None, received=None, started=None, finished=None, now=None):
    return [tuple(part) for part in segments(*map(at, (sent, received, started, finished, now)))]


def test_a_finished_task_was_queued_waited_and_ran():
    assert life(0, 1, 3, 10) == [(QUEUED, 1, False), (WAITING, 2, False), (RUNNING, 7, False)]


def test_what_goes_on_lasts_until_now():
    assert life(0, 1, 3, None, 5) == [(QUEUED, 1, False), (WAITING, 2, False), (RUNNING, 2, True)]
    assert life(0, 1, None, None, 5) == [(QUEUED, 1, False), (WAITING, 4, True)]
    assert life(0, None, None, None, 5) == [(QUEUED, 5, True)]


def test_of_a_lost_task_only_what_is_known_is_shown():
    assert life(0, 1, 3) == [(QUEUED, 1, False), (WAITING, 2, False)]


def test_a_task_that_was_revoked_before_it_began_only_waited():
    assert life(0, 1, None, 4) == [(QUEUED, 1, False), (WAITING, 3, False)]
    assert life(0, None, None, 4) == [(QUEUED, 4, False)]


def test_clocks_that_disagree_give_no_negative_times():
    assert life(5, 1, 0, 3) == [(QUEUED, 0, False), (WAITING, 0, False), (RUNNING, 3, False)]


def test_without_any_time_there_is_no_bar():
    assert life() == []
    assert bar([]) is None


def test_the_bar_has_its_words_for_who_can_t_see_it():
    parts = segments(*map(at, (0, 1, 3, None, 5)))
    assert in_words(parts) == "1.000 s in the queue, 2.000 s waiting in the worker, 2.000 s running so far"
    shown = bar(parts)
    assert 'role="img" aria-label="1.000 s in the queue' in shown
    assert "style=" not in shown
    assert shown.count("<rect") == 3


@given(st.tuples(*[st.none() | st.floats(0, 1e7)] * 5))
@quick
def test_the_stretches_fill_the_bar_and_none_vanishes(moments):
    parts = segments(*map(at, moments))
    if not parts:
        return
    places = [(float(x), float(width)) for x, width in re.findall(r'x="([\d.]+)" y="0" width="([\d.]+)"', bar(parts))]
    assert len(places) == len(parts)
    assert all(width >= 3.9 for _x, width in places)
    assert abs(sum(width for _x, width in places) - 1000) < 0.5
