"""Fixtures of the tests with a database."""

from __future__ import annotations

import pytest
from celery.app.control import Control
from django.contrib.auth.models import Permission
from django.core.cache import cache
from django.db import connection
from django.utils import timezone, translation

from tests.db import peer_tables


@pytest.fixture(autouse=True)
def fresh_process():
    """Begin and end without what outlives a test in its process: the cache, a language, a time zone.

    A view that is tried in another language leaves that one active, for instance.
    """
    _forget()
    yield
    _forget()


def _forget():
    cache.clear()
    translation.deactivate()
    timezone.deactivate()


@pytest.fixture
def person(client, django_user_model):
    """A function that logs in a member of the staff with the permissions named."""

    def log_in(*codenames):
        user = django_user_model.objects.create_user("person", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client.force_login(user)
        return client

    return log_in


@pytest.fixture
def broker_said(monkeypatch):
    """What the broker says to the overview and the metrics: the last of the list, which a test may add to."""
    from djcelery import queues

    said = [queues.Broker((queues.Queue("celery", 0),), url="memory://localhost//")]
    monkeypatch.setattr(queues, "look", lambda app, names=(), **options: said[-1])
    return said


@pytest.fixture
def all_well(celery_app, broker_said):
    """A worker, a camera and a broker that run, and tasks that succeed."""
    from tests.db.history import add, camera, minute, task, worker

    camera()
    worker(active=1, processed=10, seen=10, missed=0)
    task()
    add(minute(1), count=10, runtime=(0.02,))


@pytest.fixture
def bare_app(celery_app, monkeypatch):
    """An app that imports no task modules of the project."""
    monkeypatch.setattr(celery_app.loader, "import_default_modules", lambda: [])
    return celery_app


@pytest.fixture
def broadcasts(celery_app, monkeypatch):
    """What was sent to the workers: (command, arguments, destination)."""
    sent = []

    def broadcast(self, command, arguments=None, destination=None, connection=None, **extra):
        assert connection.connected
        sent.append((command, {**(arguments or {}), **extra}, destination))

    monkeypatch.setattr(Control, "broadcast", broadcast)
    return sent


@pytest.fixture(scope="module")
def tables_of_peers(django_db_setup, django_db_blocker):
    """Their tables: made outside the tests' transactions, for MySQL would end those."""
    with django_db_blocker.unblock(), peer_tables.made(connection):
        yield
