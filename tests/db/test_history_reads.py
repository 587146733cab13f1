"""Reading the history: sums by state, time and name, and percentiles."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test.utils import CaptureQueriesContext

from djcelery.managers.history_reads import Lengths
from djcelery.models import TaskHistory
from tests.db.history import add, histogram, hour, instant, minute, row, total

pytestmark = pytest.mark.django_db

NOON = instant(2026, 11, 21, 12)


def test_minutes_hours_and_totals_are_kept_apart():
    add(NOON, count=1)
    add(NOON, count=10, period="hour")
    total(count=100)
    assert TaskHistory.objects.minutes(NOON).by_state() == {"SUCCESS": 1}
    assert TaskHistory.objects.hours(NOON).by_state() == {"SUCCESS": 10}
    assert TaskHistory.objects.totals().by_state() == {"SUCCESS": 100}


def test_the_first_period_counts_and_the_end_does_not():
    for place in range(4):
        add(NOON + timedelta(minutes=place))
    found = TaskHistory.objects.minutes(NOON + timedelta(minutes=1), NOON + timedelta(minutes=3))
    assert sorted(found.by_start()) == [NOON + timedelta(minutes=1), NOON + timedelta(minutes=2)]


def test_counts_are_summed_over_names_by_start_and_state():
    add(NOON, name="a", count=2)
    add(NOON, name="b", count=3)
    add(NOON, name="b", state="FAILURE", count=1)
    add(NOON + timedelta(minutes=1), name="a", count=7)
    assert TaskHistory.objects.minutes(NOON).by_start() == {
        NOON: {"SUCCESS": 5, "FAILURE": 1},
        NOON + timedelta(minutes=1): {"SUCCESS": 7},
    }


def test_rows_can_be_narrowed_to_names_and_states():
    add(NOON, name="a", count=2)
    add(NOON, name="a", state="FAILURE", count=4)
    add(NOON, name="b", count=3)
    rows = TaskHistory.objects.minutes(NOON)
    assert rows.named("a").in_state("FAILURE").by_state() == {"FAILURE": 4}
    assert rows.in_state("SUCCESS").by_state() == {"SUCCESS": 5}


def test_the_names_that_ran_most_often_come_first():
    add(NOON, name="a", count=1)
    add(NOON, name="b", state="FAILURE", count=3)
    add(NOON, name="c", state="RECEIVED", count=100)
    add(NOON, name="d", state="RETRY", count=2)
    assert TaskHistory.objects.minutes(NOON).busiest() == ["b", "d", "a"]
    assert TaskHistory.objects.minutes(NOON).busiest(limit=2) == ["b", "d"]


def test_the_figures_of_a_name_are_those_of_all_its_rows():
    add(NOON, count=2, runtime=(0.02, 0.03), waiting=(1.5,))
    add(NOON, state="FAILURE", count=1, runtime=(8.0,))
    add(NOON, state="RETRY", count=4)
    add(NOON + timedelta(minutes=1), count=3, runtime=(0.02, 0.03, 0.04), waiting=(0.2, 0.3))
    (found,) = TaskHistory.objects.minutes(NOON).by_name()
    assert found.name == "shop.add"
    assert found.counts == {"SUCCESS": 5, "FAILURE": 1, "RETRY": 4}
    assert found.finished == 6
    assert found.failed_share == pytest.approx(1 / 6)
    assert (found.runtime.count, found.waiting.count) == (6, 3)
    assert found.runtime.total == pytest.approx(8.14)
    assert found.runtime.mean == pytest.approx(8.14 / 6)
    assert found.runtime.longest == 8.0
    assert found.finished_at == {NOON: 3, NOON + timedelta(minutes=1): 3}


def test_percentiles_lie_in_the_bucket_of_what_was_measured():
    add(NOON, count=100, runtime=(0.03,) * 90 + (3.0,) * 10)
    (found,) = TaskHistory.objects.minutes(NOON).by_name()
    p50, p95 = found.runtime.percentiles(0.5, 0.95)
    assert 0.025 <= p50 <= 0.05
    assert 2.5 <= p95 <= 3.0


def test_no_percentile_is_beyond_the_longest_task():
    lengths = Lengths()
    lengths.add(1, 2.6, 2.6, histogram(2.6))
    assert lengths.percentiles(0.5, 0.99) == [pytest.approx(2.6), pytest.approx(2.6)]


def test_tasks_of_many_hours_are_not_said_to_take_one():
    lengths = Lengths()
    lengths.add(2, 40_000, 25_000, histogram(15_000, 25_000))
    assert lengths.percentiles(0.95) == [25_000]


def test_equal_minutes_count_each():
    lengths = Lengths()
    for _ in range(3):
        lengths.add(2, 1.0, 0.6, histogram(0.4, 0.6))
    assert lengths.histogram.total == 6


def test_nothing_known_is_none_and_not_zero():
    lengths = Lengths()
    assert lengths.mean is None
    assert lengths.longest is None
    assert lengths.percentiles(0.5, 0.95) == [None, None]
    add(NOON, state="REVOKED")
    (found,) = TaskHistory.objects.minutes(NOON).by_name()
    assert found.runtime.percentiles(0.5) == [None]
    assert found.failed_share == 0


def test_a_task_without_a_name_has_figures_too():
    add(NOON, name="", count=3)
    (found,) = TaskHistory.objects.minutes(NOON).by_name()
    assert (found.name, found.finished) == ("", 3)


def test_an_empty_history_has_no_figures():
    rows = TaskHistory.objects.minutes(NOON)
    assert (rows.by_state(), rows.by_start(), rows.by_name()) == ({}, {}, [])
    assert rows.latest_start() is None


def test_the_latest_start_is_told():
    add(NOON)
    add(NOON + timedelta(minutes=5))
    assert TaskHistory.objects.minutes(NOON).latest_start() == NOON + timedelta(minutes=5)


def test_the_number_of_queries_does_not_depend_on_the_number_of_names(django_assert_num_queries):
    TaskHistory.objects.bulk_create([row(minute(back), name=f"n{n}") for n in range(50) for back in range(4)])
    rows = TaskHistory.objects.minutes(minute(60))
    for limit in (1, 40):
        with django_assert_num_queries(2):
            assert len(rows.by_name(limit)) == limit
    with django_assert_num_queries(1):
        rows.by_start()


def test_only_the_rows_of_the_busiest_are_read():
    from django.db import connection

    TaskHistory.objects.bulk_create([row(hour(), name=f"n{n}", count=n + 1, period="hour") for n in range(30)])
    with CaptureQueriesContext(connection) as captured:
        TaskHistory.objects.hours(hour()).by_name(2)
    for query in captured[1:]:
        assert "'n29'" in query["sql"]
        assert "'n1'" not in query["sql"]


def test_the_history_is_read_without_use_tz(settings):
    settings.USE_TZ = False
    add(NOON, count=2)
    rows = TaskHistory.objects.minutes(NOON)
    assert rows.by_start() == {NOON: {"SUCCESS": 2}}
    assert rows.latest_start() == NOON
    assert rows.by_name()[0].finished_at == {NOON: 2}
