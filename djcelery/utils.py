"""Time, and only time: the clock in the project's zone, aware and naive datetimes.

Called by managers, engines and admin. Follows Django's ``USE_TZ`` alone: with it on every
datetime is aware, with it off every datetime is naive local time.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from django.conf import settings
from django.db import DatabaseError, InterfaceError
from django.utils import timezone as django_timezone

from djcelery.deprecation import Old, old_names

#: What any database may raise; Django wraps the errors of every driver in these.
DATABASE_ERRORS = (DatabaseError, InterfaceError)


def now() -> datetime:
    """Return the present: aware in the default time zone if ``USE_TZ``, else naive local time."""
    if settings.USE_TZ:
        return django_timezone.localtime(django_timezone.now(), django_timezone.get_default_timezone())
    return django_timezone.now()


def make_aware(value: datetime) -> datetime:
    """Return *value* aware in the default zone; a naive one is taken as UTC. Unchanged without ``USE_TZ``."""
    if not settings.USE_TZ:
        return value
    if django_timezone.is_naive(value):
        value = value.replace(tzinfo=timezone.utc)
    return django_timezone.localtime(value, django_timezone.get_default_timezone())


def make_naive(value: datetime) -> datetime:
    """Return *value* naive in the default zone. Unchanged without ``USE_TZ``.

    Raises:
        ValueError: *value* is naive and ``USE_TZ`` is on.
    """
    if not settings.USE_TZ:
        return value
    return django_timezone.make_naive(value, django_timezone.get_default_timezone())


def correct_awareness(value: Any) -> Any:
    """Return *value* as the database wants it under ``USE_TZ``; what is no datetime comes back as it is."""
    if not isinstance(value, datetime):
        return value
    if settings.USE_TZ:
        return make_aware(value)
    if django_timezone.is_aware(value):
        return django_timezone.make_naive(value, django_timezone.get_default_timezone())
    return value


def to_utc(value: datetime) -> datetime:
    """Return *value* aware in UTC; a naive one is taken as local time of the default zone."""
    if django_timezone.is_naive(value):
        value = django_timezone.make_aware(value, django_timezone.get_default_timezone())
    return value.astimezone(timezone.utc)


def local_text(value: Any) -> str:
    """Return a datetime in the project's time zone as text, to the second; what is none, as text as it is."""
    value = correct_awareness(value)
    return str(value.replace(microsecond=0) if isinstance(value, datetime) else value)


def fromtimestamp(value: float) -> datetime:
    """Return the instant *value* (seconds since the epoch), aware or naive as ``USE_TZ`` says."""
    moment = datetime.fromtimestamp(value, timezone.utc)
    return moment if settings.USE_TZ else correct_awareness(moment)


def as_timedelta(value: timedelta | float) -> timedelta:
    """Return *value* (timedelta or seconds) as a timedelta."""
    return value if isinstance(value, timedelta) else timedelta(seconds=value)


def is_database_scheduler(scheduler: str | None) -> bool:
    """Tell whether the dotted path *scheduler* names djcelery's database scheduler or a subclass.

    Raises:
        ImportError: The path can't be imported.
    """
    if not scheduler:
        return False
    # The scheduler is a layer above; resolving it by name at call time keeps this legacy import path alive.
    from kombu.utils.imports import symbol_by_name

    aliases = {"djcelery": "djcelery.schedulers:DatabaseScheduler"}
    wanted = symbol_by_name("djcelery.schedulers:DatabaseScheduler")
    return issubclass(symbol_by_name(scheduler, aliases), wanted)


def _maybe_make_aware(value: Any) -> Any:
    is_naive = isinstance(value, datetime) and django_timezone.is_naive(value)
    return make_aware(value) if is_naive else value


__getattr__ = old_names(
    __name__,
    {
        "is_aware": Old("django.utils.timezone.is_aware", lambda: django_timezone.is_aware),
        "maybe_make_aware": Old("djcelery.utils.correct_awareness", lambda: _maybe_make_aware),
    },
)
