"""Does the schedule in the database have a beat that reads it? Ids ``djcelery.E301`` to ``I306``.

Called by ``manage.py check`` and before a program starts; the check of rows, when beat starts, reads ``PeriodicTask``.
Next: ``docs/schedule.rst``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, Warning

from djcelery.checks.common import Check, Given, given, is_celerys_scheduler, starting_now
from djcelery.checks.looking import alias_of, look
from djcelery.models import PeriodicTask

_PEER = "django_celery_beat"
#: Every way to name the scheduler of djcelery.
_OURS = ("djcelery", "djcelery.schedulers.DatabaseScheduler", "djcelery.schedulers.scheduler.DatabaseScheduler")
_HINT = "Start beat with -S djcelery, or write CELERY_BEAT_SCHEDULER = 'djcelery.schedulers.DatabaseScheduler'"


def _is_peers(value: Any) -> bool:
    return isinstance(value, str) and (value == "django" or value.startswith(f"{_PEER}."))


def peers_scheduler(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """E301: the scheduler is django-celery-beat's, whose tables the project doesn't have."""
    scheduler = given("beat_scheduler")
    if scheduler is None or not _is_peers(scheduler.value) or apps.is_installed(_PEER):
        return []
    message = f"{scheduler.name} = {scheduler.value!r} is the scheduler of django-celery-beat, which is not installed."
    return [Error(message, hint=f"{_HINT}.", id="djcelery.E301")]


def other_scheduler(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """I302: the settings name a scheduler that doesn't read the periodic tasks of our admin."""
    scheduler = given("beat_scheduler")
    if scheduler is None or not apps.is_installed("django.contrib.admin") or not _reads_no_rows(scheduler.value):
        return []
    if _is_peers(scheduler.value) and not apps.is_installed(_PEER):
        return []
    return [
        Info(
            f"{scheduler.name} = {scheduler.value!r} does not send djcelery's periodic tasks, which the admin shows.",
            hint=f"{_HINT}; or silence djcelery.I302.",
            id="djcelery.I302",
        )
    ]


def _reads_no_rows(value: Any) -> bool:
    return is_celerys_scheduler(value) or _is_peers(value)


def unknown_scheduler(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """E304: the settings name a scheduler that djcelery doesn't have."""
    scheduler = given("beat_scheduler")
    name = scheduler.value if scheduler is not None else None
    if not isinstance(name, str) or name.partition(".")[0].partition(":")[0] != "djcelery":
        return []
    if name.replace(":", ".") in _OURS:
        return []
    hint = "Write 'djcelery.schedulers.DatabaseScheduler'."
    return [Error(f"{_text(scheduler)} names no scheduler of djcelery.", hint=hint, id="djcelery.E304")]


def _text(setting: Given | None) -> str:
    return f"{setting.name} = {setting.value!r}" if setting else ""


def unusable_entries(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W305: an entry of the schedule in the settings lacks what every entry needs."""
    schedule = given("beat_schedule")
    if schedule is None or not schedule.value:
        return []
    if not isinstance(schedule.value, Mapping):
        hint = "Write {'name': {'task': 'shop.tasks.add', 'schedule': 10.0}}."
        return [Warning(f"{schedule.name} is no dictionary of entries.", hint=hint, id="djcelery.W305")]
    return [
        Warning(
            f"{schedule.name}[{name!r}] has no {' and no '.join(map(repr, missing))}; beat can't send it.",
            hint="Give it both a 'task' (its name) and a 'schedule' (seconds, a timedelta or a crontab).",
            id="djcelery.W305",
        )
        for name, entry in schedule.value.items()
        if (missing := _missing(entry))
    ]


def _missing(entry: Any) -> list[str]:
    return [key for key in ("task", "schedule") if not isinstance(entry, Mapping) or entry.get(key) is None]


# -- when beat starts ------------------------------------------------------------------------------


def rows_without_beat(app_configs: Any = None, databases: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W303: beat starts with a scheduler that doesn't read the rows, and there are some. One SELECT."""
    start = starting_now()
    if start is None or not _runs_beat(start.program, start.options) or not databases:
        return []
    setting = given("beat_scheduler")
    named = start.options.get("scheduler") or (setting.value if setting else None)
    # Without a name it is Celery's own, which keeps a file.
    if named and not _reads_no_rows(named):
        return []
    waiting = look(_enabled_rows, alias_of(PeriodicTask))
    if not waiting:
        return []
    return [
        Warning(
            f"The scheduler of this beat ({named or 'celery.beat:PersistentScheduler'}) sends no periodic task "
            f"of the database, of which {waiting} {'is' if waiting == 1 else 'are'} enabled.",
            hint=f"{_HINT}.",
            id="djcelery.W303",
        )
    ]


def _runs_beat(program: str, options: Mapping[str, Any]) -> bool:
    return program == "celerybeat" or (program.startswith("celeryd") and bool(options.get("beat")))


def _enabled_rows(connection: Any) -> int:
    """Return how many enabled rows there are, but for the one that the scheduler itself adds."""
    table = connection.ops.quote_name(PeriodicTask._meta.db_table)
    with connection.cursor() as cursor:
        sql = f"SELECT COUNT(*) FROM {table} WHERE enabled = %s AND name <> %s"  # noqa: S608 - quoted name of the model
        cursor.execute(sql, [True, "celery.backend_cleanup"])
        return cursor.fetchone()[0]


def two_time_zones(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """I306: beat starts, and crontabs run by another clock than the one that people see in the admin."""
    start, zone = starting_now(), given("timezone")
    if start is None or zone is None or not _runs_beat(start.program, start.options):
        return []
    if not isinstance(zone.value, str) or zone.value in ("", settings.TIME_ZONE):
        return []
    return [
        Info(
            f"Crontabs without a time zone of their own go by {zone.name} = {zone.value!r}; "
            f"the admin shows times in TIME_ZONE = {settings.TIME_ZONE!r}.",
            hint="Remove the first if both are to be the same, or give each crontab its time zone.",
            id="djcelery.I306",
        )
    ]


ALL: tuple[Check, ...] = (peers_scheduler, other_scheduler, unknown_scheduler, unusable_entries)
#: Run when a program starts.
START: tuple[Check, ...] = (rows_without_beat, two_time_zones)
