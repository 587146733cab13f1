"""Views that tell what became of a task, and which tasks there are.

Called by the project's front end, which polls. Reads one result from the result backend of the project's Celery app.
Next: ``docs/reference/views.rst``.
"""

from __future__ import annotations

import logging
from typing import Any

from celery import states
from celery.backends.base import DisabledBackend
from celery.exceptions import SecurityError
from django.db import Error, connections, router
from django.http import HttpRequest
from kombu.exceptions import ContentDisallowed, DecodeError, SerializerNotInstalled

from djcelery.app import project_app
from djcelery.backends.database import DatabaseBackend
from djcelery.backends.values import safe_repr
from djcelery.conf import conf
from djcelery.forms import project_tasks
from djcelery.views import access
from djcelery.views.answers import Refused, answering, away, carried

logger = logging.getLogger(__name__)

#: The longest task id that any of our tables holds.
MAX_ID = 255
# What backends raise for a stored value that is not what they expect.
_UNREADABLE = (
    ContentDisallowed,
    DecodeError,
    SerializerNotInstalled,
    SecurityError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
)


@answering
def is_task_successful(request: HttpRequest, task_id: str) -> dict[str, Any]:
    """Answer ``{"task": {"id": …, "executed": true}}`` if the task has succeeded; false for an unknown id.

    Database: one SELECT with the database result backend, beside Django's for the permission.
    """
    _require_reader(request, conf.DJCELERY_IS_TASK_SUCCESSFUL_ACCESS)
    return {"task": {"id": task_id, "executed": _meta(task_id)["status"] == states.SUCCESS}}


@answering
def task_status(request: HttpRequest, task_id: str) -> dict[str, Any]:
    """Answer ``{"task": {"id": …, "status": …, "result": …}}``, with "exc" and "traceback" after an error.

    Values are null, and "hidden" is true, for who may not see them. "result_is_repr" is true where JSON can't carry
    the result, and its repr stands for it.

    Database: as ``is_task_successful``.
    """
    who = conf.DJCELERY_TASK_STATUS_ACCESS
    _require_reader(request, who)
    meta = _meta(task_id)
    shows_values = who == "open" or access.has_permission(request, access.SEES_VALUES)
    return {"task": _status(task_id, meta, shows_values)}


@answering
def registered_tasks(request: HttpRequest) -> dict[str, Any]:
    """Answer ``{"regular": […], "periodic": ""}``: the names of all registered tasks; the second as in 3.2."""
    if conf.DJCELERY_REGISTERED_TASKS_ACCESS == "open":
        access.require_method(request, "GET", "HEAD", "POST")
    else:
        access.require_method(request, "GET", "HEAD")
        access.require_permission(request, access.LISTS)
    return {"regular": sorted(project_tasks()), "periodic": ""}


def _require_reader(request: HttpRequest, who: str) -> None:
    if who == "open":
        access.require_method(request, "GET", "HEAD", "POST")
    else:
        access.require_method(request, "GET", "HEAD")
    if who == "permission":
        access.require_permission(request, *access.SEES)


def _meta(task_id: str) -> dict[str, Any]:
    """Return what the result backend knows of *task_id*, read once: its parts belong together.

    Raises:
        Refused: There is no result backend, it is away, or what it has stored can't be read.
        django.db.Error: The database is away.
    """
    if len(task_id) > MAX_ID:
        raise Refused(400, f"A task id has {MAX_ID} characters at most.")
    try:
        backend = project_app().backend
        if isinstance(backend, DisabledBackend):
            raise Refused(501, "No result backend is configured, so nobody knows.")
        if isinstance(backend, DatabaseBackend):
            # Else the backend would try for seconds to reach a server that is away.
            connections[router.db_for_write(backend.TaskModel)].ensure_connection()
        return backend.get_task_meta(task_id)
    except (Refused, Error):
        raise
    except _UNREADABLE as exc:
        logger.warning("The stored result of task %s can't be read: %s", task_id, exc, exc_info=True)
        raise Refused(502, "The stored result can't be read; the log says why.") from exc
    except Exception as exc:  # a client of a server may raise anything
        logger.warning("The result backend can't be asked for task %s: %s", task_id, exc, exc_info=True)
        raise away("The result backend can't be asked now.") from exc


def _status(task_id: str, meta: dict[str, Any], shows_values: bool) -> dict[str, Any]:
    state, value = meta["status"], meta.get("result")
    task: dict[str, Any] = {"id": task_id, "status": state, "result": None}
    if state in states.EXCEPTION_STATES:
        task.update(exc=None, traceback=None)
    if not shows_values:
        return {**task, "hidden": True}
    if state in states.EXCEPTION_STATES:
        task["traceback"] = meta.get("traceback")
        if isinstance(value, BaseException):
            task["exc"] = f"{type(value).__module__}.{type(value).__name__}"
            value = safe_repr(value)
    task["result"], is_repr = carried(value)
    if is_repr:
        task["result_is_repr"] = True
    return task
