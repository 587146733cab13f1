"""The Celery loader that reads Django's settings and finds tasks in the installed apps.

Called by Celery, which makes one loader per app from ``CELERY_LOADER`` (see ``djcelery.setup_loader``),
possibly before ``django.setup()``: nothing here may import a model.
Installs Celery's Django fix-up on the app, since Celery leaves it out for loaders named "django".
Next: ``docs/explain/starting-celery.rst``.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterable
from datetime import datetime
from types import ModuleType
from typing import Any

import django
from celery import _state, signals
from celery.fixups.django import DjangoFixup
from celery.loaders.base import BaseLoader
from django.conf import settings

from djcelery import db, utils
from djcelery.conf import NAMESPACE, DjangoSettings

__all__ = ("DjangoLoader", "autodiscover", "find_related_module")

logger = logging.getLogger(__name__)

DEBUG_WARNING = "Using settings.DEBUG leads to a memory leak, never use this setting in production environments!"

_discovering = False


class DjangoLoader(BaseLoader):
    """Configure a Celery app from Django's settings; the legacy way of starting Celery."""

    #: What the result backend names "database" and "cache" mean under this loader.
    override_backends = {
        "database": "djcelery.backends.database.DatabaseBackend",
        "cache": "djcelery.backends.cache.CacheBackend",
        # Before django.setup(), too; the entry points of django-celery-results win.
        "django-db": "djcelery.backends.database.DatabaseBackend",
        "django-cache": "djcelery.backends.cache.CacheBackend",
    }

    def __init__(self, app: Any, **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        #: The import error of every task module that could not be imported, by its name.
        self.broken_modules: dict[str, Exception] = {}
        # The fix-up reads app.loader, which is the attribute being made right now.
        app.loader = self
        # Only a namespace lets Celery read CELERY_ENABLE_UTC, and CELERY_WORKER_CONCURRENCY beside CELERYD_….
        if app._config_source is None:
            app.config_from_object("django.conf:settings", namespace=app.namespace or NAMESPACE)
        elif app.namespace is None:
            app.namespace = NAMESPACE
        install_fixup(app)
        signals.worker_ready.connect(self._on_worker_ready)

    def now(self, utc: bool = False) -> datetime:
        """Return the present, aware in UTC or as ``djcelery.utils.now()`` gives it."""
        return utils.to_utc(utils.now()) if utc else utils.now()

    # configuration

    def read_configuration(self, *args: Any, **kwargs: Any) -> DjangoSettings:
        """Return Django's settings; without a result backend in them it is ``database``."""
        self.configured = True
        return DjangoSettings()

    def config_from_object(self, obj: Any, silent: bool = False) -> bool:
        """Read *obj*; for Django's settings that is the same as naming no source at all."""
        if obj is settings or obj == "django.conf:settings":
            self._conf = self.read_configuration()
            return True
        return super().config_from_object(obj, silent=silent)

    # task modules

    def import_default_modules(self) -> list[ModuleType]:
        """Import ``CELERY_IMPORTS``, ``CELERY_INCLUDE`` and the tasks of every installed app."""
        # A user's app.autodiscover_tasks() may be connected before the fix-up, which sets Django up.
        django.setup()
        modules = super().import_default_modules()
        self.autodiscover()
        return modules

    def autodiscover(self) -> None:
        """Import the ``tasks`` module of every installed app and remember their names."""
        from django.apps import apps

        self.autodiscover_tasks([config.name for config in apps.get_app_configs()])

    def autodiscover_tasks(self, packages: Iterable[str] | None, related_name: str = "tasks") -> None:
        """Import *related_name* of each package; one that fails is logged and doesn't hide the others."""
        for package in packages or ():
            name = f"{package}.{related_name}" if related_name else package
            if name in self.broken_modules:
                continue
            try:
                module = find_related_module(package, related_name)
            except Exception as exc:
                self.broken_modules[name] = exc
                logger.exception("The task module %s could not be imported; its tasks are unknown here.", name)
            else:
                if module is not None:
                    self.task_modules.add(module.__name__)

    def _on_worker_ready(self, sender: Any = None, **kwargs: Any) -> None:
        if getattr(sender, "app", self.app) is not self.app:
            return
        self.warn_if_debug()
        if self.broken_modules:
            # The tracebacks were written before the worker had set up its log file.
            logger.error("Task modules that could not be imported: %s.", self._broken_summary())

    def _broken_summary(self) -> str:
        return "; ".join(f"{name} ({exc!r})" for name, exc in self.broken_modules.items())

    # processes and connections: the fix-up's signal handlers do the work around tasks

    def close_database(self, **kwargs: Any) -> None:
        """Close the connections whose time has come by ``CONN_MAX_AGE``."""
        db.close_old_connections()

    def _close_database(self) -> None:
        db.connections.close_all()

    def on_task_init(self, task_id: str, task: Any) -> None:
        """Call ``close_database()`` if a subclass has its own; for ours the fix-up has done so."""
        if not task.request.is_eager:
            self._close_as_subclass()

    def on_process_cleanup(self) -> None:
        """Call ``close_database()`` if a subclass has its own, as before the task."""
        self._close_as_subclass()

    def _close_as_subclass(self) -> None:
        if type(self).close_database is not DjangoLoader.close_database:
            self.close_database()

    def close_cache(self) -> None:
        """Close the connections of every cache."""
        from django.core.cache import close_caches

        close_caches()

    def warn_if_debug(self, **kwargs: Any) -> None:
        """Emit a ``UserWarning`` if ``DEBUG`` is on."""
        if settings.DEBUG:
            warnings.warn(DEBUG_WARNING, UserWarning, stacklevel=2)

    def mail_admins(self, subject: str, body: str, fail_silently: bool = False, **kwargs: Any) -> None:
        """Send a mail to ``ADMINS`` by Django's function of the same name.

        Raises:
            OSError: The mail could not be sent; not if *fail_silently*.
        """
        from django.core.mail import mail_admins

        try:
            # Its own argument for this is deprecated in Django 6.1.
            mail_admins(subject, body)
        except OSError:  # SMTP's errors, too
            if not fail_silently:
                raise


def install_fixup(app: Any) -> None:
    """Install Celery's Django fix-up on *app*, unless it is there.

    It sets Django up before task modules are imported and gives tasks ``delay_on_commit``; kept in
    ``app._fixups``, where ``app.autodiscover_tasks()`` looks for the packages to search.
    """
    if any(isinstance(fixup, DjangoFixup) for fixup in app._fixups):
        return
    app._fixups.append(DjangoFixup(app).install())
    fallback = _state.default_app
    if fallback is not None and fallback.main == "default" and fallback is not app:
        # Any look at celery.current_app makes the fallback app; threads must get the project's own.
        app.set_default()
    made = app.__dict__.get("Task")
    if made is None or app.task_cls != "celery.contrib.django.task:DjangoTask":
        return
    # Tasks that were finalised before anything read the loader derive from a class made too early.
    from celery.contrib.django.task import DjangoTask

    made.__bases__ = (DjangoTask,)


def autodiscover() -> list[ModuleType] | None:
    """Return the ``tasks`` modules of the installed apps, in order; None when called from inside itself.

    Raises:
        Exception: Whatever the import of a ``tasks`` module raises.
    """
    from django.apps import apps

    global _discovering
    if _discovering:
        return None
    _discovering = True
    try:
        found = [find_related_module(config.name, "tasks") for config in apps.get_app_configs()]
        return [module for module in found if module is not None]
    finally:
        _discovering = False


def find_related_module(app: str, related_name: str) -> ModuleType | None:
    """Return the submodule *related_name* of package *app*, or None if there is none.

    A package that can't be imported is a ``UserWarning`` and None.

    Raises:
        Exception: Whatever the import of an existing submodule raises.
    """
    try:
        package = importlib.import_module(app)
    except ImportError as exc:
        warnings.warn(f"Autodiscover: Error importing {app}.{related_name}: {exc!r}", UserWarning, stacklevel=2)
        return None
    if not related_name:
        return package
    if not hasattr(package, "__path__") or importlib.util.find_spec(f"{app}.{related_name}") is None:
        return None
    return importlib.import_module(f"{app}.{related_name}")
