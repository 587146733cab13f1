"""Everything Celery needs inside Django: results, schedule, monitor and commands in one app.

Importing this package imports neither Django nor Celery, so a settings module may call
``setup_loader()`` while Django is still reading it.
"""

import os

__version__ = "4.0.0"
VERSION = (4, 0, 0)
__author__ = "The djcelery developers"
__license__ = "BSD (3 clause)"
__docformat__ = "restructuredtext"

__all__ = ("VERSION", "celery", "setup_loader")

LOADER = "djcelery.loaders.DjangoLoader"


def setup_loader():
    """Make Celery read its configuration from Django's settings, the way django-celery did.

    Call it in ``settings.py`` or a WSGI/ASGI module. Sets the environment variable
    ``CELERY_LOADER``, so child processes inherit it; a value that is already there stays.
    Calling it again changes nothing.
    """
    os.environ.setdefault("CELERY_LOADER", LOADER)


def __getattr__(name):
    if name == "celery":
        from celery import current_app

        return current_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
