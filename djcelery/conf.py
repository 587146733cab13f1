"""Django's settings in; Celery's configuration and djcelery's own settings out.

Called by the loader (``DjangoSettings`` is what Celery reads), by every module that wants one of
djcelery's own settings (``conf.NAME``) and by the system checks (the tables of old names).
Nothing is read at import and nothing is ever written to Django's settings.
Next: ``docs/explain/configuration.rst``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any

from django.conf import settings

from djcelery.ages import age as _age
from djcelery.ages import retention as _retention
from djcelery.exceptions import SettingError

#: The prefix of today's Celery settings in a Django settings module: ``CELERY_WORKER_CONCURRENCY``.
NAMESPACE = "CELERY"


# -- djcelery's own settings -------------------------------------------------------------------


def _count(value: Any) -> int | None:
    """Parse a whole number, None or 0 for "no limit"."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError("use a whole number of tasks, or None")
    return value or None


def _flag(value: Any) -> bool:
    if not isinstance(value, (bool, int)):
        raise TypeError("use True or False")
    return bool(value)


def _bytes(value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise TypeError("use a whole number of bytes, or None for no limit")
    return value or None


def _too_large(value: Any) -> str:
    if value not in ("refuse", "cut"):
        raise ValueError("use 'refuse' or 'cut'")
    return value


_REDACTABLE = ("args", "kwargs", "result", "traceback")


def _redacted(value: Any) -> frozenset[str]:
    """Parse what isn't stored: names of ``_REDACTABLE``, or one item such as ``kwargs.password``."""
    if isinstance(value, str):
        raise TypeError("use a list of names, not one string")
    names = frozenset(value)
    for name in names:
        column, dot, item = name.partition(".") if isinstance(name, str) else ("", "", "")
        fits = item.isdecimal() if column == "args" else column == "kwargs" and item
        if column not in _REDACTABLE or (dot and not fits):
            raise ValueError(f"{name!r} is none of {', '.join(_REDACTABLE)}, nor one item such as 'kwargs.password'")
    return names


def _dotted_names(value: Any) -> frozenset[str]:
    if isinstance(value, str):
        raise TypeError("use a list of dotted names, not one string")
    names = frozenset(value)
    for name in names:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"{name!r} is not the dotted name of a module or class")
    return names


class Setting:
    """One of djcelery's settings: default, parser, and the sentence that the manual prints.

    The value is read from Django's settings on every access, so ``override_settings`` works.

    Raises:
        SettingError: On access, when the value can't be parsed.
    """

    def __init__(self, default: Any, parse: Callable[[Any], Any], doc: str):
        self.default = default
        self.parse = parse
        self.__doc__ = doc

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        raw = getattr(settings, self.name, self.default)
        # Read several times for each result, and seldom set.
        return self._parsed_default if raw is self.default else self.parsed(raw, self.name)

    @functools.cached_property
    def _parsed_default(self) -> Any:
        return self.parsed(self.default, self.name)

    def parsed(self, raw: Any, name: str) -> Any:
        """Return *raw* parsed; *name* says in an error where it stands.

        Raises:
            SettingError: It can't be used.
        """
        try:
            return self.parse(raw)
        except (TypeError, ValueError) as exc:
            raise SettingError(f"{name} = {raw!r}: {exc}.") from exc


class Conf:
    """djcelery's own settings, as attributes of ``djcelery.conf.conf``."""

    CELERYCAM_EXPIRE_SUCCESS = Setting(
        timedelta(days=1), _age, "Age after which the monitor's rows of succeeded tasks are deleted."
    )
    CELERYCAM_EXPIRE_ERROR = Setting(
        timedelta(days=3), _age, "The same for tasks that failed, were revoked or are to be retried."
    )
    CELERYCAM_EXPIRE_PENDING = Setting(timedelta(days=5), _age, "The same for tasks that have not finished.")
    CELERY_DB_REUSE_MAX = Setting(
        None,
        _count,
        "Close a worker's database connections after this many tasks, instead of when CONN_MAX_AGE says.",
    )
    DJCELERY_ARGS_MAX_BYTES = Setting(
        16384,
        _bytes,
        "Longest JSON stored of a task's args, and of its kwargs; longer ones are cut. None: no limit.",
    )
    DJCELERY_KEEP_RESULT_CONNECTION = Setting(
        True,
        _flag,
        "Whether a worker process keeps one database connection for storing results when CONN_MAX_AGE is 0.",
    )
    DJCELERY_REDACT = Setting(
        (),
        _redacted,
        "What is not stored of tasks: 'args', 'kwargs', 'result', 'traceback', or one item such as 'kwargs.password'.",
    )
    DJCELERY_RESULT_MAX_BYTES = Setting(None, _bytes, "Longest encoded result that is stored. None: no limit.")
    DJCELERY_RESULT_TOO_LARGE = Setting(
        "refuse",
        _too_large,
        "What becomes of a longer one: 'refuse' fails the task, 'cut' stores its beginning as text.",
    )
    DJCELERY_RETENTION = Setting(
        {},
        _retention,
        "Ages after which results are deleted, by state and by task name; CELERY_RESULT_EXPIRES is for the others.",
    )
    DJCELERY_STORE_PUBLISHED = Setting(
        False,
        _flag,
        "Whether a task has a row as soon as it is sent, in state PENDING; committed with the sender's work.",
    )
    DJCELERY_UNPICKLE_ALLOW = Setting(
        (),
        _dotted_names,
        "Modules and classes that old pickled results may name, beside the built-in list of value types.",
    )

    @classmethod
    def all(cls) -> dict[str, Setting]:
        """Return every setting by its name."""
        return {name: value for name, value in vars(cls).items() if isinstance(value, Setting)}


conf = Conf()


# -- the configuration that Celery reads -------------------------------------------------------

#: Today's names of legacy settings that Celery itself doesn't translate, first match wins.
RENAMED: dict[str, str] = {
    "CELERY_BACKEND": "CELERY_RESULT_BACKEND",
    "CELERYD_ETA_SCHEDULER": "CELERY_WORKER_TIMER",
    "CELERYD_ETA_SCHEDULER_PRECISION": "CELERY_WORKER_TIMER_PRECISION",
    "CELERY_BROADCAST_EXCHANGE": "CELERY_CONTROL_EXCHANGE",
    "CASSANDRA_COLUMN_FAMILY": "CELERY_CASSANDRA_TABLE",
    "BROKER_BACKEND": "CELERY_BROKER_TRANSPORT",
    "CARROT_BACKEND": "CELERY_BROKER_TRANSPORT",
    "AMQP_SERVER": "CELERY_BROKER_HOST",
    "AMQP_PORT": "CELERY_BROKER_PORT",
    "AMQP_USER": "CELERY_BROKER_USER",
    "AMQP_PASSWORD": "CELERY_BROKER_PASSWORD",
    "AMQP_VHOST": "CELERY_BROKER_VHOST",
}

#: Legacy settings that djcelery's own commands read, as the default of an option.
COMMAND_DEFAULTS: dict[str, str] = {
    "CELERYD_LOG_FILE": "--logfile of celeryd",
    "CELERYD_LOG_LEVEL": "--loglevel of celeryd",
    "CELERYBEAT_LOG_FILE": "--logfile of celerybeat",
    "CELERYBEAT_LOG_LEVEL": "--loglevel of celerybeat",
}

#: Legacy settings that have no effect any more, and what to do instead.
REMOVED: dict[str, str] = {
    "BROKER_INSIST": "Remove it; brokers no longer redirect.",
    "CASSANDRA_DETAILED_MODE": "Remove it; Celery stores details always.",
    "CELERYD_AUTORELOADER": "Remove it; use celeryd --autoreload.",
    "CELERYD_BOOT_STEPS": "Add boot steps to app.steps['worker'].",
    "CELERYD_FORCE_EXECV": "Write CELERY_WORKER_POOL_START_METHOD = 'spawn'.",
    "CELERYD_MEDIATOR": "Remove it; the mediator went with Celery 3.0.",
    "CELERYMON_LOG_FILE": "Remove it; celerymon is gone, celerycam and the admin took its place.",
    "CELERYMON_LOG_FORMAT": "Remove it; celerymon is gone, celerycam and the admin took its place.",
    "CELERYMON_LOG_LEVEL": "Remove it; celerymon is gone, celerycam and the admin took its place.",
    "CELERY_AMQP_TASK_RESULT_CONNECTION_MAX": "Write CELERY_BROKER_POOL_LIMIT.",
    "CELERY_AMQP_TASK_RESULT_EXPIRES": "Write CELERY_RESULT_EXPIRES.",
    "CELERY_BROADCAST_EXCHANGE_TYPE": "Remove it; remote control always uses a fanout exchange.",
    "CELERY_BROADCAST_QUEUE": "Remove it; every worker names its own control queue.",
    "CELERY_CHORD_PROPAGATES": "Remove it; chords always propagate errors.",
    "CELERY_QUEUE_HA_POLICY": "Declare the policy on the broker, or as queue_arguments of CELERY_TASK_QUEUES.",
    "CELERY_SEND_TASK_ERROR_EMAILS": "Add Django's AdminEmailHandler to the logger 'celery' in LOGGING.",
    "CELERY_TASK_ERROR_WHITELIST": "Filter in the logging handler that sends the mails.",
    "SEND_CELERY_TASK_ERROR_EMAILS": "Add Django's AdminEmailHandler to the logger 'celery' in LOGGING.",
    "CELERYD_DAEMON_LOG_LEVEL": "Use the option --loglevel.",
    "CELERY_AMQP_EXCHANGE": "Write CELERY_TASK_DEFAULT_EXCHANGE.",
    "CELERY_AMQP_EXCHANGE_TYPE": "Write CELERY_TASK_DEFAULT_EXCHANGE_TYPE.",
    "CELERY_AMQP_CONSUMER_QUEUES": "Write CELERY_TASK_QUEUES.",
    "CELERY_AMQP_CONSUMER_ROUTING_KEY": "Write CELERY_TASK_QUEUES.",
    "CELERY_AMQP_PUBLISHER_ROUTING_KEY": "Write CELERY_TASK_DEFAULT_ROUTING_KEY.",
    "CELERY_AMQP_CONNECTION_TIMEOUT": "Write CELERY_BROKER_CONNECTION_TIMEOUT.",
    "CELERY_AMQP_CONNECTION_RETRY": "Write CELERY_BROKER_CONNECTION_RETRY.",
    "CELERY_AMQP_CONNECTION_MAX_RETRIES": "Write CELERY_BROKER_CONNECTION_MAX_RETRIES.",
    "TT_HOST": "Remove it; the Tokyo Tyrant backend is gone.",
    "TT_PORT": "Remove it; the Tokyo Tyrant backend is gone.",
}

_NO_DATABASE_BROKER = (
    "The broker in the database is not part of this release. Use RabbitMQ or Redis; for development, filesystem://."
)

#: Values that Celery 2 and 3 knew and today's doesn't, and what to do instead. For a URL, its scheme counts.
GONE_VALUES: dict[tuple[str, ...], dict[str, str]] = {
    ("CELERY_RESULT_BACKEND", "CELERY_BACKEND"): {
        "amqp": "Write 'rpc://', or leave the setting out to store results in the database.",
        "tyrant": "Leave the setting out to store results in the database.",
    },
    (
        "BROKER_URL",
        "CELERY_BROKER_URL",
        "BROKER_TRANSPORT",
        "CELERY_BROKER_TRANSPORT",
        "BROKER_BACKEND",
        "CARROT_BACKEND",
    ): {
        "amqplib": "Write 'amqp'.",
        "pika": "Write 'amqp'.",
        "syncpika": "Write 'amqp'.",
        "beanstalk": "Use RabbitMQ or Redis.",
        "couchdb": "Use RabbitMQ or Redis.",
        "django": _NO_DATABASE_BROKER,
        "djcelery.transport": _NO_DATABASE_BROKER,
        "kombu.transport.django": _NO_DATABASE_BROKER,
        "djkombu.transport.databasetransport": _NO_DATABASE_BROKER,
        "ghettoq.taproot.database": _NO_DATABASE_BROKER,
    },
}

#: Values of CELERY_CACHE_BACKEND in Celery's old manual that name the backend, and mean the default cache.
CACHE_BACKEND_NAMES = frozenset({"django-cache", "djcelery-cache"})

#: Settings of the legacy default tables that belong to Django; Celery no longer reads them.
DJANGO_OWN = frozenset(
    {"ADMINS", "SERVER_EMAIL"}
    | {f"EMAIL_{name}" for name in ("HOST", "HOST_PASSWORD", "HOST_USER", "PORT", "TIMEOUT", "USE_TLS", "USE_SSL")}
)


@functools.cache
def translated_names() -> dict[str, str]:
    """Return today's prefixed name of every legacy name that Celery translates.

    ``{"CELERYD_CONCURRENCY": "CELERY_WORKER_CONCURRENCY", …}``; names that are the same are left out.
    """
    # Celery's own table; "celery upgrade settings" reads the same one.
    from celery.app.defaults import _TO_NEW_KEY

    pairs = ((old, f"{NAMESPACE}_{new.upper()}") for old, new in _TO_NEW_KEY.items())
    return {old: new for old, new in pairs if old != new}


@functools.cache
def spellings() -> dict[str, list[str]]:
    """Return every spelling of each setting: today's prefixed name and the legacy names for it.

    Only settings with more than one spelling are listed.
    """
    result: dict[str, list[str]] = {}
    for old, new in {**translated_names(), **RENAMED}.items():
        result.setdefault(new, []).append(old)
    return result


@functools.cache
def _old_names() -> dict[str, list[str]]:
    """Return the names in ``RENAMED`` by today's."""
    result: dict[str, list[str]] = {}
    for old, new in RENAMED.items():
        result.setdefault(new, []).append(old)
    return result


_MISSING = object()


def is_set(name: str) -> bool:
    """Tell whether the project's settings define *name* (Django's own defaults don't count)."""
    return settings.is_overridden(name) if name in DJANGO_OWN else hasattr(settings, name)


def cache_backend_is_result_backend(key: str = "CELERY_RESULT_BACKEND") -> bool:
    """Tell whether CELERY_CACHE_BACKEND alone chooses the backend of results, as Celery's manual up to 5.2 said."""
    return key == "CELERY_RESULT_BACKEND" and getattr(settings, "CELERY_CACHE_BACKEND", None) in CACHE_BACKEND_NAMES


class DjangoSettings(Mapping):
    """Django's settings as the mapping that Celery reads, looked up on every access.

    Adds what Celery's own tables lack: the legacy names in ``RENAMED``, and the result backend
    ``database`` for projects that name none, which is what django-celery promised.
    """

    _defaults: Mapping[str, Any] = {"CELERY_RESULT_BACKEND": "database"}

    def __getitem__(self, key: str) -> Any:
        if key.islower():
            return self._translated(key)
        value = getattr(settings, key, _MISSING)
        if (value is None or value is _MISSING) and key in _old_names():
            renamed = self._renamed(key)
            value = value if renamed is None else renamed
        if key in self._defaults and (value is _MISSING or not value):
            return "cache" if cache_backend_is_result_backend(key) else self._defaults[key]
        if value is _MISSING:
            raise KeyError(key)
        return value

    def _translated(self, key: str) -> Any:
        """Return the value of the legacy name for today's bare *key*, such as ``worker_concurrency``.

        Celery < 5.7 looks for legacy names itself, but only after its defaults, so that they would
        never take effect; drop this when the floor is 5.7.
        """
        for name in spellings().get(f"{NAMESPACE}_{key.upper()}", ()):
            value = getattr(settings, name, _MISSING)
            if value is not _MISSING:
                return value
        raise KeyError(key)

    def _renamed(self, key: str) -> Any:
        """Return the value of the legacy name for *key*, if no spelling that Celery knows is set."""
        if any(hasattr(settings, old) for old, new in translated_names().items() if new == key):
            return None
        return next((getattr(settings, name) for name in _old_names()[key] if hasattr(settings, name)), None)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({name for name in dir(settings) if name.isupper()} | set(self._defaults)))

    def __len__(self) -> int:
        return sum(1 for _ in self)
