"""Fixtures of the tests with databases that django-celery wrote: those of the adoption tests."""

from tests.migrations.conftest import database, make_database, sqlite

__all__ = ("database", "make_database", "sqlite")
