"""Django test runners under which tasks run where they are sent: in the test's own process, at once.

Called by ``manage.py test``, as ``TEST_RUNNER`` or ``--testrunner``, and in each process of ``--parallel``.
Changes settings and the project's Celery app until the tests are over; the second runner writes a row
per task as a worker does.
Next: ``docs/testing.rst``.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from celery import signals, states
from celery._state import _task_stack
from celery.exceptions import Ignore, Reject, Retry
from django.test.runner import DiscoverRunner, ParallelTestSuite, _init_worker
from django.test.utils import override_settings
from kombu.exceptions import EncodeError

from djcelery.app import project_app
from djcelery.contrib.changes import changed_attributes, changed_conf, replaced_backend
from djcelery.deprecation import old_names

__all__ = ("USAGE", "CeleryTestSuiteRunner", "CeleryTestSuiteRunnerStoringResult")

USAGE = """\
Test runners that run Celery tasks at once, in the test's own process.

TEST_RUNNER = "djcelery.contrib.test_runner.CeleryTestSuiteRunner"
    add.delay(2, 2) runs the task and returns its result; an exception reaches the caller.

TEST_RUNNER = "djcelery.contrib.test_runner.CeleryTestSuiteRunnerStoringResult"
    The same, and each task leaves the row in TaskMeta that a worker would write.
"""

#: Both spellings of each setting, so that code which reads Django's settings sees no contradiction.
_EAGER_SETTINGS = {
    "CELERY_ALWAYS_EAGER": True,
    "CELERY_TASK_ALWAYS_EAGER": True,
    "CELERY_EAGER_PROPAGATES_EXCEPTIONS": True,
    "CELERY_TASK_EAGER_PROPAGATES": True,
}
_STORING_SETTINGS = {"CELERY_TASK_STORE_EAGER_RESULT": True, "CELERY_RESULT_BACKEND": "djcelery-db"}


@contextmanager
def eager_tasks() -> Iterator[None]:
    """Run tasks eagerly and let their exceptions through, by Django's settings and the configuration of the app."""
    with (
        override_settings(**_EAGER_SETTINGS),
        changed_conf(project_app(), task_always_eager=True, task_eager_propagates=True),
    ):
        yield


@contextmanager
def stored_eager_tasks() -> Iterator[None]:
    """Do what ``eager_tasks()`` does, and store results, failures, retries and starts as a worker does."""
    # Celery may load this module before Django is set up.
    from djcelery.backends.database import DatabaseBackend

    app = project_app()
    with (
        _storing_tasks(app),
        eager_tasks(),
        override_settings(**_STORING_SETTINGS),
        changed_conf(app, task_store_eager_result=True, result_backend="djcelery-db"),
        replaced_backend(app, lambda: DatabaseBackend(app=app)),
    ):
        signals.task_prerun.connect(_store_start)
        signals.task_postrun.connect(_store_error)
        try:
            yield
        finally:
            signals.task_prerun.disconnect(_store_start)
            signals.task_postrun.disconnect(_store_error)


@contextmanager
def _storing_tasks(app: Any) -> Iterator[None]:
    """Switch storing on in the tasks that are there: they have read the configuration already."""
    known = list(app.tasks.values())
    configured = app.conf.task_store_eager_result
    with ExitStack() as stack:
        for task in known:
            stack.enter_context(changed_attributes(task, {"store_eager_result": True}))
        yield
    for task in app.tasks.values():
        # What tests have defined has read the changed configuration.
        if task not in known and type(task).store_eager_result:
            type(task).store_eager_result = configured


def _is_stored(task: Any) -> bool:
    request = task.request
    ignored = getattr(request, "ignore_result", None)
    return bool(request.is_eager) and not (task.ignore_result if ignored is None else ignored)


def _store_start(task_id: str, task: Any, **kwargs: Any) -> None:
    """Store that an eager task has started, if it tracks that; tell its parent of it. Receiver of ``task_prerun``."""
    if not task.request.is_eager:
        return
    for parent in (_task_stack.stack or [])[-2:-1]:
        # As send_task() does, which eager mode passes by.
        parent.add_trail(task.AsyncResult(task_id))
    if task.track_started and _is_stored(task):
        started = {"pid": os.getpid(), "hostname": task.request.hostname}
        task.backend.store_result(task_id, started, states.STARTED, request=task.request)


def _store_error(task_id: str, task: Any, state: str | None = None, **kwargs: Any) -> None:
    """Store the exception that an eager task raises: Celery doesn't if it lets it through.

    Receiver of ``task_postrun``, which is sent while the exception is on its way.
    """
    exc = sys.exc_info()[1]
    # A value that can't be stored is an error of a task that has succeeded.
    is_raised = state is None or (state == states.SUCCESS and isinstance(exc, EncodeError))
    if not is_raised or not isinstance(exc, Exception) or isinstance(exc, (Ignore, Reject)):
        return
    if not (_is_stored(task) or (task.request.is_eager and task.store_errors_even_if_ignored)):
        return
    text = "".join(traceback.format_exception(exc))
    if isinstance(exc, Retry):
        task.backend.store_result(task_id, exc.exc, states.RETRY, traceback=text, request=task.request)
    else:
        task.backend.store_result(task_id, exc, states.FAILURE, traceback=text, request=task.request)


def _set_eager() -> Callable[[], None]:
    """Let tasks run eagerly in this process from now on; return a function that undoes it."""
    stack = ExitStack()
    stack.enter_context(eager_tasks())
    return stack.close


#: The changes of this process. A forked process of ``--parallel`` inherits them, a spawned one has none.
_here: list[ExitStack] = []


def _enter(changes: Callable[[], AbstractContextManager[None]]) -> None:
    stack = ExitStack()
    stack.enter_context(changes())
    _here.append(stack)


def _init_eager_worker(*args: Any, **kwargs: Any) -> None:
    _init_worker(*args, **kwargs)
    if not _here:
        _enter(eager_tasks)


def _init_storing_worker(*args: Any, **kwargs: Any) -> None:
    _init_worker(*args, **kwargs)
    if not _here:
        _enter(stored_eager_tasks)


class EagerParallelTestSuite(ParallelTestSuite):
    """The tests of ``--parallel``, eager in each process."""

    init_worker = _init_eager_worker


class StoringParallelTestSuite(ParallelTestSuite):
    """The tests of ``--parallel``, eager and with stored results in each process."""

    init_worker = _init_storing_worker


class CeleryTestSuiteRunner(DiscoverRunner):
    """Runs tests with eager tasks: exceptions reach the caller, results are not stored."""

    parallel_test_suite = EagerParallelTestSuite
    #: What is changed from ``setup_test_environment()`` to ``teardown_test_environment()``.
    changes = staticmethod(eager_tasks)

    def setup_test_environment(self, **kwargs: Any) -> None:
        """Change settings and app, then do what Django's runner does."""
        _enter(self.changes)
        try:
            super().setup_test_environment(**kwargs)
        except BaseException:
            _here.pop().close()
            raise

    def teardown_test_environment(self, **kwargs: Any) -> None:
        """Do what Django's runner does, then undo every change."""
        try:
            super().teardown_test_environment(**kwargs)
        finally:
            _here.pop().close()


class CeleryTestSuiteRunnerStoringResult(CeleryTestSuiteRunner):
    """Runs tests with eager tasks whose results, failures among them, are stored in ``TaskMeta``."""

    parallel_test_suite = StoringParallelTestSuite
    changes = staticmethod(stored_eager_tasks)


__getattr__ = old_names(
    __name__, {}, gone={"run_tests": "write TEST_RUNNER = 'djcelery.contrib.test_runner.CeleryTestSuiteRunner'."}
)
