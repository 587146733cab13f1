"""How news of one task become one: the state rule, late and repeated events, tries, and what counts in the history.

Called by ``dirty`` for news that wait, and by ``writer`` with the stored row as the older part: one rule for both, so
that it makes no difference how events fall into shutters. Pure.
Next: ``docs/explain/life-of-a-task-event.rst``.
"""

from __future__ import annotations

from typing import NamedTuple

from celery import states

from djcelery.snapshot.news import TaskNews, WorkerNews

#: The state of a task whose worker is gone; see ``upkeep``. Anything newer of the task replaces it.
LOST = "LOST"
#: Stands for a text that the stored row has, and that was not read.
STORED = "[stored]"
#: Retries of one task that may wait for the number of their try.
MOST_UNPLACED = 100

#: What a later try may change; else the first to tell is right.
_CALLED = ("name", "args", "kwargs", "eta", "expires", "root_id", "parent_id", "client", "queue", "routing_key")
#: Which of two unfinished states with the same timestamp is the later one.
_RANKS = {states.PENDING: 0, states.RECEIVED: 1, states.STARTED: 2, states.RETRY: 4, states.REJECTED: 4}


def join(known: TaskNews, news: TaskNews) -> TaskNews:
    """Merge *news* into *known*, which came before, and return that; *news* is left as it is."""
    replaces, was_final = _replaces(known, news), known.is_final
    _join_called(known, news, was_final)
    _join_tries(known, news)
    if replaces:
        _join_state(known, news)
    else:
        known.worker = known.worker or news.worker
        if not known.is_final and not _has_outcome(known):
            _join_outcome(known, news)
    _join_times(known, news, was_final)
    if news.progress is not None and not (was_final and known.progress) and news.progress_at >= known.progress_at:
        known.progress, known.progress_at = news.progress, news.progress_at
    if news.flags:
        known.flags = (*known.flags, *(flag for flag in news.flags if flag not in known.flags))
    known.event, known.hostname, known.pid = news.event, news.hostname, news.pid
    known.received_at_s = max(known.received_at_s, news.received_at_s)
    return known


def _replaces(known: TaskNews, news: TaskNews) -> bool:
    """Tell whether the state of *news* replaces that of *known*.

    SUCCESS is final. The other final states give way to a later final one, and to SUCCESS. Of two unfinished
    states the later one wins, but a task that has started is not received again in the same try, and PENDING replaces
    nothing.
    """
    if news.state is None or known.state is None:
        return news.state is not None
    if news.is_final != known.is_final:
        return news.is_final
    if news.is_final:
        if states.SUCCESS in (known.state, news.state):
            return known.state != states.SUCCESS
        return news.timestamp > known.timestamp
    if states.PENDING in (known.state, news.state):
        return news.state != states.PENDING
    try_known, try_news = known.retries or 0, news.retries or 0
    if known.state == states.STARTED and news.state == states.RECEIVED and try_news <= try_known:
        return False
    if known.state == states.RECEIVED and news.state == states.STARTED and not try_known:
        return True
    if news.timestamp == known.timestamp:
        return known.state != LOST and _RANKS.get(news.state, 3) > _RANKS.get(known.state, 3)
    return news.timestamp > known.timestamp


def _join_called(known: TaskNews, news: TaskNews, was_final: bool) -> None:
    # The news of a task may be made of several tries, too.
    changes = not was_final and (news.retries or 0) > (known.retries or 0)
    for column in _CALLED:
        value = getattr(news, column)
        if value is not None and (changes or getattr(known, column) is None):
            setattr(known, column, value)


def _join_state(known: TaskNews, news: TaskNews) -> None:
    known.state, known.timestamp, known.is_final = news.state, news.timestamp, news.is_final
    known.finished_at = news.finished_at
    known.worker = news.worker or known.worker
    if news.is_final or _has_outcome(news):
        _join_outcome(known, news)


def _has_outcome(news: TaskNews) -> bool:
    return news.result is not None or news.exception is not None or news.traceback is not None


def _join_outcome(known: TaskNews, news: TaskNews) -> None:
    known.result, known.exception, known.traceback = news.result, news.exception, news.traceback
    known.runtime = news.runtime


def _join_times(known: TaskNews, news: TaskNews, was_final: bool) -> None:
    if news.sent_at is not None:
        known.sent_at = news.sent_at if known.sent_at is None else min(known.sent_at, news.sent_at)
    if news.received_at is not None:
        if known.received_at is None or not was_final:
            known.received_at = max(known.received_at or 0.0, news.received_at)
        first = news.first_received_at or news.received_at
        known.first_received_at = min(known.first_received_at or first, first)
    if news.started_at is None:
        return
    if not was_final:
        known.started_at = max(known.started_at or 0.0, news.started_at)
    elif known.started_at is None and news.started_at <= (known.finished_at or known.timestamp):
        known.started_at = news.started_at


# -- tries -------------------------------------------------------------------------------------


def _join_tries(known: TaskNews, news: TaskNews) -> None:
    """Place retries, whose events don't say which, after the latest try that is known; count each once.

    A worker often receives the next try before it tells of the retry, since a task sends its retry while it runs: so
    the event after a reception is that of the try before, unless the new try has started meanwhile.
    """
    if news.retries is None:
        if known.retries is not None:
            _place(known, news)
        elif news.unplaced_retries:
            unplaced = sorted({*known.unplaced_retries, *news.unplaced_retries})[-MOST_UNPLACED:]
            known.seen_retries += len(unplaced) - len(known.unplaced_retries)
            known.unplaced_retries = tuple(unplaced)
    elif known.retries is None:
        later = [at for at in known.unplaced_retries if at > news.retries_at]
        latest = max(news.retries_at, *later) if later else news.retries_at
        is_owed = news.is_retry_owed and not _started_between(known, news.retries_at, later[0] if later else None)
        if is_owed and later:
            later, is_owed = later[1:], False
        known.first_retries = max(0, (news.first_retries or 0) - len(known.unplaced_retries) + len(later))
        known.retries, known.retries_at, known.is_retry_owed = news.retries + len(later), latest, is_owed
        known.seen_retries += news.seen_retries
        known.unplaced_retries = ()
    else:
        known.first_retries = min(known.first_retries or 0, news.first_retries or 0)
        known.seen_retries += news.seen_retries
        if news.retries > known.retries:
            known.retries, known.retries_at = news.retries, news.retries_at
            known.is_retry_owed = news.is_retry_owed and not _started_between(known, news.retries_at)
        elif news.retries == known.retries:
            known.retries_at = max(known.retries_at, news.retries_at)
            known.is_retry_owed = known.is_retry_owed and news.is_retry_owed


def _place(known: TaskNews, news: TaskNews) -> None:
    for at in news.unplaced_retries:
        if at > known.retries_at:
            if not known.is_retry_owed or _started_between(news, known.retries_at, at):
                known.retries = (known.retries or 0) + 1
            known.retries_at, known.is_retry_owed = at, False
            known.seen_retries += 1
    if _started_between(news, known.retries_at):
        known.is_retry_owed = False


def _started_between(news: TaskNews, start: float, end: float | None = None) -> bool:
    return news.started_at is not None and start <= news.started_at and (end is None or news.started_at <= end)


def tries(news: TaskNews) -> int:
    """Return how often the task was retried, as far as *news* tell."""
    return len(news.unplaced_retries) if news.retries is None else news.retries


# -- what counts -------------------------------------------------------------------------------


class Increment(NamedTuple):
    """That a task came *times* times to *state* at *at*; seconds it ran and waited, if it came to its end."""

    at: float
    name: str
    state: str
    times: int = 1
    runtime: float | None = None
    waiting: float | None = None


class Before(NamedTuple):
    """What of a stored row decides what counts."""

    is_final: bool
    is_received: bool
    retries: int


def before(row: TaskNews) -> Before:
    """Return what of the stored *row* decides what counts, before news are joined to it."""
    return Before(row.is_final, row.received_at is not None, row.retries or 0)


def increments(stored: Before | None, merged: TaskNews) -> list[Increment]:
    """Return what the history counts when the row that was *stored* (None: there was none) becomes *merged*.

    A first reception, each retry, and the end, each once in the life of the row.
    """
    found, name = [], merged.name or ""
    if merged.received_at is not None and not (stored and stored.is_received):
        found.append(Increment(merged.first_received_at or merged.received_at, name, states.RECEIVED))
    if stored:
        retried = tries(merged) - stored.retries
    else:
        # What was retried before the camera came is not counted.
        retried = max(merged.seen_retries, tries(merged) - (merged.first_retries or 0))
    if retried > 0:
        at = merged.retries_at if merged.retries is not None else merged.timestamp
        found.append(Increment(at, name, states.RETRY, retried))
    if merged.is_final and not (stored and stored.is_final) and merged.state:
        at = merged.finished_at or merged.timestamp
        found.append(Increment(at, name, merged.state, 1, _ran_s(merged), _waited_s(merged)))
    return found


def _ran_s(merged: TaskNews) -> float | None:
    if merged.state not in (states.SUCCESS, states.FAILURE):
        return None
    if merged.runtime is not None:
        return merged.runtime
    if merged.started_at is None or merged.finished_at is None:
        return None
    return max(0.0, merged.finished_at - merged.started_at)


def _waited_s(merged: TaskNews) -> float | None:
    """Return the seconds from when the last try could have begun until it did, None if that is not known."""
    if merged.started_at is None:
        return None
    # A sender's time is that of the first try.
    ready_at = merged.sent_at if merged.sent_at is not None and not tries(merged) else merged.received_at
    if ready_at is None:
        return None
    if merged.eta is not None:
        ready_at = max(ready_at, merged.eta.timestamp())
    return max(0.0, merged.started_at - ready_at)


# -- workers -----------------------------------------------------------------------------------

#: What a worker says of itself; the latest counts.
_SAID = (
    "pid",
    "software",
    "version",
    "system",
    "processed",
    "active",
    "load",
    "frequency",
    "clock_skew",
    "missed",
    "seen",
)


def join_worker(known: WorkerNews, news: WorkerNews) -> WorkerNews:
    """Merge *news* of a worker into *known*, which came before, and return that."""
    is_later = news.timestamp >= known.timestamp
    for column in _SAID:
        value = getattr(news, column)
        if value is not None and (is_later or getattr(known, column) is None):
            setattr(known, column, value)
    for column in ("last_heartbeat", "online_at", "offline_at"):
        value = getattr(news, column)
        if value is not None:
            setattr(known, column, max(value, getattr(known, column) or 0))
    known.timestamp = max(known.timestamp, news.timestamp)
    known.received_at_s = max(known.received_at_s, news.received_at_s)
    if news.event and is_later:
        known.event = news.event
    return known
