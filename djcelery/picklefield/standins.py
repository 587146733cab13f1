"""What an old pickle may name, and what is used in its place.

Called by ``unpickler`` for each name in a pickle. Classes of values are taken as they are; functions
are never taken from the pickle: the ones here take their place and check their arguments.
Next: ``docs/explain/trust.rst``.
"""

from __future__ import annotations

import builtins
import collections
import datetime
import decimal
import fractions
import importlib
import types
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any

from djcelery.conf import conf
from djcelery.exceptions import PickleRefused
from djcelery.picklefield import results
from djcelery.picklefield.refused import Refused, refused

#: The longest range; a list of its items may be next.
MAX_RANGE = 1_000_000

# Where Python 2, and older releases of Celery, had a module that has another name now.
_MODULES = {
    "__builtin__": "builtins",
    "exceptions": "builtins",
    "copy_reg": "copyreg",
    "UserDict": "collections",
    "celery.result.base": "celery.result",
    "celery.task.sets": "celery.result",
}


def find(module: str, name: str) -> Any:
    """Return what a pickle gets for the name *name* of *module*: the thing, its stand-in, or a ``Refused`` class."""
    module = _MODULES.get(module, module)
    found = _stand_ins().get((module, name))
    if found is not None:
        return found
    allowed = conf.DJCELERY_UNPICKLE_ALLOW
    if module in allowed or f"{module}.{name}" in allowed:
        return _project_class(module, name)
    return refused(f"{module}.{name}")


def _project_class(module: str, name: str) -> Any:
    """Return the class that the project allowed; a function, or a class imported from elsewhere, is refused."""
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return refused(f"{module}.{name}")
    if not isinstance(found, type) or found.__module__ != module:
        return refused(f"{module}.{name}")
    return found


def _bytes_of(value: Any) -> Any:
    """Return the bytes that Python 2 wrote, before this unpickler took them for text."""
    return value.encode() if isinstance(value, str) else value


def _moment(cls: type) -> Callable[..., Any]:
    def make(*args: Any) -> Any:
        return cls(_bytes_of(args[0]), *args[1:]) if args and isinstance(args[0], (str, bytes)) else cls(*args)

    return make


def _collection(cls: type) -> Callable[..., Any]:
    """Return *cls* for finished collections only: ``set(range(10**12))`` would fill the memory."""

    def make(*args: Any) -> Any:
        if any(not isinstance(arg, (list, tuple, dict, set, frozenset, int, type(None))) for arg in args):
            raise PickleRefused(f"A pickled {cls.__name__} is made from something that is no collection.")
        return cls(*args)

    return make


def _bytes_like(cls: type) -> Callable[..., Any]:
    def make(*args: Any) -> Any:
        if args and not isinstance(args[0], (str, bytes, list, tuple)):
            raise PickleRefused(f"A pickled {cls.__name__} is made from neither text nor bytes.")
        if len(args) == 1:
            return cls(_bytes_of(args[0]))
        # Other codecs can take hours.
        if args and args[1:] not in (("latin-1",), ("latin1",)):
            raise PickleRefused(f"A pickled {cls.__name__} is made by the codec {args[1]!r}.")
        return cls(*args)

    return make


def _range(*args: Any) -> range:
    made = range(*args)
    if len(made) > MAX_RANGE:
        raise PickleRefused(f"A pickled range has more than {MAX_RANGE} items.")
    return made


def _integer(*args: Any) -> int:
    # int(Decimal("1e999999999")) would compute for hours.
    if any(not isinstance(arg, (str, int)) for arg in args):
        raise PickleRefused("A pickled int is made from something that is no number.")
    return int(*args)


def _fraction(*args: Any) -> fractions.Fraction:
    if not all(isinstance(arg, int) or (isinstance(arg, str) and set(arg) <= set("-0123456789/")) for arg in args):
        raise PickleRefused("A pickled Fraction is made from something that is no fraction.")
    return fractions.Fraction(*args)


def _codecs_encode(text: Any, encoding: Any = "latin1", *errors: Any) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise PickleRefused("A pickle calls _codecs.encode for something other than bytes.")
    return text.encode("latin1")


def _reconstruct(cls: Any, base: Any = object, state: Any = None) -> Any:
    """Stand in for ``copy_reg._reconstructor``, for classes that this unpickler gave out."""
    if not isinstance(cls, type) or base not in (object, dict, list, tuple, str, int, float, set):
        raise PickleRefused("A pickle calls copy_reg._reconstructor for something that is no class.")
    if base is object or not issubclass(cls, base):
        return new_object(cls)
    made = new_object(cls, state)
    if base in (dict, list, set):
        base.__init__(made, state)
    return made


def new_object(cls: Any, *args: Any, **kwargs: Any) -> Any:
    """Return an instance of *cls* that ``__init__`` has not seen; its state comes next in the pickle."""
    if not isinstance(cls, type) or issubclass(cls, BaseException):
        # Exceptions are pickled as calls; without one they lack what their text is made from.
        raise PickleRefused("A pickle makes a bare instance of something that is no plain class.")
    if cls is uuid.UUID:
        return uuid.UUID(int=0)
    return cls.__new__(cls, *args, **kwargs)


def may_have_state(instance: Any) -> bool:
    """Tell whether a pickle may set attributes of *instance*: not of classes, functions and results."""
    from celery.result import ResultBase

    if isinstance(instance, uuid.UUID):
        return True
    return hasattr(instance, "__dict__") and not isinstance(instance, (type, ResultBase)) and not callable(instance)


def unwrap(value: Any) -> Any:
    """Return the value of a whole pickle: what a wrapper holds; a ``Refused`` for a mere name."""
    if isinstance(value, _ObjectWrapper):
        value = value.obj
    if isinstance(value, type) and issubclass(value, Refused):
        return value()
    if isinstance(value, types.FunctionType):
        return refused(next((".".join(key) for key, made in _stand_ins().items() if made is value), "a function"))()
    return value


def _django_model(model: Any, *args: Any) -> Any:
    """Stand in for Django's ``model_unpickle``; the class must have come through ``find_class``."""
    if isinstance(model, (tuple, list)) and len(model) == 2:
        from django.apps import apps

        try:
            cls = apps.get_model(*model)
        except (LookupError, ValueError, TypeError):
            return refused(".".join(map(str, model)))()
        allowed = conf.DJCELERY_UNPICKLE_ALLOW
        if cls.__module__ not in allowed and f"{cls.__module__}.{cls.__name__}" not in allowed:
            return refused(f"{cls.__module__}.{cls.__name__}")()
        return cls.__new__(cls)
    return new_object(model)


class _ObjectWrapper:
    """django-picklefield's wrapper of model instances and callables."""

    obj: Any = None

    def __setstate__(self, state: Any) -> None:
        slots = state[1] if isinstance(state, tuple) and len(state) == 2 else state
        self.obj = slots.get("_obj") if isinstance(slots, dict) else slots


def _zone(name: Any, *args: Any) -> datetime.tzinfo:
    """Stand in for pytz's ``_p``: the zone of that name, whatever offset was in force."""
    if not isinstance(name, str):
        raise PickleRefused("A pickled time zone has a name that is no text.")
    return zoneinfo.ZoneInfo(name)


def _getattr(owner: Any, name: Any) -> Callable[..., Any]:
    """Stand in for ``getattr``, by which protocol 2 names the method that makes a ``ZoneInfo``."""
    if owner is not zoneinfo.ZoneInfo or name != "_unpickle":
        raise PickleRefused("A pickle calls getattr.")
    return _zone


def _utc(*args: Any) -> datetime.tzinfo:
    return datetime.timezone.utc


def _fixed_offset(minutes: Any = 0, *args: Any) -> datetime.tzinfo:
    return datetime.timezone(datetime.timedelta(minutes=minutes or 0))


def _default_zone(*args: Any) -> datetime.tzinfo:
    from django.utils import timezone

    return timezone.get_default_timezone()


def _exceptions_of(module: str, prefix: str | None = None) -> dict[tuple[str, str], Any]:
    """Return the exception classes that *module* defines today, by (module, name)."""
    members = vars(importlib.import_module(module)).items()
    return {
        (prefix or module, name): value
        for name, value in members
        if isinstance(value, type) and issubclass(value, BaseException)
    }


_found: dict[tuple[str, str], Any] = {}


def _stand_ins() -> dict[tuple[str, str], Any]:
    """Return what a pickle may name, and what is used in its place; made on the first pickle."""
    if not _found:
        _found.update(_value_types())
        _found.update(_exception_types())
        _found.update(_celery_and_django_types())
    return _found


def _value_types() -> dict[tuple[str, str], Any]:
    plain = ("bool", "float", "complex", "str", "list", "dict", "tuple", "object")
    result = {("builtins", name): getattr(builtins, name) for name in plain}
    result |= {
        ("builtins", "int"): _integer,
        ("builtins", "long"): _integer,
        ("builtins", "unicode"): str,
        ("builtins", "range"): _range,
        ("builtins", "xrange"): _range,
        ("builtins", "set"): _collection(set),
        ("builtins", "frozenset"): _collection(frozenset),
        ("builtins", "bytearray"): _bytes_like(bytearray),
        ("builtins", "bytes"): _bytes_like(bytes),
        ("_codecs", "encode"): _codecs_encode,
        ("copyreg", "_reconstructor"): _reconstruct,
        ("copyreg", "__newobj__"): new_object,
        ("datetime", "datetime"): _moment(datetime.datetime),
        ("datetime", "date"): _moment(datetime.date),
        ("datetime", "time"): _moment(datetime.time),
        ("datetime", "timedelta"): datetime.timedelta,
        ("datetime", "timezone"): datetime.timezone,
        ("decimal", "Decimal"): decimal.Decimal,
        ("fractions", "Fraction"): _fraction,
        ("uuid", "UUID"): uuid.UUID,
        ("uuid", "SafeUUID"): uuid.SafeUUID,
        ("zoneinfo", "ZoneInfo"): zoneinfo.ZoneInfo,
        ("zoneinfo", "ZoneInfo._unpickle"): _zone,
        ("builtins", "getattr"): _getattr,
        ("pytz", "_UTC"): _utc,
        ("pytz", "_p"): _zone,
        ("pytz", "_FixedOffset"): _fixed_offset,
        ("psycopg2.tz", "FixedOffsetTimezone"): _fixed_offset,
        ("dateutil.tz.tz", "tzutc"): _utc,
        ("dateutil.tz", "tzutc"): _utc,
    }
    for name in ("OrderedDict", "deque", "Counter"):
        result["collections", name] = _collection(getattr(collections, name))
    result["collections", "UserDict"] = _collection(dict)
    result["collections", "defaultdict"] = _default_dict
    return result


def _default_dict(factory: Any = None, *args: Any) -> Any:
    kinds = {_integer: int, float: float, str: str, list: list, dict: dict, tuple: tuple, bool: bool}
    return collections.defaultdict(kinds.get(factory), *args)


def _exception_types() -> dict[tuple[str, str], Any]:
    result: dict[tuple[str, str], Any] = {}
    for module in (
        "builtins",
        "celery.exceptions",
        "billiard.exceptions",
        "kombu.exceptions",
        "django.core.exceptions",
        "django.db.utils",
    ):
        result |= _exceptions_of(module)
    result["builtins", "StandardError"] = Exception
    result["celery.exceptions", "RetryTaskError"] = result["celery.exceptions", "Retry"]
    result["django.http", "Http404"] = result["django.http.response", "Http404"] = importlib.import_module(
        "django.http"
    ).Http404
    result["decimal", "InvalidOperation"] = decimal.InvalidOperation
    for name in ("error", "timeout", "gaierror", "herror"):
        result["socket", name] = getattr(importlib.import_module("socket"), name)
    return result


def _celery_and_django_types() -> dict[tuple[str, str], Any]:
    from celery.utils.serialization import UnpickleableExceptionWrapper
    from django.db.models.base import ModelState

    wrapped = UnpickleableExceptionWrapper
    result: dict[tuple[str, str], Any] = {
        **results.NAMES,
        ("celery.utils.serialization", "UnpickleableExceptionWrapper"): wrapped,
        ("celery.serialization", "UnpickleableExceptionWrapper"): wrapped,
        ("celery.datastructures", "AttributeDict"): dict,
        ("picklefield.fields", "_ObjectWrapper"): _ObjectWrapper,
        ("django.db.models.base", "model_unpickle"): _django_model,
        ("django.db.models.base", "simple_class_factory"): results.no_backend,
        ("django.db.models.base", "ModelState"): ModelState,
        ("django.utils.timezone", "UTC"): _utc,
        ("django.utils.timezone", "LocalTimezone"): _default_zone,
        ("django.utils.timezone", "FixedOffset"): _fixed_offset,
    }
    for name in ("SafeText", "SafeUnicode", "SafeString", "SafeBytes", "EscapeUnicode", "EscapeString"):
        result["django.utils.safestring", name] = str
    return result
