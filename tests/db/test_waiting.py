"""Waiting for results of the database: statements, warnings, and who else may run meanwhile."""

from __future__ import annotations

import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
from celery import group
from celery.exceptions import TimeoutError
from celery.result import AsyncResult, GroupResult, ResultSet
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from djcelery.backends import waiting
from djcelery.backends.database import DatabaseBackend
from djcelery.managers import TxIsolationWarning
from djcelery.models import TaskMeta

ROOT = Path(__file__).parents[2]


@pytest.fixture
def backend(celery_app):
    return DatabaseBackend(app=celery_app)


@pytest.fixture
def stopped(monkeypatch):
    """Run a function at each pause instead of sleeping."""

    def at_pause(fun):
        clock = [0.0]

        class Time:
            monotonic = staticmethod(lambda: clock[0])

            @staticmethod
            def sleep(seconds):
                clock[0] += seconds
                fun()

        monkeypatch.setattr(waiting, "time", Time)
        return clock

    return at_pause


def store_many(backend, count):
    for number in range(count):
        backend.store_result(f"t{number}", number, "SUCCESS")
    return [AsyncResult(f"t{number}", backend=backend) for number in range(count)]


@pytest.mark.django_db
def test_a_result_that_is_there_costs_one_statement(backend, django_assert_num_queries):
    backend.store_result("id", 5, "SUCCESS")
    with django_assert_num_queries(1):
        assert AsyncResult("id", backend=backend).get() == 5
    with django_assert_num_queries(1), pytest.raises(TimeoutError):
        AsyncResult("none", backend=backend).get(timeout=0)


@pytest.mark.django_db
def test_the_statements_of_waiting_are_one_per_look(backend, stopped):
    clock = stopped(lambda: clock[0] > 10 and backend.store_result("id", 5, "SUCCESS"))
    warnings.simplefilter("ignore", TxIsolationWarning)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert AsyncResult("id", backend=backend).get() == 5
    selects = [query["sql"] for query in queries if "celery_taskmeta" in query["sql"] and "INSERT" not in query["sql"]]
    assert 60 < len(selects) < 75


@pytest.mark.django_db
def test_500_results_are_one_statement(backend, django_assert_num_queries):
    results = store_many(backend, 500)
    with django_assert_num_queries(1):
        assert ResultSet(results).join_native() == list(range(500))
    again = GroupResult("gid", [AsyncResult(result.id, backend=backend) for result in results])
    with django_assert_num_queries(1):
        assert again.get() == list(range(500))


@pytest.mark.django_db
def test_results_come_in_the_order_of_the_group_whatever_comes_first(backend, stopped):
    missing = [3, 1, 0, 2]
    stopped(lambda: backend.store_result(f"t{(n := missing.pop(0))}", n, "SUCCESS"))
    warnings.simplefilter("ignore", TxIsolationWarning)
    results = [AsyncResult(f"t{number}", backend=backend) for number in range(4)]
    assert ResultSet(results).join_native() == [0, 1, 2, 3]


@pytest.mark.django_db
def test_a_group_of_groups_is_joined(backend):
    results = store_many(backend, 6)
    outer = ResultSet([results[0], GroupResult("inner", results[1:4]), results[4], results[5]])
    assert outer.join_native() == [0, [1, 2, 3], 4, 5]


@pytest.mark.django_db
def test_the_first_failure_of_many_is_raised(backend):
    results = store_many(backend, 3)
    backend.store_result("bad", KeyError("gone"), "FAILURE")
    bad = AsyncResult("bad", backend=backend)
    with pytest.raises(KeyError, match="gone"):
        ResultSet([*results, bad]).join_native()
    assert [type(value) for value in ResultSet([results[0], bad]).join_native(propagate=False)] == [int, KeyError]


@pytest.mark.django_db
@pytest.mark.filterwarnings("ignore::djcelery.managers.TxIsolationWarning")
def test_time_is_up_for_one_and_for_many(backend):
    with pytest.raises(TimeoutError):
        AsyncResult("none", backend=backend).get(timeout=0.01)
    with pytest.raises(TimeoutError):
        AsyncResult("none", backend=backend).get(timeout=0)
    with pytest.raises(TimeoutError):
        ResultSet([AsyncResult("none", backend=backend)]).join_native(timeout=0.01)


@pytest.mark.django_db
def test_the_error_of_a_parent_comes_first(backend):
    backend.store_result("parent", KeyError("parent"), "FAILURE")
    backend.store_result("child", ValueError("child"), "FAILURE")
    parent = AsyncResult("parent", backend=backend)
    with pytest.raises(KeyError, match="parent"):
        AsyncResult("child", backend=backend, parent=parent).get()


@pytest.mark.django_db(transaction=True)
def test_polling_in_autocommit_is_not_warned_of_and_asks_nothing_else(backend, stopped):
    stopped(lambda: None)
    with CaptureQueriesContext(connection) as queries, pytest.raises(TimeoutError):
        AsyncResult("none", backend=backend).get(timeout=0.1)
    assert all("celery_taskmeta" in query["sql"] for query in queries)


@pytest.fixture
def isolation():
    """Set the isolation level of the session, until the end of the test."""
    levels = {
        "mysql": "SET SESSION TRANSACTION ISOLATION LEVEL {}",
        "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL {}",
    }

    def set_to(level):
        if connection.vendor in levels:
            with connection.cursor() as cursor:
                cursor.execute(levels[connection.vendor].format(level))

    yield set_to
    connection.close()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("way", ["one", "many"])
def test_polling_inside_a_transaction_that_sees_nothing_new_is_warned_of_once(backend, stopped, isolation, level, way):
    stopped(lambda: None)
    isolation(level)
    result = AsyncResult("none", backend=backend)

    def wait():
        with pytest.raises(TimeoutError):
            result.get(timeout=1) if way == "one" else ResultSet([result]).join_native(timeout=1)

    with transaction.atomic(), pytest.warns(TxIsolationWarning, match="commit the transaction") as caught:
        wait()
    # Others, such as of what another test has not closed, may be among them.
    assert len([warning for warning in caught if warning.category is TxIsolationWarning]) == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="each of its transactions reads one snapshot")
def test_polling_inside_a_read_committed_transaction_sees_what_others_store(backend, stopped, isolation):
    isolation("READ COMMITTED")

    def store_elsewhere():
        def run():
            try:
                backend.store_result("id", 5, "SUCCESS")
            finally:
                connection.close()

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()

    stopped(store_elsewhere)
    with transaction.atomic():
        assert AsyncResult("id", backend=backend).get(timeout=1) == 5


@pytest.mark.django_db
def test_waiting_in_eager_mode_for_what_is_not_stored_is_warned_of_as_celery_does(celery_app):
    celery_app.conf.task_always_eager = True

    def wait():
        with pytest.raises(TimeoutError):
            DatabaseBackend(app=celery_app).wait_for("id", timeout=0)

    with pytest.warns(RuntimeWarning, match="task_always_eager"):
        wait()


@pytest.mark.django_db
def test_the_result_of_an_eager_group_is_there_at_once(celery_app):
    celery_app.conf.update(task_always_eager=True, task_store_eager_result=True)

    @celery_app.task(name="shop.double", shared=False)
    def double(number):
        return number * 2

    assert group(double.s(n) for n in range(3)).apply_async().get(disable_sync_subtasks=False) == [0, 2, 4]
    assert TaskMeta.objects.count() == 3


GREEN = """
from gevent import monkey
monkey.patch_all()
import gevent, django
django.setup()
from celery.exceptions import TimeoutError
from djcelery.backends.waiting import Pauses

ticks = []
def tick():
    while True:
        ticks.append(1)
        gevent.sleep(0.01)

other = gevent.spawn(tick)
pauses = Pauses(2.0, 0.1)
try:
    while True:
        pauses.wait()
except TimeoutError:
    print(len(ticks))
"""


def test_other_greenlets_run_while_one_waits():
    pytest.importorskip("gevent")
    env = {"DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", GREEN], env=env, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10
