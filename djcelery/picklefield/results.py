"""Celery's results, as pickles of Celery 2 and 3 name them.

Part of ``standins``. The functions that Celery itself names there can be made to import and call
anything; these accept the result classes and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from djcelery.exceptions import PickleRefused

#: How many results may be each other's parents.
MAX_PARENTS = 100


def no_backend(*args: Any) -> None:
    """Stand in for ``unpickle_backend``: a result uses the backend of the app that reads it."""


def _async_result(task_id: Any, *args: Any) -> Any:
    """Return the result of *task_id*; Celery 2 gives (id, task name), Celery 3 (id, backend, name, app, parent)."""
    from celery.result import AsyncResult, ResultBase

    _check_id(task_id)
    parent = next((arg for arg in args if isinstance(arg, ResultBase)), None)
    ancestor, count = parent, 0
    while ancestor is not None:
        ancestor, count = getattr(ancestor, "parent", None), count + 1
        if count > MAX_PARENTS:
            raise PickleRefused(f"A pickled result has more than {MAX_PARENTS} parents.")
    return AsyncResult(task_id, parent=parent)


def _check_id(value: Any) -> None:
    if not isinstance(value, str):
        raise PickleRefused("A pickled result has an id that is no text.")


def _group_result(group_id: Any = None, results: Any = (), *args: Any) -> Any:
    from celery.result import GroupResult, ResultBase

    if group_id is not None:
        _check_id(group_id)
    if not isinstance(results, (list, tuple)) or not all(isinstance(item, ResultBase) for item in results):
        raise PickleRefused("A pickled group result holds something that is no result.")
    for item in results:
        _check_id(getattr(item, "id", None))
    return GroupResult(group_id, list(results))


def _result_set(results: Any = (), *args: Any) -> Any:
    from celery.result import ResultSet

    return ResultSet(_group_result(None, results).results)


def _eager_result(task_id: Any, value: Any = None, state: Any = None, traceback: Any = None, *args: Any) -> Any:
    from celery.result import EagerResult

    _check_id(task_id)
    return EagerResult(task_id, value, state, traceback=traceback)


def _app_attribute(name: Any, args: Any) -> Any:
    """Stand in for ``celery.app.base._unpickle_appattr``, for the result classes alone."""
    makers: dict[str, Callable[..., Any]] = {
        "AsyncResult": _async_result,
        "GroupResult": _group_result,
        "TaskSetResult": _group_result,
        "ResultSet": _result_set,
        "EagerResult": _eager_result,
    }
    if name not in makers or not isinstance(args, (list, tuple)):
        raise PickleRefused(f"A pickle asks for the attribute {name!r} of the Celery app.")
    return makers[name](*args)


#: By module and name.
NAMES = {
    ("celery.app.base", "_unpickle_appattr"): _app_attribute,
    ("celery.app.utils", "_unpickle_appattr"): _app_attribute,
    ("celery.backends.base", "unpickle_backend"): no_backend,
    ("djcelery.backends.database", "DatabaseBackend"): no_backend,
    ("djcelery.backends.cache", "CacheBackend"): no_backend,
    ("celery.result", "_unpickle_result"): _async_result,
    ("celery.result", "AsyncResult"): _async_result,
    ("celery.result", "EagerResult"): _eager_result,
    ("celery.result", "GroupResult"): _group_result,
    ("celery.result", "TaskSetResult"): _group_result,
    ("celery.result", "ResultSet"): _result_set,
}
