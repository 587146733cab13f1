"""What every djcelery manager has, under the names of the legacy ones."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from django.db import models, router
from django.db.backends.base.base import BaseDatabaseWrapper

from djcelery import db


def transaction_retry(max_retries: int = 1) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Call the decorated function again after any exception, up to *max_retries* times.

    The keyword ``exception_retry_count`` of the call overrides the number. Kept for code that
    imports it; djcelery itself retries transient errors only, by ``db.retry_transient``.

    Raises:
        Exception: The error of the last try.
    """

    def outer(fun: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fun)
        def inner(*args: Any, **kwargs: Any) -> Any:
            retries = kwargs.pop("exception_retry_count", max_retries)
            while True:
                try:
                    return fun(*args, **kwargs)
                except Exception:
                    retries -= 1
                    if retries < 0:
                        raise

        return inner

    return outer


def update_model_with_dict(obj: models.Model, fields: dict[str, Any]) -> models.Model:
    """Set the attributes *fields* of *obj*, save it and return it."""
    for name, value in fields.items():
        setattr(obj, name, value)
    obj.save()
    return obj


class ExtendedQuerySet(models.QuerySet):
    """The queryset of every djcelery manager."""


class ExtendedManager(models.Manager.from_queryset(ExtendedQuerySet)):  # type: ignore[misc]
    """A manager with the helper names of the legacy one."""

    def get_query_set(self) -> models.QuerySet:
        """Return ``get_queryset()``: its name before Django 1.6."""
        return self.get_queryset()

    def connection_for_write(self) -> BaseDatabaseWrapper:
        """Return the connection that the router gives for writing this model."""
        return db.connections[router.db_for_write(self.model)]

    def connection_for_read(self) -> BaseDatabaseWrapper:
        """Return the connection that this manager reads from."""
        return db.connections[self.db]

    def current_engine(self) -> str:
        """Return the dotted path of the database engine that this manager reads from."""
        return self.connection_for_read().settings_dict["ENGINE"]
