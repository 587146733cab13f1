"""Everything Celery needs inside Django: results, schedule, monitor and commands in one app.

Importing this package imports neither Django nor Celery, so a settings module may call
``setup_loader()`` while Django is still reading it.
"""

import os

from djcelery.deprecation import Old, old_names

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


def _current_app():
    from celery import current_app

    return current_app


_METADATA = "importlib.metadata.metadata('djcelery') has what the package says of itself."

__getattr__ = old_names(
    __name__,
    given={
        "is_stable_release": Old("djcelery.VERSION", lambda: lambda: __version__.replace(".", "").isdigit()),
        "version_with_meta": Old("djcelery.__version__", lambda: lambda: __version__),
    },
    gone={"__contact__": _METADATA, "__homepage__": _METADATA},
    made={"celery": _current_app},
)
