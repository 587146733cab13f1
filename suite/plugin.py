"""The pytest plugin that runs Celery's integration suite with a Django result backend.

Loaded by ``suite/run.py`` with ``-p suite.plugin``, before the suite's own ``conftest``. Makes a
database and migrates it, names the result backend so that the suite doesn't skip the tests it
keeps for Redis, gives the suite's bookkeeping the Redis database of the broker, and writes what
became of every test as JSON to the file SUITE_REPORT.
"""

from __future__ import annotations

import json
import os
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
import redis
import t.integration.tasks as tasks
from celery import signals
from celery.app.backends import BACKEND_ALIASES
from celery.contrib.testing import worker as testing

# Many tests only want Redis for their own notes, and say so by skipping unless the name of the
# result backend begins with "redis". This one does, and is no URL of Redis.
BACKEND_NAME = "redis-suite-on-django"

_outcomes: dict[str, str] = {}
_reruns: dict[str, int] = {}
_reasons: dict[str, str] = {}


# The suite's own connection always takes database 0. Its conftest imports the name, so it is replaced now.
tasks.get_redis_connection = lambda: redis.StrictRedis.from_url(os.environ["TEST_BROKER"], socket_timeout=None)


def _like_a_real_worker(sender=None, **kwargs) -> None:
    # Celery's embedded worker sends worker_init, but not the signal before it.
    signals.celeryd_init.send(sender="suite", instance=SimpleNamespace(app=sender), conf=sender.conf, options={})


def pytest_configure(config):
    if os.environ["TEST_BACKEND"] != BACKEND_NAME:
        return
    import django

    BACKEND_ALIASES[BACKEND_NAME] = os.environ["SUITE_BACKEND"]
    django.setup()
    from django.db import connection, connections

    config.suite_database = connection.settings_dict["NAME"]
    connection.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
    # The worker's processes are forked from this one.
    connections.close_all()
    testing.test_worker_starting.connect(_like_a_real_worker, weak=False)


def pytest_unconfigure(config):
    if hasattr(config, "suite_database") and urlsplit(os.environ["DATABASE_URL"]).scheme != "sqlite":
        from django.db import connection, connections

        if connection.vendor == "postgresql":
            # The connection that this process keeps for results would forbid the drop.
            with connection.cursor() as cursor:
                others = "datname = current_database() AND pid <> pg_backend_pid()"
                cursor.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
        connections.close_all()
        connection.creation.destroy_test_db(config.suite_database, verbosity=0)


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report):
    # Parts of a test (``subtests``) report under the same id; one that fails makes the test fail.
    test, outcome = report.nodeid, report.outcome
    if outcome == "rerun":
        _reruns[test] = _reruns.get(test, 0) + 1
        _outcomes.pop(test, None)
        return
    if hasattr(report, "wasxfail"):
        outcome = "xfailed" if report.skipped else "xpassed"
    if outcome in ("failed", "skipped", "xfailed"):
        _reasons[test] = str(report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr)[-2000:]
    if outcome != "passed" and _outcomes.get(test) != "failed":
        _outcomes[test] = outcome
    elif outcome == "passed" and report.when == "call":
        _outcomes.setdefault(test, outcome)


def pytest_sessionfinish(session):
    report = {"outcomes": _outcomes, "reruns": _reruns, "reasons": _reasons}
    with open(os.environ["SUITE_REPORT"], "w") as file:
        json.dump(report, file, indent=1)
