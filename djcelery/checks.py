"""System checks: settings that do nothing any more, that contradict each other, or that lose messages.

Called by ``manage.py check`` and before a worker, beat or camera starts; ``apps`` registers them.
Ids: ``djcelery.E1xx`` settings, ``E2xx`` results, ``E3xx`` scheduler, ``E4xx`` monitor; never reused.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import celery
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning

from djcelery import LOADER
from djcelery import conf as configuration
from djcelery.app import known_app
from djcelery.exceptions import SettingError

TAG = "djcelery"


def _uses_loader() -> bool:
    return os.environ.get("CELERY_LOADER") == LOADER


def own_settings(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """E101: one of djcelery's own settings can't be parsed."""
    found = []
    for name in configuration.Conf.all():
        try:
            getattr(configuration.conf, name)
        except SettingError as exc:
            found.append(Error(str(exc), hint=configuration.Conf.all()[name].__doc__, id="djcelery.E101"))
    return found


def two_spellings(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """E102: one setting is given under two names, with different values."""
    found = []
    for new, old_names in sorted(configuration.spellings().items()):
        names = [name for name in (new, *old_names) if configuration.is_set(name)]
        found += [
            _contradiction(new, names[0], other)
            for other in names[1:]
            if getattr(settings, names[0]) != getattr(settings, other)
        ]
    return found


def _contradiction(new: str, first: str, second: str) -> CheckMessage:
    return Error(
        f"{first} and {second} are two names of one setting and have different values.",
        hint=f"Keep {new} and remove the other. Celery takes the value of {first}.",
        id="djcelery.E102",
    )


def without_effect(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W103: a setting of Celery 2 or 3 has no effect any more."""
    return [
        Warning(f"The setting {name} has no effect any more.", hint=hint, id="djcelery.W103")
        for name, hint in sorted(configuration.REMOVED.items())
        if configuration.is_set(name)
    ]


def _unread_names() -> dict[str, str]:
    """Return the legacy names that Celery itself doesn't read, and today's names of them."""
    # Celery < 5.7 finds its defaults before it looks for legacy names, if it is configured with a namespace.
    if celery.VERSION < (5, 7) and getattr(known_app(), "namespace", None):
        return {**configuration.translated_names(), **configuration.RENAMED}
    return configuration.RENAMED


def renamed(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W104: a legacy name that only djcelery's loader understands is used without that loader."""
    if _uses_loader():
        return []
    return [
        Warning(
            f"Celery does not read the setting {old}.",
            hint=f"Write {new}, or call djcelery.setup_loader() in the settings.",
            id="djcelery.W104",
        )
        for old, new in sorted(_unread_names().items())
        if configuration.is_set(old)
    ]


def gone_values(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """E106: a result backend or broker of Celery 2 or 3 is named that today's doesn't have."""
    found = []
    for names, gone in configuration.GONE_VALUES.items():
        for name in filter(configuration.is_set, names):
            # The rest of a URL may hold a password.
            kind = str(getattr(settings, name)).partition("://")[0]
            if kind.lower() in gone:
                message = f"{name} names {kind!r}, which Celery no longer has."
                found.append(Error(message, hint=gone[kind.lower()], id="djcelery.E106"))
    return found


def pickle_was_default(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W105: an upgraded project names no serializer; queued messages of its old release would be lost."""
    names = ("CELERY_TASK_SERIALIZER", "CELERY_ACCEPT_CONTENT")
    legacy = _uses_loader() or any(configuration.is_set(name) for name in configuration.translated_names())
    if not legacy or any(configuration.is_set(name) for name in names):
        return []
    return [
        Warning(
            "Neither CELERY_TASK_SERIALIZER nor CELERY_ACCEPT_CONTENT is set. Up to Celery 3 the default was pickle, "
            "today it is JSON: a worker logs and drops the messages that an old release left in the queues.",
            hint=(
                "Drain the queues with the old release before you upgrade, or accept old messages for a while with "
                "CELERY_ACCEPT_CONTENT = ['json', 'pickle'] (only if nobody else can write to the broker). "
                "Then set CELERY_TASK_SERIALIZER = 'json' to silence this."
            ),
            id="djcelery.W105",
        )
    ]


def cache_backend_alone(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W201: only CELERY_CACHE_BACKEND says that results go to the cache, and Celery doesn't read it so."""
    names = ("CELERY_RESULT_BACKEND", *configuration.spellings().get("CELERY_RESULT_BACKEND", ()))
    if _uses_loader() or any(getattr(settings, name, None) for name in names):
        return []
    if not configuration.cache_backend_is_result_backend():
        return []
    return [
        Warning(
            f"CELERY_CACHE_BACKEND = {settings.CELERY_CACHE_BACKEND!r} alone stores no results.",
            hint="Add CELERY_RESULT_BACKEND = 'djcelery-cache'; CELERY_CACHE_BACKEND then names an alias in CACHES.",
            id="djcelery.W201",
        )
    ]


def _result_cache() -> str | None:
    """Return the alias in CACHES of the cache that the settings name for results; None if they name none."""
    value, kinds = getattr(settings, "CELERY_RESULT_BACKEND", None), configuration.CACHE_BACKEND_NAMES
    if _uses_loader():
        kinds |= {"cache", "cache+django"}
        value = value or (configuration.cache_backend_is_result_backend() and "cache")
    kind, _, named = str(value).partition("://")
    if kind not in kinds:
        return None
    alias = named.strip("/") or getattr(settings, "CELERY_CACHE_BACKEND", None) or "default"
    return alias if alias in settings.CACHES else "default"


def cache_that_forgets(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W202: results are stored in a cache that other processes don't see, or that deletes all but 300 entries."""
    alias = _result_cache()
    if alias is None:
        return []
    cache = settings.CACHES.get(alias, {})
    kind = str(cache.get("BACKEND", "")).rpartition(".")[2]
    message = f"Results are stored in the cache {alias!r}, a {kind}, which "
    if kind in ("LocMemCache", "DummyCache"):
        message += "no other process can read."
        hint = "Use a cache on a server, such as Redis or memcached, or store results in the database."
    elif kind in ("DatabaseCache", "FileBasedCache") and "MAX_ENTRIES" not in {*cache, *cache.get("OPTIONS", {})}:
        message += "keeps 300 entries and deletes the others."
        hint = "Set MAX_ENTRIES in its OPTIONS to more than the results that you want to keep."
    else:
        return []
    return [Warning(message, hint=hint, id="djcelery.W202")]


ALL: tuple[Callable[..., list[CheckMessage]], ...] = (
    own_settings,
    two_spellings,
    without_effect,
    renamed,
    gone_values,
    pickle_was_default,
    cache_backend_alone,
    cache_that_forgets,
)
