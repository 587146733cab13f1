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
from django.utils.functional import LazyObject, Promise

from djcelery import ages, parsers
from djcelery.exceptions import SettingError
from djcelery.oldnames import (
    CACHE_BACKEND_NAMES,
    COMMAND_DEFAULTS,
    DJANGO_OWN,
    GONE_VALUES,
    PEERS_SETTINGS,
    REMOVED,
    RENAMED,
)

__all__ = (
    "CACHE_BACKEND_NAMES",
    "COMMAND_DEFAULTS",
    "DJANGO_OWN",
    "GONE_VALUES",
    "NAMESPACE",
    "PEERS_SETTINGS",
    "REMOVED",
    "RENAMED",
    "Conf",
    "DjangoSettings",
    "Setting",
    "cache_backend_is_result_backend",
    "conf",
    "is_set",
    "spellings",
    "translated_names",
)

#: The prefix of today's Celery settings in a Django settings module: ``CELERY_WORKER_CONCURRENCY``.
NAMESPACE = "CELERY"


# -- djcelery's own settings -------------------------------------------------------------------


class Setting:
    """One of djcelery's settings: default, parser, and the sentence that the manual prints.

    The value is read from Django's settings on every access, so ``override_settings`` works.

    Raises:
        SettingError: On access, when the value can't be parsed.
    """

    def __init__(self, default: Any, parse: Callable[[Any], Any], doc: str, *, secret: bool = False):
        self.default = default
        self.parse = parse
        self.secret = secret
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
            if isinstance(raw, (LazyObject, Promise)):
                # It looks like what it stands for, but database drivers and sockets don't take it for that.
                raise TypeError("use the value itself, not a lazy one")
            return self.parse(raw)
        except (TypeError, ValueError) as exc:
            shown = "[hidden]" if self.secret else _shown(raw)
            raise SettingError(f"{name} = {shown}: {exc}.") from exc


def _shown(raw: Any) -> str:
    try:
        return repr(raw)
    except Exception:  # noqa: BLE001 - a number of more than 4300 digits, or code of the project's
        return f"<{type(raw).__name__}>"


class Conf:
    """djcelery's own settings, as attributes of ``djcelery.conf.conf``."""

    CELERYCAM_EXPIRE_SUCCESS = Setting(
        timedelta(days=1), ages.age, "Age after which the monitor's rows of succeeded tasks are deleted."
    )
    CELERYCAM_EXPIRE_ERROR = Setting(
        timedelta(days=3), ages.age, "The same for tasks that failed, were revoked or are to be retried."
    )
    CELERYCAM_EXPIRE_PENDING = Setting(timedelta(days=5), ages.age, "The same for tasks that have not finished.")
    CELERY_DB_REUSE_MAX = Setting(
        None,
        parsers.count,
        "Close a worker's database connections after this many tasks, instead of when CONN_MAX_AGE says.",
    )
    DJCELERY_APPLY_ACCESS = Setting(
        "permission",
        parsers.one_of("permission", "open"),
        "Who may send tasks by the view apply: 'permission', or 'open' for anybody, by GET too, as in django-celery.",
    )
    DJCELERY_APPLY_ALLOW = Setting(
        (), parsers.task_patterns, "Tasks that the view apply may send: names, and patterns such as 'shop.*'."
    )
    DJCELERY_BEAT_COMPARE_S = Setting(
        60.0,
        parsers.seconds,
        "Seconds between two comparisons of the whole schedule with what beat knows; they find changes by raw SQL.",
    )
    DJCELERY_BEAT_LEASE_NAME = Setting(
        "default",
        parsers.lease_name,
        "Of all beats that use the same name (and database), one sends; the others stand by.",
    )
    DJCELERY_BEAT_LEASE_S = Setting(
        10.0, parsers.seconds, "Seconds within which another beat takes over when the one that sends is gone."
    )
    DJCELERY_ARGS_MAX_BYTES = Setting(
        16384,
        parsers.bytes,
        "Longest JSON stored of a task's args, and of its kwargs; longer ones are cut. None: no limit.",
    )
    DJCELERY_CAMERA_ENABLE_EVENTS = Setting(
        False,
        parsers.flag,
        "Whether celerycam switches the events of tasks on, in all workers and in each that appears.",
    )
    DJCELERY_CAMERA_MAX_ROWS = Setting(
        100_000,
        parsers.positive,
        "Changed tasks that celerycam keeps in memory until they are written; more new ones are dropped and counted.",
    )
    DJCELERY_CAMERA_QUEUE_TTL_S = Setting(
        3600.0, parsers.seconds, "Seconds for which the broker keeps events for a celerycam that is away."
    )
    DJCELERY_HISTORY_HOURS = Setting(
        timedelta(days=1000), ages.age, "Age after which the camera deletes counts of tasks per hour."
    )
    DJCELERY_HISTORY_MINUTES = Setting(
        timedelta(days=7), ages.age, "Age after which the camera deletes counts of tasks per minute."
    )
    DJCELERY_IS_TASK_SUCCESSFUL_ACCESS = Setting(
        "permission",
        parsers.one_of("permission", "id", "open"),
        "Who may ask whether a task has succeeded: 'permission', or 'id' or 'open' for whoever knows its id.",
    )
    DJCELERY_KEEP_RESULT_CONNECTION = Setting(
        True,
        parsers.flag,
        "Whether a worker process keeps one database connection for storing results when CONN_MAX_AGE is 0.",
    )
    DJCELERY_LOST_AFTER = Setting(
        timedelta(minutes=10),
        ages.age,
        "How long a worker must be gone until the camera marks the tasks it had started as LOST.",
    )
    DJCELERY_METRICS_TOKEN = Setting(
        None,
        parsers.token,
        "Bearer token that opens the metrics view; None: only people with the permission see it.",
        secret=True,
    )
    DJCELERY_REGISTERED_TASKS_ACCESS = Setting(
        "permission",
        parsers.one_of("permission", "open"),
        "Who gets the list of registered tasks: 'permission', or 'open' for anybody.",
    )
    DJCELERY_RUN_HISTORY = Setting(
        timedelta(days=7), ages.age, "Age after which beat deletes the runs of periodic tasks from their history."
    )
    DJCELERY_SCHEDULE_POLICY = Setting(
        "mirror",
        parsers.schedule_policy,
        "'mirror': CELERYBEAT_SCHEDULE wins over edits, and what is removed from it is disabled; "
        "'seed': it writes an entry once.",
    )
    DJCELERY_REDACT = Setting(
        (),
        parsers.redacted,
        "What is not stored of tasks: 'args', 'kwargs', 'result', 'traceback', or one item such as 'kwargs.password'.",
    )
    DJCELERY_RESULT_MAX_BYTES = Setting(None, parsers.bytes, "Longest encoded result that is stored. None: no limit.")
    DJCELERY_RESULT_TOO_LARGE = Setting(
        "refuse",
        parsers.too_large,
        "What becomes of a longer one: 'refuse' fails the task, 'cut' stores its beginning as text.",
    )
    DJCELERY_RETENTION = Setting(
        {},
        ages.retention,
        "Ages after which results are deleted, by state and by task name; CELERY_RESULT_EXPIRES is for the others.",
    )
    DJCELERY_STORE_PUBLISHED = Setting(
        False,
        parsers.flag,
        "Whether a task has a row as soon as it is sent, in state PENDING; committed with the sender's work.",
    )
    DJCELERY_TASK_STATUS_ACCESS = Setting(
        "permission",
        parsers.one_of("permission", "id", "open"),
        "Who sees the state of a task: 'permission', 'id' for whoever knows its id, or 'open' for the same and values.",
    )
    DJCELERY_TASK_VIEW_ACCESS = Setting(
        "permission",
        parsers.one_of("permission", "open"),
        "Who may send tasks by views that task_view made: 'permission', or 'open' for anybody, by GET too.",
    )
    DJCELERY_TASK_WEBHOOK_ACCESS = Setting(
        "token",
        parsers.one_of("token", "open"),
        "Who may call receivers that task_webhook made: 'token' for whoever has the token, or 'open' for anybody.",
    )
    DJCELERY_UNPICKLE_ALLOW = Setting(
        (),
        parsers.dotted_names,
        "Modules and classes that old pickled results may name, beside the built-in list of value types.",
    )
    DJCELERY_WEBHOOK_ALLOW = Setting(
        (),
        parsers.receivers,
        "Hosts and networks that webhooks may call though their addresses are not public, such as '10.1.0.0/16'.",
    )
    DJCELERY_WEBHOOK_MAX_BYTES = Setting(1_000_000, parsers.positive, "Longest answer of a webhook that is read.")
    DJCELERY_WEBHOOK_SEND_TOKENS = Setting(
        {},
        parsers.tokens,
        "Bearer tokens that webhooks send, by the beginning of the URL, such as 'https://hooks.example.com'.",
        secret=True,
    )
    DJCELERY_WEBHOOK_TIMEOUT_S = Setting(
        5.0, parsers.seconds, "Seconds after which a webhook that has not answered completely is given up."
    )
    DJCELERY_WEBHOOK_TOKEN = Setting(
        None,
        parsers.token,
        "Bearer token that receivers of webhooks ask for; None: they refuse every call.",
        secret=True,
    )
    DJCELERY_WORKER_EXPIRES = Setting(
        timedelta(days=7),
        ages.age,
        "Age after which the camera deletes workers it has not heard of, unless tasks name them.",
    )

    @classmethod
    def all(cls) -> dict[str, Setting]:
        """Return every setting by its name."""
        return {name: value for name, value in vars(cls).items() if isinstance(value, Setting)}


conf = Conf()


# -- the configuration that Celery reads -------------------------------------------------------


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
    named = getattr(settings, "CELERY_CACHE_BACKEND", None)
    return key == "CELERY_RESULT_BACKEND" and isinstance(named, str) and named in CACHE_BACKEND_NAMES


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
