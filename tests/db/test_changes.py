"""What changed: notes are read and forgotten exactly, and the comparison finds what leaves none."""

from __future__ import annotations

import sys
from datetime import datetime, timezone

import pytest
from django.db import connection

from djcelery.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    ScheduleChange,
    SolarSchedule,
)
from djcelery.schedulers import changes
from djcelery.schedulers.changes import Comparison, Digests
from djcelery.schedulers.lease import Lease

pytestmark = pytest.mark.django_db(transaction=True)

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def note(kind, key=None):
    return ScheduleChange.objects.create(kind=kind, key=key, created=NOON)


def sql(statement, *values):
    with connection.cursor() as cursor:
        cursor.execute(statement, values)


# -- notes -------------------------------------------------------------------------------------


def test_notes_say_what_changed_by_kind():
    notes = [note("task", 1), note("task", 2), note("task", 1), note("interval", 3), note("crontab", 4)]
    notes += [note("solar", 5), note("clocked", 6)]
    seen = changes.read("default")
    assert seen.ids == [one.pk for one in notes]
    assert (seen.tasks, seen.intervals, seen.crontabs, seen.solars, seen.clockeds) == ({1, 2}, {3}, {4}, {5}, {6})
    assert not seen.everything
    assert seen


def test_no_notes_are_nothing():
    assert not changes.read("default")


@pytest.mark.parametrize("kind", ["all", "task", "id", "of later"])
def test_a_note_that_names_no_row_means_everything(kind):
    note(kind)
    assert changes.read("default").everything


def test_exactly_the_notes_that_were_seen_are_deleted():
    note("task", 1)
    seen = changes.read("default")
    later = note("task", 1)
    assert changes.forget("default", seen) == 1
    assert changes.forget("default", seen) == 0
    assert changes.read("default").ids == [later.pk]


def test_a_former_leader_leaves_the_notes_to_its_successor():
    former = Lease("default", "tests", 30)
    former.acquire()
    note("task", 1)
    seen = changes.read("default")
    former.release()
    leader = Lease("default", "tests", 30)
    leader.acquire()
    assert changes.forget("default", seen, former) == 0
    assert changes.forget("default", seen, leader) == 1


def test_very_many_notes_are_read_a_part_at_a_time(monkeypatch):
    monkeypatch.setattr(changes, "NOTES_AT_ONCE", 3)
    for key in range(5):
        note("task", key)
    first = changes.read("default")
    assert first.tasks == {0, 1, 2}
    changes.forget("default", first)
    assert changes.read("default").tasks == {3, 4}


def test_a_full_page_of_notes_is_told_from_the_last(monkeypatch):
    monkeypatch.setattr(changes, "NOTES_AT_ONCE", 3)
    for key in range(5):
        note("task", key)
    first = changes.read("default")
    assert first.has_more
    changes.forget("default", first)
    assert not changes.read("default").has_more


def test_an_idle_look_is_one_query_and_forgetting_another(django_assert_num_queries):
    with django_assert_num_queries(1):
        changes.forget("default", changes.read("default"))
    for key in range(50):
        note("task", key)
    with django_assert_num_queries(2):
        changes.forget("default", changes.read("default"))


# -- the comparison ----------------------------------------------------------------------------


@pytest.fixture
def tasks():
    """Ten tasks: the first three by one interval, then by one crontab, and two each by sun and clock."""
    interval = IntervalSchedule.objects.create(every=10, period="seconds")
    crontab = CrontabSchedule.objects.create(minute="5")
    solar = SolarSchedule.objects.create(event="sunrise", latitude="50.8", longitude="4.3")
    clocked = ClockedSchedule.objects.create(clocked_time=NOON)
    times = (
        [{"interval": interval}] * 3 + [{"crontab": crontab}] * 3 + [{"solar": solar}] * 2 + [{"clocked": clocked}] * 2
    )
    return [PeriodicTask.objects.create(name=f"t{n}", task="shop.add", **time) for n, time in enumerate(times)]


def known():
    rows = PeriodicTask.objects.enabled().values_list("pk", *changes.columns())
    return {pk: changes.digest(values) for pk, *values in rows}


def compare(known, comparison=None, **kwargs):
    """Return what one whole pass finds."""
    comparison = comparison or Comparison("default", 0, **kwargs)
    found = comparison.step(known)
    while comparison.is_running:
        found |= comparison.step(known)
    return found


def positions(tasks, pks):
    keys = [task.pk for task in tasks]
    return sorted(keys.index(pk) for pk in pks)


def test_an_unchanged_schedule_has_no_differences(tasks):
    assert compare(known()) == set()
    assert compare(Digests(known()), slice_rows=3) == set()


CHANGES = {
    "UPDATE djcelery_periodictask SET args = '[1]' WHERE name = 't1'": [1],
    "UPDATE djcelery_periodictask SET name = 'other' WHERE name = 't2'": [2],
    "UPDATE djcelery_periodictask SET enabled = FALSE WHERE name IN ('t3', 't9')": [3, 9],
    "UPDATE djcelery_periodictask SET priority = 0 WHERE name = 't4'": [4],
    "UPDATE djcelery_periodictask SET interval_id = NULL WHERE name = 't0'": [0],
    "UPDATE djcelery_periodictask SET start_time = '2026-01-01 00:00:00' WHERE name = 't6'": [6],
    "DELETE FROM djcelery_periodictask WHERE name IN ('t0', 't5', 't9')": [0, 5, 9],
    "UPDATE djcelery_intervalschedule SET every = 11": [0, 1, 2],
    "UPDATE djcelery_crontabschedule SET hour = '3'": [3, 4, 5],
    "UPDATE djcelery_solarschedule SET event = 'sunset'": [6, 7],
    "UPDATE djcelery_clockedschedule SET clocked_time = '2026-01-01 00:00:00'": [8, 9],
    "UPDATE djcelery_periodictask SET last_run_at = '2026-01-01 00:00:00', total_run_count = 9": [],
    "UPDATE djcelery_periodictask SET description = 'x', last_error = 'x'": [],
}


@pytest.mark.parametrize("statement", CHANGES)
def test_raw_sql_is_found(tasks, statement):
    before = known()
    sql(statement)
    for slice_rows in (1, 3, 5, 2000):
        assert positions(tasks, compare(before, slice_rows=slice_rows)) == CHANGES[statement]


def test_a_row_that_raw_sql_inserts_is_found(tasks):
    before = known()
    del before[tasks[4].pk], before[tasks[9].pk]
    sql("UPDATE djcelery_periodictask SET enabled = FALSE WHERE name = 't9'")
    assert positions(tasks, compare(before)) == [4]
    assert compare({}, slice_rows=4) == {task.pk for task in tasks[:9]}


def test_an_empty_table_and_one_that_was_emptied(tasks):
    before = known()
    sql("DELETE FROM djcelery_periodictask")
    assert compare(before) == set(before)
    assert compare({}) == set()


def test_numbers_that_hash_alike_differ(tasks):
    sql("UPDATE djcelery_periodictask SET priority = -1 WHERE name = 't0'")
    before = known()
    sql("UPDATE djcelery_periodictask SET priority = -2 WHERE name = 't0'")
    assert positions(tasks, compare(before)) == [0]


def test_what_notes_have_told_meanwhile_is_no_difference(tasks):
    shown = known()
    comparison = Comparison("default", 0, slice_rows=5)
    assert comparison.step(shown) == set()
    # A note has told of a deleted and of a new row, so the scheduler knows.
    PeriodicTask.objects.filter(pk=tasks[7].pk).delete()
    PeriodicTask.objects.create(name="new", task="shop.add", interval=tasks[0].interval)
    shown.clear()
    shown.update(known())
    assert compare(shown, comparison) == set()


def test_a_pass_begins_after_each_period_and_costs_nothing_in_between(tasks, django_assert_num_queries):
    clock, shown = Clock(), known()
    comparison = Comparison("default", 60, slice_rows=4, clock=clock)
    with django_assert_num_queries(0):
        assert comparison.step(shown) == set()
        assert comparison.wait_s() == 60
        clock.now += 59
        assert comparison.step(shown) == set()
    clock.now += 1
    for is_running in (True, True, False):
        with django_assert_num_queries(1):
            comparison.step(shown)
        assert comparison.is_running == is_running
    with django_assert_num_queries(0):
        comparison.step(shown)
    assert comparison.wait_s() == 60


def test_a_slice_that_can_not_be_read_is_read_again(tasks, monkeypatch):
    before = known()
    sql("UPDATE djcelery_intervalschedule SET every = 11")
    comparison = Comparison("default", 0, slice_rows=2)
    found = comparison.step(before)
    with monkeypatch.context() as patch:
        patch.setattr(comparison, "_rows", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            comparison.step(before)
    assert positions(tasks, found | compare(before, comparison)) == [0, 1, 2]


UNREADABLE = {"sqlite": "start_time = '2026-02-31 00:00:00'", "postgresql": "expires = 'infinity'"}


def make_unreadable(*tasks):
    if connection.vendor not in UNREADABLE:
        pytest.skip("it keeps no such time")
    for task in tasks:
        sql(f"UPDATE djcelery_periodictask SET {UNREADABLE[connection.vendor]} WHERE id = %s", task.pk)


def test_a_value_that_django_can_not_convert_holds_up_its_own_row_only(tasks):
    before = known()
    make_unreadable(tasks[1])
    sql("UPDATE djcelery_periodictask SET queue = 'q' WHERE id IN (%s, %s)", tasks[0].pk, tasks[2].pk)
    for slice_rows in (2, 100):
        assert positions(tasks, compare(before, slice_rows=slice_rows)) == [0, 1, 2]
    # Once beat has it as a row that can't be read, it is no news.
    assert positions(tasks, compare({**before, tasks[1].pk: 0})) == [0, 2]


def test_a_row_that_can_not_be_read_is_found_by_halves_and_then_remembered(tasks, django_assert_max_num_queries):
    interval = tasks[0].interval
    PeriodicTask.objects.bulk_create(PeriodicTask(name=f"m{n}", task="shop.add", interval=interval) for n in range(500))
    before = known()
    make_unreadable(tasks[1])
    with django_assert_max_num_queries(25):
        assert positions(tasks, compare(before)) == [1]
    with django_assert_max_num_queries(4):
        assert compare({**before, tasks[1].pk: 0}) == set()
    sql("UPDATE djcelery_periodictask SET start_time = NULL, expires = NULL")
    assert positions(tasks, compare({**before, tasks[1].pk: 0})) == [1]


def test_of_very_many_rows_that_can_not_be_read_some_are_tried_in_each_pass(tasks, monkeypatch):
    monkeypatch.setattr(changes, "MOST_BAD", 2)
    shown = {**known(), **{task.pk: 0 for task in tasks[:5]}}
    make_unreadable(tasks[6])
    comparison = Comparison("default", 0)
    found = [positions(tasks, compare(shown, comparison)) for _ in range(3)]
    # They can be read by now: three turns for five rows. The sixth is new in each.
    assert all(6 in each and len(each) <= 3 for each in found)
    assert sorted(set().union(*found)) == [0, 1, 2, 3, 4, 6]


def test_digests_are_a_mapping_of_few_bytes():
    one = Digests({3: 30, 1: -10})
    one[2], one[3] = 20, 31
    assert dict(one) == {1: -10, 2: 20, 3: 31}
    assert list(one) == [1, 2, 3]
    del one[1]
    assert (len(one), one.get(1), 2 in one) == (2, None, True)
    with pytest.raises(KeyError):
        del one[9]
    many = Digests({n: hash(str(n)) for n in range(10_000)})
    assert (sys.getsizeof(many._keys) + sys.getsizeof(many._values)) / len(many) < 20
