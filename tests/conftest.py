"""Fixtures of the whole suite: a clean environment and the header that names the engine."""

from __future__ import annotations

import os
import sys

import hypothesis
import pytest

# A developer's shell must not decide what the tests see.
for _name in ("CELERY_LOADER", "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "CELERY_CONFIG_MODULE"):
    os.environ.pop(_name, None)

# "make shuffle" has another order and other random values in each run; elsewhere a failure can be seen again.
SHUFFLE = bool(os.environ.get("SHUFFLE"))
# A busy machine is no failure.
hypothesis.settings.register_profile(
    "djcelery",
    database=None,
    deadline=None,
    derandomize=not SHUFFLE,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("djcelery")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    # Mixed all the same: tests that wait run beside others that compute.
    if not SHUFFLE and getattr(config.option, "randomly_seed", None) == "default":
        config.option.randomly_seed = 1


def pytest_report_header(config):
    from django import VERSION
    from django.conf import settings

    engine = settings.DATABASES["default"]["ENGINE"].rpartition(".")[2]
    return f"djcelery: database {engine}, Django {'.'.join(map(str, VERSION[:3]))}, CI={os.environ.get('CI', '')}"


def pytest_collection_modifyitems(items):
    """Mark as long most of what goes through old databases, each of which is made anew, or through each broker.

    Of old databases all on servers, and on SQLite the shapes of tables between the oldest and the newest.
    """
    for item in items:
        folder = item.path.parent.name
        if folder == "integration" and "rabbitmq" in item.name:
            item.add_marker("long")
        if folder not in ("migrations", "legacy"):
            continue
        release = getattr(getattr(item, "callspec", None), "params", {}).get("release")
        is_between = release is not None and getattr(release, "name", release) not in ("2.0", "2.5.5", "3.1.17")
        if is_between or "mysql" in item.name or "postgresql" in item.name:
            item.add_marker("long")


@pytest.fixture(autouse=True)
def environment():
    """Undo what a test has put into the environment, such as the loader of ``setup_loader()``, and into the settings.

    Overrides of settings that don't end in the order in which they began leave some of them behind. Each app of
    Celery may become the default one of the process, and puts the working directory into the path.
    """
    from celery import _state
    from django.conf import settings

    before, wrapped, path = dict(os.environ), settings._wrapped, sys.path[:]
    apps = _state.default_app, _state._tls.current_app
    yield
    _state.default_app, _state._tls.current_app = apps
    sys.path[:] = path
    settings._wrapped = wrapped
    for name in set(os.environ) - set(before):
        # pytest's own, which names the test that runs.
        if name != "PYTEST_CURRENT_TEST":
            del os.environ[name]
    os.environ.update({name: value for name, value in before.items() if name != "PYTEST_CURRENT_TEST"})


@pytest.fixture(autouse=True)
def memory_broker():
    """Leave nothing in kombu's broker in memory, which all apps of a process share."""
    yield
    memory = sys.modules.get("kombu.transport.memory")
    if memory is not None:
        memory.Channel.queues.clear()
        memory.Transport.global_state.clear()


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
