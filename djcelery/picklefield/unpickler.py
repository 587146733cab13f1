"""Read pickles that name only what is on a list; see Trust in ``docs/explain/trust.rst``.

The list holds value types, exceptions, and Celery's result classes under the names that Celery 2 and
3 gave them. Functions are never taken from the pickle: the ones in ``_stand_ins`` take their place
and check their arguments. Python 2 wrote byte strings where a person meant text; they come back
as text if they are UTF-8, else as bytes.
"""

from __future__ import annotations

import builtins
import collections
import datetime
import decimal
import fractions
import importlib
import io
import pickle
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any

from djcelery.conf import conf
from djcelery.exceptions import PickleRefused, ResultUndecodable

#: Nesting deeper than this is refused; it would exhaust the stack of whoever walks the value.
MAX_DEPTH = 200
#: The longest range; a list of its items may be next.
MAX_RANGE = 1_000_000
#: How often containers may be referred to again; each time, what is in them is printed again.
MAX_REPEATS = 10_000


class Unreadable:
    """A stored value that can't be given back; its text says why. False in a condition."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __bool__(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and str(other) == str(self)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return f"<unreadable: {self.reason}>"

    __str__ = __repr__

    def __json__(self) -> str:
        return repr(self)


class _RefusedName(type):
    """The class of ``Refused`` classes: a pickle may hold the mere name of what is refused."""

    def __repr__(cls) -> str:
        return f"<unreadable: the name {cls.name}>" if cls.name else super().__repr__()


class Refused(Unreadable, metaclass=_RefusedName):
    """What stands for an object that a pickle may not load.

    ``name`` is its dotted name; ``args`` and ``state`` are what it would have been made from.
    """

    name = ""
    args: tuple[Any, ...] = ()
    state: Any = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Refused:
        self = object.__new__(cls)
        self.args = args
        return self

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(
            f"{self.name} is not on the list of what may be loaded; if you trust it, add its module or class "
            "to the setting DJCELERY_UNPICKLE_ALLOW"
        )

    def __getattr__(self, name: str) -> Any:
        # Objects made by __new__ alone never see __init__.
        if name == "reason":
            type(self).__init__(self)
            return self.__dict__["reason"]
        raise AttributeError(name)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, item: Any) -> None:
        """Drop an item of a list subclass."""

    extend = add = update = append

    def __setitem__(self, key: Any, value: Any) -> None:
        pass


def _refused(name: str) -> type[Refused]:
    return type("Refused", (Refused,), {"name": name})


def loads(data: bytes) -> Any:
    """Return the value of the pickle *data*, by the rules above; ``Unreadable`` if it is hostile.

    Raises:
        ResultUndecodable: *data* is no pickle, or a broken one.
    """
    try:
        value = _Unpickler(io.BytesIO(data)).load()
        value = value.obj if isinstance(value, _ObjectWrapper) else value
        if isinstance(value, type) and issubclass(value, Refused):
            value = value()
        _check_shape(value)
    except PickleRefused as exc:
        return Unreadable(str(exc).rstrip("."))
    except Exception as exc:  # a broken or hostile pickle can make the unpickler raise anything
        raise ResultUndecodable(f"the pickle is broken ({type(exc).__name__}: {exc})") from exc
    return value


# The unpickler written in Python: in the one written in C nobody can refuse to BUILD on a class, by
# which a pickle would set attributes of classes that this process uses.
class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined,misc]
    dispatch = dict(pickle._Unpickler.dispatch)  # type: ignore[attr-defined]

    def find_class(self, module: str, name: str) -> Any:
        module = _MODULES.get(module, module)
        found = _stand_ins().get((module, name))
        if found is not None:
            return found
        allowed = conf.DJCELERY_UNPICKLE_ALLOW
        if module in allowed or f"{module}.{name}" in allowed:
            return _project_class(module, name)
        return _refused(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise PickleRefused("The pickle refers to an object outside itself.")

    def load_build(self) -> None:
        instance = self.stack[-2]
        if isinstance(instance, type) or not hasattr(instance, "__dict__") or callable(instance):
            raise PickleRefused("The pickle sets attributes of something that is no plain instance.")
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build

    def _decode_string(self, value: bytes) -> str | bytes:
        """Return a byte string of Python 2 as the text it was meant to be, if it is one."""
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value


def _check_shape(value: Any) -> None:
    """Refuse what would exhaust whoever prints it: deep nesting, or a container that holds itself many times over."""
    seen: set[int] = set()
    repeats = 0
    stack = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        if isinstance(item, (BaseException, Refused)):
            item = item.args
        if not isinstance(item, (list, tuple, set, frozenset, dict)):
            continue
        repeats += id(item) in seen
        seen.add(id(item))
        if depth > MAX_DEPTH or repeats > MAX_REPEATS:
            raise PickleRefused("The value is nested too deep, or refers to its own parts too often.")
        children = [*item.keys(), *item.values()] if isinstance(item, dict) else item
        stack.extend((child, depth + 1) for child in children)


# Where Python 2, and older releases of Celery, had a module that has another name now.
_MODULES = {
    "__builtin__": "builtins",
    "exceptions": "builtins",
    "copy_reg": "copyreg",
    "UserDict": "collections",
    "celery.result.base": "celery.result",
    "celery.task.sets": "celery.result",
}


def _project_class(module: str, name: str) -> Any:
    """Return the class that the project allowed; a function, or a class imported from elsewhere, is refused."""
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return _refused(f"{module}.{name}")
    if not isinstance(found, type) or found.__module__ != module:
        return _refused(f"{module}.{name}")
    return found


# -- stand-ins -----------------------------------------------------------------------------------


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
    if base is object or issubclass(cls, Refused):
        return cls.__new__(cls)
    return base.__new__(cls, state) if issubclass(cls, base) else cls.__new__(cls)


def _new_object(cls: Any, *args: Any) -> Any:
    if not isinstance(cls, type):
        raise PickleRefused("A pickle makes an instance of something that is no class.")
    return cls.__new__(cls, *args)


def _django_model(model: Any, *args: Any) -> Any:
    """Stand in for Django's ``model_unpickle``; the class must have come through ``find_class``."""
    if isinstance(model, (tuple, list)) and len(model) == 2:
        from django.apps import apps

        try:
            cls = apps.get_model(*model)
        except (LookupError, ValueError, TypeError):
            return _refused(".".join(map(str, model)))()
        allowed = conf.DJCELERY_UNPICKLE_ALLOW
        if cls.__module__ not in allowed and f"{cls.__module__}.{cls.__name__}" not in allowed:
            return _refused(f"{cls.__module__}.{cls.__name__}")()
        return cls.__new__(cls)
    return _new_object(model)


class _ObjectWrapper:
    """django-picklefield's wrapper of model instances and callables."""

    obj: Any = None

    def __setstate__(self, state: Any) -> None:
        slots = state[1] if isinstance(state, tuple) and len(state) == 2 else state
        self.obj = slots.get("_obj") if isinstance(slots, dict) else slots


def _zone(name: Any, *args: Any) -> datetime.tzinfo:
    """Stand in for pytz's ``_p``: the zone of that name, whatever offset was in force."""
    return zoneinfo.ZoneInfo(str(name))


def _utc(*args: Any) -> datetime.tzinfo:
    return datetime.timezone.utc


def _fixed_offset(minutes: Any = 0, *args: Any) -> datetime.tzinfo:
    return datetime.timezone(datetime.timedelta(minutes=minutes or 0))


def _default_zone(*args: Any) -> datetime.tzinfo:
    from django.utils import timezone

    return timezone.get_default_timezone()


def _backend(*args: Any) -> None:
    """Stand in for ``unpickle_backend``: a result uses the backend of the app that reads it."""


def _async_result(task_id: Any, *args: Any) -> Any:
    """Return the result of *task_id*; Celery 2 gives (id, task name), Celery 3 (id, backend, name, app, parent)."""
    from celery.result import AsyncResult, ResultBase

    if not isinstance(task_id, str):
        raise PickleRefused("A pickled result has an id that is no text.")
    parent = next((arg for arg in args if isinstance(arg, ResultBase)), None)
    return AsyncResult(task_id, parent=parent)


def _group_result(group_id: Any = None, results: Any = (), *args: Any) -> Any:
    from celery.result import GroupResult, ResultBase

    if not isinstance(results, (list, tuple)) or not all(isinstance(item, ResultBase) for item in results):
        raise PickleRefused("A pickled group result holds something that is no result.")
    return GroupResult(group_id, list(results))


def _result_set(results: Any = (), *args: Any) -> Any:
    from celery.result import ResultSet

    return ResultSet(_group_result(None, results).results)


def _eager_result(task_id: Any, value: Any = None, state: Any = None, traceback: Any = None, *args: Any) -> Any:
    from celery.result import EagerResult

    return EagerResult(task_id, value, state, traceback=traceback)


def _app_attribute(name: Any, args: Any) -> Any:
    """Stand in for ``celery.app.base._unpickle_appattr``, for the result classes alone."""
    makers = {
        "AsyncResult": _async_result,
        "GroupResult": _group_result,
        "TaskSetResult": _group_result,
        "ResultSet": _result_set,
        "EagerResult": _eager_result,
    }
    if name not in makers or not isinstance(args, (list, tuple)):
        raise PickleRefused(f"A pickle asks for the attribute {name!r} of the Celery app.")
    return makers[name](*args)


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
    plain = ("bool", "float", "complex", "str", "list", "dict", "tuple", "object", "slice")
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
        ("copyreg", "__newobj__"): _new_object,
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
        ("celery.app.base", "_unpickle_appattr"): _app_attribute,
        ("celery.app.utils", "_unpickle_appattr"): _app_attribute,
        ("celery.backends.base", "unpickle_backend"): _backend,
        ("djcelery.backends.database", "DatabaseBackend"): _backend,
        ("djcelery.backends.cache", "CacheBackend"): _backend,
        ("celery.result", "_unpickle_result"): _async_result,
        ("celery.result", "AsyncResult"): _async_result,
        ("celery.result", "EagerResult"): _eager_result,
        ("celery.result", "GroupResult"): _group_result,
        ("celery.result", "TaskSetResult"): _group_result,
        ("celery.result", "ResultSet"): _result_set,
        ("celery.utils.serialization", "UnpickleableExceptionWrapper"): wrapped,
        ("celery.serialization", "UnpickleableExceptionWrapper"): wrapped,
        ("celery.datastructures", "AttributeDict"): dict,
        ("picklefield.fields", "_ObjectWrapper"): _ObjectWrapper,
        ("django.db.models.base", "model_unpickle"): _django_model,
        ("django.db.models.base", "simple_class_factory"): _backend,
        ("django.db.models.base", "ModelState"): ModelState,
        ("django.utils.timezone", "UTC"): _utc,
        ("django.utils.timezone", "LocalTimezone"): _default_zone,
        ("django.utils.timezone", "FixedOffset"): _fixed_offset,
    }
    for name in ("SafeText", "SafeUnicode", "SafeString", "SafeBytes", "EscapeUnicode", "EscapeString"):
        result["django.utils.safestring", name] = str
    return result
