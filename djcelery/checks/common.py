"""What the checks share: their tag, what Celery takes of the settings, and which program is about to start.

Called by every module of checks, and by ``management.base``, which says what it starts.
Reads Django's settings and what a Celery app that is there was given; makes no app and loads no configuration.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Any, NamedTuple

import celery
from django.conf import settings
from django.core.checks import CheckMessage

from djcelery import LOADER
from djcelery import conf as configuration
from djcelery.app import known_app, loader_was_chosen_here

__all__ = (
    "TAG",
    "Check",
    "Given",
    "Start",
    "given",
    "is_celerys_scheduler",
    "is_importable",
    "is_upgraded",
    "kind_of",
    "known_settings",
    "prefixed_names",
    "reads_settings",
    "starting",
    "starting_now",
    "unread_names",
    "uses_loader",
    "were_run_here",
)

TAG = "djcelery"

Check = Callable[..., list[CheckMessage]]

#: Environment variables that win over the settings.
_ENVIRONMENT = {"broker_url": "CELERY_BROKER_URL", "result_backend": "CELERY_RESULT_BACKEND"}


_CELERYS_SCHEDULERS = ("celery.beat.PersistentScheduler", "celery.beat.Scheduler")


# -- what Celery takes ---------------------------------------------------------------------------


class Given(NamedTuple):
    """A value that Celery takes, and where it was written."""

    name: str
    value: Any


def uses_loader() -> bool:
    """Tell whether djcelery's loader configures Celery, as ``setup_loader()`` makes it."""
    return os.environ.get("CELERY_LOADER", "").replace(":", ".") == LOADER


def is_upgraded() -> bool:
    """Tell whether the project starts Celery the legacy way, by ``setup_loader()`` of its own."""
    return uses_loader() and not loader_was_chosen_here()


def reads_settings() -> bool:
    """Tell whether Celery reads Django's settings; True as long as no app says otherwise."""
    app = known_app()
    if app is None:
        return True
    source = getattr(app, "_config_source", None)
    if source is None:
        return uses_loader()
    return source is settings or (isinstance(source, str) and source.replace(":", ".") == "django.conf.settings")


def given(key: str) -> Given | None:
    """Return what Celery takes for *key*, such as ``broker_url``; None if nobody says anything.

    Under djcelery's loader ``result_backend`` always says something.
    """
    variable = _ENVIRONMENT.get(key, "")
    if os.environ.get(variable):
        return Given(variable, os.environ[variable])
    app = known_app()
    names = [name for name in _names(key, app) if hasattr(settings, name)] if reads_settings() else []
    changes = _changes(app)
    written = next((name for name in (key, _old_name(key)) if name in changes), None)
    if written is not None and not (names and _settings_win(key, names[0], app)):
        return Given(f"app.conf.{key}", changes[written])
    found = Given(names[0], getattr(settings, names[0])) if names else None
    if key == "result_backend" and uses_loader() and not (found and found.value):
        return Given("CELERY_RESULT_BACKEND", configuration.DjangoSettings()["CELERY_RESULT_BACKEND"])
    return found


def _changes(app: Any) -> Mapping[str, Any]:
    """Return what was written to ``app.conf`` itself, or given to ``Celery()``."""
    if app is None:
        return {}
    written = app._conf.changes if app.configured and app._conf is not None else app._preconf
    return written if isinstance(written, Mapping) else {}


def _old_name(key: str) -> str:
    """Return the name that an app without a namespace keeps *key* under, if it found legacy names only."""
    from celery.app.defaults import _TO_OLD_KEY

    return _TO_OLD_KEY.get(key, key)


def _settings_win(key: str, name: str, app: Any) -> bool:
    """Tell whether Celery takes the setting *name* although *key* was given to the app."""
    return celery.VERSION < (5, 7) and name == f"{_namespace(app)}_{key.upper()}"


def _names(key: str, app: Any) -> list[str]:
    """Return the names in Django's settings under which Celery looks for *key*, first match wins."""
    prefixed = f"{configuration.NAMESPACE}_{key.upper()}"
    unread = set() if uses_loader() else unread_names()
    old = [name for name in configuration.spellings().get(prefixed, ()) if name not in unread]
    if prefixed in _same_names():
        old.append(prefixed)
    namespace = _namespace(app)
    return [*([f"{namespace}_{key.upper()}"] if namespace else []), *old]


def _namespace(app: Any) -> str | None:
    return configuration.NAMESPACE if app is None or uses_loader() else app.namespace


@functools.cache
def _same_names() -> frozenset[str]:
    """Return the legacy names that are today's prefixed names, too."""
    from celery.app.defaults import _TO_NEW_KEY

    return frozenset(old for old, new in _TO_NEW_KEY.items() if old == f"{configuration.NAMESPACE}_{new.upper()}")


def unread_names() -> dict[str, str]:
    """Return the legacy names that Celery itself doesn't read, and today's names of them."""
    # Celery < 5.7 finds its defaults before it looks for legacy names, if it is configured with a namespace.
    if celery.VERSION < (5, 7) and getattr(known_app(), "namespace", None):
        return {**configuration.translated_names(), **configuration.RENAMED}
    return configuration.RENAMED


def known_settings() -> set[str]:
    """Return every name in Django's settings that Celery, django-celery or djcelery knows or has known."""
    from celery.app.defaults import DEFAULTS

    known = {f"{configuration.NAMESPACE}_{key.upper()}" for key in DEFAULTS}
    known |= {*configuration.translated_names(), *configuration.RENAMED, *configuration.REMOVED}
    return known | {*configuration.Conf.all(), *configuration.COMMAND_DEFAULTS, *configuration.DJANGO_OWN}


@functools.cache
def prefixed_names() -> tuple[str, ...]:
    """Return today's names of Celery's settings, with the prefix, that are no legacy names."""
    from celery.app.defaults import DEFAULTS

    names = {f"{configuration.NAMESPACE}_{key.upper()}" for key in DEFAULTS}
    # Those that djcelery itself reads work with any app.
    return tuple(sorted(names - _same_names() - {*configuration.translated_names(), *configuration.Conf.all()}))


def kind_of(value: Any) -> str:
    """Return the scheme of a URL, or a name that is none; the rest of a URL may hold a password."""
    return value.partition("://")[0] if isinstance(value, str) else ""


def is_celerys_scheduler(value: Any) -> bool:
    """Tell whether *value* names one of the schedulers that come with Celery."""
    return isinstance(value, str) and value.replace(":", ".") in _CELERYS_SCHEDULERS


def is_importable(module: str) -> bool:
    """Tell whether the top-level package *module* is installed, without importing it."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


# -- which program starts -------------------------------------------------------------------------


class Start(NamedTuple):
    """A program that is about to start: the name of its command, and its options."""

    program: str
    options: Mapping[str, Any]


_run_in_pid = -1
_starting: ContextVar[Start | None] = ContextVar("djcelery_starting", default=None)


@contextmanager
def starting(program: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Have the checks within know that *program* is about to start."""
    global _run_in_pid
    _run_in_pid = os.getpid()
    token = _starting.set(Start(program, options))
    try:
        yield
    finally:
        _starting.reset(token)


def were_run_here() -> bool:
    """Tell whether this process, or the worker that it was forked from, has run the checks for its start."""
    return _run_in_pid in (os.getpid(), os.getppid())


def starting_now() -> Start | None:
    """Return the program that is about to start; None under ``manage.py check`` and all other commands."""
    start = _starting.get()
    # A rehearsal sends and stores nothing.
    return None if start is None or start.options.get("dry_run") else start
