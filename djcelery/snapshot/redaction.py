"""What is not stored of the texts in events, by the project's setting and the task's own option ``redact``.

Called by ``writer``. Events bring arguments as text, as Celery or the sender has written them; single items are hidden
where that text can be taken apart, else all of it is.
Next: ``docs/explain/life-of-a-task-event.rst``.
"""

from __future__ import annotations

import ast
import logging
from typing import Any

from djcelery.conf import conf
from djcelery.exceptions import SettingError

logger = logging.getLogger(__name__)

REDACTED = "[redacted]"
ALL = frozenset({"args", "kwargs", "result", "traceback"})


class Redactor:
    """Hides what is not to be stored. *app* is Celery's, whose tasks may have an option ``redact``; None: none has."""

    def __init__(self, app: Any = None) -> None:
        self._app = app
        self._names: dict[str | None, frozenset[str]] = {}
        self._broken: set[str | None] = set()

    def read_settings(self) -> None:
        """Read settings and tasks anew on the next use."""
        self._names.clear()

    def names(self, task: str | None) -> frozenset[str]:
        """Return what isn't stored of *task*. An option that can't be used hides everything, and is logged once."""
        if task not in self._names:
            self._names[task] = self._read(task)
        return self._names[task]

    def _read(self, task: str | None) -> frozenset[str]:
        own = getattr(self._app.tasks.get(task), "redact", None) if self._app is not None and task else None
        try:
            if own is None:
                return conf.DJCELERY_REDACT
            return type(conf).DJCELERY_REDACT.parsed(own, f"redact of task {task}")
        except SettingError as exc:
            if task not in self._broken:
                self._broken.add(task)
                logger.error("%s Until it is corrected, the monitor stores neither arguments nor results.", exc)
            return ALL


def shown(column: str, text: str, names: frozenset[str]) -> str | None:
    """Return what may be stored of *text*, which is for *column*; None if nothing may.

    A hidden result hides progress too, and of an exception and its traceback all but the class.
    """
    if column in names:
        return None
    if column in ("args", "kwargs"):
        items = [name.partition(".")[2] for name in names if name.startswith(f"{column}.")]
        return _without_items(column, text, items) if items else text
    if "result" in names:
        return text.partition("(")[0][:200] if column == "exception" else None
    return text


def _without_items(column: str, text: str, items: list[str]) -> str:
    try:
        return _taken_apart(column, text, items)
    except Exception:  # noqa: BLE001 - cut, with objects in it, or made to break this: what can't be read isn't shown
        return REDACTED


def _taken_apart(column: str, text: str, items: list[str]) -> str:
    value = ast.literal_eval(text)
    if column == "kwargs" and isinstance(value, dict):
        if not set(items) & value.keys():
            return text
        return repr({key: REDACTED if key in items else item for key, item in value.items()})
    if column == "args" and isinstance(value, (tuple, list)):
        hidden = {int(item) for item in items if item.isdecimal()}
        if not any(number < len(value) for number in hidden):
            return text
        return repr(type(value)(REDACTED if number in hidden else item for number, item in enumerate(value)))
    return REDACTED
