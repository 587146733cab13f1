"""What a pickle of django-celery is as the JSON that the backend would write today, if nothing is lost by it.

Called by ``results_rows`` for every value; touches no database.
Next: ``docs/explain/trust.rst``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from celery import states
from celery.exceptions import SecurityError
from celery.result import ResultBase, result_from_tuple
from celery.utils.serialization import UnpickleableExceptionWrapper, get_pickled_exception
from kombu.utils import json

from djcelery.app import project_app
from djcelery.backends.database import DatabaseBackend
from djcelery.picklefield import Refused, Unreadable, decode_stored

__all__ = ("Lossy", "Values")

_PLAIN = frozenset({type(None), bool, int, float, str})


class Lossy(Exception):
    """The value would not come back from JSON as it is; the text says why."""


class Values:
    """From the text of a stored value to the JSON that the backend would write for it today.

    ``has_tuples`` is set once a value held tuples, which come back as lists.
    """

    def __init__(self) -> None:
        self.backend = DatabaseBackend(app=project_app(), serializer="json")
        self.has_tuples = False

    def task_result(self, text: str | None, state: str) -> str | None:
        """Return the JSON of a task's result.

        Raises:
            Lossy: JSON can't carry it, or would change it.
        """
        value = decode_stored(text)
        if state in states.EXCEPTION_STATES and isinstance(value, (BaseException, Refused)):
            return self._exception(value)
        return None if value is None else self._plain(value)

    def task_meta(self, text: str | None) -> str | None:
        """Return the JSON of the meta column, which names the children; their tuples don't count."""
        value, had_tuples = decode_stored(text), self.has_tuples
        try:
            return None if value is None else self._plain(value)
        finally:
            self.has_tuples = had_tuples

    def group_result(self, text: str | None) -> str:
        """Return the JSON of a saved group."""
        value = decode_stored(text)
        if not isinstance(value, ResultBase):
            return self._plain(value)
        if not hasattr(value, "as_tuple"):
            raise Lossy(f"a {type(value).__name__} has no id, so it can't be restored from JSON")
        encoded = json.dumps(value.as_tuple())
        if _outline(result_from_tuple(decode_stored(encoded), self.backend.app)) != _outline(value):
            raise Lossy("the group would be restored with other members")
        return encoded

    def _plain(self, value: Any) -> str:
        copy = _listed(value, self._note_tuple)
        encoded = json.dumps(copy)
        if repr(decode_stored(encoded)) != repr(copy):
            raise Lossy("JSON gives a dict that looks like an encoded value back as another value")
        return encoded

    def _note_tuple(self) -> None:
        self.has_tuples = True

    def _exception(self, value: Any) -> str:
        before = get_pickled_exception(self.backend.exception_to_python(value))
        for module, name, args in _told(value):
            # The tuple of arguments comes back as one.
            encoded = self._plain({"exc_type": name, "exc_message": list(args), "exc_module": module})
            try:
                after = self.backend.exception_to_python(decode_stored(encoded))
            except SecurityError:
                raise Lossy(f"{module}.{name} is no exception") from None
            if _is_same(before, after, is_made_up=isinstance(value, _NAMELESS)):
                return encoded
        raise Lossy(f"a {_name(before)} is more than its name and arguments; JSON has no place for the rest")


# In the place of exceptions whose class this process need not have.
_NAMELESS = (Refused, UnpickleableExceptionWrapper)


def _told(value: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield module, name and arguments by which the exception *value* may be rebuilt.

    Raises:
        Lossy: It may not be loaded, and has attributes.
    """
    if isinstance(value, Refused):
        if value.state:
            raise Lossy(value.reason)
        module, _, name = value.name.rpartition(".")
        yield module, name, value.args
    elif isinstance(value, UnpickleableExceptionWrapper):
        yield str(value.exc_module), str(value.exc_cls_name), value.exc_args
    else:
        cls = type(value)
        yield cls.__module__, cls.__qualname__, value.args
        # The file name of an OSError is no part of its args.
        yield cls.__module__, cls.__qualname__, value.__reduce__()[1]


def _is_same(one: Any, other: Any, *, is_made_up: bool) -> bool:
    if is_made_up:
        # The process that reads has the class, or makes one up by the same name.
        same = type(one).__name__ == type(other).__name__
        return same and repr(_listed(one.args)) == repr(_listed(other.args))
    return type(one) is type(other) and _content(one) == _content(other)


def _content(exc: BaseException) -> str:
    """Return what pickle keeps of an exception, as text: the arguments of the call that makes it, and attributes."""
    reduced = exc.__reduce__()
    state = reduced[2] if len(reduced) > 2 else None
    return repr((_listed(exc.args), _listed(reduced[1]), state or None))


def _listed(value: Any, on_tuple: Callable[[], None] = lambda: None) -> Any:
    """Return a copy of *value* with lists for tuples, which is what JSON must give back.

    Raises:
        Lossy: JSON can't carry a part of it, or would change it.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is tuple:
        on_tuple()
    if kind is list or kind is tuple:
        return [_listed(item, on_tuple) for item in value]
    if kind is dict:
        for key in value:
            if type(key) is not str:
                raise Lossy(f"JSON would make texts of the keys of a dict, which are of type {_name(key)}")
        return {key: _listed(item, on_tuple) for key, item in value.items()}
    return _leaf(value)


def _leaf(value: Any) -> Any:
    """Return *value*, which is neither container nor plain, if JSON gives it back as it is.

    What kombu's JSON knows counts, with the types that a project has registered there.
    """
    if isinstance(value, type) and issubclass(value, Refused):
        value = value()
    if isinstance(value, Unreadable):
        raise Lossy(value.reason)
    try:
        back = json.loads(json.dumps(value))
    except (TypeError, ValueError):
        raise Lossy(f"JSON can't carry the type {_name(value)}") from None
    if type(back) is not type(value):
        raise Lossy(f"JSON would make the type {_name(back)} of {_name(value)}")
    if repr(back) != repr(value):
        raise Lossy(f"JSON would change a value of type {_name(value)}")
    return value


def _name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _outline(result: Any) -> Any:
    """Return what a result restored from another encoding must have in common with *result*."""
    if result is None:
        return None
    members = getattr(result, "results", None)
    return (
        type(result).__name__,
        result.id,
        _outline(result.parent),
        None if members is None else [_outline(member) for member in members],
    )
