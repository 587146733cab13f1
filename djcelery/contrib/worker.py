"""A real worker in a thread of the test, on the test's own database and a broker of its own in memory.

Called by ``testing``. Stores results in djcelery's tables. Changes the app in this process until the block is over.
Next: ``docs/testing.rst``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import _state
from celery.contrib.testing.worker import TestWorkController, start_worker
from celery.result import _set_task_join_will_block, task_join_will_block
from celery.signals import setup_logging
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from kombu import Connection
from kombu.transport import memory, virtual

from djcelery.app import project_app
from djcelery.backends.database import DatabaseBackend
from djcelery.contrib.changes import changed_attributes, changed_conf, replaced_backend


class _Transport(memory.Transport):
    """Kombu's broker in memory, which looks for messages, and for the worker's end, more often."""

    polling_interval = 0.01

    def drain_events(self, connection: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        return super().drain_events(connection, timeout=timeout and min(timeout, 0.1), **kwargs)


class _Worker(TestWorkController):
    """Celery's worker for tests, which leaves no database connection behind: its thread ends with it."""

    def start(self) -> None:
        try:
            super().start()
        finally:
            for connection in connections.all(initialized_only=True):
                # Django's own close() leaves a database in memory open, since it would be gone; here others hold it.
                BaseDatabaseWrapper.close(connection)


@contextmanager
def running_worker(app: Any = None, *, timeout_s: float = 30, **options: Any) -> Iterator[Any]:
    """Run a worker while the block lasts, and yield it: what is sent is run as in production, in another thread.

    Args:
        app: The Celery app; None is the project's.
        timeout_s: Seconds for the worker to end: a task that runs then must be over within them.
        options: Of Celery's worker, such as ``queues=["mail"]``.

    Raises:
        RuntimeError: A transaction is open, as in every ``TestCase``: the worker could not see what it has
            written, and might wait for it. Take ``TransactionTestCase``.
    """
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block:
            raise RuntimeError(
                f"A transaction is open on database {connection.alias!r}, which a worker can't see into. "
                "Use TransactionTestCase, or capture_tasks() and its run()."
            )
    app = app or project_app()
    # A failing import of a task module must not pass for a task that nobody knows.
    app.loader.import_default_modules()
    with (
        # The worker itself adds to "include".
        changed_conf(app, task_always_eager=False, worker_hijack_root_logger=False, include=app.conf.include),
        replaced_backend(app, lambda: DatabaseBackend(app=app)),
        changed_attributes(app, _broker_of_its_own()),
        changed_attributes(app.amqp, {"_producer_pool": None}),
        _current_app_kept(),
        _logging_kept(),
        start_worker(
            app, perform_ping_check=False, shutdown_timeout=timeout_s, WorkController=_Worker, **options
        ) as worker,
    ):
        yield worker


def _broker_of_its_own() -> dict[str, Any]:
    """Return the attributes by which an app talks to a broker in memory that no other app of the process knows."""
    channel = type("Channel", (memory.Channel,), {"queues": {}})
    transport = type("Transport", (_Transport,), {"Channel": channel, "global_state": virtual.BrokerState()})

    def connection(url: Any = None, **kwargs: Any) -> Any:
        return Connection(transport=transport)

    return {"connection_for_write": connection, "connection_for_read": connection, "_pool": None}


@contextmanager
def _logging_kept() -> Iterator[None]:
    """Let Celery's helper leave the log as it is: it would set the level of the root logger, for all tests to come."""

    def is_set_up(**kwargs: Any) -> None:
        pass

    setup_logging.connect(is_set_up, weak=False)
    try:
        yield
    finally:
        setup_logging.disconnect(is_set_up)


@contextmanager
def _current_app_kept() -> Iterator[None]:
    """Give back the current and the default app, which Celery's helper sets and leaves."""
    current, default, blocks = _state._tls.current_app, _state.default_app, task_join_will_block()
    try:
        yield
    finally:
        _state._set_current_app(current)
        _state.default_app = default
        _set_task_join_will_block(blocks)
