"""What a sending process notes of each task: the time in the message, and a row if the project asks for it.

``apps`` connects the receivers; ``DatabaseBackend.on_task_call`` says for which task a row is
wanted, so tasks that ignore their result, and other backends, get none.
Writes one row per task id in state PENDING, when the caller's transaction is committed.
Next: ``docs/explain/life-of-a-result.rst``.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from celery import current_task, states
from celery.app.task import Context
from django.db import Error, router, transaction

from djcelery import eventloop, utils
from djcelery.backends import columns, redaction

logger = logging.getLogger(__name__)


class _Expected(threading.local):
    """The task that this thread is about to publish, and the backend that wants a row for it."""

    task_id: str | None = None
    backend: Any = None


_expected = _Expected()


def expect(backend: Any, task_id: str) -> None:
    """Note that *backend* wants a row for *task_id* once it is published."""
    _expected.task_id, _expected.backend = task_id, backend


def note_sent(headers: dict[str, Any] | None = None, properties: dict[str, Any] | None = None, **kwargs: Any) -> None:
    """Note the time in the message, and the sender's own ``argsrepr`` and ``kwargsrepr``; a retry keeps both.

    Receiver of ``before_task_publish``.
    """
    if headers is None:
        return
    given = {column: text for column in ("args", "kwargs") if (text := (properties or {}).get(f"{column}repr"))}
    if columns.SENT_HEADER not in headers:
        headers[columns.SENT_HEADER] = time.time()
        given = {**_hidden_before(headers), **given}
    given = {**(headers.get(columns.HIDDEN_HEADER) or {}), **given}
    if given:
        headers[columns.HIDDEN_HEADER] = given
        # A retry would show the values: Celery does not carry the texts on.
        headers.update({f"{column}repr": text for column, text in given.items()})


def _hidden_before(headers: dict[str, Any]) -> dict[str, str]:
    """Return what the message that is retried here hid, which a sender without djcelery has sent."""
    if not headers.get("retries"):
        return {}
    request = current_task.request if current_task else None
    if request is None or request.id != headers.get("id"):
        return {}
    return columns.hidden_arguments(current_task.app, request)


def store_published(
    sender: Any = None,
    body: Any = None,
    headers: Any = None,
    exchange: Any = None,
    routing_key: Any = None,
    **kwargs: Any,
) -> None:
    """Insert the row of an expected task, once the caller's transaction is committed.

    Receiver of ``after_task_publish``.

    Database: one INSERT, which leaves a row that is there as it is. An error is logged: the task was sent.
    """
    backend = _expected.backend
    if backend is None:
        return
    message = headers if isinstance(body, (list, tuple)) else body
    if not message or message.get("id") != _expected.task_id:
        return
    _expected.task_id = _expected.backend = None
    args, kwargs_ = body[:2] if isinstance(body, (list, tuple)) else (body.get("args"), body.get("kwargs"))
    exchange = getattr(exchange, "name", exchange)
    request = Context(
        {**message, **(headers or {})},
        task=sender,
        args=args,
        kwargs=kwargs_,
        delivery_info={"exchange": exchange, "routing_key": routing_key},
    )
    # Before the commit: callers may change their arguments after sending.
    row = _row(backend, request)
    alias = router.db_for_write(backend.TaskModel)
    try:
        transaction.on_commit(lambda: _insert(backend, row), using=alias)
    except Error as exc:
        # Autocommit is off, so nobody can tell when the caller commits.
        _log_missing(row, exc)


def _row(backend: Any, request: Any) -> columns.Columns:
    redacted = redaction.redacted_names(backend.app, request.task)
    row = columns.of_request(backend.app, request, redacted, final=False)
    now = utils.now()
    row.update(task_id=request.id, status=states.PENDING, date_done=now, hidden=False)
    row.setdefault("created", now)
    row["flags"] = " ".join(row.flags) or None
    return row


def _insert(backend: Any, row: columns.Columns) -> None:
    try:
        # Somebody waits for the sender; a row that is missing until the worker writes it does no harm.
        backend.TaskModel._default_manager.write(row, waits_s=eventloop.QUICK_WAITS_S)
    except Error as exc:
        _log_missing(row, exc)


def _log_missing(row: columns.Columns, exc: Error) -> None:
    logger.warning("Task %s was sent, but its row could not be stored (%s).", row["task_id"], exc)
