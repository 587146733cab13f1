"""The camera for ``celery events -c djcelery.snapshot.Camera``: on Celery's receiver, with ``writer`` behind it.

Called by Celery, which feeds events to ``state`` and calls ``capture`` every few seconds, in a thread of its own. It
sees what Celery's ``State`` keeps: nothing that came while it was away, and 10,000 tasks between two shutters.
``celerycam`` doesn't run this, but ``program``.
Next: ``docs/explain/life-of-a-task-event.rst``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from functools import cached_property
from typing import Any

import django
from celery import states
from celery.events.snapshot import Polaroid
from celery.utils.nodenames import gethostname
from celery.utils.time import utcoffset
from django.apps import apps
from django.utils.functional import classproperty

from djcelery import db, utils
from djcelery.snapshot import intake, upkeep
from djcelery.snapshot.dirty import MAX_WORKERS, Batch
from djcelery.snapshot.merging import join
from djcelery.snapshot.news import Malformed, TaskNews, WorkerNews
from djcelery.snapshot.processes import Processes
from djcelery.snapshot.writer import Writer

__all__ = ("Camera",)

logger = logging.getLogger(__name__)

#: Write the heartbeat of one worker at most once in this many seconds.
WORKER_UPDATE_FREQ = 1
SUCCESS_STATES = frozenset({states.SUCCESS})
#: Columns that an event without them leaves as they are.
NOT_SAVED_ATTRIBUTES = frozenset({"name", "args", "kwargs", "eta"})

_EVENTS = {
    states.SUCCESS: "task-succeeded",
    states.FAILURE: "task-failed",
    states.RETRY: "task-retried",
    states.REVOKED: "task-revoked",
    states.REJECTED: "task-rejected",
}
#: What Celery's tasks have beside what events say.
_OWN = frozenset({"uuid", "cluster_state", "children", "worker", "state", "_serializer_handlers", "parent", "root"})


def aware_tstamp(secs: float) -> datetime:
    """Return the instant *secs* (seconds since the epoch), aware and in UTC."""
    return datetime.fromtimestamp(secs, timezone.utc)


class Camera(Polaroid):
    """Celery's snapshot camera with a memory: the tables ``TaskState`` and ``WorkerState``.

    A subclass may have its own ``handle_worker``, ``handle_task`` or ``update_task``: then these are called for each
    row that changes, as django-celery did.
    """

    # Looked up on use: "celery events" imports this module before anybody has set Django up.
    @classproperty
    def TaskState(cls) -> Any:
        """The model of tasks; an override point."""
        from djcelery.models import TaskState

        return TaskState

    @classproperty
    def WorkerState(cls) -> Any:
        """The model of workers; an override point."""
        from djcelery.models import WorkerState

        return WorkerState

    clear_after = True
    worker_update_freq = WORKER_UPDATE_FREQ

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not apps.ready:
            django.setup()
        # What was last written of a task or worker in memory; the rest is to be written.
        self._written: dict[str, tuple[Any, ...]] = {}
        self._heartbeats: dict[str, float | None] = {}
        self._processes = Processes(MAX_WORKERS)
        self._events = 0

    @cached_property
    def writer(self) -> Writer:
        """What writes to the database."""
        return Writer(f"celeryev@{gethostname()}", float(self.freq), self.app, **self._models)

    @cached_property
    def _upkeep(self) -> upkeep.Upkeep:
        return upkeep.Upkeep(**self._models)

    @property
    def _models(self) -> dict[str, Any]:
        return {"task_model": self.TaskState, "worker_model": self.WorkerState}

    @classproperty
    def expire_states(cls) -> dict[frozenset[str], Any]:
        """The ages after which rows are deleted, by their states; None keeps them. An override point."""
        return dict(upkeep.expire_states())

    # taking a snapshot

    def capture(self) -> None:
        """Take a snapshot. Called by the camera's timer; the events go on arriving while it is written."""
        self.shutter()
        if self.clear_after:
            # Only now: a subclass may look at the tasks after it has called our on_shutter().
            self.state.freeze_while(self._forget_finished, self.state)

    def on_shutter(self, state: Any, commit_every: int = 100) -> None:
        """Write what has changed in *state* since the last time; ``capture()`` then forgets the finished tasks.

        Raises:
            django.db.Error: The database can't be written; everything is kept for the next time.

        Database: see ``Writer.write``; nothing if nothing has changed, but for the camera's heartbeat.
        """
        workers, tasks, signatures = state.freeze_while(self._changed, state)
        self._events = max(self._events, state.event_count)
        self.writer.note(events=self._events, event_at_s=time.time() if signatures or workers else None)
        if self._is_overridden("handle_worker", "handle_task", "update_task"):
            self._handle_each(state, workers, tasks)
        else:
            self.writer.write(Batch(tasks, list(workers.values())))
        self._written.update(signatures)
        self._heartbeats.update({hostname: news.last_heartbeat for hostname, news in workers.items()})
        state.freeze_while(self._forget_what_is_gone, state)
        self._upkeep.step_lost()

    def cancel(self) -> None:
        """Take the last snapshot, and write that the camera has stopped. Called when the program ends."""
        super().cancel()
        self.writer.stop()

    def _is_overridden(self, *methods: str) -> bool:
        return any(getattr(type(self), name) is not getattr(Camera, name) for name in methods)

    def _handle_each(self, state: Any, workers: dict[str, WorkerNews], tasks: list[TaskNews]) -> None:
        for hostname in workers:
            if hostname in state.workers:
                self.handle_worker((hostname, state.workers[hostname]))
        for news in tasks:
            if news.task_id in state.tasks:
                self.handle_task((news.task_id, state.tasks[news.task_id]))

    def _changed(self, state: Any) -> tuple[dict[str, WorkerNews], list[TaskNews], dict[str, tuple[Any, ...]]]:
        """Return what is to be written of *state*, and how to tell next time. Under its lock: no database here."""
        workers, tasks, signatures = {}, [], {}
        for hostname, worker in list(state.workers.items()):
            known = self._heartbeats.get(hostname)
            news = worker_news(hostname, worker)
            if news is None:
                continue
            self._processes.heartbeat(hostname, news.pid, news.timestamp, news.received_at_s, news.processed)
            is_later = known and news.last_heartbeat and news.last_heartbeat - known >= self.worker_update_freq
            if hostname not in self._heartbeats or is_later or (known is None and news.last_heartbeat):
                workers[hostname] = news
        for uuid, task in list(state.tasks.items()):
            signature = _signature(task)
            if self._written.get(uuid) == signature:
                continue
            signatures[uuid] = signature
            task_ = task_news(uuid, task)
            if isinstance(task_, Malformed):
                logger.error("Task %.80r has an event that can't be read; it is left out: %s", uuid, task_.reason)
            elif task_ is not None:
                tasks.append(task_)
                self._hear(state, task_)
        for hostname, news in workers.items():
            news.first_at = self._processes.first_at(hostname, news.pid)
        return workers, tasks, signatures

    def _hear(self, state: Any, task: TaskNews) -> None:
        # The process of an event that the task's code has sent is another one.
        worker = state.workers.get(task.worker) if task.worker and task.timestamp else None
        if worker is not None and worker.pid == task.pid:
            self._processes.hear(worker.hostname, task.pid, task.timestamp, task.received_at_s)

    def _forget_finished(self, state: Any) -> None:
        for uuid, task in list(state.tasks.items()):
            if task.state in states.READY_STATES and self._written.get(uuid) == _signature(task):
                state.tasks.pop(uuid, None)
        self._forget_what_is_gone(state)

    def _forget_what_is_gone(self, state: Any) -> None:
        """Forget what was written of tasks and workers that Celery's state no longer has."""
        for uuid in set(self._written) - set(state.tasks):
            del self._written[uuid]
        for hostname in set(self._heartbeats) - set(state.workers):
            del self._heartbeats[hostname]

    # one at a time, for code that calls the camera of django-celery by its methods

    def get_heartbeat(self, worker: Any) -> datetime | None:
        """Return the last heartbeat of an event worker, or None."""
        return utils.fromtimestamp(worker.heartbeats[-1]) if worker.heartbeats else None

    def handle_worker(self, hostname_worker: tuple[str, Any]) -> Any:
        """Write one worker and return its row; None if its name is too long for one."""
        hostname, worker = hostname_worker
        news = worker_news(hostname, worker)
        if news is not None:
            news.first_at = self._processes.first_at(hostname, news.pid)
            self.writer.write(Batch(workers=[news]))
        return self.WorkerState.objects.filter(hostname=hostname).first()

    def handle_task(self, uuid_task: tuple[str, Any], worker: Any = None) -> Any | None:
        """Write one task, its worker first, and return its row; None if it can't be read."""
        uuid, task = uuid_task
        if worker is None and task.worker and task.worker.hostname:
            self.handle_worker((task.worker.hostname, task.worker))
        news = task_news(uuid, task)
        if not isinstance(news, TaskNews):
            return None
        if self._is_overridden("update_task"):
            return self.update_task(task.state, task_id=uuid, defaults=self._defaults(news))
        return self._write_one(news)

    def update_task(self, state: str, **kwargs: Any) -> Any | None:
        """Write the columns *defaults* of the task *task_id*, both keyword arguments, and return its row.

        What ``merging`` says of late and repeated events holds here, too.

        Returns:
            None, and writes nothing, if *defaults* have no name.
        """
        defaults = kwargs.get("defaults") or {}
        if not defaults.get("name"):
            return None
        at = defaults.get("tstamp")
        worker = defaults.get("worker")
        at_s = time.time() if at is None else utils.to_utc(at).timestamp()
        is_final = state in states.READY_STATES
        news = TaskNews(
            kwargs["task_id"],
            "",
            "",
            state=state,
            timestamp=at_s,
            is_final=is_final,
            finished_at=at_s if is_final else None,
            worker=getattr(worker, "hostname", None),
            runtime=defaults.get("runtime"),
            retries=defaults.get("retries"),
        )
        for name in ("name", "args", "kwargs", "result", "traceback"):
            setattr(news, name, db.storable(defaults.get(name)))
        for name in ("eta", "expires"):
            value = defaults.get(name)
            setattr(news, name, None if value is None else utils.to_utc(value))
        return self._write_one(news)

    def _write_one(self, news: TaskNews) -> Any | None:
        self.writer.write(Batch([news]))
        return self.TaskState.objects.filter(task_id=news.task_id).first()

    def _defaults(self, news: TaskNews) -> dict[str, Any]:
        """Return *news* as django-celery gave them to ``update_task``."""
        fields = {name: getattr(news, name) for name in ("name", "args", "kwargs", "state", "traceback", "runtime")}
        fields |= {name: utils.correct_awareness(getattr(news, name)) for name in ("eta", "expires")}
        fields["tstamp"] = utils.fromtimestamp(news.timestamp)
        fields["result"] = news.result or news.exception
        fields["worker"] = self.WorkerState.objects.filter(hostname=news.worker).first() if news.worker else None
        return {name: value for name, value in fields.items() if value is not None or name not in NOT_SAVED_ATTRIBUTES}

    # expiry

    def on_cleanup(self) -> int:
        """Delete what is older than the settings say; return how many tasks were expired.

        Called every hour.
        """
        return self._upkeep.clean_up(self.expire_states)


# -- from Celery's state to news ---------------------------------------------------------------


def _signature(task: Any) -> tuple[Any, ...]:
    """Return what differs whenever an event has changed *task*."""
    return (task.state, task.timestamp, task.clock, task.name, task.retries, getattr(task, "local_received", None))


def worker_news(hostname: str, worker: Any) -> WorkerNews | None:
    """Return what Celery's *worker* tells; None if its name can be no key."""
    now_s = time.time()
    heartbeat = min(float(worker.heartbeats[-1]), now_s) if worker.heartbeats else None
    fields = ("pid", "processed", "active", "loadavg", "sw_ident", "sw_ver", "sw_sys")
    event = {name: getattr(worker, name, None) for name in fields}
    event |= {"type": "worker-heartbeat", "hostname": hostname, "timestamp": heartbeat or now_s}
    if worker.processed is not None:
        # Before its first heartbeat it is a guess.
        event["freq"] = worker.freq
    news = intake.read(event, now_s)
    if not isinstance(news, WorkerNews):
        return None
    news.last_heartbeat = heartbeat
    return news


def task_news(uuid: str, task: Any) -> TaskNews | Malformed | None:
    """Return what Celery's *task* tells, why it can't be read, or None if it tells nothing."""
    now_s = time.time()
    found: TaskNews | None = None
    for event in _told(uuid, task):
        news = intake.read(event, now_s)
        if isinstance(news, Malformed):
            return news
        if isinstance(news, TaskNews):
            found = news if found is None else join(found, news)
    if found is None:
        return None
    if task.worker is None:
        found.worker = None
    if found.name is None and task.name:
        # Said by an event that usually doesn't.
        described = TaskNews(uuid, found.event, found.hostname)
        intake.describe(described, _called(task))
        join(found, described)
    return found


def _called(task: Any) -> dict[str, Any]:
    called = ("name", "args", "kwargs", "eta", "expires", "retries", "root_id", "parent_id", "routing_key", "queue")
    return {name: getattr(task, name, None) for name in called}


def _told(uuid: str, task: Any) -> Iterator[dict[str, Any]]:
    """Yield the events that *task* remembers, the oldest first, as they may have been."""
    worker = task.worker.hostname if task.worker else task.client
    shared = {"uuid": uuid, "hostname": worker or "?", "pid": getattr(task, "pid", None)}
    what = _called(task)
    for subject in ("sent", "retried", "received", "started"):
        at = getattr(task, subject, None)
        if at is not None:
            host = {"hostname": task.client} if subject == "sent" and task.client else {}
            yield {**shared, **what, **host, "type": f"task-{subject}", "timestamp": _true(task, at)}
    kind = _EVENTS.get(task.state)
    if kind is not None:
        outcome = ("result", "runtime", "exception", "traceback", "requeue", "expired", "terminated", "signum")
        told = {name: getattr(task, name, None) for name in outcome}
        yield {**shared, **told, "type": kind, "timestamp": _true(task, task.timestamp)}
    elif task.state not in states.ALL_STATES:
        own = {name: value for name, value in vars(task).items() if name not in _OWN and not hasattr(type(task), name)}
        yield {**shared, **own, "type": f"task-{task.state.lower()}", "timestamp": _true(task, task.timestamp)}


def _true(task: Any, at: Any) -> Any:
    """Return the timestamp *at* as it was sent. Celery's receiver moves it by hours if clocks show another zone."""
    came_at, offset = getattr(task, "local_received", None), getattr(task, "utcoffset", None)
    if not all(isinstance(value, (int, float)) for value in (at, came_at, offset)):
        return at
    return min((at, at + (offset - utcoffset()) * 3600), key=lambda each: abs(each - came_at))
