"""What has changed and is not written yet: one record of news per task and per worker, in memory, bounded.

Filled by the receiver's thread and emptied by the writer's. Pure, and safe for threads.
Next: ``docs/explain/life-of-a-task-event.rst``.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from itertools import islice

from djcelery.snapshot.clocks import Clock
from djcelery.snapshot.merging import join, join_worker
from djcelery.snapshot.news import Malformed, TaskNews, WorkerNews
from djcelery.snapshot.processes import Processes

#: Workers that may wait, and whose clocks are known; and malformed events that are kept until they are written.
MAX_WORKERS, MAX_MALFORMED = 10_000, 1_000
#: A worker that was not heard of for so long is forgotten here; its row stays.
_FORGET_AFTER_S = 3600.0


@dataclass
class Batch:
    """What one shutter writes. Belongs to whoever took it, until it is given back."""

    tasks: list[TaskNews] = field(default_factory=list)
    workers: list[WorkerNews] = field(default_factory=list)
    malformed: list[Malformed] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.tasks or self.workers or self.malformed)


@dataclass
class Counts:
    """Sums since the start of the process; they never shrink."""

    events: int = 0
    malformed: int = 0
    #: Tasks and workers beyond the limit of rows, one for each event of theirs.
    dropped: int = 0
    #: Events of groups that are not the camera's.
    ignored: int = 0


class Dirty:
    """What has changed since it was written last. Every method may be called from any thread.

    Args:
        max_rows: Tasks that may wait; more new ones are dropped and counted, known ones go on being merged.
    """

    def __init__(self, max_rows: int) -> None:
        self.max_rows = max_rows
        self.counts = Counts()
        self._lock = threading.Lock()
        self._tasks: dict[str, TaskNews] = {}
        self._workers: dict[str, WorkerNews] = {}
        self._malformed: deque[Malformed] = deque(maxlen=MAX_MALFORMED)
        self._clocks: dict[str, Clock] = {}
        # The latest event of a task of each worker: when it was sent, when it came, and the process.
        self._signs: dict[str, tuple[float, float, int | None]] = {}
        self._processes = Processes(MAX_WORKERS)

    def add(self, news: TaskNews | WorkerNews | Malformed | None) -> bool:
        """Merge *news*, what ``intake.read`` has returned; return False if it was dropped. None is counted only."""
        with self._lock:
            self.counts.events += 1
            if isinstance(news, TaskNews):
                return self._add_task(news)
            if isinstance(news, WorkerNews):
                return self._add_worker(news)
            if news is None:
                self.counts.ignored += 1
            else:
                self.counts.malformed += 1
                self._malformed.append(news)
            return True

    def _add_task(self, news: TaskNews) -> bool:
        if news.worker is not None:
            self._processes.hear(news.worker, news.pid, news.timestamp, news.received_at_s)
            if news.worker in self._signs or len(self._signs) < MAX_WORKERS:
                self._signs[news.worker] = (news.timestamp, news.received_at_s, news.pid)
        known = self._tasks.get(news.task_id)
        if known is not None:
            join(known, news)
        elif len(self._tasks) < self.max_rows:
            self._tasks[news.task_id] = news
        else:
            self.counts.dropped += 1
            return False
        return True

    def _add_worker(self, news: WorkerNews) -> bool:
        if news.hostname not in self._clocks:
            self._make_room(news.received_at_s)
            if len(self._clocks) >= MAX_WORKERS:
                self.counts.dropped += 1
                return False
            self._clocks[news.hostname] = Clock()
        self._processes.heartbeat(news.hostname, news.pid, news.timestamp, news.received_at_s, news.processed)
        clock = self._clocks[news.hostname]
        clock.hear(news.timestamp, news.received_at_s)
        shown = clock.corrected(news.timestamp, news.received_at_s)
        if news.offline_at is not None:
            news.offline_at = shown
        else:
            news.last_heartbeat = shown
        news.clock_skew = clock.skew_s
        self._keep_worker(news)
        return True

    def _keep_worker(self, news: WorkerNews) -> None:
        known = self._workers.get(news.hostname)
        if known is None:
            self._workers[news.hostname] = news
        else:
            join_worker(known, news)

    def _make_room(self, now_s: float) -> None:
        if len(self._clocks) >= MAX_WORKERS:
            self._clocks = {
                name: clock for name, clock in self._clocks.items() if clock.heard_at > now_s - _FORGET_AFTER_S
            }

    def take(self, limit: int) -> Batch:
        """Return and forget up to *limit* tasks, those that wait longest, with all workers and malformed events."""
        with self._lock:
            for hostname, (sent_at, came_at, pid) in self._signs.items():
                self._take_sign(hostname, sent_at, came_at, pid)
            self._signs.clear()
            if limit >= len(self._tasks):
                tasks, self._tasks = list(self._tasks.values()), {}
            else:
                tasks = [self._tasks.pop(task_id) for task_id in list(islice(self._tasks, limit))]
            batch = Batch(tasks, list(self._workers.values()), list(self._malformed))
            for news in batch.workers:
                news.first_at = self._processes.first_at(news.hostname, news.pid)
            self._workers = {}
            self._malformed.clear()
            return batch

    def _take_sign(self, hostname: str, sent_at: float, came_at: float, pid: int | None) -> None:
        """Take events of tasks as signs of life of their worker."""
        clock = self._clocks.get(hostname)
        shown = clock.corrected(sent_at, came_at) if clock else min(sent_at, came_at)
        self._keep_worker(WorkerNews(hostname, "", sent_at, came_at, pid=pid, last_heartbeat=shown))

    def give_back(self, batch: Batch) -> None:
        """Put *batch*, which could not be written, back under what came since. Drops nothing."""
        with self._lock:
            tasks = {news.task_id: news for news in batch.tasks}
            for task_id, newer in self._tasks.items():
                older = tasks.get(task_id)
                if older is None:
                    tasks[task_id] = newer
                else:
                    join(older, newer)
            self._tasks = tasks
            workers = {news.hostname: news for news in batch.workers}
            newer_workers, self._workers = self._workers, workers
            for news in newer_workers.values():
                self._keep_worker(news)
            newer_malformed = list(self._malformed)
            self._malformed.clear()
            self._malformed.extend([*batch.malformed, *newer_malformed])

    @property
    def waiting(self) -> int:
        """How many tasks wait."""
        return len(self._tasks)
