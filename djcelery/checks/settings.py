"""Does every setting have the effect that its author meant? Ids ``djcelery.E1xx`` and ``W1xx``.

Called by ``manage.py check`` and before a program starts. Reads Django's settings.
Next: ``docs/reference/settings.rst``.
"""

from __future__ import annotations

import difflib
import zoneinfo
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, Warning

from djcelery import conf as configuration
from djcelery.checks.common import Check, given, is_upgraded, known_settings, reads_settings, unread_names, uses_loader
from djcelery.exceptions import SettingError


def own_settings(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """E101: one of djcelery's own settings can't be parsed."""
    found = []
    for name in configuration.Conf.all():
        try:
            getattr(configuration.conf, name)
        except SettingError as exc:
            found.append(Error(str(exc), hint=configuration.Conf.all()[name].__doc__, id="djcelery.E101"))
    return found


def two_spellings(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """E102: one setting is given under two names, with different values."""
    found = []
    for new, old_names in sorted(configuration.spellings().items()):
        names = [name for name in (new, *old_names) if configuration.is_set(name)]
        found += [
            _contradiction(new, names[0], other)
            for other in names[1:]
            if getattr(settings, names[0]) != getattr(settings, other)
        ]
    return found


def _contradiction(new: str, first: str, second: str) -> CheckMessage:
    return Error(
        f"{first} and {second} are two names of one setting and have different values.",
        hint=f"Keep {new} and remove the other. Celery takes the value of {first}.",
        id="djcelery.E102",
    )


def without_effect(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W103: a setting of Celery 2 or 3 has no effect any more."""
    return [
        Warning(f"The setting {name} has no effect any more.", hint=hint, id="djcelery.W103")
        for name, hint in sorted(configuration.REMOVED.items())
        if configuration.is_set(name)
    ]


def renamed(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W104: a legacy name that only djcelery's loader understands is used without that loader."""
    if uses_loader():
        return []
    return [
        Warning(
            f"Celery does not read the setting {old}.",
            hint=f"Write {new}, or call djcelery.setup_loader() in the settings.",
            id="djcelery.W104",
        )
        for old, new in sorted(unread_names().items())
        if configuration.is_set(old)
    ]


def gone_values(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """E106: a result backend or broker of Celery 2 or 3 is named that today's doesn't have."""
    found = []
    for names, gone in configuration.GONE_VALUES.items():
        for name in filter(configuration.is_set, names):
            # The rest of a URL may hold a password.
            kind = str(getattr(settings, name)).partition("://")[0]
            if kind.lower() in gone:
                message = f"{name} names {kind!r}, which Celery no longer has."
                found.append(Error(message, hint=gone[kind.lower()], id="djcelery.E106"))
    return found


def pickle_was_default(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W105: an upgraded project names no serializer; queued messages of its old release would be lost."""
    names = ("CELERY_TASK_SERIALIZER", "CELERY_ACCEPT_CONTENT")
    legacy = is_upgraded() or any(configuration.is_set(name) for name in configuration.translated_names())
    if not legacy or any(configuration.is_set(name) for name in names):
        return []
    return [
        Warning(
            "Neither CELERY_TASK_SERIALIZER nor CELERY_ACCEPT_CONTENT is set. Up to Celery 3 the default was pickle, "
            "today it is JSON: a worker logs and drops the messages that an old release left in the queues.",
            hint=(
                "Drain the queues with the old release before you upgrade, or accept old messages for a while with "
                "CELERY_ACCEPT_CONTENT = ['json', 'pickle'] (only if nobody else can write to the broker). "
                "Then set CELERY_TASK_SERIALIZER = 'json' to silence this."
            ),
            id="djcelery.W105",
        )
    ]


_PICKLE = frozenset({"pickle", "application/x-python-serialize"})


def accepts_pickle(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W107: workers load pickles, so whoever can write to the broker can run code in them."""
    # What is written matters to those who accept it; see W108. Results are read by a loader of our own.
    found = [
        setting.name
        for key in ("accept_content", "result_accept_content", "event_serializer")
        if (setting := given(key)) and _PICKLE & _texts(setting.value)
    ]
    if not found:
        return []
    return [
        Warning(
            f"{', '.join(found)}: pickle is accepted, so whoever can write to the broker can run code here.",
            hint=(
                "Use JSON. If old messages must be read for a while, let nobody else write to the broker, "
                "and silence djcelery.W107 until they are gone."
            ),
            id="djcelery.W107",
        )
    ]


def _texts(value: Any) -> set[str]:
    values = [value] if isinstance(value, str) else value if isinstance(value, (list, tuple, set, frozenset)) else ()
    return {each for each in values if isinstance(each, str)}


#: The names of each serializer that comes with Celery.
_SERIALIZERS = (
    {"json", "application/json"},
    set(_PICKLE),
    {"yaml", "application/x-yaml"},
    {"msgpack", "application/x-msgpack"},
)


def refuses_own_messages(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W108: tasks are sent in a format that workers with the same settings refuse."""
    written, accepted = given("task_serializer"), given("accept_content")
    names = next((names for names in _SERIALIZERS if written and _texts(written.value) & names), None)
    if names is None or written is None or not reads_settings():
        return []
    # Celery's default.
    taken = _texts(accepted.value) if accepted and accepted.value else {"json"}
    if names & taken:
        return []
    return [
        Warning(
            f"{written.name} = {written.value!r}, but a worker with these settings accepts only "
            f"{', '.join(sorted(taken))}: it drops every task.",
            hint=f"Add {written.value!r} to CELERY_ACCEPT_CONTENT, or write {written.name} = 'json'.",
            id="djcelery.W108",
        )
    ]


def time_zone_support(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W109: an upgraded project doesn't say USE_TZ, whose default Django 5 has changed."""
    if not is_upgraded() or settings.is_overridden("USE_TZ"):
        return []
    return [
        Warning(
            "USE_TZ is not set. Its default was False up to Django 4 and is True today: "
            "times in rows that django-celery wrote are now taken for UTC.",
            hint="Write USE_TZ = False if the old project didn't set it, else USE_TZ = True.",
            id="djcelery.W109",
        )
    ]


def unknown_time_zone(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """E110: Celery's time zone is none that this system knows."""
    zone = given("timezone")
    if zone is None or not isinstance(zone.value, str) or not zone.value:
        return []
    try:
        zoneinfo.ZoneInfo(zone.value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        hint = "Write a name such as 'Europe/Brussels', or leave the setting out: TIME_ZONE counts then."
        return [Error(f"{zone.name} = {zone.value!r} is no known time zone.", hint=hint, id="djcelery.E110")]
    return []


def unknown_own_names(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W111: a setting begins like djcelery's own, and is none of them."""
    own = configuration.Conf.all()
    return [
        Warning(f"djcelery has no setting {name}.", hint=_meant(name, own) or "Remove it.", id="djcelery.W111")
        for name in _set_names("DJCELERY_", "CELERYCAM_")
        if name not in own
    ]


def misspelt(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """I112: a setting is almost named like one of Celery's; perhaps it is the project's own."""
    known = known_settings()
    found = []
    for name in _set_names("CELERY_", "CELERYD_", "CELERYBEAT_", "BROKER_"):
        hint = "" if name in known else _meant(name, known)
        if hint and reads_settings():
            found.append(Info(f"Celery has no setting {name}.", hint=hint, id="djcelery.I112"))
    return found


def _set_names(*prefixes: str) -> list[str]:
    return sorted(name for name in dir(settings) if name.startswith(prefixes) and name.isupper())


def _meant(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.92)
    return f"Did you mean {close[0]}?" if close else ""


def peers_settings(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W113: a setting of django-celery-beat or django-celery-results is left, and the package isn't in use."""
    found = []
    for package, names in configuration.PEERS_SETTINGS.items():
        if not apps.is_installed(package):
            found += [
                Warning(f"{name} belongs to {package}, which is not installed.", hint=hint, id="djcelery.W113")
                for name, hint in names.items()
                if configuration.is_set(name)
            ]
    return found


ALL: tuple[Check, ...] = (
    own_settings,
    two_spellings,
    without_effect,
    renamed,
    gone_values,
    pickle_was_default,
    accepts_pickle,
    refuses_own_messages,
    time_zone_support,
    unknown_time_zone,
    unknown_own_names,
    misspelt,
    peers_settings,
)
