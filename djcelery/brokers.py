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


def bounded(app: Any, limit_s: float, *, reads: bool = False, **options: Any) -> Any:
    """Return a new connection of *app*, no call on which takes much longer than *limit_s* seconds, as far as it can.

    Nothing is connected yet. What the project's settings allow stays where it is shorter.

    Args:
        reads: The connection is ``app.connection_for_read()``, else ``app.connection_for_write()``.
        options: More arguments for that.
    """
    connect = app.connection_for_read if reads else app.connection_for_write
    # Set later, it would hold for the first of several brokers only.
    connection = connect(connect_timeout=min(limit_s, app.conf.broker_connection_timeout or limit_s), **options)
    given = connection.transport_options or {}
    names = TIMEOUTS.get(connection.transport.driver_type, ())
    limits = {name: min(limit_s, given.get(name) or limit_s) for name in names}
    connection.transport_options = {**given, **limits}
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
