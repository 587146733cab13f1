"""Rows of tasks and workers as the camera reads and writes them: from columns to news, and back.

Called by ``writer``. Wide columns are not read: of those it is known whether they have a value. Pure, but for the
connection that says how it holds instants.
Next: ``docs/explain/life-of-a-task-event.rst``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from operator import attrgetter
from typing import Any

from celery import states
from django.db.backends.base.base import BaseDatabaseWrapper

from djcelery import db
from djcelery.snapshot.merging import LOST, STORED
from djcelery.snapshot.news import TaskNews, WorkerNews
from djcelery.snapshot.redaction import shown
from djcelery.snapshot.statements import CLEAR, FILL, REPLACE, Instants, Table

_FINAL = frozenset({states.SUCCESS, states.FAILURE, states.REVOKED})
#: Columns of which is read whether they have a value, in the order of their bits.
_PRESENT = ("args", "kwargs", "expires", "root_id", "parent_id", "client", "queue", "routing_key", "progress")
_OUTCOME = ("result", "exception", "traceback")
_READ = (
    "id",
    "task_id",
    "state",
    "tstamp",
    "retries",
    "name",
    "worker_id",
    "eta",
    "sent_at",
    "received_at",
    "started_at",
    "finished_at",
    "flags",
)
#: Columns of tasks that are written, and their kinds, see ``statements``.
_TASK = {
    "task_id": "text",
    "state": "text",
    "tstamp": "time",
    "retries": "int",
    "name": "text",
    "args": "text",
    "kwargs": "text",
    "eta": "time",
    "expires": "time",
    "runtime": "float",
    "worker_id": "int",
    "queue": "text",
    "routing_key": "text",
    "root_id": "text",
    "parent_id": "text",
    "client": "text",
    "sent_at": "time",
    "received_at": "time",
    "started_at": "time",
    "finished_at": "time",
    "progress": "text",
    "flags": "text",
    "result": "text",
    "exception": "text",
    "traceback": "text",
    "hidden": "bool",
}
_LIMITS = {"name": 200, "queue": 200, "routing_key": 200, "root_id": 255, "parent_id": 255, "client": 255}
_WORKER = {
    "hostname": "text",
    "last_heartbeat": "time",
    "online_at": "time",
    "offline_at": "time",
    "pid": "int",
    "software": "text",
    "version": "text",
    "system": "text",
    "processed": "int",
    "active": "int",
    "load": "text",
    "frequency": "float",
    "clock_skew": "float",
    "missed": "int",
    "seen": "int",
}
_marks = attrgetter(
    *("state", "timestamp", "worker", "result", "exception", "traceback", "runtime", "name", "args", "kwargs", "eta"),
    *("expires", "root_id", "parent_id", "client", "queue", "routing_key", "retries", "sent_at", "received_at"),
    *("started_at", "finished_at", "progress", "flags"),
)


def tables(task_table: str) -> tuple[Table, Table]:
    """Return how new rows of tasks are written, and rows whose ``id``, which comes first, is known.

    Without the id each update would use one up, and the legacy ones end at two thousand million.
    """
    updates = {name: FILL for name in _TASK if name not in ("task_id", "hidden")}
    updates |= dict.fromkeys(("state", "tstamp", "retries"), REPLACE) | dict.fromkeys(_OUTCOME, CLEAR)
    key = ("task_id",)
    return Table(task_table, _TASK, key, updates), Table(task_table, {"id": "int", **_TASK}, key, updates)


def worker_table(name: str) -> Table:
    """Return how rows of workers are written: as a whole, since they are read before."""
    return Table(name, _WORKER, ("hostname",), {column: REPLACE for column in _WORKER if column != "hostname"})


def picked(connection: BaseDatabaseWrapper) -> str:
    """Return the SQL of what is read of a task."""
    quote = connection.ops.quote_name
    bits = [f"CASE WHEN {quote(name)} IS NULL THEN 0 ELSE {1 << n} END" for n, name in enumerate(_PRESENT)]
    outcome = " OR ".join(f"{quote(name)} IS NOT NULL" for name in _OUTCOME)
    bits.append(f"CASE WHEN {outcome} THEN {1 << len(_PRESENT)} ELSE 0 END")
    return f"{', '.join(map(quote, _READ))}, {' + '.join(bits)}"


def task(row: tuple[Any, ...], instants: Instants) -> tuple[int, TaskNews]:
    """Return the id of a row that was read as ``picked`` says, and what it knows."""
    pk, task_id, state, tstamp, retries, name, worker_id, eta, sent, received, started, finished, flags, bits = row
    of = instants.of
    at, finished_at = of(tstamp) or 0.0, of(finished)
    # Columns that django-celery made on MySQL hold whole seconds: what was written then is not newer.
    precise_at = at + 0.999999 if at % 1 == 0 else at
    outcome = STORED if bits >> len(_PRESENT) & 1 else None
    known = TaskNews(
        task_id,
        "",
        "",
        state=state,
        timestamp=precise_at if state == LOST else at,
        is_final=state in _FINAL or (state == states.REJECTED and finished_at is not None),
        worker=None if worker_id is None else STORED,
        result=outcome,
        exception=outcome,
        traceback=outcome,
        name=name,
        eta=None if eta is None else instants.moment(eta),
        retries=retries,
        retries_at=precise_at,
        is_retry_owed=state == states.RECEIVED and bool(retries),
        sent_at=of(sent),
        received_at=of(received),
        started_at=of(started),
        finished_at=finished_at,
        flags=tuple(flags.split()) if flags else (),
    )
    if bits:
        for number, column in enumerate(_PRESENT):
            if bits >> number & 1:
                setattr(known, column, STORED)
    return pk, known


def marks(news: TaskNews) -> tuple[Any, ...]:
    """Return what is written of *news*: two that are equal make the same row."""
    return _marks(news)


def values(
    news: TaskNews, *, is_stored: bool, worker_id: int | None, instants: Instants, hidden: frozenset[str]
) -> tuple[Any, ...]:
    """Return the columns of a task, in the order in which ``tables`` has them; None leaves a column as it is.

    Args:
        is_stored: Whether the row is there: then an empty text empties its column.
        worker_id: The key of ``news.worker``; None if it is not known, or has not changed.
        hidden: What is redacted, see ``redaction``.
    """
    stored, state = instants.stored, news.state or states.PENDING
    texts, flags = _texts(news, state, is_stored, hidden)
    expires = news.expires
    return (
        news.task_id,
        state,
        stored(news.timestamp or news.progress_at),
        news.retries if news.retries is not None else len(news.unplaced_retries),
        news.name,
        texts["args"],
        texts["kwargs"],
        None if news.eta is None else stored(news.eta.timestamp()),
        stored(expires.timestamp()) if isinstance(expires, datetime) else None,
        news.runtime,
        worker_id,
        *(None if text is STORED else text for text in (news.queue, news.routing_key, news.root_id, news.parent_id)),
        None if news.client is STORED else news.client,
        stored(news.sent_at),
        stored(news.received_at),
        stored(news.started_at),
        stored(news.finished_at),
        texts["progress"],
        " ".join(flags)[:255] or None,
        texts["result"],
        texts["exception"],
        texts["traceback"],
        False,
    )


def _texts(
    news: TaskNews, state: str, is_stored: bool, hidden: frozenset[str]
) -> tuple[dict[str, str | None], tuple[str, ...]]:
    """Return the texts that may be redacted, as they are written, and the flags of the task."""
    outcome = {name: getattr(news, name) for name in _OUTCOME}
    if outcome["result"] is None and outcome["exception"] is not STORED and state in (states.FAILURE, states.RETRY):
        # The legacy column of results holds the error.
        outcome["result"] = news.exception
    texts = {name: getattr(news, name) for name in ("args", "kwargs", "progress")} | outcome
    flags = news.flags
    for name, text in texts.items():
        if text is STORED:
            texts[name] = None
            continue
        if text is not None and hidden:
            texts[name] = shown("exception" if name == "result" and news.result is None else name, text, hidden)
            if texts[name] != text and f"{name}_redacted" not in flags:
                flags = (*flags, f"{name}_redacted")
        if texts[name] is None and is_stored and name in outcome:
            texts[name] = ""
    return texts, flags


def narrowed(row: tuple[Any, ...], table: Table) -> tuple[Any, ...]:
    """Return the *row* of a task for text columns of three bytes, as old MySQL tables have them, which refuse emoji."""
    columns = list(table.columns)
    narrow = [db.three_byte(value) for value in row]
    changed = [name for name, old, new in zip(columns, row, narrow, strict=True) if old != new]
    for name in changed:
        # Escapes are longer.
        limit = _LIMITS.get(name)
        number = columns.index(name)
        narrow[number] = narrow[number][:limit]
    flags = columns.index("flags")
    noted = (narrow[flags] or "").split()
    narrow[flags] = (
        " ".join(noted + [flag for name in changed if (flag := f"{name}_escaped") not in noted])[:255] or None
    )
    return tuple(narrow)


# -- workers -----------------------------------------------------------------------------------


def worker_columns(connection: BaseDatabaseWrapper) -> str:
    """Return the SQL of what is read of a worker."""
    return ", ".join(map(connection.ops.quote_name, ("id", *_WORKER)))


def worker(row: tuple[Any, ...] | None, news: WorkerNews, instants: Instants) -> tuple[Any, ...] | None:
    """Return the columns of a worker with *news* in its *row* (None: it has none); None if nothing changes."""
    known: dict[str, Any] = dict.fromkeys(_WORKER) if row is None else dict(zip(_WORKER, row[1:], strict=True))
    for name, kind in _WORKER.items():
        if kind == "time":
            known[name] = instants.of(known[name])
    merged = _merged(known, news)
    if row is not None and merged == known:
        return None
    return tuple(instants.stored(merged[name]) if kind == "time" else merged[name] for name, kind in _WORKER.items())


def _merged(known: Mapping[str, Any], news: WorkerNews) -> dict[str, Any]:
    merged = {**known, "hostname": known["hostname"] or news.hostname}
    latest: Callable[..., float] = lambda *times: max(at or 0.0 for at in times)  # noqa: E731 - used three times, here
    is_later = latest(news.last_heartbeat, news.offline_at) >= latest(known["last_heartbeat"])
    is_new = _is_new_process(known, news)
    if is_later:
        for name in ("pid", "software", "version", "system", "processed", "active", "load", "frequency", "clock_skew"):
            value = getattr(news, name)
            if value is not None:
                merged[name] = value
        if is_new and known["pid"] is not None:
            # Not when it was heard of last: what it runs may have begun before.
            merged["online_at"] = max(news.online_at or 0.0, news.first_at or 0.0) or news.timestamp
        elif news.online_at and (is_new or known["online_at"] is None):
            merged["online_at"] = news.online_at
    if is_later or not is_new:
        if news.seen is not None:
            merged["seen"] = news.seen if is_new else max(news.seen, known["seen"] or 0)
        if news.missed is not None:
            merged["missed"] = max(news.missed, known["missed"] or 0)
    merged["last_heartbeat"] = latest(known["last_heartbeat"], news.last_heartbeat) or None
    merged["offline_at"] = latest(known["offline_at"], news.offline_at) or None
    if merged["offline_at"] and merged["last_heartbeat"] and merged["last_heartbeat"] > merged["offline_at"]:
        merged["offline_at"] = None
    return merged


def _is_new_process(known: Mapping[str, Any], news: WorkerNews) -> bool:
    """Tell whether *news* are of another process than the row. In containers the id may be the same."""
    if news.pid is not None and news.pid != known["pid"]:
        return True
    return news.processed is not None and known["processed"] is not None and news.processed < known["processed"]
