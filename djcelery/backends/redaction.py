"""What is not stored of a task, by the project's setting and the task's own option.

Called by ``database`` and ``cache`` before each write, by their chords for the parts, and by ``publish``.
Next: ``docs/explain/life-of-a-result.rst``.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from djcelery.backends import columns
from djcelery.conf import conf
from djcelery.exceptions import SettingError

logger = logging.getLogger(__name__)

ALL = frozenset({"args", "kwargs", "result", "traceback"})


class _Inherited(threading.local):
    """What the task hides whose failure this thread is storing, in its own row and in others."""

    names: frozenset[str] = frozenset()


_inherited = _Inherited()


def redacted_names(app: Any, name: str | None) -> frozenset[str]:
    """Return what isn't stored of task *name*: its own option ``redact``, else ``DJCELERY_REDACT``.

    One that can't be used hides everything, and is logged: the state must be stored, a secret must not.
    """
    own = getattr(app.tasks.get(name), "redact", None) if name else None
    try:
        names = (
            conf.DJCELERY_REDACT if own is None else type(conf).DJCELERY_REDACT.parsed(own, f"redact of task {name}")
        )
    except SettingError as exc:
        logger.error("%s Until it is corrected, neither arguments nor results of %s are stored.", exc, name)
        names = ALL
    return names | _inherited.names if _inherited.names else names


def part_value(backend: Any, request: Any, state: str, result: Any) -> Any:
    """Return what a chord keeps of a part's *result*: a value as it is, an error without what the task hides."""
    value = backend.encode_result(result, state)
    if state not in backend.EXCEPTION_STATES:
        # The callback gets it.
        return value
    hidden = redacted_names(backend.app, getattr(request, "task", None))
    return columns.shown_value(columns.Columns(), state, value, hidden)


class RedactionMixin:
    """The part of a result backend by which an error stays hidden in the rows of other tasks."""

    def mark_as_failure(
        self: Any, task_id: str, exc: BaseException, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        """Store a failure; the tasks chained after it get the same error, and hide what this one hides."""
        before = _inherited.names
        _inherited.names = redacted_names(self.app, getattr(request, "task", None)) & {"result", "traceback"}
        try:
            return super().mark_as_failure(task_id, exc, traceback, request, **kwargs)  # type: ignore[misc]
        finally:
            _inherited.names = before
