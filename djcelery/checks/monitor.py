"""Can the camera keep what the monitor is to show? Ids ``djcelery.W401`` and ``W402``.

Called by ``manage.py check`` and before a program starts. Reads Django's settings.
Next: ``docs/monitor.rst``.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.checks import CheckMessage, Warning

from djcelery.checks.common import Check
from djcelery.conf import conf, is_set
from djcelery.exceptions import SettingError


def lost_too_late(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W401: the rows of unfinished tasks are deleted before they can be marked as LOST."""
    lost, pending = _age("DJCELERY_LOST_AFTER"), _age("CELERYCAM_EXPIRE_PENDING")
    if lost is None or pending is None or lost <= pending:
        return []
    return [
        Warning(
            f"No task is ever marked as LOST: DJCELERY_LOST_AFTER is {lost}, and CELERYCAM_EXPIRE_PENDING deletes "
            f"the rows of unfinished tasks after {pending}.",
            hint="Make the first shorter than the second.",
            id="djcelery.W401",
        )
    ]


def hours_before_minutes(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W402: the counts per hour, which are to last, are deleted before those per minute."""
    names = ("DJCELERY_HISTORY_HOURS", "DJCELERY_HISTORY_MINUTES")
    hours, minutes = map(_age, names)
    if hours is None or not any(map(is_set, names)) or (minutes is not None and hours >= minutes):
        return []
    return [
        Warning(
            f"Counts of tasks per hour are kept for {hours}, shorter than those per minute "
            f"({minutes or 'for ever'}), which are 60 times as many.",
            hint="Make DJCELERY_HISTORY_HOURS longer than DJCELERY_HISTORY_MINUTES.",
            id="djcelery.W402",
        )
    ]


def _age(name: str) -> timedelta | None:
    """Return the age; None for "never", and for one that can't be parsed (E101 says so)."""
    try:
        return getattr(conf, name)
    except SettingError:
        return None


ALL: tuple[Check, ...] = (lost_too_late, hours_before_minutes)
