"""Which Celery app does this project use, and does it read these settings? Ids ``djcelery.W114`` to ``W118``.

Called by ``manage.py check`` and before a program starts. Reads Django's settings and the apps that are there.
Next: ``docs/explain/starting-celery.rst``.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import Any

from celery import _state
from django.conf import settings
from django.core.checks import CheckMessage, Info, Warning

from djcelery import conf as configuration
from djcelery.app import known_app
from djcelery.checks.common import Check, given, prefixed_names, reads_settings, starting_now, uses_loader


def no_namespace(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W114: the app reads Django's settings without a namespace, so names with the prefix are not read."""
    app = known_app()
    if app is None or app.namespace or uses_loader() or not reads_settings():
        return []
    unread = [name for name in prefixed_names() if configuration.is_set(name)]
    if not unread:
        return []
    return [
        Warning(
            f"The Celery app {_name(app)} does not read {', '.join(unread)}.",
            hint="Write app.config_from_object('django.conf:settings', namespace='CELERY').",
            id="djcelery.W114",
        )
    ]


def two_apps(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W115: the main thread and the other threads have different Celery apps."""
    current, fallback = _state._tls.current_app, _state.default_app
    if current is None or fallback is None or current is fallback:
        return []
    return [
        Warning(
            f"There are two Celery apps: {_name(current)} is the current one here, {_name(fallback)} in other threads. "
            "Which of them sends a shared task depends on the thread.",
            hint=(
                "Make one app, and import its module in the __init__.py of the project, before anything uses Celery. "
                "Make further apps with Celery(..., set_as_current=False)."
            ),
            id="djcelery.W115",
        )
    ]


def app_not_imported(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """I116: the project has a celery.py that nothing has imported, so its app is not the current one."""
    app = known_app()
    # Celery's own default app, which comes to be as soon as anything asks for the current one.
    made = app is not None and (app._config_source is not None or app.main != "default")
    if made or uses_loader():
        return []
    for package in _packages(os.environ.get("DJANGO_SETTINGS_MODULE", "")):
        module = f"{package}.celery"
        if module in sys.modules:
            return []
        if find_spec(module) is not None:
            message = (
                f"{module} is not imported when Django starts: until it is, tasks are sent by Celery's default app, "
                "which has none of these settings."
            )
            hint = f"Write in {package}/__init__.py: from {module} import app as celery_app."
            return [Info(message, hint=hint, id="djcelery.I116")]
    return []


def _packages(settings_module: str) -> list[str]:
    """Return the imported packages around *settings_module*, the innermost first."""
    parts = settings_module.split(".")[:-1]
    names = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return [name for name in names if hasattr(sys.modules.get(name), "__path__")]


def debug_is_on(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W117: a program that is to run for long starts with DEBUG."""
    start = starting_now()
    # Under the loader a worker says so itself when it is ready, as django-celery did.
    if start is None or not settings.DEBUG or (start.program.startswith("celeryd") and uses_loader()):
        return []
    return [
        Warning(
            f"{start.program} starts with DEBUG on. Django then keeps the last 9,000 SQL statements of every process "
            "in memory.",
            hint="Write DEBUG = False wherever this program is to stay.",
            id="djcelery.W117",
        )
    ]


def always_eager(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W118: tasks run where they are called, and never reach the worker that starts here."""
    eager = given("task_always_eager")
    if eager is None or eager.value is not True:
        return []
    return [
        Warning(
            f"{eager.name} is True: tasks run in the process that calls them, and no worker gets any.",
            hint="Remove it; it is for tests.",
            id="djcelery.W118",
        )
    ]


def eager_program(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W118, too, when a worker or beat starts."""
    start = starting_now()
    return always_eager() if start and start.program in ("celeryd", "celerybeat") else []


def _name(app: Any) -> str:
    return repr(app.main or "__main__")


ALL: tuple[Check, ...] = (no_namespace, two_apps, app_not_imported)
#: Run by ``manage.py check --deploy`` only.
DEPLOY: tuple[Check, ...] = (always_eager,)
#: Run when a program starts.
START: tuple[Check, ...] = (debug_is_on, eager_program)
