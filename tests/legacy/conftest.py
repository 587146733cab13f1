"""Fixtures of the tests with databases that django-celery wrote."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.migrations import databases


@pytest.fixture
def make_database(tmp_path, django_db_blocker):
    """Return a function (vendor, url=None) that makes a database; it is dropped after the test."""
    with ExitStack() as stack:
        stack.enter_context(django_db_blocker.unblock())
        yield lambda vendor, url=None: stack.enter_context(databases.new_database(vendor, tmp_path, url))


@pytest.fixture(params=databases.VENDORS)
def database(request, make_database):
    """An empty database on each engine in turn."""
    return make_database(request.param)


@pytest.fixture
def sqlite(make_database):
    """An empty SQLite file."""
    return make_database("sqlite")
