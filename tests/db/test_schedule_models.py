"""The rows of the schedule: what may be entered, what a legacy row may hold, when they count, and the runs."""

from __future__ import annotations

import pickle
from datetime import datetime, timedelta, timezone

import pytest
from celery import schedules
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction
from django.db.models import F

from djcelery import models, times, utils
from djcelery.models import (
    BOOKKEEPING,
    SOLAR_CHOICES,
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicRun,
    PeriodicTask,
    SolarSchedule,
    TaskMeta,
)

pytestmark = pytest.mark.django_db

UTC = timezone.utc
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
def every():
    return IntervalSchedule.objects.create(every=10, period="seconds")


@pytest.fixture
def row(every):
    return make(every)


def make(interval=None, name="t", **values):
    return PeriodicTask.objects.create(name=name, task="shop.a", interval=interval, **values)


def errors(row):
    """Return the words about *row* by field, '__all__' for those about no single one."""
    try:
        row.full_clean()
    except ValidationError as exc:
        return {field: " ".join(messages) for field, messages in exc.message_dict.items()}
    return {}


def solar(**values):
    return SolarSchedule(**{"event": "sunset", "latitude": 51, "longitude": 4, **values})


def clocked(moment=NOON):
    return ClockedSchedule.objects.create(clocked_time=moment)


# -- what may be entered ---------------------------------------------------------------------------


def test_exactly_one_schedule_must_be_set(every):
    crontab = CrontabSchedule.objects.create()
    sun = solar()
    sun.save()
    for chosen in ({"interval": every}, {"crontab": crontab}, {"solar": sun}, {"clocked": clocked()}):
        assert errors(PeriodicTask(name="t", task="x", **chosen)) == {}
    assert errors(PeriodicTask(name="t", task="x")) == {"interval": "One of interval or crontab must be set."}
    both = PeriodicTask(name="t", task="x", interval=every, crontab=crontab)
    assert errors(both) == {"crontab": "Only one of interval or crontab must be set"}
    three = PeriodicTask(name="t", task="x", interval=every, solar=sun, clocked=clocked())
    assert errors(three) == {"__all__": "Only one schedule must be set, not interval, event of the sun, fixed time."}


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        ({"args": "[1,"}, "args", "Unable to parse JSON"),
        ({"args": "{}"}, "args", "Must be a JSON array"),
        ({"kwargs": "[]"}, "kwargs", "Must be a JSON object"),
        ({"headers": "[]"}, "headers", "Must be a JSON object"),
        ({"headers": '{"a": NaN}'}, "headers", "NaN is not JSON"),
        ({"headers": '{"id": "a", "shadow": "b"}'}, "headers", "“id” is the message's own"),
        ({"headers": '{"task": "shop.other"}'}, "headers", "“task” is the message's own"),
        ({"priority": 256}, "priority", "Must be between 0 and 255."),
        ({"priority": -1}, "priority", "Must be between 0 and 255."),
        ({"expire_seconds": 0}, "expire_seconds", "Must be at least 1."),
        ({"grace_seconds": -1}, "grace_seconds", "Must be at least 0."),
        ({"jitter_seconds": -1}, "jitter_seconds", "Must be at least 0."),
        ({"no_overlap": True, "overlap_timeout": 0}, "overlap_timeout", "Must be at least 1."),
        ({"overlap_timeout": 5}, "__all__", "needs “no overlap”"),
        ({"missed_runs": "maybe"}, "missed_runs", "not a valid choice"),
        ({"missed_runs": "all", "one_off": True}, "__all__", "A one-off task runs once"),
        ({"expires": NOON, "expire_seconds": 60}, "__all__", "Only one of expires and expire seconds"),
        ({"expires": NOON, "start_time": NOON}, "__all__", "expires before its start time"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(every, values, field, words):
    found = errors(PeriodicTask(name="t", task="x", interval=every, **values))
    assert list(found) == [field]
    assert words in found[field]


@pytest.mark.parametrize(
    ("values", "words"),
    [({"start_time": NOON + timedelta(1)}, "before the start time"), ({"expires": NOON}, "expires before its clocked")],
)
def test_a_fixed_time_must_be_one_at_which_the_task_may_run(values, words):
    assert words in errors(PeriodicTask(name="t", task="x", clocked=clocked(), **values))["__all__"]
    assert errors(PeriodicTask(name="t", task="x", clocked=clocked(), start_time=NOON, one_off=True)) == {}


@pytest.mark.parametrize(
    ("every", "period", "words"),
    [
        (0, "seconds", "at least 1"),
        (-1, "days", "at least 1"),
        (999_999, "microseconds", "shorter than a second"),
        (2_000_000_000, "days", "no period"),
    ],
)
def test_a_period_that_cannot_be_run_is_refused(every, period, words):
    row = IntervalSchedule(every=every, period=period)
    assert words in errors(row)["every"]
    row.save()
    assert words in errors(PeriodicTask(name="t", task="x", interval=row))["interval"]


def test_a_second_may_be_counted_in_microseconds():
    assert errors(IntervalSchedule(every=1_000_000, period="microseconds")) == {}


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        ({"minute": "61"}, "__all__", "Not a crontab that Celery can read"),
        ({"minute": "1,,2"}, "__all__", "Not a crontab that Celery can read"),
        ({"day_of_month": "31", "month_of_year": "2,4"}, "__all__", "31"),
        ({"timezone": "Mars/Olympus"}, "timezone", "There is no time zone “Mars/Olympus”"),
        ({"timezone": "../etc/passwd"}, "timezone", "There is no time zone"),
    ],
)
def test_a_crontab_that_cannot_be_run_is_refused(values, field, words):
    row = CrontabSchedule(**values)
    assert words in errors(row)[field]
    row.save()
    assert "Not a crontab" in errors(PeriodicTask(name="t", task="x", crontab=row))["crontab"]


def test_a_leap_day_and_every_zone_are_accepted():
    assert errors(CrontabSchedule(day_of_month="29", month_of_year="2", timezone="Australia/Lord_Howe")) == {}
    row = CrontabSchedule(timezone="")
    assert errors(row) == {}
    row.save()
    assert row.timezone is None


@pytest.mark.parametrize(
    ("values", "field"),
    [({"latitude": 91}, "latitude"), ({"longitude": -181}, "longitude"), ({"event": "tea"}, "event")],
)
def test_a_place_or_event_that_does_not_exist_is_refused(values, field):
    assert list(errors(solar(**values))) == [field]


def test_the_events_are_celerys():
    assert {name for name, _ in SOLAR_CHOICES} == schedules.solar._all_events


# -- what a legacy row may hold --------------------------------------------------------------------


def test_rows_that_break_the_rules_load_and_show():
    broken = CrontabSchedule.objects.create(minute="soon", timezone="Mars/Olympus", day_of_month="31")
    never = IntervalSchedule.objects.create(every=0, period="parsecs")
    sun = solar(event="tea", latitude=99)
    sun.save()
    for number, chosen in enumerate(({"crontab": broken}, {"interval": never}, {"solar": sun}, {})):
        make(name=f"n{number}", args="[", kwargs="{", headers="[", **chosen)
    make(never, name="both", crontab=broken)
    for row in PeriodicTask.objects.select_related("interval", "crontab", "solar"):
        assert str(row).startswith(f"{row.name}: ")
        assert row.next_run() is None
    assert str(broken) == "soon * * 31 * (m/h/d/dM/MY) Mars/Olympus"


def test_a_task_whose_schedule_is_gone_loads_and_shows(every):
    row = PeriodicTask(name="t", interval_id=every.pk + 1, enabled=True)
    assert str(row) == "t: {no schedule}"
    assert row.next_run() is None


def test_all_columns_that_came_after_django_celery_may_be_null(row):
    later = {field.column for field in PeriodicTask._meta.concrete_fields if field.null} - {"interval_id", "expires"}
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE djcelery_periodictask SET {', '.join(f'{name} = NULL' for name in later - {'crontab_id'})}"
        )
    row = PeriodicTask.objects.get()
    assert (row.scheduled_from, row.one_off, row.headers) == (None, None, None)
    assert errors(row) == {}
    row.save()


# -- Celery's objects, there and back --------------------------------------------------------------


def test_a_crontab_of_a_zone_is_asked_by_the_clocks_of_that_zone():
    row = CrontabSchedule.objects.create(minute="30", hour="9", timezone="Asia/Kathmandu")
    celerys = row.schedule
    celerys.nowfun = lambda: datetime(2026, 6, 1, 3, 44, tzinfo=UTC)  # 9:29 there
    assert celerys.is_due(datetime(2026, 5, 31, 12, tzinfo=UTC)) == (False, 60.0)
    celerys.nowfun = lambda: datetime(2026, 6, 1, 3, 45, tzinfo=UTC)
    assert celerys.is_due(datetime(2026, 5, 31, 12, tzinfo=UTC)).is_due
    assert pickle.loads(pickle.dumps(row.schedule)) == row.schedule
    assert row.schedule != schedules.crontab("30", "9")
    assert "Asia/Kathmandu" in repr(row.schedule)
    assert isinstance(CrontabSchedule(minute="5").schedule, schedules.crontab)


def test_a_fixed_time_is_due_once():
    celerys = clocked().schedule
    celerys.nowfun = lambda: NOON - timedelta(seconds=5)
    assert celerys.is_due(LONG_AGO) == (False, 5.0)
    celerys.nowfun = lambda: NOON
    assert celerys.is_due(LONG_AGO).is_due
    assert not celerys.is_due(NOON).is_due
    assert pickle.loads(pickle.dumps(celerys)) == celerys


@pytest.mark.parametrize(
    ("model", "schedule"),
    [
        (SolarSchedule, lambda: schedules.solar("sunset", -37.81753, 144.96715)),
        (ClockedSchedule, lambda: times.Clocked(NOON)),
        (CrontabSchedule, lambda: times.ZonedCrontab("5", zone="Europe/Brussels")),
        (CrontabSchedule, lambda: schedules.crontab("5")),
        (IntervalSchedule, lambda: schedules.schedule(timedelta(minutes=5))),
    ],
)
def test_the_first_row_that_says_the_same_serves_and_none_is_merged_or_deleted(model, schedule):
    first = model.from_schedule(schedule())
    assert first.pk is None
    assert errors(first) == {}
    first.save()
    model.from_schedule(schedule())
    copy = model.objects.get(pk=first.pk)
    copy.pk = None
    copy.save()
    assert model.from_schedule(schedule()) == first
    assert model.objects.count() == 2
    assert first.schedule == schedule() or isinstance(first, SolarSchedule)
    first.refresh_from_db()
    assert model.from_schedule(first.schedule) == first


def test_crontabs_that_differ_by_their_zone_are_different_rows():
    plain = CrontabSchedule.objects.create(minute="5")
    assert CrontabSchedule.from_schedule(times.ZonedCrontab("5", zone="Asia/Tokyo")).pk is None
    assert CrontabSchedule.from_schedule(schedules.crontab("5")) == plain


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ({"minute": 0, "hour": 3}, "0 3 * * *"),
        ({"minute": "0", "hour": "0"}, "0 0 * * *"),
        ({"minute": 0, "hour": 0, "day_of_week": 0}, "0 0 * * 0"),
        ({"minute": {30, 0}, "hour": (20, 8)}, "0,30 8,20 * * *"),
        ({"minute": range(0, 60, 20)}, "0,20,40 * * * *"),
    ],
)
def test_a_crontab_of_numbers_is_stored_as_it_fires(given, stored):
    wanted = schedules.crontab(**given)
    row = CrontabSchedule.from_schedule(wanted)
    row.save()
    row.refresh_from_db()
    names = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
    assert " ".join(getattr(row, name) for name in names) == stored
    for name in names:
        assert getattr(row.schedule, name) == getattr(wanted, name), name


@pytest.mark.parametrize("use_tz", [True, False])
def test_a_fixed_time_is_the_same_instant_with_and_without_use_tz(settings, use_tz):
    settings.USE_TZ, settings.TIME_ZONE = use_tz, "Asia/Kathmandu"
    row = ClockedSchedule.from_schedule(times.Clocked(NOON))
    row.save()
    row = ClockedSchedule.objects.get()
    assert row.schedule.instant == NOON
    assert ClockedSchedule.from_schedule(times.Clocked(NOON)) == row


# -- from when it counts ---------------------------------------------------------------------------


def old(row):
    """Return *row* as it would be had it been defined long ago."""
    PeriodicTask.objects.without_notes().filter(pk=row.pk).update(scheduled_from=LONG_AGO)
    return PeriodicTask.objects.get(pk=row.pk)


def is_restamped(row):
    stored = PeriodicTask.objects.get(pk=row.pk).scheduled_from
    return stored is not None and utils.now() - stored < timedelta(minutes=1)


def test_a_new_task_counts_from_now_however_it_is_made(every):
    make(every, "a")
    PeriodicTask.objects.update_or_create(name="b", defaults={"task": "x", "interval": every})
    PeriodicTask.objects.bulk_create([PeriodicTask(name="c", task="x", interval=every)])
    copy = old(make(every))
    copy.pk, copy.name = None, "copy"
    copy.save()
    assert all(is_restamped(PeriodicTask.objects.get(name=name)) for name in ("a", "b", "c", "copy"))


def test_a_row_that_was_made_in_bulk_is_known_when_it_is_saved_again(every):
    (made,) = PeriodicTask.objects.bulk_create([PeriodicTask(name="t", task="x", interval=every)])
    if not made.pk:
        pytest.skip("this server doesn't tell the keys")
    old(made)
    made.save(update_fields=["queue", "enabled"])
    assert not is_restamped(made)


def test_an_instant_that_is_given_is_kept(every):
    row = make(every, scheduled_from=LONG_AGO)
    assert PeriodicTask.objects.get().scheduled_from == LONG_AGO
    row.interval = IntervalSchedule.objects.create(every=3, period="days")
    row.scheduled_from = NOON
    row.save()
    PeriodicTask.objects.update(interval=every, scheduled_from=F("scheduled_from"))
    assert PeriodicTask.objects.get().scheduled_from == NOON


REDEFINED = {
    "interval": lambda: IntervalSchedule.objects.create(every=3, period="days"),
    "crontab": lambda: CrontabSchedule.objects.create(),
    "clocked": clocked,
    "start_time": lambda: NOON,
}


@pytest.mark.parametrize("column", REDEFINED)
@pytest.mark.parametrize("way", ["save", "save_fields", "update", "bulk_update", "update_or_create", "upsert"])
def test_a_new_definition_counts_from_now(row, column, way):
    row, value = old(row), REDEFINED[column]()
    if way == "update":
        PeriodicTask.objects.filter(pk=row.pk).update(**{column: value})
    elif way == "update_or_create":
        PeriodicTask.objects.update_or_create(name="t", defaults={column: value})
    else:
        setattr(row, column, value)
        if way == "save":
            row.save()
        elif way == "save_fields":
            row.save(update_fields=[column])
        elif way == "upsert":
            mysql = connection.vendor == "mysql"
            PeriodicTask.objects.bulk_create(
                [row], update_conflicts=True, update_fields=[column], unique_fields=None if mysql else ["id"]
            )
        else:
            PeriodicTask.objects.bulk_update([row], [column])
    assert is_restamped(row)
    assert getattr(PeriodicTask.objects.get(), column) == value


@pytest.mark.parametrize("way", ["save", "save_fields", "update", "bulk_update"])
def test_what_is_no_new_definition_leaves_it(row, way):
    row = old(row)
    row.queue, row.args = "q", "[1]"
    if way == "save":
        row.save()
        row.refresh_from_db()
        row.save()
        PeriodicTask.objects.only("queue").get().save()
        PeriodicTask.objects.defer("interval").get().save()
    elif way == "save_fields":
        row.save(update_fields=["queue"])
    elif way == "update":
        PeriodicTask.objects.update(queue="q")
    else:
        PeriodicTask.objects.bulk_update([row], ["queue", "interval"])
    assert PeriodicTask.objects.get().scheduled_from == LONG_AGO


def test_a_legacy_row_has_none_until_it_is_redefined(row):
    PeriodicTask.objects.without_notes().update(scheduled_from=None)
    row = PeriodicTask.objects.get()
    row.queue = "q"
    row.save()
    PeriodicTask.objects.update(queue="r")
    assert PeriodicTask.objects.get().scheduled_from is None
    row.start_time = NOON
    row.save()
    assert is_restamped(row)


@pytest.mark.parametrize("way", ["save", "update", "bulk_update"])
def test_a_task_that_is_switched_on_counts_from_now_and_one_that_is_on_does_not(every, way):
    rows = [make(every, name, enabled=name == "on") for name in ("on", "off")]
    PeriodicTask.objects.without_notes().update(scheduled_from=LONG_AGO)
    rows = list(PeriodicTask.objects.order_by("pk"))

    def switch(enabled):
        for row in rows:
            row.enabled = enabled
        if way == "save":
            for row in rows:
                row.save()
        elif way == "update":
            PeriodicTask.objects.update(enabled=enabled)
        else:
            PeriodicTask.objects.bulk_update(rows, ["enabled"])

    switch(True)
    assert [is_restamped(row) for row in rows] == [False, True]
    PeriodicTask.objects.without_notes().update(scheduled_from=LONG_AGO)
    rows = list(PeriodicTask.objects.order_by("pk"))
    switch(False)
    assert [is_restamped(row) for row in rows] == [False, False]


@pytest.mark.parametrize("way", ["save", "update", "bulk_update"])
def test_tasks_whose_shared_times_were_edited_count_from_then(row, every, way):
    row = old(row)
    assert row.counts_from == LONG_AGO
    every.refresh_from_db()
    every.save()
    assert IntervalSchedule.objects.get().changed_at is None
    every.every = 20
    if way == "save":
        every.save()
    elif way == "update":
        IntervalSchedule.objects.update(every=20)
    else:
        IntervalSchedule.objects.bulk_update([every], ["every"])
    row = PeriodicTask.objects.get()
    assert row.scheduled_from == LONG_AGO
    assert datetime.now(UTC) - row.counts_from < timedelta(minutes=1)


def test_the_last_run_or_the_last_change_counts_in_legacy_rows(every):
    row = PeriodicTask(interval=every, date_changed=LONG_AGO)
    assert row.counts_from == LONG_AGO
    row.last_run_at = NOON
    assert row.counts_from == NOON
    assert PeriodicTask(interval=every).counts_from is None


def test_saving_a_row_does_not_undo_what_beat_has_written_since_it_was_read(row):
    mine = PeriodicTask.objects.get()
    now = utils.now()
    values = {"last_run_at": now, "total_run_count": 5, "last_error": "why"}
    assert set(values) == BOOKKEEPING
    PeriodicTask.objects.update(**values)
    mine.queue = "q"
    mine.save()
    kept = PeriodicTask.objects.get()
    assert (kept.queue, kept.last_run_at, kept.total_run_count, kept.last_error) == ("q", now, 5, "why")
    mine.total_run_count = 1
    mine.enabled = False
    kept.delete()
    mine.save()  # as Django does: a row that is gone is made again, whole
    again = PeriodicTask.objects.get()
    assert (again.total_run_count, again.last_run_at, again.interval_id) == (1, None, row.interval_id)


# -- when it runs next -----------------------------------------------------------------------------


def next_run(now=NOON, **values):
    return PeriodicTask(name="t", **{"scheduled_from": LONG_AGO, **values}).next_run(now)


def test_the_next_run_is_that_of_the_row(every, celery_app):
    crontab = CrontabSchedule(minute="0", hour="13", timezone="Europe/Brussels")
    assert next_run(interval=every) == NOON + timedelta(seconds=10)
    assert next_run(interval=every, scheduled_from=NOON + timedelta(seconds=3)) == NOON + timedelta(seconds=13)
    assert next_run(interval=every, start_time=NOON + timedelta(hours=1)) == NOON + timedelta(hours=1)
    assert next_run(crontab=crontab) == datetime(2026, 6, 2, 11, tzinfo=UTC)
    assert next_run(crontab=crontab, start_time=NOON + timedelta(days=3)) == datetime(2026, 6, 5, 11, tzinfo=UTC)
    assert next_run(clocked=ClockedSchedule(clocked_time=NOON), now=LONG_AGO) == NOON
    pytest.importorskip("ephem")
    assert next_run(solar=solar()) - NOON < timedelta(hours=12)


def test_a_crontab_without_a_zone_follows_the_app(celery_app, settings):
    settings.CELERY_TIMEZONE = "Asia/Kathmandu"
    row = PeriodicTask(name="t", crontab=CrontabSchedule(minute="0", hour="18"), scheduled_from=LONG_AGO)
    assert row.next_run(NOON, app=celery_app) == datetime(2026, 6, 1, 12, 15, tzinfo=UTC)


def test_what_never_runs_has_no_next_run(every):
    assert next_run(interval=every, enabled=False) is None
    assert next_run(interval=every, expires=NOON + timedelta(seconds=5)) is None
    assert next_run(clocked=ClockedSchedule(clocked_time=NOON)) is None
    assert next_run(crontab=CrontabSchedule(day_of_month="31", month_of_year="2")) is None
    assert next_run() is None


@pytest.mark.parametrize("use_tz", [True, False])
def test_the_next_run_is_aware_or_naive_as_use_tz_says(settings, every, use_tz):
    settings.USE_TZ = use_tz
    row = make(every)
    found = PeriodicTask.objects.get(pk=row.pk).next_run()
    assert (found.tzinfo is not None) == use_tz
    assert timedelta(0) < found - utils.now() <= timedelta(seconds=10)


# -- the runs --------------------------------------------------------------------------------------


def run(task, hours_ago, outcome="sent", late_s=2, task_id=None, now=NOON):
    at = now - timedelta(hours=hours_ago)
    return PeriodicRun.objects.create(
        periodic_task_id=task.pk,
        name=task.name,
        scheduled_at=at,
        task_id=task_id or f"{task.name}-{hours_ago}",
        claimed_at=at,
        sent_at=at + timedelta(seconds=late_s) if outcome == "sent" else None,
        outcome=outcome,
        token=1,
    )


def test_runs_are_found_by_task_and_with_state_and_lateness_in_one_query(every, django_assert_num_queries):
    task, other = make(every), make(every, "other")
    runs = [run(task, hours) for hours in (3, 2, 1)]
    waiting = run(task, 0, outcome=None)
    run(other, 1)
    TaskMeta.objects.create(task_id="t-2", status="SUCCESS")
    with django_assert_num_queries(1):
        found = list(PeriodicRun.objects.for_task(task).with_state().with_lateness())
    assert [row.pk for row in found] == [waiting.pk, *(row.pk for row in reversed(runs))]
    assert [row.state for row in found] == [None, None, "SUCCESS", None]
    assert [row.late_by for row in found] == [None, *[timedelta(seconds=2)] * 3]
    assert [row.lateness for row in found] == [row.late_by for row in found]
    assert list(PeriodicRun.objects.unsent()) == [waiting]
    assert PeriodicRun.objects.for_task(other.pk).count() == 1


def test_tasks_show_their_last_run_in_one_query(every, django_assert_num_queries):
    task, _never = make(every), make(every, "u")
    run(task, 2)
    run(task, 1, late_s=7)
    run(task, 0, outcome="skipped")
    TaskMeta.objects.create(task_id="t-1", status="FAILURE")
    with django_assert_num_queries(1):
        found = list(PeriodicTask.objects.with_last_run().order_by("name"))
    assert [row.last_state for row in found] == ["FAILURE", None]
    assert [row.last_late_by for row in found] == [timedelta(seconds=7), None]
    assert [row.last_task_id for row in found] == ["t-1", None]
    assert [row.last_scheduled_at for row in found] == [NOON - timedelta(hours=1), None]


def test_a_firing_has_one_run_and_a_task_id_one_firing(every):
    task = make(every)
    run(task, 1)
    for again in ({"hours_ago": 1, "task_id": "another"}, {"hours_ago": 2, "task_id": "t-1"}):
        with pytest.raises(IntegrityError), transaction.atomic():
            run(task, **again)


def test_old_runs_are_deleted_in_batches_and_unsent_ones_stay(every, django_assert_num_queries):
    task, now = make(every), utils.now()
    for hours in range(1, 8):
        run(task, hours, now=now)
    run(task, 20, outcome="dropped", now=now)
    run(task, 30, outcome=None, now=now)
    assert PeriodicRun.objects.delete_expired(None) == 0
    with django_assert_num_queries(1 + 2 * 3 + 1 + 2):
        assert PeriodicRun.objects.delete_expired(timedelta(hours=2, minutes=30), batch_rows=2) == 6
    assert [row.outcome for row in PeriodicRun.objects.order_by("scheduled_at")] == [None, "sent", "sent"]


def test_a_bounded_deletion_of_old_runs_goes_on_with_the_next_call(every):
    task, now = make(every), utils.now()
    for hours in range(1, 6):
        run(task, hours, now=now)
    run(task, 20, outcome="dropped", now=now)
    deleted = [PeriodicRun.objects.delete_expired(60, batch_rows=2, max_batches=2) for _ in range(3)]
    assert deleted == [4, 2, 0]


def test_a_row_with_two_schedules_has_no_next_run(every):
    hourly = CrontabSchedule.objects.create(minute="0")
    both = make(every, crontab=hourly)
    assert both.next_run() is None
    both.crontab = None
    assert both.next_run() is not None


def test_every_model_is_exported_by_its_legacy_path():
    for name in ("PERIOD_CHOICES", "cronexp", "periodic_task_saved", "schedule_row_changed", "PeriodicTasks"):
        assert hasattr(models, name)
