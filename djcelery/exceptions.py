"""Every error that djcelery raises.

::

    DjCeleryError
    ├── SettingError       (+ ImproperlyConfigured)  a setting can't be used; a person must edit settings
    ├── SchemaUnknown      (+ CommandError)          the database holds a table that no release made
    ├── CameraError        (+ CommandError)          celerycam can't begin, or can't go on
    ├── ResultError
    │   ├── ResultNotStored    (+ ConnectionError)   the cache has not kept the value; trying again may help
    │   ├── ResultTooLarge     (+ EncodeError)       the value is longer than may be stored; the task fails
    │   ├── ResultUndecodable  (+ ValueError)        the stored value can't be read back
    │   └── PickleRefused                            the pickle names something that may not be loaded
    ├── ScheduleError      (+ ValueError)
    │   ├── ScheduleMissing                          no schedule is set on the row
    │   └── ArgumentsInvalid                         args or kwargs are not the JSON they must be
    ├── WebhookError
    │   ├── WebhookRefused       (+ ValueError)        this URL may not be called; nothing was sent to it
    │   ├── WebhookUnreachable   (+ ConnectionError)   no answer, or a server's error; the task is tried again
    │   ├── InvalidResponseError (+ ValueError)        the answer is not what a receiver sends
    │   │   └── UnknownStatusError                     its status is neither "success" nor "failure"
    │   └── RemoteExecuteError                         the receiver says that it failed, and why
    └── LeaseLost                                    another beat leads; nothing more may be written

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


class CameraError(DjCeleryError, CommandError):
    """``celerycam`` can't begin or go on; ``returncode`` is its exit status."""

    def __init__(self, text: str, returncode: int = 1):
        CommandError.__init__(self, text, returncode=returncode)


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


class WebhookError(DjCeleryError):
    """A URL was not called, or it didn't answer as a receiver of webhooks does."""


class WebhookRefused(WebhookError, ValueError):
    """A URL may not be called by the rules of ``djcelery.webhooks``; nothing was sent to it."""


class WebhookUnreachable(WebhookError, ConnectionError):
    """A URL gave no answer in time, or said that its server can't work now; trying again may help."""


class InvalidResponseError(WebhookError, ValueError):
    """The answer of a URL is not what a receiver sends: a redirect, an error page, no JSON, or too much."""


class UnknownStatusError(InvalidResponseError):
    """The answer of a receiver has a status that is neither "success" nor "failure"."""


class RemoteExecuteError(WebhookError):
    """The receiver has run, and says that it failed; the message is the reason that it gave."""


class LeaseLost(DjCeleryError):
    """Another beat has the lease, or had it meanwhile: the transaction must not be committed."""
