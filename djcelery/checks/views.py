"""Who may call the views? Ids ``djcelery.W601`` to ``W609``.

Called by ``manage.py check --deploy``. Reads djcelery's settings.
Next: ``docs/reference/checks.rst``.
"""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Warning

from djcelery.checks.common import Check
from djcelery.conf import conf
from djcelery.exceptions import SettingError

#: A token of fewer characters can be guessed.
MIN_TOKEN = 20


def _value(name: str) -> Any:
    """Return the setting, or None if it can't be parsed: E101 says so."""
    try:
        return getattr(conf, name)
    except SettingError:
        return None


def _open(names: tuple[str, ...]) -> list[str]:
    return [name for name in names if _value(name) == "open"]


def sending_is_open(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W601: anybody may send tasks."""
    return [
        Warning(
            f"{name} = 'open': whoever reaches the view can send tasks, by GET and without a login.",
            hint="Remove the setting, and give the permission djcelery.apply_taskstate to who may send tasks.",
            id="djcelery.W601",
        )
        for name in _open(("DJCELERY_APPLY_ACCESS", "DJCELERY_TASK_VIEW_ACCESS"))
    ]


def reading_is_open(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W602: anybody may read states, results or the names of tasks."""
    names = ("DJCELERY_TASK_STATUS_ACCESS", "DJCELERY_IS_TASK_SUCCESSFUL_ACCESS", "DJCELERY_REGISTERED_TASKS_ACCESS")
    return [
        Warning(
            f"{name} = 'open': whoever reaches the view is answered, without a login.",
            hint="Remove the setting, or write 'id' where it may be: that shows a state to who knows the task's id.",
            id="djcelery.W602",
        )
        for name in _open(names)
    ]


def webhooks_are_open(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W603: anybody may call receivers of webhooks."""
    return [
        Warning(
            f"{name} = 'open': whoever reaches a receiver of webhooks runs it, by GET and without a token.",
            hint="Remove the setting, and set DJCELERY_WEBHOOK_TOKEN.",
            id="djcelery.W603",
        )
        for name in _open(("DJCELERY_TASK_WEBHOOK_ACCESS",))
    ]


def every_task_is_allowed(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W604: the list of what the view ``apply`` may send names everything."""
    if not any(set(pattern) <= {"*", "?", "."} for pattern in _value("DJCELERY_APPLY_ALLOW") or ()):
        return []
    return [
        Warning(
            "DJCELERY_APPLY_ALLOW allows the view apply to send every task, those of Celery and of libraries too.",
            hint="Name the tasks, or write patterns such as 'shop.*'.",
            id="djcelery.W604",
        )
    ]


def token_is_short(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W605: the token of webhooks can be guessed."""
    token = _value("DJCELERY_WEBHOOK_TOKEN")
    if not token or len(token) >= MIN_TOKEN:
        return []
    return [
        Warning(
            f"DJCELERY_WEBHOOK_TOKEN has fewer than {MIN_TOKEN} characters and could be guessed.",
            hint="Take a random one: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
            id="djcelery.W605",
        )
    ]


ALL: tuple[Check, ...] = ()
#: Run by ``manage.py check --deploy`` only.
DEPLOY: tuple[Check, ...] = (
    sending_is_open,
    reading_is_open,
    webhooks_are_open,
    every_task_is_allowed,
    token_is_short,
)
