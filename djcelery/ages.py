"""Ages in settings: of monitor rows and results, and the rules that say which age is whose.

Called by ``conf``, which reads the settings, and by ``managers.retention``, which deletes. Pure.
Next: ``docs/reference/settings.rst``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from celery import states

__all__ = ("RetentionRule", "age", "retention")


def age(value: Any) -> timedelta | None:
    """Parse an age: a timedelta, a number of seconds, or None for "never"."""
    if value is None or isinstance(value, timedelta):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError("use a timedelta, a number of seconds, or None for never")
    return timedelta(seconds=value)


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
        parsed = age(value)
    except (TypeError, ValueError, OverflowError) as exc:
        raise ValueError(f"the age {value!r} of {key!r} is wrong: use a timedelta, seconds, or None for ever") from exc
    if parsed and parsed < timedelta(0):
        raise ValueError(f"the age {value!r} of {key!r} is below 0; use None to keep for ever")
    return parsed or None
