"""Ages in settings: of monitor rows and results, and the rules that say which age is whose.

Called by ``conf``, which reads the settings, and by ``managers.retention``, which deletes. Pure.
Next: ``docs/reference/settings.rst``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from celery import states

__all__ = ("LONGEST", "RetentionRule", "age", "retention")

#: An age from which on no row is that old: beyond it the calendar may end.
LONGEST = timedelta(days=365 * 1000)


def age(value: Any) -> timedelta | None:
    """Parse an age: a timedelta, a number of seconds, or None for "never", which ``LONGEST`` and above are, too."""
    if isinstance(value, bool) or not isinstance(value, (int, float, timedelta, type(None))):
        raise TypeError("use a timedelta, a number of seconds, or None for never")
    try:
        parsed = timedelta(seconds=value) if isinstance(value, (int, float)) else value
    except (OverflowError, ValueError) as exc:
        raise ValueError("no timedelta can hold it; use None for never") from exc
    if parsed is None or parsed >= LONGEST:
        return None
    if parsed < timedelta(0):
        # What is older than the future is everything.
        raise ValueError("it is below 0; use None for never")
    return parsed


class RetentionRule(NamedTuple):
    """One age of ``DJCELERY_RETENTION``: "" is any task or state; *age* None is for ever."""

    task: str
    state: str
    age: timedelta | None

    def __str__(self) -> str:
        keys = "".join(f"[{key!r}]" for key in (self.task, self.state) if key)
        return f"DJCELERY_RETENTION{keys}" if keys else "CELERY_RESULT_EXPIRES"


def retention(value: Any) -> tuple[RetentionRule, ...]:
    """Parse ages by state and by task name; the age of a task may itself be a dictionary, by state.

    A key in capitals is a state, any other a task name; ``*`` at its end makes it a prefix.

    Raises:
        TypeError, ValueError: What is wrong, and what to write instead.
    """
    if not isinstance(value, Mapping):
        raise TypeError("use a dictionary of ages by state or task name")
    rules = []
    for key, kept in value.items():
        if not isinstance(key, str) or not key.rstrip("*") or key != key.strip():
            raise ValueError(f"{key!r} is neither a state nor a task name; for all results set CELERY_RESULT_EXPIRES")
        if "*" in key[:-1]:
            raise ValueError(f"{key!r} has a * before its end; only prefixes such as 'shop.*' are possible")
        task, state = ("", key) if key.isupper() and not {".", "*"} & set(key) else (key, "")
        if task and isinstance(kept, Mapping):
            rules += [RetentionRule(task, _state(name), _kept(each, name)) for name, each in kept.items()]
        else:
            rules.append(RetentionRule(task, state, _kept(kept, key)))
    return tuple(rules)


def _state(name: Any) -> str:
    if not isinstance(name, str) or not name.strip() or (name.upper() in states.ALL_STATES and not name.isupper()):
        raise ValueError(f"{name!r} is no state; Celery's are written in capitals")
    return name


def _kept(value: Any, key: str) -> timedelta | None:
    try:
        return age(value) or None
    except (TypeError, ValueError) as exc:
        raise ValueError(f"the age {value!r} of {key!r} is wrong: {exc}") from exc
