"""From a task's request and value to the columns of its row: names, arguments, times, limits, redaction.

Called by ``database`` before each write and by ``publish``; reads settings, touches no database.
Next: ``docs/explain/life-of-a-result.rst``.
"""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from celery import states

from djcelery import db, utils
from djcelery.backends import values
from djcelery.conf import conf

#: The header in which senders note the time, in seconds since the epoch.
SENT_HEADER = "djcelery_sent"
#: The header with the senders' own ``argsrepr`` and ``kwargsrepr``, by column, if they gave any.
HIDDEN_HEADER = "djcelery_hidden"
#: The attribute of a request in which a worker notes when it began: ``(wall clock, monotonic clock)``.
STARTED_MARK = "djcelery_started"
REDACTED = "[redacted]"

#: A smaller limit of results does not hold for errors: they say what went wrong.
LEAST_ERROR_BYTES = 1024

_TEXT_CHARACTERS = 255
_TRACEBACK_CHARACTERS = 1_000_000


class Columns(dict):
    """Column values by name, and the flags that say what was changed in them."""

    def __init__(self) -> None:
        super().__init__()
        self.flags: list[str] = []

    def flag(self, flag: str) -> None:
        """Note that something was changed, once."""
        if flag not in self.flags:
            self.flags.append(flag)


def note_start(task: Any, **kwargs: Any) -> None:
    """Note on the request of *task* when it began. Receiver of ``task_prerun``."""
    setattr(task.request, STARTED_MARK, (time.time(), time.monotonic()))


def of_request(app: Any, request: Any, redacted: frozenset[str], *, final: bool) -> Columns:
    """Return what *request* tells: name, arguments, place, relatives and times; unknown ones are left out.

    Args:
        request: Celery's ``Context``, of any protocol, or one made by hand.
        redacted: See ``redaction.redacted_names``.
        final: Whether the task has ended, so that its running time is known.
    """
    columns = Columns()
    told = functools.partial(_told, request)
    info = told("delivery_info") or {}
    texts = {
        "name": told("task"),
        "worker": told("hostname"),
        "queue": queue_of(app, info.get("exchange"), info.get("routing_key")),
        "periodic_task": told("periodic_task_name"),
        "root_id": told("root_id"),
        "parent_id": told("parent_id"),
        "group_id": told("group"),
    }
    columns.update({column: text(value) for column, value in texts.items() if value})
    if isinstance(told("retries"), int):
        columns["retries"] = told("retries")
    hidden = hidden_arguments(app, request)
    for column in ("args", "kwargs"):
        if told(column) is not None:
            columns[column] = arguments(columns, column, told(column), hidden.get(column), redacted)
    _times(columns, request, final)
    return columns


def _told(request: Any, name: str) -> Any:
    # Requests made by hand, or from the messages of other programs, lack some attributes.
    return getattr(request, name, None)


def text(value: Any) -> str:
    """Return *value* as the text columns take it: escaped and not too long."""
    return db.storable(str(value))[:_TEXT_CHARACTERS]


def queue_of(app: Any, exchange: str | None, routing_key: str | None) -> str | None:
    """Return the name of the queue that *exchange* and *routing_key* lead to; the key if that can't be told."""
    if not exchange:
        return routing_key
    names = [
        name
        for name, queue in app.amqp.queues.consume_from.items()
        if queue.exchange is not None and queue.exchange.name == exchange and _leads_to(queue, routing_key or "")
    ]
    return names[0] if len(names) == 1 else routing_key


def _leads_to(queue: Any, routing_key: str) -> bool:
    if queue.exchange.type == "fanout" or queue.routing_key == routing_key:
        return True
    if queue.exchange.type != "topic":
        return False
    # Topics: "*" is one word, "#" any number of them.
    pattern = re.escape(queue.routing_key).replace(r"\*", "[^.]+").replace(r"\.\#", "(\\..*)?").replace(r"\#", ".*")
    return re.fullmatch(pattern, routing_key) is not None


def _times(columns: Columns, request: Any, final: bool) -> None:
    sent, started = _told(request, SENT_HEADER), _told(request, STARTED_MARK)
    if isinstance(sent, (int, float)) and sent > 0:
        # The clock of another machine may be ahead.
        columns["created"] = utils.fromtimestamp(min(sent, started[0] if started else time.time()))
    if started is not None:
        columns["started"] = utils.fromtimestamp(started[0])
        if final:
            columns["runtime"] = time.monotonic() - started[1]


# -- arguments ---------------------------------------------------------------------------------


def arguments(columns: Columns, column: str, value: Any, hidden: str | None, redacted: frozenset[str]) -> str | None:
    """Return *value* (args or kwargs) as JSON text for *column*, or None if it is redacted; flags say what changed.

    Args:
        hidden: What the sender wants to be shown instead, see ``hidden_arguments``.
    """
    if hidden is not None and column not in redacted:
        columns.flag(f"{column}_redacted")
        return json.dumps(db.storable(str(hidden)[: values.REPR_CHARACTERS]))
    shown = shown_arguments(columns, column, value, redacted)
    return None if shown is None else capped(columns, column, shown)


def shown_arguments(columns: Columns, column: str, value: Any, redacted: frozenset[str]) -> Any:
    """Return what may be stored of *value* (args or kwargs): None if all of it is redacted."""
    if column in redacted:
        columns.flag(f"{column}_redacted")
        return None
    items = [name.partition(".")[2] for name in redacted if name.startswith(f"{column}.")]
    return _without_items(columns, column, value, items) if items else value


def hidden_arguments(app: Any, request: Any) -> dict[str, str]:
    """Return the ``argsrepr`` and ``kwargsrepr``, by column, that the sender of *request* wrote itself.

    Senders with djcelery say so (see ``publish``), and most brokers carry the option. For the rest, a text
    that isn't what Celery writes for the value counts.
    """
    if _told(request, SENT_HEADER) is not None:
        noted = _told(request, HIDDEN_HEADER)
        return noted if isinstance(noted, dict) else {}
    options = _told(request, "properties") or {}
    hidden = {}
    for column in ("args", "kwargs"):
        name = f"{column}repr"
        given = options.get(name) or _told(request, name)
        if isinstance(given, str) and (options.get(name) or not _is_celerys(app, name, _told(request, column), given)):
            hidden[column] = given
    return hidden


def _is_celerys(app: Any, name: str, value: Any, given: str) -> bool:
    """Tell whether *given* is what Celery has written for *value* before a serializer changed its types."""
    if value is None:
        return True
    longest, levels = getattr(app.amqp, f"{name}_maxsize", 1024), app.conf.get("task_repr_maxlevels", 3)
    bare = _bare(given)
    celerys = _bare(values.safe_repr(value, longest, levels))
    # YAML sorts keys.
    if bare == celerys or sorted(bare) == sorted(celerys):
        return True
    # What became another type was shorter or longer, so a long text was cut elsewhere: its end is "..." twice.
    longer = _bare(values.safe_repr(value, 2 * longest, levels))
    return len(given) >= longest // 2 and longer.startswith(bare[:-8])


def _bare(representation: str) -> str:
    return re.sub(r"[\[\](){},'\"\s]", "", representation)


def _without_items(columns: Columns, column: str, value: Any, items: list[str]) -> Any:
    if not isinstance(value, (Mapping, list, tuple)):
        columns.flag(f"{column}_redacted")
        return REDACTED
    keyed = isinstance(value, Mapping)
    changed: Any = dict(value) if keyed else list(value)
    for item in items:
        key: Any = item if keyed else int(item)
        if (key in changed) if keyed else (key < len(changed)):
            changed[key] = REDACTED
            columns.flag(f"{column}_redacted")
    return changed


def capped(columns: Columns, column: str, value: Any) -> str:
    """Return *value* as JSON text no longer than ``DJCELERY_ARGS_MAX_BYTES``; flags say what changed."""
    encoded = values.as_json(value, lambda what: columns.flag(f"{column}_{what}"))
    limit = conf.DJCELERY_ARGS_MAX_BYTES
    if limit is None or len(encoded) <= limit:
        return encoded
    columns.flag(f"{column}_cut")
    # Long items are cut first; if many short ones are too much, the whole is.
    room = max(limit // 8, 32)

    def short(item: Any) -> Any:
        return item if len(values.as_json(item)) <= room else values.cut_json(item, room)

    items: Any = None
    if isinstance(value, Mapping):
        items = {key: short(item) for key, item in value.items()}
    elif isinstance(value, (list, tuple)):
        items = [short(item) for item in value]
    encoded = values.as_json(items)
    return encoded if items and len(encoded) <= limit else values.as_json(values.cut_json(value, limit))


# -- results -----------------------------------------------------------------------------------


def shown_value(columns: Columns, state: str, result: Any, redacted: frozenset[str]) -> Any:
    """Return what is stored of *result*: all of it, or of a redacted exception its class alone."""
    if "result" not in redacted or result is None or state == states.STARTED:
        return result
    columns.flag("result_redacted")
    return _exception(result, REDACTED) if state in states.EXCEPTION_STATES else None


def shown_traceback(columns: Columns, traceback: str | None, redacted: frozenset[str]) -> str | None:
    """Return what is stored of *traceback*; its last line holds the exception, so ``result`` redacts it too."""
    if traceback is None:
        return None
    if redacted & {"traceback", "result"}:
        columns.flag("traceback_redacted")
        return None
    traceback = str(traceback)
    stored = db.storable(traceback)
    if stored != traceback:
        columns.flag("traceback_escaped")
    limit = max(conf.DJCELERY_RESULT_MAX_BYTES or _TRACEBACK_CHARACTERS, LEAST_ERROR_BYTES)
    if len(stored) <= limit:
        return stored
    columns.flag("traceback_cut")
    return f"[…]\n{stored[-limit:]}"


def cut_payload(encode: Callable[[Any], Any], state: str, value: Any, limit: int) -> Any:
    """Return the beginning of *value* encoded in no more than *limit* bytes; of an exception its class always."""
    room = limit
    while len(payload := encode(_cut_value(state, value, room))) > limit and room:
        room //= 2
    return payload


def _cut_value(state: str, value: Any, limit: int) -> Any:
    if state not in states.EXCEPTION_STATES:
        return values.cut_text(value, limit)
    message = value.get("exc_message") if isinstance(value, dict) else getattr(value, "args", value)
    if isinstance(message, (list, tuple)) and len(message) == 1:
        message = message[0]
    return _exception(value, values.cut_text(message, limit))


def _exception(value: Any, message: str) -> dict[str, Any]:
    """Return the exception *value*, an instance or as Celery encodes it, with another *message*."""
    if isinstance(value, dict):
        return {**value, "exc_message": [message]}
    return {"exc_type": type(value).__qualname__, "exc_module": type(value).__module__, "exc_message": [message]}
