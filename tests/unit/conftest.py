"""Fixtures of the tests of system checks: a process without a Celery app, and apps that are closed at the end."""

from __future__ import annotations

import pytest
from celery import Celery, _state

import djcelery


@pytest.fixture
def no_app(monkeypatch):
    """No Celery app is there, as in a project that has not made one."""
    monkeypatch.setattr(_state, "default_app", None)
    before, _state._tls.current_app = _state._tls.current_app, None
    monkeypatch.delenv("CELERY_LOADER", raising=False)
    yield
    _state._tls.current_app = before


@pytest.fixture
def under_loader(monkeypatch):
    """``djcelery.setup_loader()`` was called."""
    monkeypatch.setenv("CELERY_LOADER", djcelery.LOADER)


@pytest.fixture
def make_app():
    """A function that makes an app; all are closed at the end."""
    made = []

    def make(name="proj", namespace="CELERY", source="django.conf:settings", **options):
        app = Celery(name, **options)
        made.append(app)
        if source:
            app.config_from_object(source, namespace=namespace)
        return app

    yield make
    for app in made:
        app.close()
