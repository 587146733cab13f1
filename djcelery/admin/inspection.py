"""What workers do now, asked of them: several questions in one round, and never a wait of more than a second.

Called by ``workers`` (the live details of one) and by ``schedule`` (the tasks that they know). Writes nothing. What
workers say is text of others: templates escape it, and values of an unexpected type are left out.
Next: ``docs/monitor.rst``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timezone
from typing import Any

from celery.utils.saferepr import saferepr
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from kombu import Consumer
from kombu.utils.uuid import uuid

from djcelery import db, utils
from djcelery.app import project_app
from djcelery.backends.columns import REDACTED, Columns, shown_arguments
from djcelery.backends.redaction import redacted_names
from djcelery.brokers import bounded

logger = logging.getLogger(__name__)

#: Seconds that a page waits for answers.
WAIT_S = 0.9
# For the thread to tell what it has.
_SPARE_S = 0.05
#: The commands of the live details, and their arguments.
DETAILS: dict[str, dict[str, Any]] = {
    "stats": {},
    # As the senders want their arguments to be shown.
    "active": {"safe": True},
    "reserved": {},
    "scheduled": {},
    "active_queues": {},
    "registered": {},
}
#: Tasks and names that a page shows of each kind, and characters of their arguments.
MAX_SHOWN = 100
_MAX_CHARACTERS = 500
# No number of seconds, nor of kibibytes, is larger.
_MAX_SECONDS = 10**10
#: Questions that may wait for the broker at once: a broker that is away must not use up all threads.
_places = threading.BoundedSemaphore(8)


@dataclass
class Answers:
    """What workers answered: by hostname and command. ``problem`` says why there is less than was asked for."""

    replies: dict[str, dict[str, Any]] = field(default_factory=dict)
    problem: str = ""


def ask(
    commands: Mapping[str, Mapping[str, Any]],
    hostnames: Sequence[str] | None = None,
    expected: int | None = None,
    wait_s: float = WAIT_S,
) -> Answers:
    """Ask workers *commands*, all at once, and return what came within *wait_s* seconds.

    Args:
        commands: The names of Celery's inspect commands, and their arguments.
        hostnames: Who is asked; None is all workers.
        expected: Return as soon as so many have answered everything; None for as many as there are *hostnames*.
    """
    if not _places.acquire(blocking=False):
        return Answers(problem=_("Too many other pages are waiting for the broker."))
    wanted = expected if expected is not None else len(hostnames or ())
    app = project_app()
    replies: dict[str, dict[str, Any]] = {}
    problems: list[str] = []

    def work() -> None:
        try:
            _ask(app, commands, hostnames, wanted, wait_s, replies)
        except Exception as exc:  # a transport may raise anything
            logger.warning("The broker can't be asked for workers: %s", exc, exc_info=True)
            problems.append(str(exc) or type(exc).__name__)
        finally:
            _places.release()

    # In a thread, since looking up a host, for one, takes as long as it takes.
    thread = threading.Thread(target=work, name="djcelery-inspect", daemon=True)
    thread.start()
    thread.join(wait_s + _SPARE_S)
    found = {hostname: dict(answers) for hostname, answers in list(replies.items())}
    if problems:
        return Answers(found, _("The broker can't be reached: %(reason)s") % {"reason": problems[0]})
    if not found:
        return Answers(found, _("Nobody answered within %(seconds)s s.") % {"seconds": wait_s})
    return Answers(found)


def _ask(
    app: Any,
    commands: Mapping[str, Mapping[str, Any]],
    hostnames: Sequence[str] | None,
    wanted: int,
    wait_s: float,
    replies: dict[str, dict[str, Any]],
) -> None:
    """Send the questions and put the answers into *replies* as they come."""
    deadline_mono = time.monotonic() + wait_s
    tickets = {uuid(): command for command in commands}

    def take(body: Any, message: Any) -> None:
        command = tickets.get(message.headers.get("ticket"))
        if command is not None and isinstance(body, dict):
            for hostname, reply in body.items():
                replies.setdefault(hostname, {})[command] = reply

    def is_whole() -> bool:
        return 0 < wanted <= sum(len(answers) == len(commands) for answers in replies.values())

    with bounded(app, wait_s) as connection:
        connection.ensure_connection(max_retries=0, interval_start=0)
        mailbox = app.control.mailbox(connection)
        channel, producer = connection.default_channel, connection.Producer(auto_declare=False)
        queue = mailbox.reply_queue
        try:
            # As Mailbox._broadcast() does for one command: there a round trip of the broker passes for each.
            with Consumer(channel, [queue], accept=mailbox.accept, no_ack=True, callbacks=[take]):
                for ticket, command in tickets.items():
                    mailbox._publish(
                        command,
                        dict(commands[command]),
                        destination=None if hostnames is None else list(hostnames),
                        reply_ticket=ticket,
                        channel=channel,
                        timeout=wait_s,
                        producer=producer,
                    )
                while not is_whole() and (left_s := deadline_mono - time.monotonic()) > 0:
                    try:
                        connection.drain_events(timeout=left_s)
                    except TimeoutError:
                        break
        finally:
            channel.after_reply_message_received(queue.name)


# -- what the answers say ----------------------------------------------------------------------


def _text(value: Any, write: Callable[[Any], str] = str) -> str:
    """Return *value* as text that a page can show and a database can look for; *write* makes it of what is none."""
    try:
        text = value if isinstance(value, str) else write(value)
    except (ValueError, RecursionError):
        # A number of thousands of digits, or lists in lists in lists.
        return "?"
    return db.storable(text[:_MAX_CHARACTERS])


def registered_names(reply: Any) -> list[str]:
    """Return the names of tasks in the answer to ``registered``: "name [rate_limit=…]" each."""
    return sorted({text.partition(" [")[0] for text in _list(reply) if isinstance(text, str)})


@dataclass
class Part:
    """One part of the live details: what is shown of it, how much there is, or why there is none."""

    title: str
    rows: list[Any] = field(default_factory=list)
    count: int = 0
    problem: str = ""

    @property
    def left_out(self) -> int:
        """How many are not shown."""
        return max(0, self.count - len(self.rows))


def part(title: str, reply: Any, shape: Callable[[Any], Any]) -> Part:
    """Return the part *title* of what a worker replied (None: nothing); *shape* makes a row of each item."""
    if reply is None:
        return Part(title, problem=_("It did not answer that."))
    if isinstance(reply, dict) and set(reply) == {"error"}:
        return Part(title, problem=_text(reply["error"]))
    items = _list(reply)
    return Part(title, [shape(item) for item in items[:MAX_SHOWN]], len(items))


def _list(reply: Any) -> list[Any]:
    return reply if isinstance(reply, list) else []


def task_row(app: Any, entry: Any, sees_arguments: bool) -> dict[str, Any]:
    """Return what a page shows of a task that a worker has; *entry* may be a scheduled one, which wraps it."""
    outer = entry if isinstance(entry, dict) else {}
    request = outer["request"] if isinstance(outer.get("request"), dict) else outer
    task_id, name = _text(request.get("id") or ""), _text(request.get("name") or request.get("type") or "")
    row: dict[str, Any] = {"task_id": task_id, "link": task_id, "name": name}
    row["pid"] = _text(request.get("worker_pid") or "")
    started, eta = _number(request.get("time_start")), outer.get("eta")
    if started:
        row["when"] = _("for %(seconds)d s") % {"seconds": max(0.0, time.time() - started)}
    elif isinstance(eta, str):
        row["when"] = _moment(eta)
    if sees_arguments:
        redacted = redacted_names(app, name or None)
        row["arguments"] = [_shown(column, request.get(column), redacted) for column in ("args", "kwargs")]
    return row


def _shown(column: str, value: Any, redacted: Collection[str]) -> str:
    """Return arguments as text, without what may not be shown of them."""
    # Of a text, as in the answer to "active", no item can be taken out.
    if column in redacted or (isinstance(value, str) and any(name.startswith(f"{column}.") for name in redacted)):
        return REDACTED
    value = shown_arguments(Columns(), column, value, frozenset(redacted))
    return _text(value, lambda value: saferepr(value, maxlen=_MAX_CHARACTERS))


def _moment(text: str) -> str:
    try:
        moment = parse_datetime(text)
    except ValueError:
        moment = None
    if moment is None:
        return _text(text)
    return utils.local_text(moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc))


def queue_row(entry: Any) -> dict[str, str]:
    """Return what a page shows of a queue that a worker takes from."""
    queue = entry if isinstance(entry, dict) else {}
    exchange = queue["exchange"] if isinstance(queue.get("exchange"), dict) else {}
    return {
        "name": _text(queue.get("name") or ""),
        "exchange": _text(exchange.get("name") or ""),
        "type": _text(exchange.get("type") or ""),
        "routing_key": _text(queue.get("routing_key") or ""),
    }


def facts(reply: Any) -> list[tuple[str, str]]:
    """Return labels and values of the answer to ``stats``. The rest, such as options of the broker, may be secret."""
    stats = reply if isinstance(reply, dict) else {}
    pool, broker = _dict(stats.get("pool")), _dict(stats.get("broker"))
    usage, totals = _dict(stats.get("rusage")), _dict(stats.get("total"))
    uptime = _number(stats.get("uptime"))
    started = None if uptime is None else utils.fromtimestamp(time.time() - uptime)
    processes = pool.get("processes")
    found = [
        (_("process id"), stats.get("pid")),
        (_("running since"), started and utils.local_text(started)),
        (_("pool"), pool.get("implementation")),
        (_("concurrency"), pool.get("max-concurrency")),
        (_("processes"), ", ".join(map(_text, processes[:MAX_SHOWN])) if isinstance(processes, list) else None),
        (_("prefetch count"), stats.get("prefetch_count")),
        (_("broker"), _broker(broker)),
        (_("memory at most"), _kibibytes(usage.get("maxrss"))),
        (_("tasks run"), sum(number for number in totals.values() if isinstance(number, int)) if totals else None),
    ]
    return [(label, _text(value)) for label, value in found if value not in (None, "")]


def _number(value: Any) -> float | None:
    """Return a number that can be a time in seconds; None for anything else."""
    return value if isinstance(value, (int, float)) and 0 <= value < _MAX_SECONDS else None


def _dict(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _broker(broker: dict[Any, Any]) -> str:
    if not broker:
        return ""
    place = ":".join(_text(broker[key]) for key in ("hostname", "port") if broker.get(key))
    return f"{_text(broker.get('transport') or '')} {place} {_text(broker.get('virtual_host') or '')}".strip()


def _kibibytes(value: Any) -> str:
    # What Linux and the BSDs count maxrss in.
    kibibytes = _number(value)
    return "" if kibibytes is None else f"{kibibytes / 1024:.0f} MiB"


def details(app: Any, replies: Mapping[str, Any], sees_arguments: bool) -> dict[str, Any]:
    """Return the parts of the live details of one worker, for the template."""

    def task(entry: Any) -> dict[str, Any]:
        return task_row(app, entry, sees_arguments)

    return {
        "facts": facts(replies.get("stats")),
        "tasks": [
            part(_("Running now"), replies.get("active"), task),
            part(_("Waiting for a free process"), replies.get("reserved"), task),
            part(_("Waiting for their time"), replies.get("scheduled"), task),
        ],
        "queues": part(_("Queues it takes from"), replies.get("active_queues"), queue_row),
        "registered": part(_("Tasks it knows"), _names(replies.get("registered")), _text),
    }


def _names(reply: Any) -> Any:
    return registered_names(reply) if isinstance(reply, list) else reply


def link_tasks(parts: Iterable[Part], find: Callable[[list[str]], Mapping[str, Any]]) -> None:
    """Make links of the ids of the tasks that *parts* show; *find* returns the link of each id that has one."""
    rows = [row for shown in parts for row in shown.rows]
    links = find([row["task_id"] for row in rows if row["task_id"]])
    for row in rows:
        row["link"] = links.get(row["task_id"], row["task_id"])
