"""Are results stored where the project looks for them, and kept? Ids ``djcelery.E2xx`` and ``W2xx``.

Called by ``manage.py check`` and before a program starts. Reads Django's settings.
Next: ``docs/results.rst``.
"""

from __future__ import annotations

from typing import Any

from celery.app.backends import BACKEND_ALIASES
from celery.utils.imports import load_extension_class_names
from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, Warning

from djcelery import conf as configuration
from djcelery.backends import ALIASES
from djcelery.checks.common import Check, given, is_celerys_scheduler, kind_of, reads_settings, uses_loader
from djcelery.exceptions import SettingError

_PEER = "django_celery_results"


def cache_backend_alone(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W201: only CELERY_CACHE_BACKEND says that results go to the cache, and Celery doesn't read it so."""
    names = ("CELERY_RESULT_BACKEND", *configuration.spellings().get("CELERY_RESULT_BACKEND", ()))
    if uses_loader() or any(getattr(settings, name, None) for name in names):
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
    if uses_loader():
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


# -- whose backend ---------------------------------------------------------------------------------


def owner_of(value: Any) -> str:
    """Return who stores results: "database" or "cache" (ours), "other", "nobody", or "" where it can't be known."""
    if not value:
        return "nobody"
    kind = kind_of(value).partition("+")[0]
    if uses_loader() and kind in ("database", "cache"):
        return kind
    if kind in ALIASES:
        if kind in _of_peers():
            return "other"
        return "cache" if "cache" in kind else "database"
    if kind.startswith("djcelery.backends."):
        return "cache" if kind.startswith("djcelery.backends.cache") else "database"
    if kind == "disabled":
        return "nobody"
    return "other" if kind in BACKEND_ALIASES or kind.startswith("django_celery_results.") else ""


def _of_peers() -> set[str]:
    """Return the names of result backends that django-celery-results has registered."""
    return {name for name, path in load_extension_class_names("celery.result_backends") if path.startswith(_PEER)}


def peers_backend(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """E203: the name of the backend is django-celery-results', whose tables the project doesn't have."""
    backend = given("result_backend")
    if backend is None or not isinstance(backend.value, str) or apps.is_installed(_PEER):
        return []
    kind = kind_of(backend.value)
    if not (kind.startswith(f"{_PEER}.") or (kind.startswith("django-") and kind in _of_peers())):
        return []
    ours = "djcelery-cache" if "cache" in kind.lower() else "djcelery-db"
    return [
        Error(
            f"{backend.name} = {kind!r} is the backend of django-celery-results, which is not in INSTALLED_APPS.",
            hint=f"Write {ours!r}, or uninstall django-celery-results, whose name comes first while it is there.",
            id="djcelery.E203",
        )
    ]


def results_elsewhere(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """I204: results go where djcelery's admin doesn't look."""
    backend = given("result_backend")
    if backend is None or not apps.is_installed("django.contrib.admin") or owner_of(backend.value) != "other":
        return []
    kind = kind_of(backend.value)
    if kind.startswith(("django-", _PEER)) and not apps.is_installed(_PEER):
        # E203 says so.
        return []
    message = f"{backend.name} names {kind!r}: djcelery's pages of results in the admin stay empty."
    hint = "Write 'djcelery-db' to see results there, or silence djcelery.I204. The monitor works all the same."
    return [Info(message, hint=hint, id="djcelery.I204")]


def names_of_the_loader(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W205: "database" and "cache" mean Celery's own backends without djcelery's loader."""
    backend = given("result_backend")
    if uses_loader() or backend is None or backend.value not in ("database", "cache"):
        return []
    needed = given("database_url" if backend.value == "database" else "cache_backend")
    # Celery's own cache backend takes a URL.
    if needed and needed.value and (backend.value == "database" or "://" in str(needed.value)):
        return []
    others = {"database": "SQLAlchemy", "cache": "a memcached of its own"}
    ours = {"database": "djcelery-db", "cache": "djcelery-cache"}[backend.value]
    message = f"{backend.name} = {backend.value!r} means {others[backend.value]} without djcelery.setup_loader()."
    return [Warning(message, hint=f"Write {ours!r}.", id="djcelery.W205")]


def nothing_published(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W206: rows of sent tasks are asked for, and the database doesn't store results."""
    if not _is_on("DJCELERY_STORE_PUBLISHED"):
        return []
    backend, ignored = given("result_backend"), given("task_ignore_result")
    if backend is None and not reads_settings():
        return []
    owner = owner_of(backend.value if backend else None)
    if owner in ("cache", "other", "nobody"):
        why = "has no effect: results are not stored in the database"
        hint = "Write CELERY_RESULT_BACKEND = 'djcelery-db', or remove it."
    elif owner and ignored and ignored.value is True:
        why = f"is for tasks with ignore_result=False alone: {ignored.name} is True"
        hint = "Remove one of the two settings."
    else:
        return []
    return [Warning(f"DJCELERY_STORE_PUBLISHED {why}.", hint=hint, id="djcelery.W206")]


def _is_on(name: str) -> bool:
    try:
        return bool(getattr(configuration.conf, name))
    except SettingError:
        # E101 says so.
        return False


def nobody_cleans_up(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """I207: ages of results are set, and the only scheduler that would apply them is not used."""
    expires, scheduler = given("result_expires"), given("beat_scheduler")
    if not _is_on("DJCELERY_RETENTION") or expires is None or expires.value or scheduler is None:
        return []
    if not is_celerys_scheduler(scheduler.value):
        return []
    return [
        Info(
            f"DJCELERY_RETENTION has rules, but {expires.name} = {expires.value!r} keeps Celery's scheduler "
            "from sending celery.backend_cleanup, which applies them.",
            hint="Use djcelery.schedulers.DatabaseScheduler, or run manage.py celeryresults cleanup regularly.",
            id="djcelery.I207",
        )
    ]


ALL: tuple[Check, ...] = (
    cache_backend_alone,
    cache_that_forgets,
    peers_backend,
    results_elsewhere,
    names_of_the_loader,
    nothing_published,
    nobody_cleans_up,
)
