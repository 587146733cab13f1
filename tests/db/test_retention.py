"""Deleting what has expired, on whichever engine is chosen."""

from __future__ import annotations

import itertools
import threading
from datetime import timedelta

import pytest
from celery import Celery
from django.db import OperationalError, connection, router, transaction
from django.db.models.signals import post_delete, pre_delete

from djcelery import LOADER, db, utils
from djcelery.backends.database import DatabaseBackend
from djcelery.exceptions import SettingError
from djcelery.managers import retention
from djcelery.managers.retention import Retention
from djcelery.models import Chord, TaskMeta, TaskSetMeta, TaskState
from tests.services import wait_until

pytestmark = pytest.mark.django_db

DAY = timedelta(days=1)


def store(task_id, age, status="SUCCESS", **values):
    """Make a row that was last written *age* ago."""
    row = TaskMeta.objects.create(task_id=task_id, status=status, **values)
    TaskMeta.objects.filter(pk=row.pk).update(date_done=utils.now() - age)


def left():
    return set(TaskMeta.objects.values_list("task_id", flat=True))


def rows():
    return TaskMeta.objects.using(router.db_for_write(TaskMeta))


@pytest.fixture
def backend(settings):
    """A function that makes a backend with the settings named; its app reads them anew."""

    def make(**values):
        for name, value in values.items():
            setattr(settings, name, value)
        return Celery("tests", loader=LOADER, set_as_current=False).backend

    return make


RULES = {
    "FAILURE": 30 * DAY,
    "PROGRESS": None,
    "shop.ping": 3600,
    "shop.tasks.*": {"FAILURE": None, "SUCCESS": 3 * DAY},
    "shop.tasks.charge": {"FAILURE": 60 * DAY},
}


@pytest.mark.parametrize("batch_rows", [1, 3, 5000])
def test_every_row_goes_by_its_most_specific_rule(backend, batch_rows, monkeypatch):
    names = [None, "", "other", "shop.ping", "shop.tasks.charge", "shop.tasks.x", "shop_tasks.x", "shop.pingpong"]
    states = ["SUCCESS", "FAILURE", "RETRY", "PROGRESS", "custom"]
    ages = [timedelta(minutes=30), timedelta(hours=2), 2 * DAY, 4 * DAY, 40 * DAY, 90 * DAY]
    backend = backend(DJCELERY_RETENTION=RULES, CELERY_RESULT_EXPIRES=DAY)
    ages_of = Retention.from_settings(DAY)
    expected = set()
    for number, (name, state, age) in enumerate(itertools.product(names, states, ages)):
        store(str(number), age, state, name=name)
        limit = ages_of.rule(name, state).age
        if limit is None or age < limit:
            expected.add(str(number))
    counted = sum(part.number() for part in retention.expired(rows(), ages_of))
    assert counted == len(names) * len(states) * len(ages) - len(expected)
    assert sum(batch.rows for batch in retention.batches(rows(), ages_of, batch_rows)) == counted
    backend.cleanup()
    assert left() == expected


def test_rules_without_a_general_age_delete_only_what_they_name(backend):
    store("failed", 40 * DAY, "FAILURE")
    store("succeeded", 40 * DAY)
    store("ping", 40 * DAY, name="shop.ping")
    store("hidden", timedelta(0), hidden=True)
    TaskSetMeta.objects.create(taskset_id="group", result=1)
    TaskSetMeta.objects.update(date_done=utils.now() - 40 * DAY)
    backend(DJCELERY_RETENTION={"FAILURE": 5}, CELERY_RESULT_EXPIRES=None).cleanup()
    assert left() == {"succeeded", "ping"}
    backend(DJCELERY_RETENTION={"shop.ping": 5}, CELERY_RESULT_EXPIRES=None).cleanup()
    assert left() == {"succeeded"}
    assert TaskSetMeta.objects.count() == 1


def test_without_an_age_nothing_goes_and_nothing_is_asked(backend, django_assert_num_queries):
    store("old", 40 * DAY)
    store("hidden", DAY, hidden=True)
    without = backend(CELERY_RESULT_EXPIRES=None, DJCELERY_RETENTION={"FAILURE": None})
    with django_assert_num_queries(0):
        without.cleanup()
    assert left() == {"old", "hidden"}


def test_saved_groups_and_chords_go_by_the_general_age_alone(backend):
    for age in (2 * DAY, timedelta(hours=1)):
        TaskSetMeta.objects.create(taskset_id=str(age), result=1)
        TaskSetMeta.objects.filter(taskset_id=str(age)).update(date_done=utils.now() - age)
        Chord.objects.create(group_id=str(age), changed_at=utils.now() - age)
    TaskSetMeta.objects.create(taskset_id="hidden", result=1, hidden=True)
    backend(DJCELERY_RETENTION={"SUCCESS": None}, CELERY_RESULT_EXPIRES=DAY).cleanup()
    assert list(TaskSetMeta.objects.values_list("taskset_id", flat=True)) == ["1:00:00"]
    assert list(Chord.objects.values_list("group_id", flat=True)) == ["1:00:00"]


def test_unfinished_rows_go_by_their_last_write(backend):
    store("started", 2 * DAY, "STARTED", created=utils.now() - 9 * DAY)
    store("running", timedelta(hours=1), "STARTED", created=utils.now() - 9 * DAY)
    assert TaskMeta.objects.delete_expired(DAY) == 1
    assert left() == {"running"}


@pytest.mark.parametrize("batch_rows", [1, 2, 3, 7])
def test_rows_of_one_instant_go_in_batches_too(batch_rows):
    for number in range(12):
        store(str(number), DAY * (5 if 3 <= number < 10 else 4 + number / 10))
    TaskMeta.objects.filter(task_id__in=map(str, range(3, 10))).update(date_done=utils.now() - 5 * DAY)
    store("new", timedelta(0))
    made = list(retention.batches(rows(), Retention.of((), DAY), batch_rows))
    assert sum(batch.rows for batch in made) == 12
    assert max(batch.rows for batch in made) <= batch_rows
    assert left() == {"new"}


def test_a_batch_is_one_select_and_one_delete(django_assert_num_queries):
    for number in range(6):
        store(str(number), (2 + number) * DAY)
    # hidden: 2; which states: 2; three windows of two rows: 6
    with django_assert_num_queries(10) as captured:
        assert TaskMeta.objects.delete_expired(DAY, batch_rows=2) == 6
    deletes = [query["sql"] for query in captured if query["sql"].startswith("DELETE")]
    assert len(deletes) == 4
    assert all("SELECT" not in sql for sql in deletes)


def test_receivers_of_signals_are_not_called_and_change_nothing(django_assert_num_queries):
    called = []

    def receiver(sender, **kwargs):
        called.append(sender)

    for number in range(6):
        store(str(number), (2 + number) * DAY)
    pre_delete.connect(receiver)
    post_delete.connect(receiver)
    try:
        with django_assert_num_queries(10):
            assert TaskMeta.objects.delete_expired(DAY, batch_rows=2) == 6
    finally:
        pre_delete.disconnect(receiver)
        post_delete.disconnect(receiver)
    assert called == []


def test_a_row_that_is_written_between_select_and_delete_stays():
    for number in range(3):
        store(str(number), (2 + number) * DAY)

    def write_first(execute, sql, params, many, context):
        if sql.startswith("DELETE") and "date_done" in sql:
            with connection.cursor() as cursor:
                cursor.execute(
                    "UPDATE celery_taskmeta SET status = 'STARTED', date_done = %s WHERE task_id = '1'",
                    [connection.ops.adapt_datetimefield_value(utils.now())],
                )
        return execute(sql, params, many, context)

    with connection.execute_wrapper(write_first):
        assert TaskMeta.objects.delete_expired(DAY) == 2
    assert left() == {"1"}


def test_who_stops_iterating_stops_the_deleting():
    for number in range(6):
        store(str(number), (2 + number) * DAY)
    for batch in retention.batches(rows(), Retention.of((), DAY), 2):
        if batch.rows:
            break
    assert left() == {"0", "1", "2", "3"}


@pytest.mark.django_db(transaction=True)
def test_transient_errors_are_tried_again(monkeypatch):
    store("old", 2 * DAY)
    monkeypatch.setattr(db, "is_transient", lambda exc: True)
    failures = ["SELECT", "DELETE"]

    def fail(execute, sql, params, many, context):
        if failures and sql.startswith(failures[0]):
            raise OperationalError(f"deadlock in a {failures.pop(0)}")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(fail):
        assert TaskMeta.objects.delete_expired(DAY) == 1
    assert failures == []


def test_batches_get_smaller_on_a_slow_server_and_larger_again(monkeypatch):
    clock = itertools.count()
    pace = retention._Pace(4000)
    assert pace.rows == 1000
    monkeypatch.setattr(retention.time, "monotonic", lambda: next(clock))
    pace.rows = 1700
    for rows_next in (850, 500, 500):
        pace.delete(rows().filter(pk=0))
        assert pace.rows == rows_next
    monkeypatch.setattr(retention.time, "monotonic", lambda: 0)
    for rows_next in (1000, 2000, 4000, 4000):
        pace.delete(rows().filter(pk=0))
        assert pace.rows == rows_next


def test_no_statement_on_results_reads_the_whole_table(settings):
    if connection.vendor != "sqlite":
        pytest.skip("the other engines choose by the number of rows")
    settings.DJCELERY_RETENTION = RULES
    for number, name in enumerate((None, "shop.ping", "shop.tasks.charge")):
        store(str(number), 9 * DAY, name=name)
    plans = []

    def explain(execute, sql, params, many, context):
        if not sql.startswith("EXPLAIN"):
            with connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN QUERY PLAN {sql}", params)
                plans.extend(line for *_, line in cursor.fetchall())
        return execute(sql, params, many, context)

    with connection.execute_wrapper(explain):
        TaskMeta.objects.delete_by(Retention.from_settings(DAY), batch_rows=1)
    assert len(plans) > 10
    assert [plan for plan in plans if " USING " not in plan or "TEMP B-TREE" in plan] == []
    # The first value of an index is a scan for SQLite, which ends at its first entry.
    assert all("COVERING INDEX djcelery_taskmeta_" in plan for plan in plans if plan.startswith("SCAN")), plans


def test_values_that_do_not_compare_as_they_read_do_not_hold_it_up():
    if connection.vendor != "sqlite":
        pytest.skip("only SQLite keeps instants as texts")
    for number in range(9):
        store(str(number), 9 * DAY)
    with connection.cursor() as cursor:
        for number, text in enumerate(("05", "05.000000", "05.0", "05+00:00", "05.00", "05.000000+00:00")):
            cursor.execute(
                "UPDATE celery_taskmeta SET date_done = %s WHERE task_id = %s",
                [f"2012-04-19 13:46:{text}", str(number)],
            )
    assert TaskMeta.objects.delete_expired(DAY, batch_rows=2) == 9


# -- beside others -----------------------------------------------------------------------------


def in_thread(work):
    failed = []

    def run():
        try:
            work()
        except Exception as exc:  # noqa: BLE001 - the test looks at it
            failed.append(exc)
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread, failed


def not_in_memory():
    if connection.vendor == "sqlite":
        pytest.skip("threads share one SQLite database in memory")


@pytest.mark.django_db(transaction=True)
def test_two_cleanups_at_once_delete_every_row_once():
    not_in_memory()
    TaskMeta.objects.bulk_create(TaskMeta(task_id=str(number), status="SUCCESS") for number in range(2000))
    TaskMeta.objects.update(date_done=utils.now() - 2 * DAY)
    store("new", timedelta(0))
    deleted = []
    both = [in_thread(lambda: deleted.append(TaskMeta.objects.delete_expired(DAY, batch_rows=20))) for _ in range(2)]
    for thread, failed in both:
        thread.join()
        assert failed == []
    assert sum(deleted) == 2000
    assert left() == {"new"}


@pytest.mark.django_db(transaction=True)
def test_each_batch_is_committed_by_itself_and_holds_no_lock_afterwards():
    not_in_memory()
    for number in range(6):
        store(str(number), (2 + number) * DAY)
    batches = retention.batches(rows(), Retention.of((), DAY), 2)
    while not next(batches).rows:
        pass
    seen = []
    thread, failed = in_thread(lambda: seen.append((left(), rows().filter(task_id="2").update(name="written"))))
    thread.join(60)
    assert not thread.is_alive()
    assert failed == []
    assert seen == [({"0", "1", "2", "3"}, 1)]
    assert sum(batch.rows for batch in batches) == 4


@pytest.mark.django_db(transaction=True)
def test_a_worker_stores_while_a_batch_is_being_deleted():
    """The rows that a DELETE has locked are old ones; new rows and other states don't wait for it."""
    not_in_memory()
    for number in range(200):
        store(str(number), (2 + number) * DAY)
        store(f"fresh{number}", timedelta(0))
    with transaction.atomic():
        assert TaskMeta.objects.delete_expired(DAY) == 200
        written = []

        def work():
            postgresql = connection.vendor == "postgresql"
            with connection.cursor() as cursor:
                cursor.execute("SET lock_timeout = '5s'" if postgresql else "SET innodb_lock_wait_timeout = 5")
            TaskMeta.objects.store_result("another", 1, "SUCCESS")
            TaskMeta.objects.store_result("fresh7", 1, "STARTED")
            written.append(True)

        thread, failed = in_thread(work)
        wait_until(lambda: written or failed, 60, "the worker's writes")
        thread.join()
    assert failed == []
    assert "another" in left()


HUGE = (timedelta(days=1_000_000), timedelta.max, 1e15, float("inf"))


@pytest.mark.parametrize("age", HUGE, ids=repr)
def test_an_age_beyond_the_calendar_deletes_nothing(age):
    store("old", 9 * DAY)
    assert TaskMeta.objects.get_all_expired(age).count() == 0
    assert TaskState.objects.expired(["SUCCESS"], age).count() == 0
    assert list(TaskState.objects.expiring({frozenset({"SUCCESS"}): timedelta.max})) == []
    assert left() == {"old"}


@pytest.mark.parametrize("age", [-5, -DAY], ids=repr)
def test_an_age_below_zero_deletes_nothing_and_is_an_error(celery_app, settings, age):
    store("young", timedelta(0))
    for delete in (TaskMeta.objects.delete_expired, TaskSetMeta.objects.delete_expired, Chord.objects.delete_expired):
        with pytest.raises(ValueError, match="below 0"):
            delete(age)
    with pytest.raises(ValueError, match="below 0"):
        TaskMeta.objects.get_all_expired(age)
    celery_app.conf.result_expires = age
    with pytest.raises(SettingError, match=r"CELERY_RESULT_EXPIRES: The age .* is wrong: it is below 0"):
        DatabaseBackend(app=celery_app).cleanup()
    assert left() == {"young"}
