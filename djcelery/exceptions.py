"""Every error that djcelery raises.

::

    DjCeleryError
    ├── SettingError       (+ ImproperlyConfigured)  a setting can't be used; a person must edit settings
    ├── SchemaUnknown      (+ CommandError)          the database holds a table that no release made
    ├── ResultError
    │   ├── ResultNotStored    (+ ConnectionError)   the cache has not kept the value; trying again may help
    │   ├── ResultTooLarge     (+ EncodeError)       the value is longer than may be stored; the task fails
    │   ├── ResultUndecodable  (+ ValueError)        the stored value can't be read back
    │   └── PickleRefused                            the pickle names something that may not be loaded
    └── ScheduleError      (+ ValueError)
        ├── ScheduleMissing                          no schedule is set on the row
        └── ArgumentsInvalid                         args or kwargs are not the JSON they must be

The second parent gives an error its right consequence: Django prints ``ImproperlyConfigured``
and ``CommandError`` without a traceback, a form shows a ``ValueError``, Celery stores an
``EncodeError`` as the failure of the task.
"""

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError
from kombu.exceptions import EncodeError


class DjCeleryError(Exception):
    """The root of djcelery's errors; never raised itself."""


class SettingError(DjCeleryError, ImproperlyConfigured):
    """A Django setting has a value that djcelery can't use."""


class SchemaUnknown(DjCeleryError, CommandError):
    """A legacy table has a shape that no release of django-celery made; nothing was changed."""


class ResultError(DjCeleryError):
    """A result can't be stored or given back."""


class ResultNotStored(ResultError, ConnectionError):
    """A cache has kept neither the value nor a short text; its server or table may be away."""


class ResultTooLarge(ResultError, EncodeError):
    """A result is longer than ``DJCELERY_RESULT_MAX_BYTES``, or than the database takes."""


class ResultUndecodable(ResultError, ValueError):
    """A stored value is neither a readable pickle nor what its content type says."""


class PickleRefused(ResultError):
    """A pickle names a class or function that is not on the list of what may be loaded."""


class ScheduleError(DjCeleryError, ValueError):
    """A row of the schedule can't be run as it stands."""


class ScheduleMissing(ScheduleError):
    """A periodic task has no schedule."""


class ArgumentsInvalid(ScheduleError):
    """The ``args`` or ``kwargs`` of a periodic task are not a JSON array and object."""
