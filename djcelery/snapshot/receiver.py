"""The events of the cluster, from the broker: a consumer with a queue of its own, which acknowledges what was written.

Called by ``program``, in the main thread of ``celerycam``. On AMQP the queue outlives the camera for a time, and a
message is acknowledged when everything that was received up to it is in the database: whatever dies, the broker
delivers again what is not. Other transports keep nothing for a camera that is away.
Next: ``docs/explain/receiving-events.rst``.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from celery.events.event import get_exchange
from kombu import Consumer, Queue
from kombu.exceptions import OperationalError

from djcelery.brokers import bounded
from djcelery.exceptions import CameraError

__all__ = ("PREFETCH", "Mark", "Receiver")

logger = logging.getLogger(__name__)

#: Most messages that the broker hands over before they are acknowledged.
PREFETCH = 4000
#: Events in one message, at most, unless the worker was cut off.
_EVENTS_PER_MESSAGE = 24
#: Most seconds for one call to the broker, such as connecting: a server that accepts and says nothing is away. Waiting
#: for events is none: on every transport that is done by looking whether there is something to read.
LIMIT_S = 4.0
#: Most seconds between two tries to connect: 1, 2, 4, …
LONGEST_PAUSE_S = 30.0
#: The longest time that RabbitMQ knows, 2**32 ms.
_LONGEST_TTL_S = 4_294_967.0
#: Seconds to wait for a message before looking whether to stop, or whether there is something to acknowledge.
_IDLE_S, _WAITING_S = 0.25, 0.02
#: Most seconds for which events are still taken when it shall end.
_LAST_S = 1.0
#: Seconds between two looks at the health of the connection; and of a subscription in Redis, which sends a ping.
_HEARTBEAT_S, _SUBSCRIPTION_S = 1.0, 25.0
_PRECONDITION_FAILED = 406
_READ_AHEAD_BYTES = 8192


class Mark(NamedTuple):
    """A message: everything up to it has been received. Tags begin anew on each connection."""

    connection: int
    tag: int


class Receiver:
    """Receives events until it shall stop.

    Args:
        app: The Celery app.
        name: The camera's node name, a part of the queue's.
        ttl_s: Seconds for which the broker keeps the queue, and each message in it, for a camera that is away.
        max_rows: Tasks that may wait to be written; the broker hands over no more than that.
        take: Called with each body, and when it came in seconds since the epoch. It must be quick.
        refuse: Called with a reason, a text and the same time when a message can't be decoded.
        returned: Called when the connection is there again after it was lost.
        should_stop: Tells whether ``run`` shall end; asked several times a second.
    """

    def __init__(
        self,
        app: Any,
        name: str,
        *,
        ttl_s: float,
        max_rows: int,
        take: Callable[[Any, float], None],
        refuse: Callable[[str, str, float], None],
        returned: Callable[[], None],
        should_stop: Callable[[], bool],
    ):
        self.app, self.ttl_s = app, min(ttl_s, _LONGEST_TTL_S)
        self.queue_name = f"{app.conf.event_queue_prefix}.djcelery.{name}"
        self.take, self.refuse, self.returned, self.should_stop = take, refuse, returned, should_stop
        self.connection = bounded(app, LIMIT_S, reads=True, heartbeat=app.conf.broker_heartbeat)
        #: Whether the broker keeps events until they are acknowledged.
        self.acknowledges = self.connection.transport.driver_type == "amqp"
        self.errors = (*self.connection.connection_errors, *self.connection.channel_errors, OperationalError, OSError)
        self.prefetch = max(1, min(PREFETCH, max_rows // _EVENTS_PER_MESSAGE)) if self.acknowledges else None
        #: Why there is no connection; None if there is one.
        self.trouble: str | None = None
        self._consumer: Any = None
        self._connections = 0
        self._received = self._committed = self._acknowledged = Mark(0, 0)
        self._heartbeat_mono = self._subscription_mono = 0.0

    # for the thread that writes

    def mark(self) -> Mark:
        """Return the last message whose events were taken, all of them."""
        return self._received

    def committed(self, mark: Mark) -> None:
        """Note that everything up to *mark* is in the database; it is acknowledged within a moment."""
        self._committed = mark

    @property
    def unacknowledged(self) -> int:
        """How many messages the broker keeps until they are acknowledged."""
        return self._received.tag - self._acknowledged.tag

    @property
    def is_half_full(self) -> bool:
        """Whether the broker soon hands over no more."""
        return self.prefetch is not None and 2 * self.unacknowledged >= self.prefetch

    # receiving

    def run(self) -> None:
        """Receive until ``should_stop``; then the connection is still open, for ``keep_alive`` and ``close``.

        Raises:
            CameraError: The broker has the queue with other arguments, or can't be reached and the settings say not
                to try again.
        """
        lost_mono, pause_s = 0.0, 1.0
        while not self.should_stop():
            try:
                self._connect()
                if lost_mono:
                    logger.warning("Connected to the broker again after %.0f s.", time.monotonic() - lost_mono)
                    self.returned()
                lost_mono, pause_s, self.trouble = 0.0, 1.0, None
                self._receive()
            except self.errors as exc:
                self._drop()
                if not lost_mono:
                    lost_mono = time.monotonic()
                    self._lost(exc)
                self._sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311 - jitter, not a secret
                pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)

    def _connect(self) -> None:
        # One try more if there are several brokers, at the next one.
        retries = 1 if len(self.connection.alt) > 1 else 0
        self.connection.ensure_connection(max_retries=retries, interval_start=0, interval_step=0, interval_max=0)
        channel = self.connection.channel()
        self._connections += 1
        self._received = self._acknowledged = Mark(self._connections, 0)
        try:
            self._consumer = Consumer(
                channel,
                [self._queue()],
                no_ack=not self.acknowledges,
                on_message=self._message,
                on_decode_error=self._undecodable,
                accept={self.app.conf.event_serializer, "json"},
                prefetch_count=self.prefetch,
            )
        except self.connection.channel_errors as exc:
            if getattr(exc, "code", None) == _PRECONDITION_FAILED:
                raise CameraError(
                    f"The broker has the queue {self.queue_name!r}, or its exchange, with other arguments: {exc} "
                    "After a change of DJCELERY_CAMERA_QUEUE_TTL_S delete the queue (manage.py camqadm queue.delete "
                    f"{self.queue_name}); the events in it are lost. Or give this camera another --name."
                ) from exc
            raise
        self._consumer.consume()
        _read_ahead(self.connection)
        logger.info("Connected to %s", self.connection.as_uri())

    def _queue(self) -> Queue:
        exchange = get_exchange(self.connection, name=self.app.conf.event_exchange)
        if not self.acknowledges:
            return Queue(self.queue_name, exchange, routing_key="#", durable=False, auto_delete=True)
        return Queue(
            self.queue_name,
            exchange,
            routing_key="#",
            durable=True,
            auto_delete=False,
            expires=self.ttl_s,
            message_ttl=self.ttl_s,
            # A second camera of this name stands by: each event belongs to one of them, and stays in order.
            queue_arguments={"x-single-active-consumer": True},
        )

    def _receive(self) -> None:
        drain = self.connection.drain_events
        while not self.should_stop():
            with suppress(TimeoutError):
                drain(timeout=_WAITING_S if self.unacknowledged else _IDLE_S)
            self._acknowledge()
            self._check()
        # What is already here; elsewhere than on AMQP nobody would get it any more.
        until_mono = time.monotonic() + _LAST_S
        with suppress(TimeoutError):
            while time.monotonic() < until_mono:
                drain(timeout=_WAITING_S)
        self._consumer.cancel()

    def _message(self, message: Any) -> None:
        now_s = time.time()
        try:
            body = message.decode()
        except Exception as exc:  # noqa: BLE001 - whoever sent it, it must not stop the others
            self._undecodable(message, exc)
            return
        self.take(body, now_s)
        self._is_taken(message)

    def _undecodable(self, message: Any, exc: Exception) -> None:
        # Acknowledged with the others: nobody else could read it either.
        self.refuse(f"undecodable: {type(exc).__name__}", repr(message.body), time.time())
        self._is_taken(message)

    def _is_taken(self, message: Any) -> None:
        if self.acknowledges:
            self._received = Mark(self._connections, message.delivery_tag)

    def _acknowledge(self) -> None:
        committed = self._committed
        if (
            self._consumer is not None
            and committed.connection == self._connections
            and committed.tag > self._acknowledged.tag
        ):
            self._consumer.channel.basic_ack(committed.tag, multiple=True)
            self._acknowledged = committed

    def _check(self) -> None:
        """Find out whether a server that says nothing is still there."""
        now_mono = time.monotonic()
        if now_mono > self._heartbeat_mono + _HEARTBEAT_S:
            self._heartbeat_mono = now_mono
            self.connection.heartbeat_check()
        if now_mono > self._subscription_mono + _SUBSCRIPTION_S:
            self._subscription_mono = now_mono
            # Celery's workers do the same in their event loop.
            check = getattr(getattr(self.connection.transport, "cycle", None), "maybe_check_subclient_health", None)
            if check is not None:
                check()

    # the end

    def keep_alive(self) -> None:
        """Acknowledge what is committed, and answer the broker's heartbeats. Called while the rest is written."""
        if self._consumer is None:
            return
        try:
            self._acknowledge()
            self._check()
        except self.errors as exc:
            logger.warning("The connection to the broker is lost: %s", exc)
            self._drop()

    def close(self) -> None:
        """Acknowledge what is committed, and close the connection."""
        self.keep_alive()
        self._consumer = None
        self.connection.release()

    def _drop(self) -> None:
        """Close what is left of a lost connection."""
        self._consumer = None
        try:
            self.connection.collect()
        except self.errors:
            logger.debug("The lost connection could not be closed.", exc_info=True)

    def _lost(self, exc: BaseException) -> None:
        """Say what is wrong; it goes on unless the settings say otherwise."""
        conf, uri = self.app.conf, self.connection.as_uri()
        if self._connections == 0:
            at_start = conf.broker_connection_retry_on_startup
            text, retry = "can't be reached", conf.broker_connection_retry if at_start is None else at_start
        else:
            text, retry = "is lost", conf.broker_connection_retry
        self.trouble = f"The broker {uri} {text}: {exc}"
        if not retry:
            raise CameraError(self.trouble, returncode=69) from exc
        held = f"keeps events for {self.ttl_s:g} s" if self.acknowledges else "keeps no events meanwhile"
        logger.error("%s; trying again, for ever. It %s.", self.trouble, held)

    def _sleep(self, seconds: float) -> None:
        # In short steps: a signal only sets a flag.
        until_mono = time.monotonic() + seconds
        while not self.should_stop() and time.monotonic() < until_mono:
            time.sleep(0.1)


def _read_ahead(connection: Any) -> None:
    """Let py-amqp ask the system once for several messages, where it asks nine times for one.

    Each time it gives way to the thread that writes, and waits for its turn again.
    """
    transport: Any = getattr(connection.connection, "transport", None)
    receive = getattr(transport, "_quick_recv", None)
    if receive is not None and isinstance(getattr(transport, "_read_buffer", None), bytes):
        transport._quick_recv = lambda count: receive(max(count, _READ_AHEAD_BYTES))
