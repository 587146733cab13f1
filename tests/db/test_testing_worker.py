"""A real worker in a thread of the test."""

from __future__ import annotations

import logging
import threading

import pytest
from celery import _state, chord, shared_task
from django.db import connections, transaction

from djcelery.contrib.testing import running_worker
from djcelery.models import IntervalSchedule, TaskMeta

pytestmark = pytest.mark.django_db(transaction=True)


@shared_task(name="working.count")
def count():
    return [IntervalSchedule.objects.count(), threading.current_thread() is threading.main_thread()]


@shared_task(name="working.add")
def add(x, y=0):
    return x + y


@shared_task(name="working.total")
def total(numbers):
    return sum(numbers)


@shared_task(name="working.flaky", bind=True)
def flaky(self):
    if self.request.retries == 0:
        raise self.retry(exc=OSError("not yet"), countdown=0)
    return self.request.retries


@pytest.mark.parametrize("turn", [1, 2])
def test_a_worker_sees_the_tests_database_and_stores_there_in_one_test_after_another(celery_app, turn):
    IntervalSchedule.objects.create(every=1, period="days")
    with running_worker():
        assert count.delay().get(timeout=30) == [1, False]
    assert [row.name for row in TaskMeta.objects.all()] == ["working.count"]


def test_all_that_a_worker_does_is_done(celery_app):
    with running_worker():
        results = [chord([add.s(1, 1), add.s(2, 2)], total.s()).delay(), flaky.delay()]
        with transaction.atomic():
            add.delay_on_commit(5, 5)
        assert [result.get(timeout=30) for result in results] == [6, 1]
    assert TaskMeta.objects.get(name="working.flaky").retries == 1


def test_nothing_is_left_of_it(celery_app):
    _ = celery_app.conf.task_always_eager
    celery_app.conf.task_always_eager = True
    handlers, default, current = list(logging.getLogger().handlers), _state.default_app, _state._tls.current_app
    levels = [logging.getLogger(name).level for name in (None, "celery", "djcelery")]
    threads = set(threading.enumerate())
    changes = dict(celery_app.conf.changes)
    with running_worker(queues=["mail"]):
        result = add.apply_async((1,), queue="mail")
        assert result.get(timeout=30) == 1
    assert (_state.default_app, _state._tls.current_app) == (default, current)
    assert logging.getLogger().handlers == handlers
    assert [logging.getLogger(name).level for name in (None, "celery", "djcelery")] == levels
    # Threads of other tests may have ended meanwhile.
    assert set(threading.enumerate()) <= threads
    assert dict(celery_app.conf.changes) == changes
    assert not {"connection_for_write", "_get_backend"} & set(vars(celery_app))
    assert connections["default"].is_usable()


@pytest.mark.django_db(transaction=False)
def test_in_a_test_case_it_says_what_to_use_instead(celery_app):
    with transaction.atomic(), pytest.raises(RuntimeError, match="Use TransactionTestCase"), running_worker():
        pass
