"""The handle of the project's Celery app.

Called by commands and admin, which need an app without being handed one. Engines get theirs from
Celery and never come here.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

from celery import _state, current_app
from celery.app.utils import find_app

from djcelery import setup_loader

__all__ = ("app", "known_app", "loader_was_chosen_here", "project_app")  # noqa: F822 - "app" is made by __getattr__

#: Set beside the loader when the project chose none; child processes inherit both.
_CHOSEN = "DJCELERY_CHOSE_LOADER"


def project_app() -> Any:
    """Return the Celery app that this Django project uses.

    That is the current app if the project has made or configured one, else the one in the package
    of its settings module (``proj/celery.py`` beside ``proj/settings.py``), else Celery's default app
    under djcelery's loader, as if ``setup_loader()`` had been called.
    """
    if known_app() is None and "CELERY_LOADER" not in os.environ:
        package = os.environ.get("DJANGO_SETTINGS_MODULE", "").rpartition(".")[0]
        if package and find_spec(f"{package}.celery") is not None:
            return find_app(package)
        setup_loader()
        os.environ[_CHOSEN] = "1"
    return current_app._get_current_object()


def loader_was_chosen_here() -> bool:
    """Tell whether ``project_app`` chose djcelery's loader because the project chose none."""
    return _CHOSEN in os.environ


def known_app() -> Any | None:
    """Return the current app, or None if nobody has made one; unlike ``celery.current_app`` it makes none."""
    return _state._tls.current_app or _state.default_app


def __getattr__(name: str) -> Any:
    if name == "app":
        return project_app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
