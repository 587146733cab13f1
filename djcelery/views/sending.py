"""Views that send tasks.

Called by a front end, with the task's keyword arguments. Sends one message, and writes a line to the log and an entry
to the log of Django's admin.
Next: ``docs/reference/views.rst``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, NoReturn

from django.apps import apps
from django.db import Error, router, transaction
from django.http import HttpRequest, HttpResponse
from kombu import pools
from kombu.exceptions import EncodeError, LimitExceeded
from kombu.exceptions import OperationalError as BrokerError

from djcelery.app import project_app
from djcelery.brokers import bounded
from djcelery.conf import conf
from djcelery.forms import project_tasks
from djcelery.models import TaskState
from djcelery.views import access
from djcelery.views.answers import Refused, answering, away, reason

logger = logging.getLogger(__name__)

_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
_TOKEN_FIELD = "csrfmiddlewaretoken"  # noqa: S105 - the name of Django's field
# Replaces a connection that broke while nobody used it; who asks waits meanwhile.
_QUICK_RETRY = {"max_retries": 1, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.1}
_TIMEOUT_S = 3.0


@answering
def apply(request: HttpRequest, task_name: str) -> dict[str, str]:
    """Send the task *task_name*, which ``DJCELERY_APPLY_ALLOW`` must name; answer ``{"ok": "true", "task_id": …}``.

    Database: one INSERT into the log of the admin, beside Django's queries for the permission.
    """
    is_open = conf.DJCELERY_APPLY_ACCESS == "open"
    _require_sender(request, is_open)
    task = project_app().tasks.get(task_name) or project_tasks().get(task_name)
    if task is None:
        raise Refused(404, "apply: no such task")
    allowed = conf.DJCELERY_APPLY_ALLOW
    if not (is_open and not allowed) and not any(fnmatchcase(task_name, pattern) for pattern in allowed):
        raise Refused(403, "DJCELERY_APPLY_ALLOW does not have this task.")
    return _sent(request, task, _arguments(request))


def task_view(task: Any) -> Callable[..., HttpResponse]:
    """Return a view that sends *task*; what its URL captures wins over the arguments in the request.

    It needs no entry in ``DJCELERY_APPLY_ALLOW``: who routes it names the task.
    """

    @answering
    def view(request: HttpRequest, **options: Any) -> dict[str, str]:
        _require_sender(request, conf.DJCELERY_TASK_VIEW_ACCESS == "open")
        return _sent(request, task, {**_arguments(request), **options})

    return view


def _require_sender(request: HttpRequest, is_open: bool) -> None:
    if is_open:
        access.require_method(request, "GET", "POST")
        return
    access.require_method(request, "POST")
    access.require_permission(request, access.SENDS)
    access.require_csrf(request)


def _arguments(request: HttpRequest) -> dict[str, Any]:
    """Return the keyword arguments in *request*: of names that a form repeats, the last."""
    if request.method == "POST" and request.content_type == "application/json":
        return _json_object(request.body)
    if request.method == "POST" and request.content_type not in _FORMS and request.body:
        raise Refused(415, "Send a form or application/json.")
    fields = request.POST if request.method == "POST" else request.GET
    return {name: value for name, value in fields.items() if name != _TOKEN_FIELD}


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as exc:
        raise Refused(400, f"The body is not JSON: {reason(exc)}") from exc
    if not isinstance(value, dict):
        raise Refused(400, "The body must be a JSON object: the keyword arguments of the task.")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


def _sent(request: HttpRequest, task: Any, kwargs: dict[str, Any]) -> dict[str, str]:
    check = getattr(task, "__header__", None) if getattr(task, "typing", False) else None
    if check is not None:
        try:
            check(**kwargs)
        except TypeError as exc:
            raise Refused(400, f"The arguments don't fit: {reason(exc)}") from exc
    task_id = str(_send(task, kwargs).id)
    _note(request, task.name, task_id)
    return {"ok": "true", "task_id": task_id}


def _send(task: Any, kwargs: dict[str, Any]) -> Any:
    """Send *task* within seconds, or not at all.

    Raises:
        Refused: The arguments can't be encoded, or the broker is away.
        Exception: The task's own, if tasks are run eagerly and Celery is told to let them through.
    """
    try:
        return task.apply_async(kwargs=kwargs) if task.app.conf.task_always_eager else _publish(task, kwargs)
    except EncodeError as exc:
        raise Refused(400, f"The arguments can't be sent: {reason(exc)}") from exc


def _publish(task: Any, kwargs: dict[str, Any]) -> Any:
    try:
        with _producer(task.app) as producer:
            return task.apply_async(kwargs=kwargs, producer=producer, retry=True, retry_policy=_QUICK_RETRY)
    except EncodeError:
        raise
    except (BrokerError, LimitExceeded, OSError) as exc:
        logger.warning("The broker did not take the task %s: %s", task.name, exc, exc_info=True)
        raise away("The broker takes no messages now.") from exc
    except Exception as exc:  # the project's routes, its signals or a transport may raise anything
        logger.exception("The task %s could not be sent.", task.name)
        raise Refused(503, "The task could not be sent; the log says why.") from exc


@contextmanager
def _producer(app: Any) -> Iterator[Any]:
    """Give a producer with a connection that is open, and whose every call is bounded.

    It is of a pool of its own, so that what the project sends elsewhere waits as long as the project says.
    """
    wanted = bounded(app, _TIMEOUT_S)
    # Looking at it makes all of kombu's pools as large as the project's setting says.
    _ = app.pool
    with pools.producers[wanted].acquire(block=True, timeout=_TIMEOUT_S) as producer:
        connection = producer.connection
        # Without this, kombu would wait for a missing broker as long as it is missing.
        connection.ensure_connection(
            max_retries=max(1, len(connection.alt)), interval_start=0, timeout=connection.connect_timeout
        )
        yield producer


def _note(request: HttpRequest, name: str, task_id: str) -> None:
    """Write down who sent what; the message is out, so an error here is only logged."""
    user: Any = getattr(request, "user", None)
    try:
        is_known = user is not None and user.is_authenticated
        who = user.get_username() if is_known else "anybody"
        logger.info("Task %s[%s] was sent by the view at %r for %r.", name, task_id, request.path, who)
        if is_known and apps.is_installed("django.contrib.admin"):
            _note_in_admin(user, name, task_id)
    except Error:
        logger.exception("It could not be noted in the admin's log who sent task %s[%s].", name, task_id)


def _note_in_admin(user: Any, name: str, task_id: str) -> None:
    from django.contrib.admin.models import ADDITION, LogEntry
    from django.contrib.contenttypes.models import ContentType

    # A block of its own: an error must not break the transaction of the request.
    with transaction.atomic(using=router.db_for_write(LogEntry)):
        LogEntry.objects.create(
            user_id=user.pk,
            content_type=ContentType.objects.get_for_model(TaskState),
            object_repr=f"{name} {task_id}"[:200],
            action_flag=ADDITION,
            change_message=f"Sent by a view, as task {task_id}.",
        )
