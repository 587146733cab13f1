"""Names that code written for django-celery imports; nothing inside djcelery does."""

import os

from kombu.utils.encoding import bytes_to_str, str_to_bytes

__all__ = (
    "PY2",
    "PY3",
    "bytes_to_str",
    "itervalues",
    "python_2_unicode_compatible",
    "setenv",
    "str_to_bytes",
    "unicode",
)

PY2 = False
PY3 = True
unicode = str


def itervalues(d):
    """Return an iterator over the values of *d*."""
    return iter(d.values())


def setenv(k, v):
    """Set the environment variable *k* to *v*; both may be bytes."""
    os.environ[bytes_to_str(k)] = bytes_to_str(v)


def python_2_unicode_compatible(cls):
    """Return *cls* with ``__unicode__`` as another name of its ``__str__``.

    Raises:
        ValueError: *cls* defines no ``__str__``.
    """
    if "__str__" not in cls.__dict__:
        raise ValueError(f"@python_2_unicode_compatible needs __str__() on {cls.__name__}.")
    cls.__unicode__ = cls.__str__
    return cls
