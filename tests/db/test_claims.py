"""Claims: each firing is one run with one id, whoever asks, whatever dies in between."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from datetime import datetime, timedelta, timezone

import pytest
from django.db import OperationalError, connection, connections, transaction

from djcelery import db, utils
from djcelery.exceptions import LeaseLost
from djcelery.models import IntervalSchedule, PeriodicRun, PeriodicTask
from djcelery.schedulers import claims as claims_module
from djcelery.schedulers.claims import Claims, Firing
from djcelery.schedulers.lease import Lease
from tests.db.beats import START, end_session, running, shared_database
from tests.services import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime(2026, 3, 1, 12, 0, 30, 123456, tzinfo=timezone.utc)
NOON = NOW.replace(second=0, microsecond=0)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def shared(tmp_path):
    with shared_database(tmp_path) as url:
        yield url


@pytest.fixture
def make():
    """A function that makes so many periodic tasks."""
    interval = IntervalSchedule.objects.create(every=10, period="seconds")

    def tasks(count=1, **values):
        PeriodicTask.objects.bulk_create(
            [PeriodicTask(name=f"t{n}", task="shop.add", interval=interval, **values) for n in range(count)]
        )
        return list(PeriodicTask.objects.order_by("pk"))

    return tasks


def leader(name="tests", length_s=30):
    lease = Lease("default", name, length_s)
    assert lease.acquire()
    return Claims("default", lease)


def fire(task, at=NOON, one_off=False):
    return Firing(task.pk, task.name, at, one_off)


def in_rows(*fields):
    return sorted(PeriodicRun.objects.values_list(*fields))


# -- claiming ----------------------------------------------------------------------------------


def test_a_claimed_firing_is_a_run_with_an_id_that_is_not_sent_yet(make):
    (task,) = make()
    claims = leader()
    (run,) = claims.claim([fire(task)], NOW)
    row = PeriodicRun.objects.get()
    assert (row.periodic_task_id, row.name, row.scheduled_at, row.task_id) == (task.pk, "t0", NOON, run.task_id)
    assert (row.claimed_at, row.sent_at, row.outcome, row.error) == (NOW, None, None, None)
    assert row.token == claims.lease.token
    assert run == (task.pk, "t0", NOON, run.task_id)


def test_a_firing_is_claimed_once_and_the_answer_keeps_the_order(make):
    tasks = make(5)
    claims = leader()
    first = claims.claim([fire(task) for task in tasks[3:]], NOW)
    both = claims.claim([fire(task) for task in reversed(tasks)], NOW)
    assert [run.task_pk for run in both] == [task.pk for task in reversed(tasks[:3])]
    assert in_rows("task_id") == sorted((run.task_id,) for run in first + both)
    assert claims.claim([fire(task) for task in tasks], NOW) == []


def test_a_firing_that_is_named_twice_is_one_run(make):
    (task,) = make()
    zone = timezone(timedelta(hours=2))
    assert len(leader().claim([fire(task), fire(task, NOON.astimezone(zone))], NOW)) == 1
    assert PeriodicTask.objects.get().total_run_count == 1


def test_runs_are_counted_in_the_rows_of_their_tasks(make):
    tasks = make(3)
    claims = leader()
    claims.claim([fire(tasks[0])], NOW - MINUTE)
    claims.claim([fire(tasks[0]), *(fire(tasks[1], NOON - n * MINUTE) for n in range(4))], NOW)
    rows = PeriodicTask.objects.order_by("pk").values_list("total_run_count", "last_run_at", "enabled")
    assert list(rows) == [(1, NOW, True), (4, NOW, True), (0, None, True)]


def test_counting_leaves_no_note_and_no_other_trace(make):
    from djcelery.models import ScheduleChange

    (task,) = make()
    ScheduleChange.objects.all().delete()
    leader().claim([fire(task)], NOW)
    changed = PeriodicTask.objects.get()
    assert not ScheduleChange.objects.exists()
    assert (changed.date_changed, changed.scheduled_from) == (task.date_changed, task.scheduled_from)


def test_a_one_off_task_is_switched_off_by_its_run(make):
    tasks = make(3)
    claims = leader()
    claims.claim([fire(tasks[0], one_off=True), fire(tasks[1])], NOW)
    assert [task.enabled for task in PeriodicTask.objects.order_by("pk")] == [False, True, True]
    # Switched on again, its instant is over all the same.
    PeriodicTask.objects.update(enabled=True)
    assert claims.claim([fire(tasks[0], one_off=True)], NOW) == []
    assert not PeriodicTask.objects.get(pk=tasks[0].pk).enabled


def test_a_deleted_task_does_not_disturb_the_others(make):
    tasks = make(2)
    tasks[0].__class__.objects.filter(pk=tasks[0].pk).delete()
    claims = leader()
    assert len(claims.claim([fire(task) for task in tasks], NOW)) == 2
    assert len(claims.claim([fire(tasks[1], NOON + MINUTE)], NOW)) == 1
    assert PeriodicTask.objects.get().total_run_count == 2


def test_texts_of_any_kind_survive(make):
    name = 'o\'clock \\ "%s" ☃ 100%'
    make(1)
    (run,) = leader().claim([Firing(7, name, NOON)], NOW)
    assert PeriodicRun.objects.get().name == run.name == name


def test_without_the_lease_nothing_is_claimed(make):
    (task,) = make()
    former = leader(length_s=0.3)
    other = Lease("default", "tests", 30)
    wait_until(other.acquire, 30, "the takeover")
    with pytest.raises(LeaseLost):
        former.claim([fire(task)], NOW)
    with pytest.raises(LeaseLost):
        former.record_skipped([fire(task)], "late")
    assert not PeriodicRun.objects.exists()
    assert PeriodicTask.objects.get().total_run_count == 0


def test_a_failure_in_the_middle_leaves_nothing_behind(make, monkeypatch):
    (task,) = make()
    claims = leader()
    with monkeypatch.context() as patch:
        patch.setattr(claims, "_update", lambda *args: (_ for _ in ()).throw(OperationalError("full")))
        with pytest.raises(OperationalError):
            claims.claim([fire(task)], NOW)
    assert not PeriodicRun.objects.exists()
    assert len(claims.claim([fire(task)], NOW)) == 1


@pytest.mark.parametrize(("deadlocks", "fails"), [(4, False), (5, True)])
def test_the_victim_of_a_deadlock_claims_again_at_once(make, monkeypatch, deadlocks, fails):
    (task,) = make()
    claims, update, left = leader(), Claims._update, [OperationalError("victim") for _ in range(deadlocks)]
    monkeypatch.setattr(db, "is_deadlock", lambda exc: str(exc) == "victim")

    def update_or_fail(self, *args):
        if left:
            raise left.pop()
        return update(self, *args)

    monkeypatch.setattr(Claims, "_update", update_or_fail)
    if fails:
        with pytest.raises(OperationalError, match="victim"):
            claims.claim([fire(task)], NOW)
        assert not PeriodicRun.objects.exists()
        return
    (run,) = claims.claim([fire(task)], NOW)
    assert in_rows("task_id") == [(run.task_id,)]
    task.refresh_from_db()
    assert task.total_run_count == 1


def test_a_claim_extends_the_lease(make):
    (task,) = make()
    lease = Lease("default", "tests", 30, clock=itertools.count(10).__next__)
    lease.acquire()
    before = lease._deadline_mono
    Claims("default", lease).claim([fire(task)], NOW)
    assert lease._deadline_mono > before


@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="a file has no sessions")
def test_a_connection_lost_with_the_commit_still_gives_the_runs_and_counts_once(make, monkeypatch):
    tasks = make(3)
    claims = leader()
    victim = connections["default"]

    def commit_and_break():
        monkeypatch.undo()
        victim._commit()
        end_session()
        raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(victim, "_commit", commit_and_break)
    runs = claims.claim([fire(task) for task in tasks], NOW)
    assert sorted((run.task_id,) for run in runs) == in_rows("task_id")
    assert len(runs) == 3
    assert {task.total_run_count for task in PeriodicTask.objects.all()} == {1}


@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="SQLite locks the file, not rows")
def test_a_row_that_is_being_edited_holds_up_nobody_and_is_counted_later(shared, make):
    tasks = make(3)
    claims = leader()
    is_locked, may_end = threading.Event(), threading.Event()

    def edit():
        with transaction.atomic():
            PeriodicTask.objects.filter(pk=tasks[1].pk).update(description="being edited")
            is_locked.set()
            may_end.wait(120)
        connection.close()

    editor = threading.Thread(target=edit)
    editor.start()
    assert is_locked.wait(60)
    try:
        started = time.monotonic()
        assert len(claims.claim([fire(task, one_off=task == tasks[1]) for task in tasks], NOW)) == 3
        assert len(claims.claim([fire(tasks[1], NOON + MINUTE)], NOW + MINUTE)) == 1
        # The editor goes on for two minutes; servers give up after 50 seconds, if ever.
        assert time.monotonic() - started < 30
    finally:
        may_end.set()
        editor.join()
    claims.claim([fire(tasks[0], NOON + MINUTE)], NOW + 2 * MINUTE)
    counts = list(PeriodicTask.objects.order_by("pk").values_list("total_run_count", "last_run_at", "enabled"))
    assert counts == [(2, NOW + 2 * MINUTE, True), (2, NOW + MINUTE, False), (1, NOW, True)]


def test_the_hour_that_comes_twice_is_two_hours_without_time_zones(settings, make):
    settings.USE_TZ = False
    settings.TIME_ZONE = "Europe/Brussels"
    (task,) = make()
    # 02:30 in summer time and, an hour later, 02:30 in winter time.
    twice = [datetime(2026, 10, 25, 0, 30, 0, 5, tzinfo=timezone.utc) + timedelta(hours=n) for n in range(2)]
    claims = leader()
    runs = claims.claim([fire(task, at) for at in twice], NOW)
    assert len(runs) == 2
    assert claims.claim([fire(task, at) for at in twice], NOW) == []
    back = [run.scheduled_at for run in claims.unsent()]
    assert [round((at - twice[n]).total_seconds(), 5) for n, at in enumerate(back)] == [0, 0]
    assert {at.utcoffset() for at in back} == {timedelta(0)}


# -- sending -----------------------------------------------------------------------------------


def test_sent_runs_are_marked_and_not_unsent_any_more(make):
    tasks = make(3)
    claims = leader()
    runs = claims.claim([fire(task) for task in tasks], NOW)
    assert claims.mark_sent([run.task_id for run in runs[:2]], NOW) == 2
    assert claims.unsent() == runs[2:]
    row = PeriodicRun.objects.get(task_id=runs[0].task_id)
    assert (row.outcome, row.sent_at, row.lateness) == ("sent", NOW, NOW - NOON)
    assert claims.mark_sent([], NOW) == 0


def test_runs_that_a_dead_beat_left_unsent_come_back_with_the_same_id(make):
    tasks = make(3)
    dead = leader()
    runs = dead.claim([fire(task) for task in tasks], NOW)
    dead.mark_sent([runs[1].task_id], NOW)
    dead.lease.release()
    heir = leader()
    assert heir.claim([fire(task) for task in tasks], NOW) == []
    assert sorted(heir.unsent()) == sorted([runs[0], runs[2]])


def test_unsent_runs_come_oldest_first_and_so_many_at_once(make):
    (task,) = make()
    claims = leader()
    runs = claims.claim([fire(task, NOON - n * MINUTE) for n in range(10)], NOW)
    assert claims.unsent(4) == runs[:5:-1]
    claims.mark_sent([run.task_id for run in claims.unsent(4)], NOW)
    assert claims.unsent() == runs[5::-1]


def test_what_was_sent_can_not_be_dropped_but_the_other_way_round(make):
    tasks = make(2)
    claims = leader()
    first, second = (run.task_id for run in claims.claim([fire(task) for task in tasks], NOW))
    claims.mark_sent([first], NOW)
    assert claims.mark_dropped([first, second], "too late \x00 \U0001f600") == 1
    assert in_rows("outcome", "task_id") == [("dropped", second), ("sent", first)]
    assert PeriodicRun.objects.get(task_id=second).error.startswith("too late \\x00 ")
    assert claims.unsent() == []
    claims.mark_sent([second], NOW)
    assert in_rows("outcome", "error") == [("sent", None)] * 2


# -- history -----------------------------------------------------------------------------------


def test_instants_that_were_passed_over_are_recorded_and_never_claimed(make):
    (task,) = make()
    claims = leader()
    assert claims.record_skipped([fire(task), fire(task, NOON - MINUTE)], "missed by 3 hours") == 2
    assert claims.record_skipped([fire(task)], "again") == 0
    assert in_rows("outcome", "error") == [("skipped", "missed by 3 hours")] * 2
    assert claims.claim([fire(task)], NOW) == []
    assert claims.unsent() == []
    assert PeriodicTask.objects.get().last_run_at == NOW


def test_of_many_that_were_passed_over_the_latest_are_recorded(make, monkeypatch):
    monkeypatch.setattr(claims_module, "SKIPPED_PER_TASK", 3)
    monkeypatch.setattr(claims_module, "SKIPPED_IN_ALL", 5)
    tasks = make(2)
    missed = [fire(task, NOON - n * MINUTE) for task in tasks for n in range(10)]
    assert leader().record_skipped(missed, "missed") == 5
    kept = in_rows("periodic_task_id", "scheduled_at")
    assert sorted(at for _, at in kept) == sorted([NOON, NOON, NOON - MINUTE, NOON - MINUTE, NOON - 2 * MINUTE])


def test_the_history_ends_but_for_what_is_still_to_be_sent(make):
    (task,) = make()
    claims = leader()
    old = [fire(task, NOON - timedelta(days=9) - n * MINUTE) for n in range(3)]
    runs = claims.claim(old, NOW)
    claims.mark_sent([run.task_id for run in runs[1:]], NOW)
    assert claims.purge(None) == 0
    assert claims.purge(timedelta(days=7)) == 2
    assert in_rows("task_id") == [(runs[0].task_id,)]


def test_an_age_beyond_the_calendar_ends_no_history(make):
    (task,) = make()
    claims = leader()
    (run,) = claims.claim([fire(task)], NOW)
    claims.mark_sent([run.task_id], NOW)
    assert claims.purge(timedelta(days=1_000_000)) == 0
    assert claims.purge(timedelta(days=1)) == 1


def test_the_latest_run_of_a_task_that_must_not_overlap_outlasts_the_history_until_its_timeout(make):
    careful, other = make(2)
    PeriodicTask.objects.filter(pk=careful.pk).update(no_overlap=True, overlap_timeout=3600)
    now, claims = utils.to_utc(utils.now()), leader()
    runs = claims.claim([fire(task, now - n * MINUTE) for task in (careful, other) for n in (2, 1)], now)
    claims.mark_sent([run.task_id for run in runs], now)
    assert claims.purge(0) == 3
    assert in_rows("task_id") == [(runs[1].task_id,)]
    # A day is what other tasks may need.
    PeriodicRun.objects.update(claimed_at=utils.now() - timedelta(hours=25))
    assert claims.purge(0) == 1


def test_unsent_runs_of_some_tasks_can_be_left_out(make):
    one, other = make(2)
    claims = leader()
    runs = claims.claim([fire(one, NOON - MINUTE), fire(other), fire(one)], NOW)
    assert claims.unsent(1, but_of={one.pk}) == [runs[1]]
    assert claims.unsent(but_of={one.pk, other.pk}) == []


# -- statements --------------------------------------------------------------------------------


def test_a_thousand_firings_take_as_many_statements_as_one(make, django_assert_num_queries):
    tasks = make(1000)
    claims = leader()
    claims.claim([fire(tasks[0])], NOW)
    # BEGIN, the fence, the runs, (on MySQL the locks,) the counters, COMMIT
    wanted = 6 if connection.vendor == "mysql" else 5
    for n, fired in enumerate((tasks[:1], tasks)):
        with django_assert_num_queries(wanted):
            runs = claims.claim([fire(task, NOON + (n + 1) * MINUTE) for task in fired], NOW)
        assert len(runs) == len(fired)
    with django_assert_num_queries(1):
        assert claims.mark_sent([run.task_id for run in runs], NOW) == 1000
    with django_assert_num_queries(wanted + 1):
        assert len(claims.claim([fire(tasks[0], NOON + 9 * MINUTE), fire(tasks[1], NOON + 2 * MINUTE)], NOW)) == 1
    with django_assert_num_queries(0):
        assert claims.claim([], NOW) == []
        claims.mark_sent([], NOW)
        claims.record_skipped([], "")
    with django_assert_num_queries(1):
        claims.unsent()
    with django_assert_num_queries(4):
        claims.record_skipped([fire(task, NOON - MINUTE) for task in tasks], "missed")


def test_more_firings_than_a_statement_takes_are_claimed_all_the_same(make):
    (task,) = make()
    claims = leader()
    runs = claims.claim([fire(task, NOON + timedelta(0, n)) for n in range(5000)], NOW)
    assert len({run.task_id for run in runs}) == 5000 == PeriodicRun.objects.count()
    assert PeriodicTask.objects.get().total_run_count == 5000
    assert claims.mark_sent([run.task_id for run in runs], NOW) == 5000


def test_tasks_are_counted_in_parts_that_a_statement_can_hold(make, monkeypatch):
    monkeypatch.setattr(claims_module, "COUNTED_AT_ONCE", 3)
    tasks = make(7)
    firings = [
        fire(task, NOON - n * MINUTE, task == tasks[4]) for number, task in enumerate(tasks) for n in range(number)
    ]
    leader().claim(firings, NOW)
    rows = PeriodicTask.objects.order_by("pk").values_list("total_run_count", "enabled")
    assert list(rows) == [(n, n != 4) for n in range(7)]


@pytest.mark.django_db(transaction=False)
def test_it_works_in_a_test_case(make):
    (task,) = make()
    claims = leader()
    (run,) = claims.claim([fire(task)], NOW)
    assert claims.unsent() == [run]
    assert claims.mark_sent([run.task_id], NOW) == 1


# -- processes ---------------------------------------------------------------------------------


def check_each_firing_has_one_id(beats):
    claimed = [task_id for beat in beats for line in beat.seen("claimed") for task_id in line["ids"]]
    assert len(claimed) == len(set(claimed)) == 200
    assert sorted((task_id,) for task_id in claimed) == in_rows("task_id")
    assert len(set(PeriodicRun.objects.values_list("periodic_task_id", "scheduled_at"))) == 200


def test_each_firing_is_claimed_by_one_of_several_beats_that_take_turns(shared):
    with running(shared) as start:
        # A lease that runs out while a process stands still would end that one.
        beats = [start("claim", "tests", 60, 60) for _ in range(3)]
        assert [beat.end() for beat in beats] == [0] * 3
    check_each_firing_has_one_id(beats)


def test_each_firing_is_claimed_once_even_by_two_leaders(shared):
    with running(shared) as start:
        beats = [start("claim", f"lease {n}", 60, 60) for n in range(2)]
        assert [beat.end() for beat in beats] == [0] * 2
    check_each_firing_has_one_id(beats)


def test_a_beat_killed_before_the_commit_leaves_nothing(shared):
    with running(shared) as start:
        killed = start("stand_still", "tests", 5, 60)
        wait_until(lambda: killed.seen("inserted"), 60, "the INSERT")
        killed.send(signal.SIGKILL)
        killed.end()
        assert not PeriodicRun.objects.exists()
        heir = Lease("default", "tests", 30)
        wait_until(heir.acquire, 60, "the takeover")
    assert len(Claims("default", heir).claim([Firing(1, "t", START)], NOW)) == 1
