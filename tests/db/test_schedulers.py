"""The database scheduler: what it sends, edits, bad rows, other beats, and what it writes."""

from __future__ import annotations

import itertools
import json
import logging
from datetime import datetime, timedelta, timezone

import pytest
from amqp.exceptions import ChannelError
from celery import schedules, states
from celery.beat import Scheduler
from celery.schedules import crontab, schedule
from django.db import OperationalError, connection, connections
from django.db.models import ProtectedError
from django.utils import translation
from kombu.exceptions import EncodeError
from kombu.exceptions import OperationalError as BrokerError

from djcelery import utils
from djcelery.exceptions import ArgumentsInvalid, ScheduleError, ScheduleMissing
from djcelery.models import (
    BeatLease,
    BeatStandby,
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicRun,
    PeriodicTask,
    PeriodicTasks,
    ScheduleChange,
    TaskMeta,
)
from djcelery.schedulers import DatabaseScheduler, ModelEntry, loading
from tests.checking import said

pytestmark = pytest.mark.django_db(transaction=True)

SECOND, MINUTE, HOUR, DAY = (timedelta(seconds=n) for n in (1, 60, 3600, 86400))


class Clocks:
    """The clock on the wall and one that never goes back, for one or several beats."""

    def __init__(self):
        self.at = datetime.now(timezone.utc)
        self.mono = 1000.0

    def wait(self, **duration):
        self.at += timedelta(**duration)
        self.mono += timedelta(**duration).total_seconds()


@pytest.fixture
def clocks():
    return Clocks()


@pytest.fixture
def every10():
    return IntervalSchedule.objects.create(every=10, period="seconds")


@pytest.fixture
def new_beat(celery_app, settings, clocks):
    """A function that makes a beat which records what it sends; ``problem`` is raised instead while it is set."""
    settings.CELERY_TASK_RESULT_EXPIRES = None
    # The clocks of a test run ahead of the database's, by which a lease runs out.
    settings.DJCELERY_BEAT_LEASE_S = 20 * DAY
    beats = []

    class Recording(DatabaseScheduler):
        problem = None

        def apply_async(self, entry, **kwargs):
            if self.problem and (not self.only or entry.name in self.only):
                self.tries += 1
                raise self.problem
            self.entries.append(entry)

        @property
        def sent(self):
            return [entry.name for entry in self.entries]

        @property
        def instants(self):
            return [(entry.name, entry.scheduled_at) for entry in self.entries]

    def make_beat(**kwargs):
        beat = Recording(celery_app, nowfun=lambda: clocks.at, clock=lambda: clocks.mono, **kwargs)
        beat.entries, beat.only, beat.tries = [], (), 0
        beats.append(beat)
        return beat

    yield make_beat
    for beat in beats:
        beat.close()


@pytest.fixture
def scheduler(new_beat):
    return new_beat()


def make(name="t", **values):
    """Make a task that counts from an hour ago, unless told otherwise."""
    values.setdefault("scheduled_from", utils.now() - HOUR)
    return PeriodicTask.objects.create(name=name, task="shop.tasks.add", **values)


def overdue(name="t", **values):
    """Make an interval that was due half a minute ago, and every minute before."""
    interval = IntervalSchedule.objects.create(every=1, period="minutes")
    return make(name, interval=interval, scheduled_from=utils.now() - 10 * MINUTE - 30 * SECOND, **values)


def outcomes(**conditions):
    return list(PeriodicRun.objects.filter(**conditions).order_by("scheduled_at").values_list("outcome", flat=True))


# what is due


def test_an_overdue_interval_is_sent_and_its_run_is_written_at_once(scheduler):
    row = overdue(description="before")
    PeriodicTask.objects.filter(pk=row.pk).update(description="edited meanwhile")
    scheduler.tick()
    row.refresh_from_db()
    assert scheduler.sent == ["t"]
    assert row.total_run_count == 1
    assert utils.to_utc(row.last_run_at) == scheduler.now()
    assert row.description == "edited meanwhile"
    (run,) = PeriodicRun.objects.for_task(row).exclude(outcome="skipped")
    assert (run.outcome, run.task_id) == ("sent", scheduler.entries[0].options["task_id"])
    assert scheduler.entries[0].options["headers"] == {
        "celery_beat_task": True,
        "periodic_task_name": "t",
        "periodic_scheduled_at": utils.to_utc(run.scheduled_at).isoformat(),
    }


def test_each_instant_fires_once_however_often_beat_looks(scheduler, clocks):
    overdue()
    for _ in range(60):
        scheduler.tick()
        clocks.wait(seconds=5)
    instants = scheduler.instants
    assert len(instants) == len(set(instants)) == 5 + 1
    gaps = {after[1] - before[1] for before, after in itertools.pairwise(instants)}
    assert gaps == {MINUTE}


def test_beat_wakes_for_the_next_entry_and_after_five_seconds_at_most(scheduler, clocks):
    overdue()
    scheduler.tick()
    assert scheduler.tick() <= 5
    clocks.at = scheduler._book.agenda.plans[PeriodicTask.objects.get().pk].due - timedelta(seconds=0.4)
    assert scheduler.tick() == pytest.approx(0.4, abs=0.01)


def test_a_thousand_entries_due_at_once_take_ten_statements(scheduler, clocks, django_assert_max_num_queries):
    start = utils.now() - HOUR
    interval = IntervalSchedule.objects.create(every=1, period="hours")
    tasks = [PeriodicTask(name=f"t{n}", task="x", interval=interval, scheduled_from=start) for n in range(1000)]
    PeriodicTask.objects.bulk_create(tasks)
    clocks.wait(minutes=-1)
    scheduler.tick()
    clocks.wait(minutes=2)
    scheduler.lease.acquire()
    with django_assert_max_num_queries(10):
        scheduler.tick()
    assert len(scheduler.sent) == 1000
    assert PeriodicRun.objects.filter(outcome="sent").count() == 1000
    assert set(PeriodicTask.objects.values_list("total_run_count", flat=True)) == {1}


def test_a_tick_without_changes_is_one_query(scheduler, every10, clocks, django_assert_num_queries):
    make(interval=every10, scheduled_from=utils.now() + HOUR)
    scheduler.tick()
    scheduler.tick()
    clocks.wait(seconds=2)
    with django_assert_num_queries(1):
        scheduler.tick()


@pytest.mark.parametrize("rows", [1, 30])
def test_a_start_takes_ten_queries_for_any_number_of_rows(scheduler, rows, django_assert_max_num_queries):
    for number in range(rows):
        interval = IntervalSchedule.objects.create(every=number + 1, period="hours")
        make(f"t{number}", interval=interval, scheduled_from=utils.now() + HOUR)
    scheduler.lease.acquire()
    with django_assert_max_num_queries(10):
        scheduler.tick()
    assert len(scheduler.schedule) == rows


def test_jitter_delays_each_run_by_the_same_time_and_keeps_its_instant(scheduler, clocks):
    row = overdue(jitter_seconds=40)
    scheduler.tick()
    delay = scheduler._book.agenda.plans[row.pk].delay
    assert timedelta(0) < delay < 40 * SECOND
    scheduler.entries.clear()
    sent_after = []
    for _ in range(300):
        scheduler.tick()
        sent_after += [clocks.at - entry.scheduled_at for entry in scheduler.entries]
        scheduler.entries.clear()
        clocks.wait(seconds=1)
    assert len(sent_after) == 5
    assert all(delay <= after <= delay + SECOND for after in sent_after)


def test_a_one_off_task_is_sent_once_and_switched_off(scheduler, clocks):
    row = overdue(one_off=True)
    for _ in range(5):
        scheduler.tick()
        clocks.wait(minutes=1)
    row.refresh_from_db()
    assert scheduler.sent == ["t"]
    assert (row.enabled, row.total_run_count) == (False, 1)


def test_a_fixed_time_fires_once(scheduler, clocks):
    at = clocks.at + MINUTE
    make(clocked=ClockedSchedule.objects.create(clocked_time=utils.correct_awareness(at)))
    for _ in range(5):
        scheduler.tick()
        clocks.wait(seconds=31)
    assert scheduler.instants == [("t", at)]


def test_a_start_time_is_the_first_firing_and_the_anchor(scheduler, clocks):
    start = clocks.at + timedelta(seconds=95)
    make(interval=IntervalSchedule.objects.create(every=1, period="minutes"), start_time=utils.correct_awareness(start))
    for _ in range(30):
        scheduler.tick()
        clocks.wait(seconds=8)
    assert scheduler.instants == [("t", start + n * MINUTE) for n in range(len(scheduler.instants))]
    assert len(scheduler.instants) == 3


def test_a_task_that_has_expired_is_not_sent(scheduler, clocks):
    expires = clocks.at + 45 * SECOND
    overdue(expires=utils.correct_awareness(expires))
    for _ in range(20):
        scheduler.tick()
        clocks.wait(seconds=10)
    assert len(scheduler.sent) == 2
    assert {entry.options["expires"] for entry in scheduler.entries} == {expires}


def test_a_message_carries_the_options_of_its_row(scheduler):
    overdue(queue="q", priority=7, headers='{"tenant": "a"}', expire_seconds=300, exchange="e", routing_key="r")
    scheduler.tick()
    (entry,) = scheduler.entries
    options = entry.options
    assert (options["queue"], options["priority"], options["exchange"], options["routing_key"]) == ("q", 7, "e", "r")
    assert options["headers"]["tenant"] == "a"
    assert options["expires"] == entry.scheduled_at + timedelta(seconds=300)


# missed runs


@pytest.mark.parametrize(("policy", "count"), [(None, 1), ("once", 1), ("skip", 1), ("all", 10)])
def test_missed_runs_are_made_up_for_by_the_policy(scheduler, policy, count):
    row = overdue(missed_runs=policy)
    scheduler.tick()
    row.refresh_from_db()
    assert (len(scheduler.sent), row.total_run_count) == (count, count)


def test_a_run_within_no_grace_is_passed_over_and_the_history_says_so(scheduler):
    overdue(grace_seconds=20)
    scheduler.tick()
    assert scheduler.sent == []
    (run,) = PeriodicRun.objects.all()
    assert (run.outcome, run.error) == ("skipped", "missed; the policy is once")


def test_a_clock_set_back_fires_nothing_again_and_one_set_forward_makes_up_by_the_policy(scheduler, clocks, caplog):
    row = overdue()
    scheduler.tick()
    clocks.at -= HOUR
    for _ in range(10):
        clocks.wait(seconds=30)
        scheduler.tick()
    assert scheduler.sent == ["t"]
    assert "the clock has jumped by -3600 s" in caplog.text
    clocks.at += 3 * HOUR
    scheduler.tick()
    assert scheduler.sent == ["t", "t"]
    assert len(set(scheduler.instants)) == 2
    row.refresh_from_db()
    assert row.total_run_count == 2


def test_an_interval_longer_than_the_time_between_restarts_fires(new_beat, clocks):
    row = make(interval=IntervalSchedule.objects.create(every=7, period="days"), scheduled_from=utils.now())
    for _ in range(16):
        beat = new_beat()
        beat.tick()
        row.refresh_from_db()
        beat.close()
        if beat.sent:
            break
        clocks.wait(hours=12)
    assert beat.sent == ["t"]


def test_enabling_or_editing_fires_nothing_that_was_due_before(scheduler, every10, clocks):
    # Half an hour from now: an hour must not begin between the edit and the next tick, which is five seconds later.
    hourly = CrontabSchedule.objects.create(minute=str((clocks.at.minute + 30) % 60))
    row = make(crontab=hourly, enabled=False, scheduled_from=utils.now() - DAY)
    scheduler.tick()
    # Without a word to anybody, as another program would: the row says it counts since yesterday.
    raw("UPDATE djcelery_periodictask SET enabled = %s", True)
    clocks.wait(seconds=61)
    for _ in range(3):
        scheduler.tick()
    assert row.pk in scheduler._book.agenda.plans
    assert scheduler.sent == []
    row.refresh_from_db()
    row.crontab, row.interval = None, IntervalSchedule.objects.create(every=1, period="minutes")
    row.save()
    clocks.wait(seconds=5)
    scheduler.tick()
    assert scheduler.sent == []


def test_an_edit_that_leaves_the_times_alone_leaves_the_next_run_where_it_was(scheduler, clocks):
    row = overdue()
    scheduler.tick()
    due = scheduler._book.agenda.plans[row.pk].due
    clocks.wait(seconds=20)
    PeriodicTask.objects.filter(pk=row.pk).update(queue="other")
    scheduler.tick()
    plan = scheduler._book.agenda.plans[row.pk]
    assert (plan.due, plan.options.queue) == (due, "other")


def test_the_first_start_on_an_adopted_database_fires_nothing_overdue_but_intervals(new_beat, clocks, caplog):
    caplog.set_level(logging.INFO, "djcelery")
    long_ago = datetime(2012, 1, 1, tzinfo=timezone.utc)
    old = {"scheduled_from": None, "last_run_at": utils.correct_awareness(long_ago)}
    daily = make("daily", crontab=CrontabSchedule.objects.create(minute="*"))
    weekly = make("weekly", interval=IntervalSchedule.objects.create(every=7, period="days"))
    PeriodicTask.objects.without_notes().update(**old)
    first = new_beat()
    first.tick()
    assert first.sent == ["weekly"]
    assert "1 wait for their next time, and 1 intervals that are overdue are sent once" in caplog.text.replace(" ", " ")
    first.close()
    # A restart shortly after doesn't fire it either.
    again = new_beat()
    again.tick()
    assert again.sent == []
    daily.refresh_from_db()
    weekly.refresh_from_db()
    assert (daily.total_run_count, weekly.total_run_count) == (0, 1)
    clocks.wait(seconds=61)
    again.tick()
    assert again.sent == ["daily"]


# no overlap


def finish(task_id):
    TaskMeta.objects.create(task_id=task_id, status=states.SUCCESS)


def test_a_task_that_must_not_overlap_waits_for_its_run_before(scheduler, clocks, django_assert_max_num_queries):
    overdue("careful", no_overlap=True)
    overdue("other", no_overlap=True)
    scheduler.tick()
    assert sorted(scheduler.sent) == ["careful", "other"]
    TaskMeta.objects.create(task_id=scheduler.entries[0].options["task_id"], status=states.STARTED)
    clocks.wait(minutes=1)
    scheduler.lease.acquire()
    with django_assert_max_num_queries(8):
        scheduler.tick()
    assert len(scheduler.sent) == 2
    assert outcomes(error__contains="no overlap") == ["skipped", "skipped"]
    TaskMeta.objects.all().delete()
    for entry in scheduler.entries:
        finish(entry.options["task_id"])
    clocks.wait(minutes=1)
    scheduler.tick()
    assert len(scheduler.sent) == 4


def test_a_run_that_is_not_known_to_be_done_counts_as_lost_after_its_timeout(scheduler, clocks):
    overdue(no_overlap=True, overlap_timeout=150)
    scheduler.tick()
    for _ in range(2):
        clocks.wait(minutes=1)
        scheduler.tick()
    assert len(scheduler.sent) == 1
    clocks.wait(minutes=1)
    scheduler.tick()
    assert len(scheduler.sent) == 2


def test_of_missed_runs_that_must_not_overlap_one_is_sent(scheduler):
    overdue(no_overlap=True, missed_runs="all")
    scheduler.tick()
    assert len(scheduler.sent) == 1


@pytest.mark.parametrize("history", [0, timedelta(seconds=10)], ids=repr)
def test_a_short_history_switches_no_overlap_not_off(scheduler, clocks, settings, history):
    settings.DJCELERY_RUN_HISTORY = history
    settings.DJCELERY_BEAT_COMPARE_S = 10**6
    overdue(no_overlap=True, overlap_timeout=24 * 3600)
    for _ in range(45):
        scheduler.tick()
        clocks.wait(seconds=30)
        scheduler._purged_mono = -1e9
    assert scheduler.sent == ["t"]
    assert outcomes(outcome="sent") == ["sent"]


class LaggingResults:
    def db_for_read(self, model, **hints):
        return "replica" if model is TaskMeta else None


def test_whether_a_run_is_done_is_asked_of_the_database_that_is_written(scheduler, clocks, settings):
    overdue(no_overlap=True)
    scheduler.tick()
    finish(scheduler.entries[0].options["task_id"])
    settings.DATABASE_ROUTERS = [LaggingResults()]
    clocks.wait(minutes=1)
    scheduler.tick()
    assert len(scheduler.sent) == 2


# the broker is away


def test_a_run_that_finds_no_broker_stays_claimed_and_goes_out_under_its_id(scheduler, clocks, caplog):
    row = overdue()
    scheduler.problem = BrokerError("no route")
    scheduler.tick()
    (run,) = PeriodicRun.objects.filter(outcome=None)
    assert 0 < scheduler.tick() <= 5
    for _ in range(3):
        clocks.wait(seconds=5)
        assert scheduler.tick() > 0
        assert scheduler.lease.is_held()
    assert PeriodicRun.objects.filter(outcome=None).count() == 1
    scheduler.problem = None
    clocks.wait(seconds=5)
    scheduler.tick()
    assert [entry.options["task_id"] for entry in scheduler.entries] == [run.task_id]
    run.refresh_from_db()
    row.refresh_from_db()
    assert (run.outcome, row.total_run_count) == ("sent", 1)
    assert [record.levelno for record in said(caplog) if "broker is away" in record.getMessage()] == [logging.ERROR]


def test_a_run_that_could_not_be_sent_in_time_is_dropped_and_the_next_is_sent(scheduler, clocks):
    row = overdue()
    scheduler.problem = BrokerError("no route")
    scheduler.tick()
    (run,) = PeriodicRun.objects.filter(outcome=None)
    clocks.wait(minutes=10)
    scheduler.problem = None
    scheduler.lease.acquire()
    scheduler.tick()
    run.refresh_from_db()
    assert (run.outcome, run.error) == ("dropped", "It could not be sent within the grace time.")
    assert len(scheduler.sent) == 1
    assert scheduler.entries[0].options["task_id"] != run.task_id
    row.refresh_from_db()
    assert row.last_error is None


def test_the_first_run_that_finds_no_broker_ends_the_round(scheduler, clocks):
    for number in range(5):
        overdue(f"t{number}")
    scheduler.problem = BrokerError("no route")
    scheduler.tick()
    # A connection that was open is tried a second time.
    assert scheduler.tries <= 2
    assert PeriodicRun.objects.filter(outcome=None).count() == 5


def test_a_message_that_is_wrong_in_itself_stops_nothing_but_itself(scheduler, clocks, caplog):
    bad = overdue("bad")
    overdue("good")
    scheduler.problem, scheduler.only = EncodeError("can't encode"), ("bad",)
    scheduler.tick()
    assert scheduler.sent == ["good"]
    (run,) = PeriodicRun.objects.for_task(bad).filter(outcome="dropped")
    assert run.error == "EncodeError: can't encode"
    bad.refresh_from_db()
    assert bad.last_error == "EncodeError: can't encode"
    assert len([record for record in said(caplog) if "can't encode" in record.getMessage()]) == 1
    scheduler.problem = None
    clocks.wait(minutes=1)
    scheduler.tick()
    bad.refresh_from_db()
    assert "bad" in scheduler.sent
    assert bad.last_error is None


def test_a_run_that_fails_for_an_unknown_reason_is_tried_again(scheduler, clocks):
    overdue("bad")
    scheduler.problem = RuntimeError("full moon")
    scheduler.tick()
    (run,) = PeriodicRun.objects.filter(outcome=None)
    scheduler.problem = None
    clocks.wait(seconds=3)
    scheduler.tick()
    assert scheduler.entries[0].options["task_id"] == run.task_id


def test_runs_of_tasks_that_are_gone_or_switched_off_are_dropped(new_beat, clocks):
    rows = {name: overdue(name) for name in ("gone", "off", "once", "stays")}
    PeriodicTask.objects.filter(name="once").update(one_off=True)
    first = new_beat()
    first.problem = BrokerError("no route")
    first.tick()
    assert PeriodicRun.objects.filter(outcome=None).count() == 4
    first.close()
    rows["gone"].delete()
    PeriodicTask.objects.filter(name="off").update(enabled=False)
    second = new_beat()
    second.tick()
    assert sorted(second.sent) == ["once", "stays"]
    errors = dict(PeriodicRun.objects.filter(outcome="dropped").values_list("name", "error"))
    assert errors == {
        "gone": "The periodic task was deleted.",
        "off": "The periodic task was disabled before its run could be sent.",
    }


def unsent_run(row, ago, task_id):
    at = utils.now() - ago
    PeriodicRun.objects.create(
        periodic_task_id=row.pk, name=row.name, scheduled_at=at, claimed_at=at, task_id=task_id, token=1
    )


def test_an_entry_that_fails_again_and_again_keeps_no_unsent_run_waiting(scheduler, clocks):
    second = IntervalSchedule.objects.create(every=1, period="seconds")
    bad = make("bad", interval=second, missed_runs="all", scheduled_from=utils.now())
    good = make("good", interval=IntervalSchedule.objects.create(every=1, period="hours"), scheduled_from=utils.now())
    scheduler.problem, scheduler.only = RuntimeError("full moon"), ("bad",)
    for _ in range(120):
        scheduler.tick()
        clocks.wait(seconds=0.5)
    # Its own wait isn't made longer by each that is new.
    until_mono = scheduler._outbox._waits[bad.pk].until_mono
    clocks.mono = until_mono - 10
    clocks.wait(seconds=2)
    scheduler.tick()
    assert scheduler._outbox._waits[bad.pk].until_mono == until_mono
    # As a run that has failed once.
    unsent_run(good, timedelta(minutes=5), "once")
    scheduler._outbox._put_off(good.pk)
    for _ in range(4):
        scheduler.tick()
        clocks.wait(seconds=0.5)
    assert [entry.options["task_id"] for entry in scheduler.entries] == ["once"]


def test_runs_that_keep_failing_hide_no_others(scheduler, clocks, monkeypatch):
    from djcelery.schedulers import dispatch

    monkeypatch.setattr(dispatch, "PAGE_ROWS", 5)
    later = {"missed_runs": "all", "interval": IntervalSchedule.objects.create(every=1, period="days")}
    rows = {name: make(name, **later) for name in ("bad", "worse", "good")}
    for number in range(12):
        unsent_run(rows["bad"], HOUR - number * SECOND, f"bad{number}")
        unsent_run(rows["worse"], HOUR - number * SECOND, f"worse{number}")
    unsent_run(rows["good"], MINUTE, "good")
    scheduler.problem, scheduler.only = RuntimeError("full moon"), ("bad", "worse")
    for _ in range(4):
        scheduler.tick()
    assert scheduler.sent == ["good"]
    # One try of each entry; the rest of its runs waits with it.
    assert scheduler.tries == 2
    for _ in range(30):
        clocks.wait(seconds=1)
        scheduler.tick()
    assert scheduler.tries < 14
    scheduler.problem = None
    for _ in range(70):
        clocks.wait(seconds=1)
        scheduler.tick()
    assert PeriodicRun.objects.filter(outcome=None).count() == 0
    assert len(scheduler.sent) == 25


def test_a_new_firing_that_goes_out_takes_those_along_that_failed(scheduler, clocks):
    overdue("flaky", missed_runs="all")
    scheduler.problem = RuntimeError("full moon")
    for _ in range(100):
        scheduler.tick()
        clocks.wait(seconds=1)
    unsent = PeriodicRun.objects.filter(outcome=None).count()
    assert unsent > 10
    assert scheduler._outbox.retry_s() > 10
    scheduler.problem = None
    clocks.wait(seconds=scheduler._book.agenda.next_wake() - clocks.at.timestamp())
    for _ in range(3):
        scheduler.tick()
    assert len(scheduler.sent) == unsent + 1


@pytest.mark.parametrize(
    ("problem", "is_kept"),
    [
        (RuntimeError("full moon"), True),
        (BrokerError("no route"), False),
        (ChannelError("no such exchange"), False),
    ],
    ids=repr,
)
def test_the_connection_is_given_up_for_its_own_errors_only(scheduler, problem, is_kept):
    overdue()
    scheduler.problem = problem
    scheduler.tick()
    assert ("connection" in scheduler.__dict__) is is_kept


# several beats


def test_one_of_two_beats_leads_and_the_other_takes_over_what_it_left(new_beat, clocks, caplog):
    caplog.set_level(logging.INFO, "djcelery")
    overdue()
    first, second = new_beat(), new_beat()
    first.problem = BrokerError("no route")
    first.tick()
    (run,) = PeriodicRun.objects.filter(outcome=None)
    for _ in range(3):
        assert 0 < second.tick() <= 1
        clocks.wait(seconds=1)
    assert second.sent == []
    assert caplog.text.count("standing by (lease 'default')") == 1
    # The first one is killed, and its lease runs out.
    BeatLease.objects.update(expires_at=utils.now() - SECOND)
    second.tick()
    assert [entry.options["task_id"] for entry in second.entries] == [run.task_id]
    first.problem = None
    clocks.wait(minutes=1)
    first.tick()
    assert first.sent == []
    assert caplog.text.count("not leading any more") == 1


def test_a_beat_that_stands_by_says_so_until_it_leads_or_ends(new_beat, clocks, monkeypatch):
    first, second, third = new_beat(), new_beat(), new_beat()
    first.tick()
    assert not BeatStandby.objects.exists()
    for beat in (second, third):
        beat.tick()
    standing = BeatStandby.objects.order_by("pk").values_list("name", "holder")
    assert list(standing.all()) == [("default", second.lease.holder), ("default", third.lease.holder)]
    seen = BeatStandby.objects.get(holder=second.lease.holder).seen_at
    clocks.wait(seconds=11)
    second.tick()
    assert BeatStandby.objects.get(holder=second.lease.holder).seen_at > seen
    third.close()
    assert list(standing.all()) == [("default", second.lease.holder)]
    # One that was killed is forgotten by the next that leads.
    BeatStandby.objects.create(name="default", holder="killed", seen_at=utils.now() - 2 * MINUTE)
    BeatLease.objects.update(expires_at=utils.now() - SECOND)
    clocks.wait(seconds=2)
    second.tick()
    assert second.lease.is_held()
    assert not BeatStandby.objects.exists()


def test_a_beat_that_cannot_say_that_it_stands_by_stands_by_all_the_same(new_beat, monkeypatch):
    first, second = new_beat(), new_beat()
    first.tick()

    def fail(*args, **kwargs):
        raise OperationalError("database is locked")

    monkeypatch.setattr(type(BeatStandby.objects.all()), "update_or_create", fail)
    assert 0 < second.tick() <= 1
    assert not second.lease.is_held()


def test_a_beat_that_has_slept_through_its_lease_sends_nothing(scheduler, clocks):
    overdue()
    scheduler.tick()
    BeatLease.objects.update(holder="other", token=99, expires_at=utils.now() + MINUTE)
    clocks.wait(minutes=1)
    scheduler.tick()
    scheduler.tick()
    assert len(scheduler.sent) == 1


def test_the_lease_is_looked_at_before_each_message(scheduler, clocks, monkeypatch):
    scheduler.lease.length_s = 10.0
    for number in range(3):
        overdue(f"t{number}")
    scheduler.tick()
    scheduler.entries.clear()
    clocks.wait(minutes=1)
    scheduler.lease.acquire()
    send = type(scheduler).apply_async

    def slow(self, entry, **kwargs):
        send(self, entry, **kwargs)
        # Another beat has taken over while this one hung in the broker.
        BeatLease.objects.update(holder="other", token=99, expires_at=utils.now() + MINUTE)
        clocks.wait(seconds=20)

    monkeypatch.setattr(type(scheduler), "apply_async", slow)
    scheduler.tick()
    assert len(scheduler.sent) == 1
    # What went out is marked, whoever leads.
    assert PeriodicRun.objects.filter(outcome=None).count() == 2


@pytest.mark.parametrize("is_taken", [False, True])
def test_the_lease_is_kept_while_very_many_rows_are_read(scheduler, clocks, every10, monkeypatch, is_taken):
    PeriodicTask.objects.bulk_create(PeriodicTask(name=f"t{n}", task="t", interval=every10) for n in range(30))
    monkeypatch.setattr("djcelery.schedulers.book.KEEP_ROWS", 5)
    plan = loading.Planner.plan

    def slowly(planner, row, now):
        clocks.wait(days=1)
        if is_taken:
            BeatLease.objects.update(holder="another", token=7)
        return plan(planner, row, now)

    monkeypatch.setattr(loading.Planner, "plan", slowly)
    scheduler.tick()
    assert scheduler.lease.is_held() != is_taken
    assert (scheduler._book is None) == is_taken


def test_an_orderly_stop_gives_the_lease_up(new_beat, clocks):
    overdue()
    first, second = new_beat(), new_beat()
    first.tick()
    first.close()
    second.tick()
    assert second.lease.is_held()
    assert PeriodicRun.objects.filter(outcome=None).count() == 0


def test_a_beat_that_is_made_and_not_run_writes_nothing(celery_app):
    DatabaseScheduler(app=celery_app)
    DatabaseScheduler(app=celery_app, lazy=True)
    assert (PeriodicTask.objects.count(), BeatLease.objects.count()) == (0, 0)


# the database is away


def test_without_the_database_nothing_is_sent_and_one_line_says_so(scheduler, clocks, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "djcelery")
    overdue()
    scheduler.tick()
    wrapper = connections["default"]

    def fails(*args):
        raise OperationalError("server is away")

    with wrapper.execute_wrapper(fails):
        for _ in range(5):
            clocks.wait(minutes=1)
            assert 0 < scheduler.tick() <= 5
    assert len(scheduler.sent) == 1
    assert len([record for record in said(caplog) if record.levelno >= logging.ERROR]) <= 2
    clocks.wait(minutes=1)
    scheduler.tick()
    scheduler.tick()
    assert len(scheduler.sent) == 2


def test_a_database_error_while_looking_for_changes_keeps_the_schedule(scheduler, every10, clocks, caplog):
    row = make(interval=every10)
    scheduler.tick()

    def fails(execute, sql, *args):
        if "djcelery_schedulechange" in sql:
            raise OperationalError("server is away")
        return execute(sql, *args)

    with connections["default"].execute_wrapper(fails):
        clocks.wait(seconds=2)
        assert scheduler.tick() > 0
    assert row.pk in scheduler._book.agenda.plans
    assert caplog.text.count("server is away") == 1


def test_what_was_sent_and_could_not_be_marked_is_marked_later_and_not_sent_again(scheduler, clocks):
    overdue()

    def fails(execute, sql, *args):
        if sql.startswith("UPDATE") and "sent_at" in sql:
            raise OperationalError("server is away")
        return execute(sql, *args)

    with connections["default"].execute_wrapper(fails):
        scheduler.tick()
        scheduler.tick()
    assert len(scheduler.sent) == 1
    clocks.wait(seconds=1)
    scheduler.tick()
    assert len(scheduler.sent) == 1
    assert PeriodicRun.objects.filter(outcome=None).count() == 0


def test_the_rest_of_a_round_that_a_database_error_ended_is_sent_by_the_same_leader(scheduler, clocks, monkeypatch):
    names = [f"t{number}" for number in range(4)]
    for name in names:
        overdue(name)
    send = type(scheduler).apply_async

    def slowly(self, entry, **kwargs):
        # So long that what was sent is marked before the round ends.
        clocks.wait(seconds=1)
        return send(self, entry, **kwargs)

    def fails(execute, sql, *args):
        if sql.startswith("UPDATE") and "sent_at" in sql:
            raise OperationalError("server is away")
        return execute(sql, *args)

    monkeypatch.setattr(type(scheduler), "apply_async", slowly)
    with connections["default"].execute_wrapper(fails):
        scheduler.tick()
    assert len(scheduler.sent) == 1
    scheduler.tick()
    assert sorted(scheduler.sent) == names
    assert PeriodicRun.objects.filter(outcome=None).count() == 0


# changes


def disable(row, every):
    row.enabled = False
    row.save()


def bulk_update(row, every):
    PeriodicTask.objects.filter(pk=row.pk).update(enabled=False)


def delete(row, every):
    row.delete()


def create(row, every):
    make("other", interval=every)


def bulk_create(row, every):
    PeriodicTask.objects.bulk_create([PeriodicTask(name="other", task="x", interval=every)])


def edit_interval(row, every):
    every.every = 20
    every.save()


def snapshot(scheduler):
    return {pk: (plan.name, plan.schedule) for pk, plan in scheduler._book.agenda.plans.items()}


@pytest.mark.parametrize("edit", [disable, bulk_update, delete, create, bulk_create, edit_interval])
def test_every_edit_through_the_orm_is_noticed(scheduler, every10, clocks, edit, django_assert_max_num_queries):
    row = make(interval=every10, scheduled_from=utils.now() + HOUR)
    make("bystander", interval=IntervalSchedule.objects.create(every=2, period="hours"))
    scheduler.tick()
    before = snapshot(scheduler)
    edit(row, every10)
    clocks.wait(seconds=2)
    with django_assert_max_num_queries(3):
        scheduler.tick()
    assert snapshot(scheduler) != before
    assert ScheduleChange.objects.count() == 0


def test_only_the_row_that_changed_is_read_again(scheduler, every10, clocks, monkeypatch):
    rows = [make(f"t{n}", interval=every10, scheduled_from=utils.now() + HOUR) for n in range(5)]
    scheduler.tick()
    before = dict(scheduler._book.agenda.plans)
    PeriodicTask.objects.filter(pk=rows[3].pk).update(queue="q")
    clocks.wait(seconds=2)
    scheduler.tick()
    after = scheduler._book.agenda.plans
    assert [pk for pk, plan in after.items() if plan is not before[pk]] == [rows[3].pk]


def test_a_note_for_everything_is_read_in_slices_that_delay_nothing(scheduler, every10, clocks, monkeypatch):
    from djcelery.schedulers import book

    monkeypatch.setattr(book, "SLICE_ROWS", 3)
    rows = [make(f"t{n}", interval=every10, scheduled_from=utils.now() + HOUR) for n in range(8)]
    scheduler.tick()
    rows[0].delete()
    PeriodicTask.objects.filter(pk=rows[7].pk).update(enabled=False)
    make("new", interval=every10)
    ScheduleChange.objects.all().delete()
    PeriodicTasks.changed()
    clocks.wait(seconds=2)
    scheduler.tick()
    names = sorted(name for name, _ in snapshot(scheduler).values())
    assert names == ["new", "t1", "t2", "t3", "t4", "t5", "t6"]


def test_more_notes_than_one_look_reads_are_followed_at_once_but_what_is_due_goes_first(
    scheduler, every10, clocks, monkeypatch
):
    from djcelery.schedulers import changes

    monkeypatch.setattr(changes, "NOTES_AT_ONCE", 3)
    rows = [make(f"t{n}", interval=every10, scheduled_from=utils.now() + HOUR) for n in range(10)]
    due = overdue("due")
    scheduler.tick()
    while scheduler.tick() == 0:
        pass
    scheduler.entries.clear()
    for row in rows:
        row.queue = "edited"
        row.save()
    clocks.at = scheduler._book.agenda.plans[due.pk].due
    clocks.wait(seconds=2)
    edited = []
    while scheduler.tick() == 0:
        assert scheduler.sent == ["due"]
        edited.append(sum(plan.options.queue == "edited" for plan in scheduler._book.agenda.plans.values()))
    assert edited == [3, 6, 9]
    assert ScheduleChange.objects.count() == 0


def test_what_the_last_of_many_notes_makes_due_is_sent(scheduler, every10, clocks, monkeypatch):
    from djcelery.schedulers import changes

    monkeypatch.setattr(changes, "NOTES_AT_ONCE", 1)
    row = make(interval=every10, scheduled_from=utils.now() + HOUR)
    scheduler.tick()
    while scheduler.tick() == 0:
        pass
    row.save()
    soon = ClockedSchedule.objects.create(clocked_time=utils.correct_awareness(clocks.at + SECOND))
    make("soon", clocked=soon, scheduled_from=None)
    # It was due between the last look and the one that finds the notes.
    clocks.wait(seconds=3)
    while scheduler.tick() == 0:
        pass
    assert scheduler.sent == ["soon"]


def test_raw_sql_is_noticed_by_the_comparison(scheduler, every10, clocks):
    row = make(interval=every10, scheduled_from=utils.now() + HOUR)
    scheduler.tick()
    raw("UPDATE djcelery_periodictask SET queue = 'raw' WHERE id = %s", row.pk)
    clocks.wait(seconds=61)
    for _ in range(3):
        scheduler.tick()
    assert scheduler._book.agenda.plans[row.pk].options.queue == "raw"


def test_a_subclass_that_says_the_schedule_has_changed_is_believed(new_beat, every10, clocks, monkeypatch):
    beat = new_beat()
    row = make(interval=every10, scheduled_from=utils.now() + HOUR)
    beat.tick()
    raw("UPDATE djcelery_periodictask SET queue = 'raw' WHERE id = %s", row.pk)
    monkeypatch.setattr(type(beat), "schedule_changed", lambda self: True, raising=False)
    clocks.wait(seconds=2)
    beat.tick()
    assert beat._book.agenda.plans[row.pk].options.queue == "raw"


def test_schedule_changed_tells_of_changes_since_the_last_call(scheduler, every10):
    row = make(interval=every10)
    assert not scheduler.schedule_changed()
    assert not scheduler.schedule_changed()
    row.delete()
    assert scheduler.schedule_changed()
    assert not scheduler.schedule_changed()


def test_a_run_by_beat_is_not_a_change_of_the_schedule(scheduler):
    overdue()
    scheduler.tick()
    ScheduleChange.objects.all().delete()
    assert ScheduleChange.objects.count() == 0


def test_an_instance_with_no_changes_is_not_noted(scheduler, every10):
    row = make(interval=every10)
    ScheduleChange.objects.all().delete()
    row.no_changes = True
    row.save()
    assert ScheduleChange.objects.count() == 0


def test_old_runs_are_deleted_from_the_history(scheduler, clocks, settings):
    row = overdue()
    old = {"periodic_task_id": row.pk, "name": "t", "token": 1, "outcome": "sent"}
    long_ago = utils.now() - 8 * DAY
    PeriodicRun.objects.create(scheduled_at=long_ago, claimed_at=long_ago, task_id="old", **old)
    lead_until_the_first_purge(scheduler, clocks)
    assert PeriodicRun.objects.filter(task_id="old").exists(), "the start has enough to do"
    for _ in range(4):
        scheduler.tick()
        clocks.wait(seconds=2)
    assert not PeriodicRun.objects.filter(task_id="old").exists()
    assert PeriodicRun.objects.filter(outcome="sent").count() >= 1


def lead_until_the_first_purge(scheduler, clocks):
    for _ in range(29):
        scheduler.tick()
        clocks.wait(seconds=2)


# rows that can't be run


def raw(sql, *params):
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("PRAGMA foreign_keys = OFF")
        elif connection.vendor == "mysql":
            cursor.execute("SET FOREIGN_KEY_CHECKS = 0")
        cursor.execute(sql, params)
        if connection.vendor == "sqlite":
            cursor.execute("PRAGMA foreign_keys = ON")
        elif connection.vendor == "mysql":
            cursor.execute("SET FOREIGN_KEY_CHECKS = 1")


BAD_ROWS = {
    "no schedule": ({}, ScheduleMissing, "it has no schedule"),
    "two schedules": ({"every": 10, "minute": "5"}, ScheduleError, "more than one schedule: interval and crontab"),
    "broken json": ({"args": "[1,", "every": 10}, ArgumentsInvalid, "args is not JSON"),
    "args no array": ({"args": '{"a": 1}', "every": 10}, ArgumentsInvalid, "args must be a JSON array"),
    "kwargs no object": ({"kwargs": "[1]", "every": 10}, ArgumentsInvalid, "kwargs must be a JSON object"),
    "headers no object": ({"headers": "[1]", "every": 10}, ArgumentsInvalid, "headers must be a JSON object"),
    "another id": ({"headers": '{"id": "x"}', "every": 10}, ArgumentsInvalid, "headers must not have 'id'"),
    "another task": ({"headers": '{"task": "x"}', "every": 10}, ArgumentsInvalid, "headers must not have 'task'"),
    "period of zero": ({"every": 0}, ScheduleError, "shorter than a second"),
    "negative period": ({"every": -5}, ScheduleError, "shorter than a second"),
    "below a second": ({"every": 900000, "period": "microseconds"}, ScheduleError, "shorter than a second"),
    "unknown unit": ({"every": 2, "period": "fortnights"}, ScheduleError, "can't be read"),
    "endless period": ({"every": 2147483647, "period": "days"}, ScheduleError, "can't be read"),
    "broken crontab": ({"minute": "sixty"}, ScheduleError, "can't be read"),
    "31 February": ({"minute": "0", "day_of_month": "31", "month_of_year": "2"}, ScheduleError, "no month has|never"),
    "unknown zone": ({"minute": "0", "timezone": "Mars/Olympus"}, ScheduleError, "is unknown"),
}


def make_bad(values):
    values = dict(values)
    if "every" in values:
        times_ = {"every": values.pop("every"), "period": values.pop("period", "seconds")}
        values["interval"] = IntervalSchedule.objects.create(**times_)
    crontab_ = {k: values.pop(k) for k in ("minute", "day_of_month", "month_of_year", "timezone") if k in values}
    if crontab_:
        values["crontab"] = CrontabSchedule.objects.create(**crontab_)
    return make("bad", **values)


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_one_broken_row_does_not_stop_the_others_and_says_what_is_wrong(scheduler, caplog, clocks, kind):
    values, error, words = BAD_ROWS[kind]
    bad = make_bad(values)
    overdue("good")
    if kind not in ("31 February", "headers no object"):
        with pytest.raises(error, match=words):
            ModelEntry(bad)
    scheduler.tick()
    clocks.wait(minutes=1)
    scheduler.tick()
    assert scheduler.sent == ["good", "good"]
    told = [r for r in said(caplog) if r.levelno == logging.ERROR]
    assert len(told) == 1
    assert f"Periodic task {bad.pk} 'bad'" in told[0].getMessage()
    bad.refresh_from_db()
    assert bad.enabled
    assert bad.last_error is not None
    assert words.split("|")[0] in bad.last_error
    # Mended, it runs and says nothing any more.
    PeriodicTask.objects.filter(pk=bad.pk).update(
        interval=IntervalSchedule.objects.create(every=1, period="minutes"),
        crontab=None,
        args="[]",
        kwargs="{}",
        headers=None,
        scheduled_from=utils.now(),
    )
    clocks.wait(minutes=2)
    scheduler.tick()
    scheduler.tick()
    bad.refresh_from_db()
    assert bad.last_error is None
    assert "bad" in scheduler.sent


def test_a_start_writes_the_errors_of_many_rows_at_once_and_once(new_beat, django_assert_max_num_queries):
    for number in range(30):
        make(f"bad{number}", args=f"[{number},", interval=IntervalSchedule.objects.create(every=1, period="hours"))
    first = new_beat()
    first.lease.acquire()
    with django_assert_max_num_queries(11):
        first.tick()
    assert PeriodicTask.objects.exclude(last_error=None).count() == 30
    before = list(PeriodicTask.objects.values_list("last_error", flat=True).order_by("pk"))
    first.close()
    again = new_beat()
    again.lease.acquire()
    with django_assert_max_num_queries(10):
        again.tick()
    assert list(PeriodicTask.objects.values_list("last_error", flat=True).order_by("pk")) == before


@pytest.mark.skipif("connection.vendor == 'postgresql'", reason="PostgreSQL keeps its references")
def test_a_row_whose_schedule_was_removed_is_held_out(scheduler, every10, caplog):
    bad = make("bad", interval=every10)
    overdue("good")
    raw("DELETE FROM djcelery_intervalschedule WHERE id = %s", every10.pk)
    try:
        scheduler.tick()
        assert scheduler.sent == ["good"]
        assert "its schedule was removed from the database" in caplog.text
        assert list(scheduler.schedule) == ["good"]
    finally:
        raw("DELETE FROM djcelery_periodictask WHERE id = %s", bad.pk)


# entries as objects


def test_the_schedule_is_a_mapping_of_entries_by_name(scheduler, every10):
    make(interval=every10, queue="q")
    assert list(scheduler.schedule) == ["t"]
    assert isinstance(scheduler.schedule["t"], ModelEntry)
    assert dict(scheduler.schedule)["t"].options["queue"] == "q"
    with pytest.raises(KeyError):
        scheduler.schedule["other"]


def test_code_that_reserves_entries_itself_has_their_runs_written(scheduler, every10):
    row = make(interval=every10)
    entry = scheduler.reserve(scheduler.schedule["t"])
    scheduler.reserve(entry)
    scheduler.sync()
    row.refresh_from_db()
    assert row.total_run_count == 2
    assert row.last_run_at is not None


def test_a_due_entry_knows_its_row(scheduler):
    row = overdue()
    scheduler.tick()
    assert scheduler.entries[0].model == row
    assert scheduler.entries[0].is_due() == (True, 0.0)


def test_arguments_that_legacy_encoded_twice_are_read(every10):
    entry = ModelEntry(make(interval=every10, args=json.dumps("[2, 2]"), kwargs=""))
    assert (entry.args, entry.kwargs) == ([2, 2], {})


def test_entries_carry_the_options_of_the_row(every10):
    expires = datetime(2030, 1, 1, tzinfo=timezone.utc)
    entry = ModelEntry(make(interval=every10, queue="q", exchange="e", routing_key="r", expires=expires))
    headers = {"periodic_task_name": entry.name}
    assert entry.options == {"queue": "q", "exchange": "e", "routing_key": "r", "expires": expires, "headers": headers}


def test_a_disabled_task_is_never_due(every10):
    row = make(interval=every10, last_run_at=utils.now() - timedelta(days=1))
    row.enabled = False
    assert ModelEntry(row).is_due() == (False, 5.0)


def test_disabling_a_task_forgets_its_last_run(every10):
    row = make(interval=every10, last_run_at=utils.now(), queue="", exchange="", routing_key="")
    row.enabled = False
    row.save()
    row.refresh_from_db()
    assert row.last_run_at is None
    assert (row.queue, row.exchange, row.routing_key) == (None, None, None)


def test_crontabs_are_read_in_the_projects_zone(celery_app, settings):
    settings.CELERY_TIMEZONE = "Asia/Kathmandu"
    row = make(crontab=CrontabSchedule.objects.create(minute="0", hour="9"))
    entry = ModelEntry(row, app=celery_app)
    assert entry.schedule.tz.key == "Asia/Kathmandu"


@pytest.mark.parametrize("use_tz", [True, False])
def test_last_runs_survive_use_tz_on_and_off(settings, every10, use_tz):
    settings.USE_TZ = use_tz
    row = make(interval=every10, last_run_at=utils.now())
    row.refresh_from_db()
    entry = ModelEntry(row)
    assert entry.last_run_at.tzinfo is not None
    assert abs(entry.last_run_at - datetime.now(timezone.utc)) < timedelta(seconds=30)
    following = next(entry)
    following.save()
    row.refresh_from_db()
    assert abs(utils.to_utc(row.last_run_at) - datetime.now(timezone.utc)) < timedelta(seconds=30)


def test_switching_an_entry_from_interval_to_crontab_clears_the_other(celery_app):
    ModelEntry.from_entry("t", task="x", schedule=10)
    ModelEntry.from_entry("t", task="x", schedule=crontab(minute=5))
    row = PeriodicTask.objects.get(name="t")
    assert row.interval is None
    assert row.crontab.minute == "5"


@pytest.mark.parametrize(("given", "setting", "expected"), [(None, 0, 5), (3, 0, 3), (None, 7, 7), (0, None, 5)])
def test_a_falsy_max_interval_is_five_seconds(celery_app, settings, given, setting, expected):
    settings.CELERYBEAT_MAX_LOOP_INTERVAL = setting
    assert DatabaseScheduler(app=celery_app, max_interval=given, lazy=True).max_interval == expected


def test_create_or_update_task_leaves_alone_what_it_is_not_given():
    DatabaseScheduler.create_or_update_task("t", task="x", schedule=10, args=[1], options={"queue": "q"})
    DatabaseScheduler.create_or_update_task("t", task="y")
    row = PeriodicTask.objects.get(name="t")
    assert (row.task, row.args, row.queue, row.interval.every) == ("y", "[1]", "q", 10)
    DatabaseScheduler.create_or_update_task("t", schedule=crontab(minute=1))
    row.refresh_from_db()
    assert row.interval is None
    with pytest.raises(KeyError, match="schedule"):
        DatabaseScheduler.create_or_update_task("new", task="x")


def test_delete_task():
    DatabaseScheduler.create_or_update_task("t", task="x", schedule=10)
    DatabaseScheduler.delete_task("t")
    with pytest.raises(PeriodicTask.DoesNotExist):
        DatabaseScheduler.delete_task("t")


@pytest.mark.parametrize(
    ("given", "every", "period"),
    [
        (30, 30, "seconds"),
        (timedelta(minutes=2), 120, "seconds"),
        (0.5, 500000, "microseconds"),
        (schedule(90), 90, "seconds"),
    ],
)
def test_periods_are_stored_without_loss(given, every, period):
    row, field = ModelEntry.to_model_schedule(given)
    assert (field, row.every, row.period) == ("interval", every, period)


def test_equal_schedule_rows_are_neither_multiplied_nor_deleted():
    rows = [IntervalSchedule.objects.create(every=10, period="seconds") for _ in range(2)]
    assert IntervalSchedule.from_schedule(schedule(10)) == rows[0]
    crontabs = [CrontabSchedule.objects.create(minute="5") for _ in range(2)]
    assert CrontabSchedule.from_schedule(crontab(minute="5")) == crontabs[0]
    assert IntervalSchedule.objects.count() == CrontabSchedule.objects.count() == 2


@pytest.mark.parametrize("wrong", ["every day", object(), None])
def test_what_is_no_schedule_is_refused(wrong):
    with pytest.raises(ValueError, match="Cannot convert schedule type"):
        ModelEntry.to_model_schedule(wrong)


def test_a_schedule_row_in_use_cannot_be_deleted(every10):
    make(interval=every10)
    with pytest.raises(ProtectedError):
        every10.delete()


def test_a_signal_in_the_middle_of_a_tick_touches_neither_broker_nor_database(scheduler, every10, monkeypatch):
    closed = []
    monkeypatch.setattr(Scheduler, "close", lambda self: closed.append(1))

    def interrupted(entry, **kwargs):
        # What Celery's handler of SIGTERM does.
        scheduler.close()
        raise SystemExit

    monkeypatch.setattr(scheduler, "apply_async", interrupted)
    overdue()
    with pytest.raises(SystemExit):
        scheduler.tick()
    assert closed == []
    scheduler.close()
    assert closed == [1]


def test_the_texts_of_legacy_models(every10):
    assert str(every10) == "every 10 seconds"
    assert str(IntervalSchedule(every=1, period="hours")) == "every hour"
    with translation.override("es"):
        assert str(every10) == "cada 10 segundos"
        assert str(IntervalSchedule(every=1, period="days")) == "cada día"
    assert str(IntervalSchedule(every=2, period="fortnights")) == "every 2 fortnights"
    table = CrontabSchedule(minute="*/5,7", day_of_week="mon")
    assert str(table) == "*/5,7 * mon * * (m/h/d/dM/MY)"
    assert str(make(interval=every10)) == "t: every 10 seconds"
    assert str(PeriodicTask(name="x")) == "x: {no schedule}"
    assert isinstance(table.schedule, schedules.crontab)


def test_a_subclass_may_have_entries_of_its_own(new_beat):
    class Tenants(ModelEntry):
        def __init__(self, model, app=None, options=None):
            super().__init__(model, app, options)
            self.options["headers"] = {"tenant": model.description}

    beat = new_beat()
    beat.Entry = Tenants
    overdue(description="acme")
    beat.tick()
    (entry,) = beat.entries
    assert isinstance(entry, Tenants)
    (run,) = PeriodicRun.objects.filter(outcome="sent")
    assert entry.options["task_id"] == run.task_id
    assert entry.options["headers"]["tenant"] == "acme"
    assert entry.options["headers"]["periodic_task_name"] == "t"


def test_a_run_that_fails_by_itself_keeps_no_other_waiting(scheduler, clocks):
    overdue("bad")
    overdue("good")
    scheduler.problem, scheduler.only = RuntimeError("full moon"), ("bad",)
    scheduler.tick()
    clocks.wait(minutes=1)
    scheduler.tick()
    assert scheduler.sent == ["good", "good"]


def test_changes_are_seen_however_much_is_due(scheduler, clocks, monkeypatch):
    from djcelery.schedulers import dispatch

    monkeypatch.setattr(dispatch, "ROUND_ENTRIES", 1)
    for number in range(10):
        overdue(f"t{number}")
    scheduler.tick()
    make("new", interval=IntervalSchedule.objects.create(every=9, period="hours"))
    clocks.wait(seconds=3)
    assert scheduler.tick() == 0
    assert "new" in {name for name, _ in snapshot(scheduler).values()}
    assert 0 < len(scheduler.sent) < 10


UNREADABLE = {
    "sqlite": ("start_time = '2026-02-31 00:00:00'", "last_run_at = '2026-02-31 00:00:00'"),
    "postgresql": ("expires = 'infinity'", "last_run_at = '-infinity'", "last_run_at = '12000-01-01'"),
}


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("is_running", [False, True])
def test_a_row_that_django_cannot_read_is_held_out(scheduler, every10, clocks, is_running, number):
    values = UNREADABLE.get(connection.vendor, ())[number : number + 1]
    if not values:
        pytest.skip("it keeps no such time")
    bad = make("bad", interval=every10, scheduled_from=utils.now() + HOUR)
    overdue("good")
    if is_running:
        scheduler.tick()
    raw(f"UPDATE djcelery_periodictask SET {values[0]} WHERE id = %s", bad.pk)
    PeriodicTasks.changed()
    for _ in range(4):
        scheduler.tick()
        clocks.wait(seconds=31)
    assert scheduler.sent == ["good"] * 3
    (error,) = PeriodicTask.objects.filter(pk=bad.pk).values_list("last_error", flat=True)
    if is_running and "last_run_at" in values[0]:
        # Not read by the comparison, but by the note.
        assert bad.pk not in scheduler._book.agenda.plans
    assert "a value of its row can't be read" in error
    assert list(scheduler.schedule) == ["good"]
    raw("UPDATE djcelery_periodictask SET expires = NULL, start_time = NULL, last_run_at = NULL WHERE id = %s", bad.pk)
    clocks.wait(seconds=61)
    for _ in range(3):
        scheduler.tick()
    assert bad.pk in scheduler._book.agenda.plans
    assert PeriodicTask.objects.get(pk=bad.pk).last_error is None


def test_one_row_that_cannot_be_read_costs_few_statements(scheduler, every10, clocks, django_assert_max_num_queries):
    tasks = [PeriodicTask(name=f"t{n}", task="x", interval=every10, scheduled_from=clocks.at) for n in range(500)]
    PeriodicTask.objects.bulk_create(tasks)
    if connection.vendor not in UNREADABLE:
        pytest.skip("it keeps no such time")
    raw(f"UPDATE djcelery_periodictask SET {UNREADABLE[connection.vendor][0]} WHERE name = 't7'")
    scheduler.lease.acquire()
    with django_assert_max_num_queries(35):
        scheduler.tick()
    assert len(scheduler._book.agenda.plans) == 499


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="others have 32 bits for it")
@pytest.mark.parametrize("column", ["expire_seconds", "grace_seconds", "overlap_timeout", "jitter_seconds"])
def test_more_seconds_than_can_be_counted_hold_out_their_own_row_only(scheduler, clocks, column):
    bad = overdue("bad", no_overlap=True)
    overdue("good")
    raw(f"UPDATE djcelery_periodictask SET {column} = 10000000000000 WHERE id = %s", bad.pk)
    scheduler.tick()
    assert scheduler.sent == ["good"]
    bad.refresh_from_db()
    assert f"its {column} are too many" in bad.last_error


def test_many_old_runs_are_deleted_a_part_at_a_time(scheduler, clocks, monkeypatch):
    monkeypatch.setattr("djcelery.schedulers.scheduler.PURGE_ROWS", 2)
    old = clocks.at - timedelta(days=30)
    PeriodicRun.objects.bulk_create(
        PeriodicRun(
            periodic_task_id=1,
            name="t",
            scheduled_at=old + n * SECOND,
            task_id=str(n),
            claimed_at=old,
            outcome="sent",
            token=1,
        )
        for n in range(8)
    )
    lead_until_the_first_purge(scheduler, clocks)
    left = []
    for _ in range(4):
        scheduler.tick()
        clocks.wait(seconds=2)
        left.append(PeriodicRun.objects.count())
    assert left == [8, 8, 2, 0]


# time


@pytest.mark.parametrize("enable_utc", [True, False])
@pytest.mark.parametrize("use_tz", [True, False])
def test_crontabs_fire_by_their_zone_whatever_the_settings_of_time(
    new_beat, celery_app, clocks, settings, use_tz, enable_utc
):
    settings.USE_TZ = use_tz
    settings.CELERY_TIMEZONE = "Asia/Kathmandu"
    settings.CELERY_ENABLE_UTC = enable_utc
    # 09:00 is 03:15 in UTC, and in Chatham (+13:45 in summer) 19:15 of the day before.
    clocks.at = datetime(2030, 1, 10, 3, 14, 50, tzinfo=timezone.utc)
    long_ago = utils.correct_awareness(clocks.at - DAY / 2)
    make("app", crontab=CrontabSchedule.objects.create(minute="0", hour="9"), scheduled_from=long_ago)
    chatham = CrontabSchedule.objects.create(minute="0", hour="17", timezone="Pacific/Chatham")
    make("own", crontab=chatham, scheduled_from=long_ago)
    make("every", interval=IntervalSchedule.objects.create(every=12, period="hours"), scheduled_from=long_ago)
    beat = new_beat()
    for _ in range(5):
        beat.tick()
        clocks.wait(seconds=5)
    at_9 = datetime(2030, 1, 10, 3, 15, tzinfo=timezone.utc)
    assert dict(beat.instants) == {"app": at_9, "own": at_9, "every": clocks.at - 25 * SECOND}
    assert {utils.to_utc(run.scheduled_at) for run in PeriodicRun.objects.filter(name="app")} == {at_9}


def test_naive_legacy_rows_are_in_the_projects_zone(new_beat, clocks, settings):
    settings.USE_TZ = False
    make(interval=IntervalSchedule.objects.create(every=1, period="hours"), scheduled_from=None)
    last = datetime(2029, 6, 1, 11, 30)
    PeriodicTask.objects.without_notes().update(last_run_at=last, scheduled_from=None)
    # 11:30 in Brussels is 09:30 in UTC.
    clocks.at = datetime(2029, 6, 1, 10, 29, 58, tzinfo=timezone.utc)
    beat = new_beat()
    beat.tick()
    assert beat.sent == []
    clocks.wait(seconds=2)
    beat.tick()
    assert beat.instants == [("t", datetime(2029, 6, 1, 10, 30, tzinfo=timezone.utc))]


def test_no_round_claims_many_more_runs_than_it_may_have_entries(scheduler, clocks, monkeypatch):
    from djcelery.schedulers import dispatch

    monkeypatch.setattr(dispatch, "ROUND_ENTRIES", 12)
    for number in range(5):
        overdue(f"t{number}", missed_runs="all")
    rounds = []
    while scheduler.tick() == 0:
        rounds.append(len(scheduler.sent))
    # Ten runs each: an entry is never split.
    assert rounds == [10, 20, 30, 40]
    assert len(set(scheduler.instants)) == 50


def test_a_missed_run_whose_message_would_have_expired_is_passed_over(scheduler, clocks):
    row = overdue(expire_seconds=20)
    scheduler.tick()
    assert scheduler.sent == []
    assert "would have expired" in PeriodicRun.objects.get(error__contains="expired", outcome="skipped").error
    clocks.wait(seconds=31)
    scheduler.tick()
    row.refresh_from_db()
    assert (scheduler.sent, row.total_run_count) == (["t"], 1)
