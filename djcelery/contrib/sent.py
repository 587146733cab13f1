"""One message that was captured on its way to the broker: what it says, and how a worker would run it.

Called by ``capture``. Runs a task by Celery's own tracer, so callbacks, chains, chords and retries
send further messages, which are captured in turn. What a run stores is up to the result backend.
Next: ``docs/testing.rst``.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from celery import states
from celery.app.trace import build_tracer
from celery.result import AsyncResult, denied_join_result
from celery.utils.time import maybe_iso8601
from kombu import serialization

HOSTNAME = f"test@{socket.gethostname()}"

#: What the body of a message says beside the arguments.
_EMBEDDED = ("callbacks", "errbacks", "chain", "chord")
#: What a failure message says of a task, if there is anything to say.
_SHOWN = ("countdown", "eta", "expires", "priority", "retries")


class SentTask:
    """A task that was sent, and its message. It can be run in the block that captured it, and later.

    Attributes:
        name, id: Of the task.
        args, kwargs: As a worker gets them: a list and a dictionary, after the serializer.
        options: What the sender gave to ``apply_async()``, such as ``countdown``.
        queue: The name of the queue, or of the routing key where an exchange decides.
        eta, expires: Aware, or None.
        headers: Of the message; the sender's own are among them.
        root_id, parent_id, group_id, retries, priority, exchange, routing_key: As in the message.
        state: None until it has run, then a state of Celery.
        exception: What it raised when it ran, or None.
    """

    def __init__(self, block: Any, body: Any, options: Mapping[str, Any], publish: Mapping[str, Any]) -> None:
        self.app = app = block.app
        self._block = block
        headers = dict(publish.get("headers") or {})
        serializer = publish.get("serializer") or app.conf.task_serializer
        # What the serializer can't carry fails where it is sent, as it does with a broker.
        self._dump = serializer
        body = _carried(body, serializer)
        if isinstance(body, Mapping):
            # Protocol 1 has all in the body.
            headers = {**{key: body.get(key) for key in body if key not in ("args", "kwargs")}, **headers}
            self.args, self.kwargs = list(body.get("args") or ()), dict(body.get("kwargs") or {})
            self._embedded = {key: body.get(key) for key in _EMBEDDED}
        else:
            self.args, self.kwargs = list(body[0]), dict(body[1])
            self._embedded = dict(body[2] or {})
        self.headers = headers
        self.name: str = headers["task"]
        self.id: str = headers["id"]
        self.root_id = headers.get("root_id")
        self.parent_id = headers.get("parent_id")
        self.group_id = headers.get("group")
        self.retries: int = headers.get("retries") or 0
        self.eta: datetime | None = maybe_iso8601(headers.get("eta"))
        self.expires: datetime | None = maybe_iso8601(headers.get("expires"))
        self.options = dict(options)
        self.exchange = getattr(publish.get("exchange"), "name", publish.get("exchange")) or ""
        self.routing_key = publish.get("routing_key")
        self.priority = publish.get("priority")
        declared = [queue.name for queue in publish.get("declare") or () if getattr(queue, "name", None)]
        self.queue = declared[0] if len(declared) == 1 else self.routing_key
        self._properties = {key: publish.get(key) for key in ("correlation_id", "reply_to", "priority")}
        self.state: str | None = None
        self.exception: BaseException | None = None

    def __repr__(self) -> str:
        return f"<SentTask {self}>"

    def __str__(self) -> str:
        given = [*map(repr, self.args), *(f"{key}={value!r}" for key, value in self.kwargs.items())]
        shown = {name: self.option(name) for name in _SHOWN}
        if shown["countdown"] is not None:
            shown["eta"] = None
        about = "".join(f", {name}={_plain(value)}" for name, value in shown.items() if value not in (None, 0))
        ran = f" ({self.state})" if self.state else ""
        return f"{self.name}({', '.join(given)}) to {self.queue}{about}{ran}"

    @property
    def result(self) -> AsyncResult:
        """The task's result, as its sender holds it."""
        with self._block.active():
            task = self.app.tasks.get(self.name)
            return task.AsyncResult(self.id) if task else self.app.AsyncResult(self.id)

    def option(self, name: str) -> Any:
        """Return what the message says of *name*, else what the sender gave, else None."""
        own = vars(self).get(name)
        return self.options.get(name, self.headers.get(name)) if own is None else own

    def has(self, args: Iterable[Any] | None, kwargs: Mapping[str, Any] | None, options: Mapping[str, Any]) -> bool:
        """Tell whether these are its arguments (None: any) and options; of ``headers`` those named are compared."""
        if args is not None and _carried(list(args), self._dump) != self.args:
            return False
        if kwargs is not None and _carried(dict(kwargs), self._dump) != self.kwargs:
            return False
        for name, value in options.items():
            if name == "headers":
                if any(self.headers.get(key) != wanted for key, wanted in value.items()):
                    return False
            elif self.option(name) != value:
                return False
        return True

    def run(self, throw: bool = True) -> Any:
        """Run the task as a worker would, now, whatever its ``countdown`` or ``eta``; return what it returns.

        Args:
            throw: Raise what the task raises; else ``state`` and ``exception`` tell. A task that is to be
                tried again raises nothing: it has been sent anew.

        Raises:
            AssertionError: It has run already, or no task of that name is known.
        """
        if self.state is not None:
            raise AssertionError(f"It has run already: {self}")
        task = self.app.tasks.get(self.name)
        if task is None:
            raise AssertionError(
                f"No task {self.name} is known in this process, so it can't be run: {self}. Import its module."
            )
        with self._block.active(), self._block.commits(), denied_join_result():
            tracer = build_tracer(task.name, task, app=self.app, hostname=HOSTNAME)
            traced = tracer(self.id, self.args, self.kwargs, self._request())
        self.state = states.SUCCESS if traced.info is None else traced.info.state
        if self.state == states.FAILURE:
            self.exception = traced.info.retval
            if throw:
                raise self.exception
        return traced.retval if self.state == states.SUCCESS else None

    def _request(self) -> dict[str, Any]:
        delivery = {"exchange": self.exchange, "routing_key": self.routing_key, "priority": self.priority}
        return {
            **self.headers,
            **self._properties,
            **self._embedded,
            "args": self.args,
            "kwargs": self.kwargs,
            "hostname": HOSTNAME,
            "delivery_info": {**delivery, "redelivered": False},
            "is_eager": False,
        }


def _carried(value: Any, serializer: str) -> Any:
    """Return *value* as it comes out of a message."""
    content_type, encoding, data = serialization.dumps(value, serializer)
    return serialization.loads(data, content_type, encoding, accept=[content_type])


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else repr(value)
