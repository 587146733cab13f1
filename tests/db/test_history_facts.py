"""Rules of django-celery's change history that need a database; the list is in ``tests/unit/test_history_facts.py``."""

from __future__ import annotations

import pytest
from celery.schedules import crontab
from django.db import OperationalError, connection, connections

from djcelery import schedulers
from djcelery.loaders import DjangoLoader
from djcelery.models import IntervalSchedule, PeriodicTask, PeriodicTasks
from djcelery.schedulers import DatabaseScheduler

pytestmark = pytest.mark.django_db


@pytest.fixture
def every10():
    return IntervalSchedule.objects.create(every=10, period="seconds")


@pytest.fixture
def start_beat(celery_app):
    """A function that starts a beat, which leads, and stops it."""

    def start():
        beat = DatabaseScheduler(app=celery_app)
        beat.setup_schedule()
        beat.close()

    return start


def test_starting_beat_again_makes_no_more_intervals(start_beat, settings):
    settings.CELERYBEAT_SCHEDULE = {
        "a": {"task": "x", "schedule": 10},
        "b": {"task": "x", "schedule": 10},
        "c": {"task": "x", "schedule": crontab(minute=5)},
    }
    for _ in range(3):
        start_beat()
    assert (IntervalSchedule.objects.count(), PeriodicTask.objects.filter(task="x").count()) == (1, 3)


def test_a_disabled_entry_of_the_settings_stays_off_when_beat_starts_again(start_beat, settings):
    settings.CELERYBEAT_SCHEDULE = {"a": {"task": "x", "schedule": 10}}
    start_beat()
    row = PeriodicTask.objects.get(name="a")
    row.enabled = False
    row.save()
    start_beat()
    row.refresh_from_db()
    assert not row.enabled
    assert not PeriodicTask.objects.enabled().filter(name="a").exists()


@pytest.fixture
def repeatable_read(transactional_db):
    """The connection of the test at that level; it is closed afterwards, since the level belongs to the session."""
    level = "SESSION CHARACTERISTICS AS TRANSACTION" if connection.vendor == "postgresql" else "SESSION TRANSACTION"
    with connection.cursor() as cursor:
        cursor.execute(f"SET {level} ISOLATION LEVEL REPEATABLE READ")
    yield
    connection.close()


@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="SQLite has no such level")
def test_beat_sees_what_other_sessions_change_under_repeatable_read(repeatable_read, celery_app, every10):
    beat = DatabaseScheduler(app=celery_app, lazy=True)
    PeriodicTasks.changed()
    assert beat.schedule_changed() is False
    assert list(beat.schedule) == []
    mine, connections["default"] = connections["default"], connections.create_connection("default")
    try:
        PeriodicTask.objects.create(name="new", task="x", interval=every10)
    finally:
        connections["default"].close()
        connections["default"] = mine
    assert beat.schedule_changed() is True
    assert list(beat.schedule) == ["new"]
    beat.close()


@pytest.mark.django_db(transaction=True)
def test_closing_a_closed_connection_raises_nothing(celery_app):
    loader = DjangoLoader(celery_app)
    for _ in range(2):
        loader.close_database()
        loader._close_database()
    assert not IntervalSchedule.objects.exists()


def test_an_eager_task_leaves_the_connection_open(celery_app, settings, monkeypatch, every10):
    closed = []
    for name in ("close", "close_if_unusable_or_obsolete"):
        monkeypatch.setattr(type(connection._connections[connection._alias]), name, lambda self: closed.append(1))

    @celery_app.task(shared=False)
    def count():
        return IntervalSchedule.objects.count()

    settings.CELERY_ALWAYS_EAGER = True
    assert count.delay().get() == count.apply().get() == 1
    assert closed == []


def test_runs_that_could_not_be_written_are_written_by_the_next_sync(celery_app, every10, monkeypatch):
    row = PeriodicTask.objects.create(name="t", task="x", interval=every10)
    beat = DatabaseScheduler(app=celery_app, lazy=True)
    beat.reserve(beat.schedule["t"])

    def fails(*args):
        raise OperationalError

    with monkeypatch.context() as patch:
        patch.setattr(schedulers.ModelEntry, "save", fails)
        beat.sync()
    row.refresh_from_db()
    assert (row.total_run_count, row.last_run_at) == (0, None)
    beat.sync()
    row.refresh_from_db()
    assert row.total_run_count == 1
    assert row.last_run_at is not None
    beat.close()


def test_breadcrumbs_of_lists_have_the_name_of_the_app(admin_client):
    for name in ("taskstate", "workerstate", "periodictask", "intervalschedule", "crontabschedule"):
        page = admin_client.get(f"/admin/djcelery/{name}/").text
        assert '<a href="/admin/djcelery/">Djcelery</a>' in page, name
