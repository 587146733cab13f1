"""Receivers of webhooks: functions of a project that a task somewhere else calls by HTTP.

Called by ``djcelery.webhooks`` of another project, or by whatever speaks its JSON. Runs the function in the request.
Next: ``docs/reference/views.rst``.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any

from asgiref.sync import async_to_sync
from django.db import connections
from django.http import HttpRequest, HttpResponse

from djcelery.backends.values import safe_repr
from djcelery.conf import conf
from djcelery.views import access
from djcelery.views.answers import answering, carried

logger = logging.getLogger(__name__)


def task_webhook(fun: Callable[..., Any]) -> Callable[..., HttpResponse]:
    """Return a view that calls ``fun(request, …)`` and answers what became of it.

    That is ``{"status": "success", "retval": …}``, or ``{"status": "failure", "reason": …}`` for an exception, both
    with status 200. "retval_is_repr" is true where JSON can't carry the value, and its repr stands for it. *fun* may
    be a coroutine function. What a failure has written is rolled back under ``ATOMIC_REQUESTS``.
    """
    call = async_to_sync(fun) if iscoroutinefunction(fun) else fun

    @answering
    @functools.wraps(fun)
    def receive(request: HttpRequest, *args: Any, **kwargs: Any) -> dict[str, Any]:
        if conf.DJCELERY_TASK_WEBHOOK_ACCESS != "open":
            access.require_method(request, "POST")
            access.require_token(request)
        try:
            value = call(request, *args, **kwargs)
        except Exception as exc:  # whatever it is, the caller must be told that the work failed
            logger.exception("The webhook %r failed.", request.path)
            _roll_back()
            return {"status": "failure", "reason": safe_repr(exc)}
        retval, is_repr = carried(value)
        answer = {"status": "success", "retval": retval}
        return {**answer, "retval_is_repr": True} if is_repr else answer

    return receive


def _roll_back() -> None:
    """Undo what this request has written so far, where a request is one transaction."""
    for connection in connections.all(initialized_only=True):
        if connection.settings_dict["ATOMIC_REQUESTS"] and connection.in_atomic_block:
            connection.set_rollback(True)
