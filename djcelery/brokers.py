"""Connections to a broker that may be away or silent: no call on them waits for ever.

Called by what asks or sends while somebody waits: admin, views, queues, and beat, whose lease runs out meanwhile.
Talks to nothing itself.
Next: ``docs/explain/connections.rst``.
"""

from __future__ import annotations

from contextlib import nullcontext
from copy import copy
from types import SimpleNamespace
from typing import Any

from kombu import Producer

#: The options that bound each call of a transport in seconds, by its kind. Others have none.
TIMEOUTS: dict[str, tuple[str, ...]] = {
    "redis": ("socket_timeout", "socket_connect_timeout"),
    "amqp": ("read_timeout", "write_timeout"),
}


def bounded(connection: Any, limit_s: float) -> Any:
    """Let no call on *connection* take much longer than *limit_s* seconds, as far as its transport can; return it.

    To be used before it is open. What the project's settings allow stays where it is shorter.
    """
    connection.connect_timeout = min(limit_s, connection.connect_timeout or limit_s)
    options = connection.transport_options or {}
    names = TIMEOUTS.get(connection.transport.driver_type, ())
    limits = {name: min(limit_s, options.get(name) or limit_s) for name in names}
    connection.transport_options = {**options, **limits}
    return connection


class _Once(Producer):
    """Sends once. Celery's control commands are sent again for as long as the broker is away, and somebody waits."""

    def publish(self, *args: Any, **kwargs: Any) -> Any:
        return super().publish(*args, **{**kwargs, "retry": False})


def control_over(app: Any, connection: Any) -> Any:
    """Return ``app.control`` as it is, but for sending over *connection* and no other.

    Celery's own sends over its pool, whichever connection it is given: over one that may have died unnoticed.
    """
    control = copy(app.control)
    control.mailbox = copy(control.mailbox)
    producer = _Once(connection, auto_declare=False)
    control.mailbox.producer_pool = SimpleNamespace(acquire=lambda: nullcontext(producer))
    return control
