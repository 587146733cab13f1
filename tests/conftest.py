"""Fixtures of the whole suite: a clean environment and the header that names the engine."""

from __future__ import annotations

import os

import pytest

# A developer's shell must not decide what the tests see.
for _name in ("CELERY_LOADER", "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "CELERY_CONFIG_MODULE"):
    os.environ.pop(_name, None)


def pytest_report_header(config):
    from django import VERSION
    from django.conf import settings

    engine = settings.DATABASES["default"]["ENGINE"].rpartition(".")[2]
    return f"djcelery: database {engine}, Django {'.'.join(map(str, VERSION[:3]))}, CI={os.environ.get('CI', '')}"


@pytest.fixture(autouse=True)
def environment():
    """Undo what a test has put into the environment, such as the loader of ``setup_loader()``."""
    before = dict(os.environ)
    yield
    for name in set(os.environ) - set(before):
        # pytest's own, which names the test that runs.
        if name != "PYTEST_CURRENT_TEST":
            del os.environ[name]
    os.environ.update({name: value for name, value in before.items() if name != "PYTEST_CURRENT_TEST"})


@pytest.fixture
def celery_app(monkeypatch):
    """A Celery app under djcelery's loader, current while the test runs."""
    from celery import Celery, _state

    from djcelery import LOADER

    monkeypatch.setattr(_state, "default_app", None)
    before = _state._tls.current_app
    app = Celery("tests", loader=LOADER, set_as_current=True)
    yield app
    app.close()
    _state._set_current_app(before)
