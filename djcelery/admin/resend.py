"""Sending tasks again with the arguments that they had: where those are known for certain, and under a new id.

Called by ``task_actions``. The arguments are those of the stored result, which are real JSON, else what the event of
the task showed, read as Python literals and nothing else. Writes ``TaskState.retried_as`` and sends messages.
Next: ``docs/explain/life-of-a-task-event.rst``.
"""

from __future__ import annotations

import ast
import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from celery import states
from celery.utils import uuid
from django.utils.translation import gettext as _

from djcelery import db
from djcelery.admin import control
from djcelery.admin.filters import TASK_STATES
from djcelery.exceptions import DjCeleryError
from djcelery.forms import project_tasks
from djcelery.models import TaskMeta, TaskState
from djcelery.models.monitor import LOST

logger = logging.getLogger(__name__)

#: The header of the new message with the id of the task that it repeats.
RETRY_HEADER = "djcelery_retry_of"
#: Tasks that one action sends again: each is a message.
MAX_TASKS = control.MAX_CONFIRMED_ROWS

#: What is read of a task that may be sent again, and shown of it.
COLUMNS = (
    *("state", "task_id", "name", "args", "kwargs", "eta"),
    *("queue", "started_at", "flags", "retried_as"),
)

# Text of an event that is longer isn't parsed.
_MAX_CHARACTERS = 100_000
_CUT = re.compile(r"\.\.\.|…")
_REDACTED = re.compile(r"\*{3}|[\[<({]\s*(redacted|hidden|filtered|masked|removed|secret)\s*[\])>}]", re.IGNORECASE)
_ENDED = frozenset({states.SUCCESS, states.FAILURE, states.REVOKED, states.REJECTED, LOST})


class NotSent(DjCeleryError):
    """A task can't be sent again; the text says why, to the person who asked for it."""


@dataclass
class Resend:
    """One task that is to be sent again, or the ``reason`` why it can't be."""

    row: TaskState
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    queue: str | None = None
    reason: str = ""
    new_id: str = ""

    @property
    def has_ended(self) -> bool:
        """Whether the first one runs no more."""
        return self.row.state in _ENDED or self.row.state not in TASK_STATES


def plan(rows: Sequence[TaskState]) -> list[Resend]:
    """Return what can be sent again of *rows*, and why the others can't be.

    Database: 1 query for the stored results.
    """
    ids = [row.task_id for row in rows]
    columns = ("task_id", "args", "kwargs", "flags", "queue")
    stored = {result.task_id: result for result in TaskMeta.objects.filter(task_id__in=ids).only(*columns)}
    known = set(project_tasks())
    plans = []
    for row in rows:
        result = stored.get(row.task_id)
        resend = Resend(row, queue=row.queue or (result.queue if result else None))
        try:
            _check(row, known)
            resend.args = recovered("args", row, result)
            resend.kwargs = recovered("kwargs", row, result)
        except NotSent as exc:
            resend.reason = str(exc)
        plans.append(resend)
    return plans


def _check(row: TaskState, known: set[str]) -> None:
    if not row.name:
        raise NotSent(_("its name is not known"))
    # What a worker has run exists, even if this process doesn't have the code.
    if row.name not in known and not row.started_at and row.state != states.SUCCESS:
        raise NotSent(_("no task of this name is registered"))
    if row.retried_as:
        raise NotSent(_("it was sent again already, as %(id)s") % {"id": row.retried_as})


def recovered(column: str, row: TaskState, result: TaskMeta | None) -> Any:
    """Return the arguments of *row*: ``"args"`` as a list, ``"kwargs"`` as a dictionary.

    Raises:
        NotSent: They aren't known for certain.
    """
    expected: type = list if column == "args" else dict
    flags = f"{row.flags or ''} {result.flags or '' if result else ''}".split()
    changes = {flag.rpartition("_")[2] for flag in flags if flag.startswith(f"{column}_")}
    if "redacted" in changes:
        raise NotSent(_("its arguments were hidden"))
    if "cut" in changes:
        raise NotSent(_("its arguments were too long to be kept"))
    if changes:
        raise NotSent(_("its arguments were changed when they were stored"))
    value = getattr(result, column) if result else None
    if value is None:
        value = literal(getattr(row, column))
    if isinstance(value, tuple):
        value = list(value)
    if not isinstance(value, expected) or not _is_sendable(value):
        raise NotSent(_("its arguments can't be read back"))
    return value


def literal(text: str | None) -> Any:
    """Return the value that an event shows as *text*.

    Raises:
        NotSent: The text is missing, was cut or redacted, or is more than literals.
    """
    if not text:
        raise NotSent(_("its arguments are not known"))
    if len(text) > _MAX_CHARACTERS or _CUT.search(text):
        raise NotSent(_("its arguments may have been cut"))
    if _REDACTED.search(text):
        raise NotSent(_("its arguments were hidden"))
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as exc:
        raise NotSent(_("its arguments can't be read back")) from exc


def _is_sendable(value: Any) -> bool:
    """Tell whether JSON carries *value* as it is; a tuple becomes a list, as it did on the way to the worker."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_sendable(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_sendable, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, (bool, int, str, bytes))


def send(app: Any, plans: Sequence[Resend], tells_why: bool = True) -> None:
    """Send what can be sent; each plan has its new id then, or the reason why it was not.

    A row is claimed before its message goes out, so that two people, or two clicks, never send it twice. Without
    *tells_why* a reason is no text of an exception, which may quote arguments.

    Database: 1 UPDATE per task, 1 more for each that the broker refuses.
    """
    wanted = [each for each in plans if not each.reason]
    if not wanted:
        return
    reason = ""
    try:
        with control.broker(app) as connection, app.amqp.Producer(connection) as producer:
            for each in wanted:
                _send_one(app, each, producer, tells_why)
    except Exception as exc:  # a transport may raise anything
        logger.warning("The broker did not take tasks that were to be sent again: %s", exc, exc_info=True)
        reason = str(exc) or type(exc).__name__
    for each in wanted:
        if not each.new_id and not each.reason:
            each.reason = _("the broker did not take it: %(reason)s") % {"reason": reason}


def _send_one(app: Any, each: Resend, producer: Any, tells_why: bool) -> None:
    new_id = uuid()
    claimed = TaskState.objects.filter(pk=each.row.pk, retried_as=None).update(retried_as=new_id)
    if not claimed:
        each.reason = _("it was sent again meanwhile")
        return
    options: dict[str, Any] = {"task_id": new_id, "producer": producer, "headers": {RETRY_HEADER: each.row.task_id}}
    if each.queue:
        options["queue"] = each.queue
    try:
        task = app.tasks.get(each.row.name)
        if task is None:
            app.send_task(each.row.name, each.args, each.kwargs, **options)
        else:
            task.apply_async(each.args, each.kwargs, retry=False, **options)
    except Exception as exc:  # the project's own serializer and routes may raise anything
        TaskState.objects.filter(pk=each.row.pk, retried_as=new_id).update(retried_as=None)
        logger.warning("Task %r could not be sent again: %s", each.row.task_id, exc, exc_info=True)
        reason = (tells_why and db.storable(str(exc))) or type(exc).__name__
        each.reason = _("it could not be sent: %(reason)s") % {"reason": reason}
        return
    each.new_id = new_id
