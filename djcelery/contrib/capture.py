"""Keep tasks that are sent from the broker, to look at and to run on demand.

Called by ``testing`` and ``pytest_plugin``. Changes the app in this process until the block is over:
no broker is connected to, and results are kept in memory or, if asked for, in the tables.
Next: ``docs/testing.rst``.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, overload

from celery import states
from celery.backends.base import KeyValueStoreBackend
from django.db import connections
from kombu import Connection

from djcelery.app import project_app
from djcelery.backends.database import DatabaseBackend
from djcelery.contrib.changes import changed_attributes, changed_conf, replaced_backend
from djcelery.contrib.sent import SentTask

logger = logging.getLogger(__name__)

#: Tasks that ``run()`` runs before it takes them for an endless loop.
MOST_RUNS = 1000


class CapturedTasks(Sequence[SentTask]):
    """The tasks that were sent in a ``capture_tasks()`` block, in their order."""

    def __init__(self) -> None:
        self._sent: list[SentTask] = []

    @overload
    def __getitem__(self, index: int) -> SentTask: ...

    @overload
    def __getitem__(self, index: slice) -> list[SentTask]: ...

    def __getitem__(self, index: Any) -> Any:
        return self._sent[index]

    def __len__(self) -> int:
        return len(self._sent)

    def __repr__(self) -> str:
        return f"<CapturedTasks: {self._listed()}>"

    @property
    def pending(self) -> list[SentTask]:
        """Those that have not run."""
        return [sent for sent in self._sent if sent.state is None]

    def named(self, task: Any) -> list[SentTask]:
        """Return those of *task*, a task or its name."""
        name = _name(task)
        return [sent for sent in self._sent if sent.name == name]

    def clear(self) -> None:
        """Forget them all."""
        self._sent.clear()

    def assert_sent(
        self,
        task: Any,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        times: int | None = None,
        **options: Any,
    ) -> SentTask:
        """Return the first task that was sent so.

        Args:
            task: A task or its name.
            args, kwargs: All positional and all keyword arguments; None is any.
            times: How often, 1 or more; None is at least once.
            options: Any attribute of ``SentTask`` or option of ``apply_async()``: ``queue="mail"``,
                ``countdown=10``, ``headers={"tenant": 3}``.

        Raises:
            AssertionError: None was, or not *times*; the message lists what was sent.
            ValueError: *times* is below 1.
        """
        if times is not None and times < 1:
            raise ValueError(f"times = {times}: there would be nothing to return. Use assert_not_sent().")
        found = self._found(task, args, kwargs, options)
        if found and times in (None, len(found)):
            return found[0]
        often = "was not sent" if not found else f"was sent {_times(len(found))}, not {_times(times or 1)}"
        raise AssertionError(f"{_wanted(task, args, kwargs, options)} {often}. {self._listed()}")

    def assert_not_sent(
        self,
        task: Any,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Check that no task was sent so; see ``assert_sent``.

        Raises:
            AssertionError: One was; the message lists what was sent.
        """
        if self._found(task, args, kwargs, options):
            raise AssertionError(f"{_wanted(task, args, kwargs, options)} was sent. {self._listed()}")

    def assert_nothing_sent(self) -> None:
        """Check that no task was sent at all.

        Raises:
            AssertionError: One was; the message lists what was sent.
        """
        if self._sent:
            raise AssertionError(f"A task was sent. {self._listed()}")

    def run(self, throw: bool = True, limit: int = MOST_RUNS) -> list[SentTask]:
        """Run the pending tasks in the order of sending, then what they have sent, until none is left.

        Nothing is waited for: ``countdown``, ``eta``, ``expires``, rate limits and time limits are passed over.

        Args:
            throw: Raise what a task raises; those after it stay pending. Else ``state`` and ``exception`` tell.
            limit: How many tasks may run.

        Returns:
            Those that have run, in their order.

        Raises:
            AssertionError: More than *limit* would run, or a task is not known in this process.
        """
        ran: list[SentTask] = []
        while pending := self.pending:
            if len(ran) >= limit:
                raise AssertionError(f"{limit} tasks have run, and there are more: {pending[0]} is next.")
            ran.append(pending[0])
            pending[0].run(throw)
        return ran

    def _found(self, task: Any, args: Any, kwargs: Any, options: Mapping[str, Any]) -> list[SentTask]:
        return [sent for sent in self.named(task) if sent.has(args, kwargs, options)]

    def _listed(self) -> str:
        # Those that captureOnCommitCallbacks() has run are still in the list, so they can't be counted.
        waiting = any(connection.run_on_commit for connection in connections.all(initialized_only=True))
        hint = (
            "Callbacks of on_commit() run in capture_tasks(on_commit=True) or captureOnCommitCallbacks(execute=True)."
        )
        said = [f"  {number}. {sent}" for number, sent in enumerate(self._sent, 1)]
        lines = ["These were sent:" if said else "No task was sent.", *said, *([hint] if waiting else [])]
        return "\n".join(lines)


def _name(task: Any) -> str:
    return task if isinstance(task, str) else task.name


def _times(count: int) -> str:
    return f"{count} time" if count == 1 else f"{count} times"


def _wanted(task: Any, args: Any, kwargs: Any, options: Mapping[str, Any]) -> str:
    given = ["…"] if args is None else [repr(value) for value in args]
    given += ["**…"] if kwargs is None else [f"{key}={value!r}" for key, value in kwargs.items()]
    text = f"{_name(task)}({', '.join(given)})" if (args, kwargs) != (None, None) else _name(task)
    about = ", ".join(f"{name}={value!r}" for name, value in options.items())
    return f"{text} with {about}" if about else text


class _NothingToWaitFor:
    """The part of a result backend that refuses to wait for what nobody will run."""

    def wait_for(self: Any, task_id: str, *args: Any, **kwargs: Any) -> Any:
        self._must_be_ready(task_id)
        return super().wait_for(task_id, *args, **kwargs)  # type: ignore[misc]

    def get_many(self: Any, task_ids: Iterable[str], *args: Any, **kwargs: Any) -> Any:
        ids = [str(task_id) for task_id in task_ids]
        for task_id in ids:
            self._must_be_ready(task_id)
        return super().get_many(ids, *args, **kwargs)  # type: ignore[misc]

    def _must_be_ready(self: Any, task_id: str) -> None:
        if self.get_task_meta(task_id)["status"] not in states.READY_STATES:
            raise AssertionError(
                f"Task {task_id} was captured and has not run. Call run() of the captured tasks first."
            )


class MemoryResults(_NothingToWaitFor, KeyValueStoreBackend):
    """Results in a dictionary, for as long as the block lasts."""

    supports_autoexpire = True
    supports_native_join = True
    implements_incr = True

    def __init__(self, app: Any, entries: dict[Any, Any]) -> None:
        super().__init__(app)
        self.entries = entries

    def get(self, key: Any) -> Any:
        return self.entries.get(key)

    def mget(self, keys: Iterable[Any]) -> list[Any]:
        return [self.entries.get(key) for key in keys]

    def set(self, key: Any, value: Any) -> None:
        self.entries[key] = value

    def delete(self, key: Any) -> None:
        self.entries.pop(key, None)

    def incr(self, key: Any) -> int:
        self.entries[key] = self.entries.get(key, 0) + 1
        return self.entries[key]

    def expire(self, key: Any, value: Any) -> None:
        """Keep the entry: the block is short."""


class StoredResults(_NothingToWaitFor, DatabaseBackend):
    """Results in djcelery's tables, as a worker stores them."""


class _Connection:
    """What Celery asks the connection of a producer for."""

    recoverable_connection_errors: tuple[type[Exception], ...] = ()
    _reraise_as_library_errors = staticmethod(nullcontext)


class _Producer:
    """A producer whose messages go to the list instead of a broker."""

    serializer = None
    connection = _Connection()

    def __init__(self, block: Block) -> None:
        self.block = block
        self.noted = threading.local()

    def publish(self, body: Any, **options: Any) -> None:
        """Take the message; events that announce a task are dropped."""
        stack = getattr(self.noted, "options", None)
        if stack:
            self.block.tasks._sent.append(SentTask(self.block, body, stack.pop(), options))

    def revive(self, connection: Any) -> None:
        """Do nothing: there is no connection to lose."""


def _run_callbacks(callbacks: list[Any], first: int) -> None:
    """Run and remove the ``on_commit()`` callbacks from *first* on, those that they add among them."""
    # captureOnCommitCallbacks() leaves them in the list, and one around another would run them twice.
    while len(callbacks) > first:
        _savepoints, callback, is_robust = callbacks.pop(first)
        try:
            callback()
        except Exception:
            if not is_robust:
                raise
            logger.exception("A robust callback of on_commit() failed.")


class Block:
    """What is changed while tasks are captured, and again while one of them runs after that."""

    def __init__(self, app: Any, on_commit: bool, store_results: bool) -> None:
        self.app = app
        self.on_commit = on_commit
        self.store_results = store_results
        self.tasks = CapturedTasks()
        self.producer = _Producer(self)
        self.entries: dict[Any, Any] = {}
        self.is_active = False

    @contextmanager
    def active(self) -> Iterator[None]:
        """Capture what is sent, unless that is so already."""
        if self.is_active:
            yield
            return
        self.is_active = True
        try:
            with (
                changed_conf(self.app, task_always_eager=False),
                replaced_backend(self.app, self._backend),
                changed_attributes(self.app, self._without_broker()),
                changed_attributes(self.app.amqp, {"_producer_pool": None}),
            ):
                yield
        finally:
            self.is_active = False

    @contextmanager
    def commits(self) -> Iterator[None]:
        """Run the ``on_commit()`` callbacks of the block at its end, if asked for, and only if it ends well."""
        waiting = {alias: len(connections[alias].run_on_commit) for alias in connections if self.on_commit}
        yield
        for alias, first in waiting.items():
            _run_callbacks(connections[alias].run_on_commit, first)

    def _backend(self) -> Any:
        return StoredResults(app=self.app) if self.store_results else MemoryResults(self.app, self.entries)

    def _without_broker(self) -> dict[str, Any]:
        """Return the attributes by which the app sends its tasks to the list, and all else to a broker in memory."""
        send = self.app.send_task
        parameters = inspect.signature(send)

        def send_task(*args: Any, **kwargs: Any) -> Any:
            given = dict(parameters.bind(*args, **kwargs).arguments)
            options = given.pop("options", {})
            options |= {key: given[key] for key in given if key not in ("name", "args", "kwargs")}
            stack = self.producer.noted.__dict__.setdefault("options", [])
            depth = len(stack)
            stack.append(options)
            try:
                return send(*args, **kwargs)
            finally:
                del stack[depth:]

        def connection(url: Any = None, **kwargs: Any) -> Any:
            return Connection("memory://")

        return {
            "send_task": send_task,
            "producer_or_acquire": lambda taken=None: nullcontext(self.producer),
            "connection_for_write": connection,
            "connection_for_read": connection,
            "_pool": None,
        }


@contextmanager
def capture_tasks(app: Any = None, *, on_commit: bool = False, store_results: bool = False) -> Iterator[CapturedTasks]:
    """Capture the tasks that are sent by *app* during the block, by any thread, instead of sending them.

    Eager mode is off during the block. Remote control and events go nowhere. What was captured can be run in the
    block and after it.

    Args:
        app: The Celery app; None is the project's.
        on_commit: Run the ``on_commit()`` callbacks of the block at its end, and those of each task that
            is run, as if a ``TestCase`` did commit.
        store_results: Store the results of tasks that are run in djcelery's tables; else they are kept in memory.
    """
    block = Block(app or project_app(), on_commit, store_results)
    with block.active(), block.commits():
        yield block.tasks
