"""How long the queues of the broker are, and how old their oldest message is; never waits longer than it is told.

Called by the overview, the metrics and the health command. Reads only: AMQP by a passive declaration, Redis by LLEN and
a look at the oldest message, other transports by what kombu knows of them. The broker is asked by a thread of its own,
since a transport may wait longer than any time limit that it is given.
Next: ``docs/monitor.rst``.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from celery.app.routes import MapRoute

from djcelery.backends.columns import SENT_HEADER
from djcelery.brokers import bounded

logger = logging.getLogger(__name__)

#: Seconds that a caller waits for an answer, and for which an answer is good.
WAIT_S = 0.8
GOOD_S = 5.0
#: Seconds after which the thread gives up, whoever still waits.
_TIMEOUT_S = 3.0
MAX_QUEUES = 50


@dataclass(frozen=True)
class Queue:
    """One queue. ``messages`` is None if the broker has no queue of that name.

    ``consumers``: how many take from it; None where the broker doesn't tell. ``oldest_s``: seconds since its oldest
    message was sent; None if there is none, or it isn't known.
    """

    name: str
    messages: int | None
    consumers: int | None = None
    oldest_s: float | None = None


@dataclass(frozen=True)
class Broker:
    """What the broker said: its queues, or why it said nothing (``problem`` is "" if it did)."""

    queues: tuple[Queue, ...] = ()
    problem: str = ""
    #: Where it is, without the password.
    url: str = ""
    took_s: float = 0.0

    @property
    def is_away(self) -> bool:
        """Whether it did not answer."""
        return bool(self.problem)


class Watch:
    """Asks the broker of one app, at most once at a time, and remembers the answer for some seconds."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self._lock = threading.Lock()
        self._running: threading.Thread | None = None
        self._answer: Broker | None = None
        self._names: frozenset[str] = frozenset()
        self._answered_mono = 0.0

    def look(self, names: Collection[str], wait_s: float = WAIT_S, good_s: float = GOOD_S) -> Broker:
        """Return what the broker says of the queues *names*; *wait_s* is how long that may take at most.

        An answer that is younger than *good_s* and has all *names* is returned again. The first 50 are asked for.
        """
        wanted = frozenset(list(names)[:MAX_QUEUES])
        deadline_mono = time.monotonic() + wait_s
        with self._lock:
            is_fresh = self._answer is not None and time.monotonic() - self._answered_mono < good_s
            if is_fresh and self._answer is not None and wanted <= self._names:
                return self._narrowed(self._answer, wanted)
            asked_mono = time.monotonic()
            if self._running is None or not self._running.is_alive():
                # A daemon: a broker that never answers must not keep the process from ending.
                self._running = threading.Thread(target=self._ask, args=(wanted,), daemon=True, name="djcelery-queues")
                self._running.start()
            running = self._running
        running.join(max(0.0, deadline_mono - time.monotonic()))
        with self._lock:
            if self._answer is not None and self._answered_mono >= asked_mono:
                return self._narrowed(self._answer, wanted)
        return Broker(problem=f"no answer within {wait_s:g} s", url=_safe_url(self.app))

    def _narrowed(self, answer: Broker, wanted: frozenset[str]) -> Broker:
        return replace(answer, queues=tuple(queue for queue in answer.queues if queue.name in wanted))

    def _ask(self, names: frozenset[str]) -> None:
        answer = ask(self.app, names)
        with self._lock:
            self._answer, self._names, self._answered_mono = answer, names, time.monotonic()


_watches: dict[int, Watch] = {}


def look(app: Any, names: Collection[str] = (), wait_s: float = WAIT_S, good_s: float = GOOD_S) -> Broker:
    """Return what the broker of *app* says of its own queues and of *names*; see ``Watch.look()``."""
    watch = _watches.get(id(app))
    if watch is None or watch.app is not app:
        watch = _watches[id(app)] = Watch(app)
    return watch.look(list(dict.fromkeys((*configured(app), *names))), wait_s, good_s)


def configured(app: Any) -> list[str]:
    """Return the names of the queues of *app*, from which its workers take by default, and of those that routes name.

    Routes are not followed beyond ``MAX_QUEUES``. Those that are code are not asked: they want a task.
    """
    try:
        maps = [router for router in app.amqp.routes if isinstance(router, MapRoute)]
    except Exception:  # noqa: BLE001 - a setting that Celery can't read either; whoever sends a task learns why
        maps = []
    routes = [route for routed in maps for route in (*routed.map.values(), *routed.patterns.values())]
    named = [route.get("queue") if isinstance(route, Mapping) else route for route in routes]
    own = [str(name) for name in app.amqp.queues]
    found = list(dict.fromkeys((*own, *(str(getattr(name, "name", name)) for name in named if name))))
    return found[: max(MAX_QUEUES, len(own))]


def ask(app: Any, names: Iterable[str]) -> Broker:
    """Ask the broker now, in this thread, and return its answer; may take long, raises nothing."""
    started_mono = time.monotonic()
    url = ""
    try:
        url = _safe_url(app)
        with bounded(app, _TIMEOUT_S, reads=True) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=_TIMEOUT_S)
            found = tuple(_queues(connection, sorted(names)))
    except Exception as exc:  # a transport may raise anything: a missing client an AttributeError
        logger.debug("The broker did not answer: %s", exc, exc_info=True)
        return Broker(problem=str(exc) or type(exc).__name__, url=url, took_s=time.monotonic() - started_mono)
    return Broker(found, url=url, took_s=time.monotonic() - started_mono)


def _queues(connection: Any, names: Iterable[str]) -> Iterator[Queue]:
    kind = connection.transport.driver_type
    channel = connection.channel()
    for name in names:
        if kind == "redis":
            # kombu's declaration asks for the key without ``global_keyprefix``.
            waiting = channel._size(name)
            yield Queue(name, waiting, oldest_s=_oldest_s(channel, name) if waiting else None)
            continue
        try:
            said = channel.queue_declare(queue=name, passive=True)
        except connection.channel_errors:
            # AMQP closes a channel that was asked for a queue that isn't there; elsewhere the first message makes it.
            channel = connection.channel() if kind == "amqp" else channel
            yield Queue(name, None if kind == "amqp" else 0)
            continue
        yield Queue(name, said.message_count, said.consumer_count if kind == "amqp" else None)


def _oldest_s(channel: Any, name: str) -> float | None:
    """Return for how many seconds the message waits that a worker takes next from a list of Redis."""
    ages = []
    with channel.conn_or_acquire() as client:
        for priority in channel.priority_steps:
            # kombu prefixes the keys of the commands that it knows, and this is none of them.
            body = client.lindex(f"{channel.global_keyprefix}{channel._q_for_pri(name, priority)}", -1)
            sent = body and _sent(body)
            if sent:
                ages.append(max(0.0, time.time() - sent))
    return max(ages, default=None)


def _sent(body: bytes | str) -> float | None:
    """Return when a message was sent, in seconds since the epoch; None if it doesn't say, or was sent before."""
    try:
        headers = json.loads(body)["headers"]
        # A retry keeps the time at which the task was sent first.
        return None if headers.get("retries") else float(headers[SENT_HEADER])
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _safe_url(app: Any) -> str:
    return str(app.connection_for_read().as_uri())
