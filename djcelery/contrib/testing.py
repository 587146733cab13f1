"""What tests of tasks import: ``capture_tasks``, a mixin of it for test cases, ``assert_runs_at``, ``running_worker``.

Called by the tests of a project. Next: ``docs/testing.rst``.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from typing import Any

from djcelery.contrib.capture import CapturedTasks, capture_tasks
from djcelery.contrib.schedules import assert_runs_at
from djcelery.contrib.sent import SentTask
from djcelery.contrib.worker import running_worker

__all__ = ("CapturedTasks", "CapturedTasksMixin", "SentTask", "assert_runs_at", "capture_tasks", "running_worker")


class CapturedTasksMixin:
    """A mixin for Django's test cases; its methods take the arguments of ``capture_tasks()``."""

    addCleanup: Any

    def capture_tasks(self, app: Any = None, **options: Any) -> AbstractContextManager[CapturedTasks]:
        """Return a context manager that captures the tasks which are sent in its block."""
        return capture_tasks(app, **options)

    def start_capturing_tasks(self, app: Any = None, **options: Any) -> CapturedTasks:
        """Capture from now to the end of the test, such as in ``setUp()``.

        Here ``on_commit=True`` is for the tasks that ``run()`` runs; the test's own callbacks run after its end.
        """
        stack = ExitStack()
        tasks = stack.enter_context(capture_tasks(app, **options))
        self.addCleanup(stack.close)
        return tasks

    def assert_runs_at(self, entry: Any, expected: Any, **options: Any) -> None:
        """Check when *entry* fires; see ``djcelery.contrib.testing.assert_runs_at``."""
        assert_runs_at(entry, expected, **options)
