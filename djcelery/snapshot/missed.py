"""How many tasks workers ran of which no event came.

Called by the receiver's thread with every event, and by the writer's thread for what to write. Pure: no database, no
clock of its own.

Each heartbeat says how many executions the worker has begun (``processed``; a retry is another one) and how many run
(``active``). Both are compared with the executions whose events came. Events wait up to a moment in the worker
while heartbeats don't, so a heartbeat is judged when the next one comes, by the worker's logical clock: only what the
worker said before it counts.
Next: ``docs/explain/receiving-events.rst``.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Mapping
from itertools import islice
from typing import Any, NamedTuple

from djcelery.snapshot.dirty import MAX_WORKERS
from djcelery.snapshot.intake import MOST
from djcelery.snapshot.processes import MOST_PROCESSES, Room

logger = logging.getLogger(__name__)

__all__ = ("Account", "Known", "Missed")

#: Events that end an execution. Those in ``_BEGUN`` prove that it had begun; a task can be revoked or rejected before.
_ENDS = frozenset({"succeeded", "failed", "retried", "revoked", "rejected", "cancelled"})
_BEGUN = frozenset({"succeeded", "failed", "retried"})
#: Executions without an end that are remembered of one worker: a task that raises ``Ignore`` sends no further event.
_MOST_RUNNING = 10_000
#: So many judgements in a row must agree: the threads of some pools begin a task while a heartbeat is made.
_AGREE = 3
#: A longer name has no row.
_MOST_NAME_CHARACTERS = 255
#: More than that is not missed in one go: no worker runs 10,000 tasks a second while the camera is away for a day. Who
#: says so is broken, or lies.
_MOST_AT_ONCE = 10**9


class Account(NamedTuple):
    """How one worker stands."""

    pid: int | None
    #: Executions of this process that are accounted for: seen, missed, or begun before the camera's time.
    #: None as long as it has sent no event of a task, or only one heartbeat.
    seen: int | None
    #: Executions of which no event came, also of the processes that had its name before.
    missed: int


class Known(NamedTuple):
    """What the database says of a worker when the camera starts."""

    account: Account
    #: What the last heartbeat said.
    processed: int = 0
    #: Ids of tasks that were seen to begin, and not to end.
    running: tuple[str, ...] = ()


class _Beat:
    """A heartbeat that waits for its judgement, and what of it was accounted for."""

    __slots__ = ("active", "clock", "processed", "running", "seen")

    def __init__(self, processed: int, active: int, clock: int | None, seen: int, running: int):
        self.processed, self.active, self.clock = processed, active, clock
        self.seen, self.running = seen, running


class _Process:
    """One process of a worker: from its start to its end.

    Args:
        seen: Executions that are accounted for before anything was received here; None if nothing is known, and what
            the first heartbeat says is where counting begins.
        sends_events: Whether events of tasks are known to come; while none come, none are missed.
    """

    __slots__ = ("beat", "bounds", "is_based", "loaded", "processed", "running", "seen", "sends_events")

    def __init__(self, seen: int | None, sends_events: bool, processed: int = -1):
        self.is_based = seen is not None
        self.loaded = self.seen = seen or 0
        self.sends_events = sends_events
        # What the last heartbeat said; -1 before the first.
        self.processed = processed
        # How many executions the last judgements found beyond ``seen``: at least, and at most.
        self.bounds: deque[tuple[int, int]] = deque(maxlen=_AGREE)
        # The logical clock at the start of each execution that has not ended, by task id.
        self.running: dict[str, int | None] = {}
        self.beat: _Beat | None = None

    def task(self, kind: str, uuid: str, clock: int | None, has_begun: bool) -> None:
        """Take an event of a task; *has_begun* says that it proves an execution."""
        if not self.sends_events:
            self._begin_to_count()
        beat = self.beat
        is_late = beat is not None and beat.clock is not None and clock is not None and clock < beat.clock
        seen, running = self.seen, len(self.running)
        if kind == "started":
            if uuid in self.running and self.running[uuid] == clock:
                # The broker delivers it again.
                return
            self.running[uuid] = clock
            self.seen += 1
            if running >= _MOST_RUNNING:
                del self.running[next(iter(self.running))]
        elif uuid in self.running:
            del self.running[uuid]
        elif has_begun:
            self.seen += 1
        if is_late and beat is not None:
            beat.seen += self.seen - seen
            beat.running += len(self.running) - running

    def _begin_to_count(self) -> None:
        # What ran before its events were switched on was not missed, unless nothing can have run yet.
        self.sends_events = True
        if self.processed:
            self.is_based, self.beat = False, None

    def heartbeat(self, processed: int, active: int, clock: int | None) -> int:
        """Take a heartbeat; judge the one before, and return how many more were missed."""
        newly = self.judged()
        self.is_based |= processed == 0
        self.processed = processed
        self.beat = _Beat(processed, active, clock, self.seen, len(self.running))
        return newly

    def judged(self) -> int:
        """Judge the last heartbeat, and return how many more were missed."""
        beat, self.beat = self.beat, None
        if beat is None:
            return 0
        unexplained = beat.processed - beat.seen
        if not (self.is_based and self.sends_events):
            # Before our time; but what runs and was not seen to begin may still be seen to end.
            self._account(unexplained - max(0, beat.active - beat.running))
            self.is_based = True
            return 0
        # So many at least, since each that runs may be one that was not seen to begin; and at most.
        self.bounds.append((unexplained - beat.active, unexplained))
        if not beat.active:
            self._forget_silent(beat.clock)
        if len(self.bounds) < _AGREE:
            return 0
        newly = max(0, min(least for least, _ in self.bounds))
        # Below zero something was accounted for twice, such as events that were delivered again.
        self._account(newly or min(0, max(most for _, most in self.bounds)))
        return newly

    def ended(self) -> int:
        """Return how many more were missed, now that no heartbeat will follow."""
        newly = self.judged()
        if self.bounds and self.bounds[-1][0] > 0:
            newly += self.bounds[-1][0]
            self._account(self.bounds[-1][0])
        return newly

    def _account(self, count: int) -> None:
        self.seen += count
        self.bounds = deque(((least - count, most - count) for least, most in self.bounds), maxlen=_AGREE)

    def _forget_silent(self, clock: int | None) -> None:
        # Nothing ran: what seemed to has ended without an event.
        if clock is not None:
            for uuid in [uuid for uuid, began in self.running.items() if began is not None and began < clock]:
                del self.running[uuid]


class _Worker:
    """All processes that had one node name."""

    __slots__ = ("by_pid", "heard_at_s", "missed", "pid", "sends_events")

    def __init__(self, known: Known | None):
        self.missed, self.sends_events = 0, False
        self.pid: int | None = None
        self.by_pid: dict[int | None, _Process] = {}
        self.heard_at_s = 0.0
        if known is not None:
            self.missed = known.account.missed
            if known.account.seen is not None:
                self.sends_events, self.pid = True, known.account.pid
                process = self.by_pid[self.pid] = _Process(known.account.seen, True, known.processed)
                process.running = dict.fromkeys(known.running, 0)

    def process(self, pid: int | None) -> _Process:
        found = self.by_pid.get(pid)
        if found is None:
            # A worker that was watched has another process: everything that it ran is of our time.
            found = self.by_pid[pid] = _Process(0 if self.sends_events else None, self.sends_events)
            if len(self.by_pid) > MOST_PROCESSES:
                del self.by_pid[next(iter(self.by_pid))]
        return found

    def heartbeat(self, event: Mapping[str, Any], processed: int) -> int:
        pid, active, clock = _number(event, "pid"), _number(event, "active") or 0, _number(event, "clock")
        process = self.process(pid)
        if processed < process.processed:
            # The same number, another process: in a container the worker is always 1.
            again = _Process(0, self.sends_events)
            again.seen = process.seen - process.loaded if process.beat is None else 0
            process = self.by_pid[pid] = again
        is_new = process.processed < 0
        newly = process.heartbeat(processed, active, clock)
        if is_new and pid != self.pid and self.pid in self.by_pid:
            # The process before has said its last word.
            newly += self.by_pid[self.pid].ended()
        self.pid = pid
        if newly > _MOST_AT_ONCE:
            newly = 0
        self.missed = min(MOST, self.missed + newly)
        return newly

    def account(self) -> Account:
        process = self.by_pid.get(self.pid)
        seen = min(MOST, process.seen) if process and process.is_based and process.sends_events else None
        return Account(self.pid, seen, self.missed)


class Missed:
    """What was missed, by worker. The methods may be called from several threads.

    Args:
        known: By node name; a worker that is not among them is counted from its first heartbeat.
    """

    def __init__(self, known: Mapping[str, Known] | None = None):
        #: What was missed of all workers since the start of the camera.
        self.total = 0
        #: Events of workers beyond ``MAX_WORKERS``: what is missed of those is not known.
        self.dropped = 0
        self._known = dict(islice((known or {}).items(), MAX_WORKERS))
        self._workers: dict[str, _Worker] = {}
        self._changed: set[str] = set()
        self._room = Room()
        self._lock = threading.Lock()

    def event(self, event: Any, received_at_s: float) -> None:
        """Take an event, whatever it is."""
        if not isinstance(event, dict):
            return
        type_, hostname = event.get("type"), event.get("hostname")
        if not (isinstance(type_, str) and isinstance(hostname, str) and len(hostname) <= _MOST_NAME_CHARACTERS):
            return
        group, _, kind = type_.partition("-")
        if group == "task" and (kind == "started" or kind in _ENDS):
            uuid = event.get("uuid")
            if isinstance(uuid, str):
                has_begun = kind in _BEGUN or event.get("terminated") is True
                with self._lock:
                    worker = self._worker(hostname, received_at_s)
                    if worker is not None:
                        # Longer ids are nobody's; two of them count as one.
                        process = worker.process(_number(event, "pid"))
                        process.task(kind, uuid[:255], _number(event, "clock"), has_begun)
                        worker.sends_events = True
        elif group == "worker" and (processed := _number(event, "processed")) is not None:
            with self._lock:
                worker = self._worker(hostname, received_at_s)
                if worker is not None:
                    self.total = min(MOST, self.total + worker.heartbeat(event, processed))

    def _worker(self, hostname: str, received_at_s: float) -> _Worker | None:
        worker = self._workers.get(hostname)
        if worker is None:
            if len(self._workers) >= MAX_WORKERS:
                self._make_room(received_at_s)
            if len(self._workers) >= MAX_WORKERS:
                if not self.dropped:
                    logger.warning("More than %d workers: what is missed of the others is not known.", MAX_WORKERS)
                self.dropped += 1
                return None
            worker = self._workers[hostname] = _Worker(self._known.pop(hostname, None))
        worker.heard_at_s = received_at_s
        self._changed.add(hostname)
        return worker

    def take(self) -> dict[str, Account]:
        """Return the workers of which something came since the last time."""
        with self._lock:
            changed, self._changed = self._changed, set()
            return {name: self._workers[name].account() for name in changed if name in self._workers}

    def give_back(self, accounts: Mapping[str, Account]) -> None:
        """Take back what ``take`` returned and could not be written."""
        with self._lock:
            self._changed.update(accounts)

    def forget(self, before_s: float) -> None:
        """Forget the workers that were last heard of before *before_s* (seconds since the epoch)."""
        with self._lock:
            self._forget(before_s)

    def _make_room(self, now_s: float) -> None:
        before_s = self._room.silent_before(now_s)
        if before_s is not None:
            self._forget(before_s)

    def _forget(self, before_s: float) -> None:
        for name in [name for name, worker in self._workers.items() if worker.heard_at_s < before_s]:
            missed = self._workers.pop(name).missed
            if missed:
                self._known[name] = Known(Account(None, None, missed))
                if len(self._known) > MAX_WORKERS:
                    del self._known[next(iter(self._known))]


def _number(event: Mapping[str, Any], name: str) -> int | None:
    value = event.get(name)
    return value if isinstance(value, int) and 0 <= value < 2**63 else None
