"""From a raw event to what it says: fields checked, texts cut and escaped, or the reason why it can't be read.

Called by ``receiver`` for each event that the broker brings. Pure, but for the setting of the longest argument.
Next: ``docs/explain/life-of-a-task-event.rst``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

from celery import states
from celery.utils.time import maybe_iso8601

from djcelery import db
from djcelery.conf import conf
from djcelery.snapshot.news import Malformed, TaskNews, WorkerNews

__all__ = ("Malformed", "TaskNews", "WorkerNews", "read")

#: Longest texts that are kept of an event, in characters.
RESULT_CHARACTERS, TRACEBACK_CHARACTERS, BODY_CHARACTERS = 65_536, 1_048_576, 2_000
ID_CHARACTERS, NAME_CHARACTERS, KEY_CHARACTERS, HOST_CHARACTERS = 36, 200, 200, 255
#: Events of before the year 2000, and of more than a day ahead of the camera's clock, come from a clock that is wrong.
OLDEST_S, AHEAD_S = 946_684_800.0, 86_400.0
#: The largest whole numbers that the columns hold.
MOST_RETRIES, MOST = 2**31 - 1, 2**63 - 1

_STATES = {
    "sent": states.PENDING,
    "received": states.RECEIVED,
    "started": states.STARTED,
    "succeeded": states.SUCCESS,
    "failed": states.FAILURE,
    "retried": states.RETRY,
    "revoked": states.REVOKED,
    "rejected": states.REJECTED,
    # The worker lost its connection and gave the task up; the broker delivers it again.
    "cancelled": states.RETRY,
}
# ETAs beyond are as good as these; databases and time zones end there.
_EARLIEST, _LATEST = (datetime(*day, tzinfo=timezone.utc) for day in ((1970, 1, 1), (9999, 12, 30)))
_WORKER_EVENTS = frozenset({"online", "heartbeat", "offline"})
#: What every event has; the rest of a project's own event is its news.
_ENVELOPE = frozenset({"type", "uuid", "hostname", "timestamp", "local_received", "clock", "utcoffset", "pid"})


class _Refused(Exception):
    """The event can't be read; the message says why."""


def read(event: Any, received_at_s: float) -> TaskNews | WorkerNews | Malformed | None:
    """Return what *event* says, why it can't be read, or None if it is nothing for the camera.

    Never raises. Timestamps are taken as sent: seconds since the epoch, not moved by ``utcoffset``.

    Args:
        event: One event, decoded, as the broker brings it alone or in a list.
        received_at_s: When it came, by the camera's clock.
    """
    try:
        if not isinstance(event, dict):
            raise _Refused("it is no dictionary")
        kind = event.get("type")
        if not isinstance(kind, str) or not kind:
            raise _Refused("it has no type")
        group, _, subject = kind.partition("-")
        if group == "task" and subject:
            return _task(event, subject, received_at_s)
        if group == "worker" and subject in _WORKER_EVENTS:
            return _worker(event, subject, received_at_s)
        return None
    except _Refused as exc:
        return Malformed(str(exc), _shown(event), received_at_s)
    except Exception as exc:  # noqa: BLE001 - one event of a loop that must go on
        return Malformed(f"it can't be read: {type(exc).__name__}", _shown(event), received_at_s)


# -- tasks -------------------------------------------------------------------------------------


def _task(event: dict[str, Any], subject: str, received_at_s: float) -> TaskNews:
    task_id = event.get("uuid")
    if not isinstance(task_id, str) or not task_id:
        raise _Refused("it has no uuid")
    if len(task_id) > ID_CHARACTERS or not _is_plain(task_id):
        raise _Refused(f"its uuid is no text of up to {ID_CHARACTERS} characters")
    at = _timestamp(event, received_at_s)
    news = TaskNews(task_id, subject, _hostname(event), _pid(event), received_at_s)
    state = _STATES.get(subject)
    if state is None:
        news.event = _text(news, "event", subject, NAME_CHARACTERS) or "?"
        news.progress, news.progress_at = _progress(news, event), at
        return news
    news.state, news.timestamp = state, at
    if subject != "sent":
        news.worker = news.hostname
    _READERS[subject](news, event)
    return news


def _sent(news: TaskNews, event: dict[str, Any]) -> None:
    news.client = news.hostname
    news.sent_at = news.timestamp
    news.queue = _text(news, "queue", event.get("queue"), KEY_CHARACTERS)
    news.routing_key = _text(news, "routing_key", event.get("routing_key"), KEY_CHARACTERS)
    describe(news, event)
    if news.retries:
        # A task sends its retry while it runs: the event of the retry, which counts, is still to come.
        news.retries, news.first_retries, news.is_retry_owed = None, None, False


def _received(news: TaskNews, event: dict[str, Any]) -> None:
    news.received_at = news.first_received_at = news.timestamp
    describe(news, event)


def describe(news: TaskNews, event: dict[str, Any]) -> None:
    get = event.get
    news.name = _text(news, "name", get("name"), NAME_CHARACTERS)
    news.args = _arguments(news, "args", get("args"))
    news.kwargs = _arguments(news, "kwargs", get("kwargs"))
    news.root_id = _text(news, "root_id", get("root_id"), HOST_CHARACTERS)
    news.parent_id = _text(news, "parent_id", get("parent_id"), HOST_CHARACTERS)
    if get("eta"):
        news.eta = _instant(event, "eta")
    if get("expires"):
        news.expires = _instant(event, "expires")
    news.retries = news.first_retries = _whole(event, "retries", MOST_RETRIES)
    news.retries_at = news.timestamp
    news.is_retry_owed = bool(news.retries)


def _started(news: TaskNews, event: dict[str, Any]) -> None:
    news.started_at = news.timestamp


def _succeeded(news: TaskNews, event: dict[str, Any]) -> None:
    _finished(news)
    news.result = _text(news, "result", event.get("result"), RESULT_CHARACTERS)
    news.runtime = _number(event, "runtime")


def _failed(news: TaskNews, event: dict[str, Any]) -> None:
    _finished(news)
    _error(news, event)


def _retried(news: TaskNews, event: dict[str, Any]) -> None:
    news.unplaced_retries = (news.timestamp,)
    news.seen_retries = 1
    _error(news, event)


def _revoked(news: TaskNews, event: dict[str, Any]) -> None:
    _finished(news)
    if event.get("expired"):
        news.exception = "expired"
    elif event.get("terminated"):
        news.exception = _text(news, "exception", f"terminated by signal {event.get('signum')}", RESULT_CHARACTERS)


def _rejected(news: TaskNews, event: dict[str, Any]) -> None:
    # Else the broker delivers it again.
    if not event.get("requeue"):
        _finished(news)


def _cancelled(news: TaskNews, event: dict[str, Any]) -> None:
    news.exception = "cancelled"


_READERS: dict[str, Callable[[TaskNews, dict[str, Any]], None]] = {
    "sent": _sent,
    "received": _received,
    "started": _started,
    "succeeded": _succeeded,
    "failed": _failed,
    "retried": _retried,
    "revoked": _revoked,
    "rejected": _rejected,
    "cancelled": _cancelled,
}


def _finished(news: TaskNews) -> None:
    news.is_final = True
    news.finished_at = news.timestamp


def _error(news: TaskNews, event: dict[str, Any]) -> None:
    news.exception = _text(news, "exception", event.get("exception"), RESULT_CHARACTERS)
    traceback = _text(news, "traceback", event.get("traceback"), None)
    if traceback is not None and len(traceback) > TRACEBACK_CHARACTERS:
        # Its end says what happened.
        traceback = f"[…]\n{traceback[-TRACEBACK_CHARACTERS:]}"
        flag(news, "traceback_cut")
    news.traceback = traceback


def _progress(news: TaskNews, event: dict[str, Any]) -> str:
    own = {key: value for key, value in event.items() if key not in _ENVELOPE}
    text = db.storable(json.dumps({"event": news.event, **own}, default=repr, ensure_ascii=False, skipkeys=True))
    limit = conf.DJCELERY_ARGS_MAX_BYTES
    if limit is not None and len(text) > limit:
        flag(news, "progress_cut")
        text = json.dumps({"event": news.event, "cut": text[:limit]}, ensure_ascii=False)
    return text


# -- workers -----------------------------------------------------------------------------------


def _worker(event: dict[str, Any], subject: str, received_at_s: float) -> WorkerNews:
    hostname, at = _hostname(event), _timestamp(event, received_at_s)
    news = WorkerNews(hostname, subject, at, received_at_s, pid=_pid(event))
    shown = min(at, received_at_s)
    if subject == "offline":
        news.offline_at = shown
    else:
        news.last_heartbeat = shown
    news.software, news.version, news.system = (
        None if event.get(key) is None else db.storable(str(event[key]))[:64]
        for key in ("sw_ident", "sw_ver", "sw_sys")
    )
    news.processed, news.active = _whole(event, "processed", MOST), _whole(event, "active", MOST_RETRIES)
    # Workers say so, too, when events are switched on, or the broker is back.
    if subject == "online" and not news.processed:
        news.online_at = at
    news.frequency = _number(event, "freq") or None
    load = event.get("loadavg")
    if isinstance(load, (list, tuple)):
        news.load = db.storable(" ".join(str(part) for part in load[:3]))[:64]
    return news


# -- fields ------------------------------------------------------------------------------------


def flag(news: TaskNews, what: str) -> None:
    """Note in *news* that something was changed, once."""
    if what not in news.flags:
        news.flags = (*news.flags, what)


def _hostname(event: dict[str, Any]) -> str:
    hostname = event.get("hostname")
    if not isinstance(hostname, str) or not hostname:
        raise _Refused("it has no hostname")
    if len(hostname) > HOST_CHARACTERS or not _is_plain(hostname):
        raise _Refused(f"its hostname is no text of up to {HOST_CHARACTERS} characters")
    return hostname


def _timestamp(event: dict[str, Any], received_at_s: float) -> float:
    at = event.get("timestamp")
    if isinstance(at, Decimal):
        at = float(at)
    if isinstance(at, bool) or not isinstance(at, (int, float)):
        raise _Refused("its timestamp is no number" if at is not None else "it has no timestamp")
    if not at >= OLDEST_S:
        raise _Refused("its timestamp is before the year 2000")
    if at > received_at_s + AHEAD_S:
        raise _Refused("its timestamp is more than a day ahead")
    # Databases hold microseconds; what is written must compare equal to what is read back.
    return round(float(at), 6)


def _number(event: dict[str, Any], key: str) -> float | None:
    """Return a finite number from 0 on, or None if there is none."""
    value = event.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)) or not 0 <= value < 1e15:
        raise _Refused(f"its {key} is no number from 0 on")
    return float(value)


def _whole(event: dict[str, Any], key: str, most: int) -> int | None:
    value = event.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most or value != int(value):
        raise _Refused(f"its {key} is no whole number from 0 on")
    return int(value)


def _pid(event: dict[str, Any]) -> int | None:
    pid = event.get("pid")
    return pid if isinstance(pid, int) and 0 <= pid <= MOST else None


def _instant(event: dict[str, Any], key: str) -> datetime:
    value = event[key]
    try:
        moment = maybe_iso8601(value)
    except (TypeError, ValueError) as exc:
        raise _Refused(f"its {key} is no time in ISO 8601") from exc
    if not isinstance(moment, datetime):
        raise _Refused(f"its {key} is no time in ISO 8601")
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    # Aware times compare without leaving the calendar, which some zones would at its ends.
    return moment.astimezone(timezone.utc) if _EARLIEST < moment < _LATEST else max(_EARLIEST, min(moment, _LATEST))


def _text(news: TaskNews, column: str, value: Any, limit: int | None) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else str(value)
    if not text.isascii() or "\x00" in text:
        stored = db.storable(text)
        if stored != text:
            flag(news, f"{column}_escaped")
            text = stored
    if limit is not None and len(text) > limit:
        flag(news, f"{column}_cut")
        return text[:limit]
    return text


def _arguments(news: TaskNews, column: str, value: Any) -> str | None:
    text = _text(news, column, value, None)
    # Read on use, and most are far shorter.
    if text is not None and len(text) > 256:
        return _text(news, column, text, conf.DJCELERY_ARGS_MAX_BYTES)
    return text


def _is_plain(text: str) -> bool:
    """Tell whether *text* can stand as a key in every database: nothing to escape, no space at its ends."""
    return ((text.isascii() and "\x00" not in text) or db.storable(text) == text) and text == text.strip()


def _shown(event: Any) -> str:
    try:
        text = json.dumps(event, default=repr, ensure_ascii=False, skipkeys=True)
    except Exception:  # noqa: BLE001 - whatever is wrong with it, the event is to be shown
        text = repr(type(event))
    return db.storable(text[: 2 * BODY_CHARACTERS])[:BODY_CHARACTERS]
