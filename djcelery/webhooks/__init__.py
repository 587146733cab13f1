"""Tasks that call a URL: the HTTP callback tasks of Celery 2 and 3, made safe.

``URL(…).get_async(x=1)`` and ``http_dispatch.delay(url=…, method="GET", x=1)`` send a task; a worker
calls the URL, and what it answers is the task's result. ``djcelery.views.task_webhook`` makes receivers.
Called by code of the project, and by the schedule by name. Writes nothing.
Next: ``docs/webhooks.rst``.
"""

from __future__ import annotations

import json
import uuid
from typing import Any
from urllib.parse import urlencode

import celery
from celery import shared_task
from django.core.serializers.json import DjangoJSONEncoder

import djcelery
from djcelery.conf import conf
from djcelery.exceptions import (
    InvalidResponseError,
    RemoteExecuteError,
    UnknownStatusError,
    WebhookError,
    WebhookRefused,
    WebhookUnreachable,
)
from djcelery.webhooks import transport
from djcelery.webhooks.target import Target, parse

__all__ = (
    "URL",
    "HttpDispatch",
    "HttpDispatchTask",
    "InvalidResponseError",
    "RemoteExecuteError",
    "UnknownStatusError",
    "WebhookError",
    "WebhookRefused",
    "WebhookUnreachable",
    "http_dispatch",
    "post_json",
)

#: What a receiver may give as the reason of a failure, in characters.
REASON_CHARACTERS = 2000
#: Statuses, beside those from 500 on, that say: try again later.
_LATER = frozenset({408, 425, 429})


class HttpDispatch:
    """One call of a receiver. A task of your own may use it, or a subclass with other headers.

    Args:
        url: Absolute, http or https.
        method: ``GET`` sends the arguments in the query, ``POST`` in the body.
        task_kwargs: The arguments: a dictionary, or with ``encoding="json"`` any value that JSON can carry.
        encoding: ``form`` or, for POST, ``json``.
        timeout: Seconds; None is ``DJCELERY_WEBHOOK_TIMEOUT_S``.
        idempotency_key: Sent to the receiver, which knows by it that a call is repeated.
    """

    user_agent = f"djcelery/{djcelery.__version__} celery/{celery.__version__}"
    timeout: float | None = None

    def __init__(
        self,
        url: str,
        method: str = "GET",
        task_kwargs: Any = None,
        *,
        encoding: str = "form",
        timeout: float | None = None,
        idempotency_key: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.url = url
        self.method = method
        self.task_kwargs = {} if task_kwargs is None and encoding == "form" else task_kwargs
        self.encoding = encoding
        self.idempotency_key = idempotency_key
        if timeout is not None:
            self.timeout = timeout

    @property
    def http_headers(self) -> dict[str, str]:
        """Headers of the request, for subclasses to add to. They go to every URL that is called."""
        headers = {"User-Agent": self.user_agent, "Accept": "application/json"}
        if self.idempotency_key:
            headers["Idempotency-Key"] = self.idempotency_key
        return headers

    def dispatch(self) -> Any:
        """Call the URL and return the ``retval`` of its answer.

        Raises:
            WebhookRefused, WebhookUnreachable, InvalidResponseError, UnknownStatusError, RemoteExecuteError:
                See ``djcelery.exceptions``. A message never shows more of the URL than scheme, host and port.
        """
        target, headers, body = self._request()
        answer = transport.send(
            target,
            self.method.upper(),
            headers,
            body,
            self.timeout or conf.DJCELERY_WEBHOOK_TIMEOUT_S,
            conf.DJCELERY_WEBHOOK_MAX_BYTES,
        )
        return extract(target, answer)

    def _request(self) -> tuple[Target, dict[str, str], bytes | None]:
        method = str(self.method).upper()
        if method not in ("GET", "POST") or (method == "GET" and self.encoding != "form"):
            raise WebhookRefused(f"A webhook is called by GET or POST, not by {str(self.method)[:20]!r}.")
        target, headers, body = parse(self.url), self.http_headers, None
        if self.encoding == "json":
            headers["Content-Type"] = "application/json"
            body = json.dumps(self.task_kwargs, cls=DjangoJSONEncoder).encode()
        elif method == "POST":
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = urlencode(self.task_kwargs, doseq=True).encode()
        elif self.task_kwargs:
            path, _, query = target.path.partition("?")
            joined = "&".join(filter(None, (query, urlencode(self.task_kwargs, doseq=True))))
            target = target._replace(path=f"{path}?{joined}")
        token = conf.DJCELERY_WEBHOOK_SEND_TOKENS.get(target.origin)
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return target, headers, body


def extract(target: Target, answer: transport.Answer) -> Any:
    """Return the ``retval`` of *answer*, a receiver's JSON object.

    Raises:
        WebhookUnreachable, InvalidResponseError, UnknownStatusError, RemoteExecuteError: See ``dispatch``.
    """
    said = f"{target} answered {answer.status} {answer.reason[:100]}".rstrip()
    if answer.status >= 500 or answer.status in _LATER:
        raise WebhookUnreachable(f"{said}.")
    if 300 <= answer.status < 400:
        raise InvalidResponseError(f"{said}. Redirects are not followed; call the URL that it leads to.")
    try:
        payload = json.loads(answer.body)
    except (ValueError, RecursionError):
        payload = None
    is_error = answer.status >= 400
    if not isinstance(payload, dict) or (is_error and payload.get("status") != "failure"):
        raise InvalidResponseError(
            f"{said}{'' if is_error else ', but not a JSON object'}. "
            'A receiver answers {"status": "success", "retval": …} or {"status": "failure", "reason": …}.'
        )
    status = payload.get("status")
    if status == "success":
        return payload.get("retval")
    if status == "failure":
        raise RemoteExecuteError(str(payload.get("reason"))[:REASON_CHARACTERS])
    raise UnknownStatusError(f"{said} with status {str(status)[:100]!r}, which is neither 'success' nor 'failure'.")


#: Celery's own retrying: what may pass is tried again after about 5, 10, 20, 40 and 80 seconds.
_OPTIONS: dict[str, Any] = {
    "bind": True,
    "autoretry_for": (WebhookUnreachable,),
    "retry_backoff": 5,
    "retry_backoff_max": 600,
    "retry_jitter": True,
    "max_retries": 5,
}


def _dispatched(task: Any, url: Any, method: str, data: Any, encoding: str) -> Any:
    # The id itself opens the task's status to whoever knows it.
    key = str(uuid.uuid5(uuid.NAMESPACE_URL, f"djcelery:{task.request.id}")) if task.request.id else None
    timeout = getattr(task, "http_timeout_s", None)
    return HttpDispatch(url, method, data, encoding=encoding, timeout=timeout, idempotency_key=key).dispatch()


def _http_dispatch(self: Any, url: Any = None, method: str = "GET", **kwargs: Any) -> Any:
    """Call *url* with the other arguments, as query or as form, and return what it answers."""
    return _dispatched(self, url, method, kwargs, "form")


def _post_json(self: Any, url: Any = None, data: Any = None) -> Any:
    """Post *data* as JSON to *url* and return what it answers."""
    return _dispatched(self, url, "POST", data, "json")


http_dispatch = shared_task(name="djcelery.http_dispatch", **_OPTIONS)(_http_dispatch)
post_json = shared_task(name="djcelery.post_json", **_OPTIONS)(_post_json)
HttpDispatchTask = http_dispatch

#: The names of Celery 3 and of Celery 2: messages and periodic tasks of theirs still run.
LEGACY_NAMES = ("celery.http_dispatch", "celery.task.http.HttpDispatchTask")
for _name in LEGACY_NAMES:
    shared_task(name=_name, **_OPTIONS)(_http_dispatch)


class URL(str):
    """A URL that can be called by a worker: ``URL("https://…").get_async(x=10, y=10)``.

    Args:
        dispatcher: Another task with the arguments of ``http_dispatch``.
    """

    dispatcher: Any
    app: Any

    def __new__(cls, url: str, dispatcher: Any = None, app: Any = None) -> URL:
        """Return the text *url* with the methods below; *app* is the Celery app that sends, None the current one."""
        made = super().__new__(cls, url)
        made.app = app
        made.dispatcher = dispatcher or made._of_app(http_dispatch)
        return made

    def _of_app(self, task: Any) -> Any:
        return self.app.tasks[task.name] if self.app else task

    def get_async(self, **kwargs: Any) -> Any:
        """Send a task that calls this URL by GET with *kwargs*; return its ``AsyncResult``."""
        return self.dispatcher.delay(str(self), "GET", **kwargs)

    def post_async(self, **kwargs: Any) -> Any:
        """Send a task that posts *kwargs* as a form; return its ``AsyncResult``."""
        return self.dispatcher.delay(str(self), "POST", **kwargs)

    def post_json_async(self, data: Any) -> Any:
        """Send a task that posts *data* as JSON; return its ``AsyncResult``."""
        return self._of_app(post_json).delay(str(self), data)
