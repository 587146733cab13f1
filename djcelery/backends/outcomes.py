"""Outcomes of tasks that can't be stored at once: none vanishes silently, and none stops the worker.

A mixin of the database backend. A worker's main process stores what pool processes can't: revoked,
expired and lost tasks, hard time limits. Celery lets an error there end the worker, and waiting
stops all its tasks. So the first try is short, and what fails is handed to a thread that tries as long
as a pool process would. Writes by the backend's own methods.
Next: ``docs/explain/failures.rst``.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from celery import states
from celery.exceptions import BackendStoreError
from django.db import Error, close_old_connections

from djcelery import db, eventloop

logger = logging.getLogger(__name__)

#: How many outcomes may wait for the database; each keeps its message in memory.
MOST_WAITING = 10_000
#: How long a worker that ends waits for them, in seconds.
LAST_WAIT_S = 5.0


class OutcomesMixin:
    """Celery's ``mark_as_…`` methods, which never raise in a worker's event loop."""

    _always_retry = False

    @property
    def always_retry(self) -> bool:
        """The setting ``result_backend_always_retry``; in the event loop it would mean to stand still."""
        return self._always_retry and not eventloop.runs_here()

    @always_retry.setter
    def always_retry(self, value: bool) -> None:
        self._always_retry = value

    def store_result(
        self: Any,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Store as Celery's backends do; what can't be stored is in the log, with its id and state."""
        request = request or _request_here(task_id)
        try:
            return super().store_result(  # type: ignore[misc]
                task_id, result, state, traceback=traceback, request=request, **kwargs
            )
        except (Error, BackendStoreError) as exc:
            if not eventloop.is_main_process():
                _log_lost(task_id, state, exc)
            raise

    def mark_as_failure(self, task_id: str, *args: Any, state: str = states.FAILURE, **kwargs: Any) -> Any:
        """Store a failure, tell chord and chain, call errbacks."""
        mark = super().mark_as_failure  # type: ignore[misc]
        return self._guarded(lambda: mark(task_id, *args, state=state, **kwargs), task_id, state)

    def mark_as_revoked(self, task_id: str, *args: Any, state: str = states.REVOKED, **kwargs: Any) -> Any:
        """Store that the task was revoked or has expired, and tell its chord."""
        mark = super().mark_as_revoked  # type: ignore[misc]
        return self._guarded(lambda: mark(task_id, *args, state=state, **kwargs), task_id, state)

    def mark_as_retry(self, task_id: str, *args: Any, state: str = states.RETRY, **kwargs: Any) -> Any:
        """Store that the task will be tried again."""
        mark = super().mark_as_retry  # type: ignore[misc]
        return self._guarded(lambda: mark(task_id, *args, state=state, **kwargs), task_id, state)

    def _guarded(self, work: Callable[[], Any], task_id: str, state: str) -> Any:
        if not eventloop.runs_here() or _guard.on:
            return work()
        # What this one calls, such as for the callback of a chord, belongs to it: all is tried again together.
        _guard.on = True
        try:
            return work()
        except Exception as exc:  # noqa: BLE001 - whatever it is, the worker must live on
            if isinstance(exc, BackendStoreError) or db.is_transient(exc):
                _later.put(work, task_id, state, exc)
            else:
                _log_lost(task_id, state, f"{type(exc).__name__}: {exc}")
        finally:
            _guard.on = False
        return None


class _Guard(threading.local):
    on = False


_guard = _Guard()


def _request_here(task_id: str) -> Any:
    """Return the request of a task that waits in this worker: Celery doesn't pass it when it revokes one."""
    if not eventloop.is_main_process():
        return None
    # Other programs have no use for the worker's modules.
    from celery.worker.state import requests

    waiting = requests.get(task_id)
    return waiting and waiting._context


class _Later:
    """The outcomes that wait, and the thread of the main process that stores them."""

    def __init__(self) -> None:
        self.waiting: queue.Queue[tuple[Callable[[], Any], str, str]] = queue.Queue(MOST_WAITING)
        self.current: tuple[str, str] | None = None
        self.thread: threading.Thread | None = None
        self.pid = 0

    def put(self, work: Callable[[], Any], task_id: str, state: str, exc: Exception) -> None:
        """Have *work* done soon, or say in the log that it won't be."""
        try:
            self.waiting.put_nowait((work, task_id, state))
        except queue.Full:
            _log_lost(task_id, state, exc)
            return
        logger.warning("Could not store state %s of task %s (%s); trying again in a thread.", state, task_id, exc)
        if self.thread is None or not self.thread.is_alive():
            self.pid = os.getpid()
            self.thread = threading.Thread(target=self._run, name="djcelery-outcomes", daemon=True)
            self.thread.start()
            atexit.register(self._end)

    def _run(self) -> None:
        eventloop.be_patient()
        while True:
            work, task_id, state = self.waiting.get()
            self.current = (task_id, state)
            try:
                work()
            except Exception as exc:  # noqa: BLE001 - the next outcome may be storable
                _log_lost(task_id, state, exc)
            finally:
                self.current = None
                close_old_connections()
                self.waiting.task_done()

    def _end(self) -> None:
        """Give the database a last chance; name what is lost with this process."""
        if self.pid != os.getpid():
            return
        deadline = time.monotonic() + LAST_WAIT_S
        while self.waiting.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.05)
        lost = [(task_id, state) for _, task_id, state in list(self.waiting.queue)]
        for task_id, state in [self.current, *lost] if self.current else lost:
            _log_lost(task_id, state, "the worker has ended")


def _log_lost(task_id: str, state: str, why: object) -> None:
    logger.error("Task %s is in state %s, but that could not be stored: %s", task_id, state, why)


_later = _Later()
