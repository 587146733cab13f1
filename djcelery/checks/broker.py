"""Does the broker that the settings name carry the tasks? Ids ``djcelery.W501`` to ``E507``.

Called by ``manage.py check`` and before a program starts. Reads Django's settings; never calls the broker.
Next: ``docs/reference/checks.rst``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from django.core.checks import CheckMessage, Error, Info, Warning
from kombu.transport import TRANSPORT_ALIASES

from djcelery import conf as configuration
from djcelery.app import known_app
from djcelery.checks.common import Check, Given, given, is_importable, kind_of, reads_settings, starting_now

#: Seconds after which Redis gives a message to another worker, unless the settings say otherwise.
_VISIBILITY_S = 3600
#: The packages that clients of brokers need.
_CLIENTS = {"redis": "redis", "rediss": "redis", "sentinel": "redis", "sqs": "boto3"}
#: Programs that exchange messages with other processes.
_PROGRAMS = ("celeryd", "celerybeat", "celerycam", "celeryev")


def _transport() -> Given | None:
    """Return the broker's kind in lower case, such as ``redis``; None if no broker is named."""
    url = given("broker_url")
    if url and url.value:
        first = url.value[0] if isinstance(url.value, (list, tuple)) else url.value
        # Without a scheme it is the host of a RabbitMQ.
        return Given(url.name, kind_of(first).partition("+")[0].lower() if "://" in str(first) else "amqp")
    for key in ("broker_transport", "broker_host"):
        part = given(key)
        if part and part.value:
            return Given(part.name, str(part.value).lower() if key == "broker_transport" else "amqp")
    return None


def _options() -> Mapping[str, Any]:
    options = given("broker_transport_options")
    return options.value if options and isinstance(options.value, Mapping) else {}


def nobody_named_a_broker(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W501: Celery goes to RabbitMQ on this machine as guest, since nothing says otherwise."""
    if not reads_settings() or _transport() is not None or any(map(configuration.is_set, _gone_names())):
        return []
    return [
        Warning(
            "No broker is named, so Celery goes to RabbitMQ on this machine as the user guest.",
            hint="Write CELERY_BROKER_URL.",
            id="djcelery.W501",
        )
    ]


def _gone_names() -> tuple[str, ...]:
    return next(names for names in configuration.GONE_VALUES if "BROKER_URL" in names)


def memory_broker(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W502: the broker is in the memory of each process, so nothing gets from one to another."""
    broker = _transport()
    if broker is None or broker.value != "memory":
        return []
    return [
        Warning(
            f"{broker.name} names the broker in memory: what one process sends, no other process gets.",
            hint="Use Redis or RabbitMQ; for development, filesystem://. The broker in memory is for tests.",
            id="djcelery.W502",
        )
    ]


def memory_broker_of_a_program(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W502, too, when a program starts."""
    start = starting_now()
    return memory_broker() if start and start.program in _PROGRAMS else []


def missing_client(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W503: the Python package that talks to the broker is not installed."""
    broker = _transport()
    package = _CLIENTS.get(broker.value) if broker else None
    if broker is None or package is None or is_importable(package):
        return []
    extra = "sqs" if package == "boto3" else package
    return [
        Warning(
            f"{broker.name} names {broker.value!r}, and the package {package} is not installed.",
            hint=f"Run pip install 'celery[{extra}]'.",
            id="djcelery.W503",
        )
    ]


def missing_folders(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """E504: a program starts whose broker is a folder, and the folder isn't there."""
    start, broker = starting_now(), _transport()
    if start is None or start.program not in _PROGRAMS or broker is None or broker.value != "filesystem":
        return []
    if _is_replaced("filesystem"):
        return []
    options = _options()
    folders = {name: str(options.get(name, default)) for name, default in _FOLDERS.items()}
    return [
        Error(
            f"The folder {folder!r} of the broker doesn't exist ({name}).",
            hint=f"Make it, or name another in CELERY_BROKER_TRANSPORT_OPTIONS[{name!r}].",
            id="djcelery.E504",
        )
        for name, folder in folders.items()
        if not os.path.isdir(folder)
    ]


_FOLDERS = {"data_folder_in": "data_in", "data_folder_out": "data_out"}


def _is_replaced(transport: str) -> bool:
    """Tell whether the project put a transport of its own under kombu's name."""
    return not str(TRANSPORT_ALIASES.get(transport)).startswith("kombu.transport.")


def two_folders(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """I505: a program with these settings doesn't read what a program with these settings sends."""
    broker, options = _transport(), _options()
    folders = [str(options.get(name, default)) for name, default in _FOLDERS.items()]
    if broker is None or broker.value != "filesystem" or folders[0] == folders[1]:
        return []
    return [
        Info(
            f"The broker reads from {folders[0]!r} and writes to {folders[1]!r}: a worker with these settings "
            "doesn't get what is sent with these settings.",
            hint="Write the same folder for data_folder_in and data_folder_out in CELERY_BROKER_TRANSPORT_OPTIONS.",
            id="djcelery.I505",
        )
    ]


def delivered_twice(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W506: a task may run for longer than Redis waits until it gives the message to another worker."""
    broker, late, limit = _transport(), given("task_acks_late"), given("task_time_limit")
    if broker is None or broker.value not in ("redis", "rediss", "sentinel"):
        return []
    if late is None or late.value is not True or limit is None or not _is_number(limit.value):
        return []
    visible_s = _options().get("visibility_timeout", _VISIBILITY_S)
    if not _is_number(visible_s) or limit.value <= visible_s:
        return []
    return [
        Warning(
            f"{late.name} is on and tasks may run for {limit.value} s ({limit.name}), but after {visible_s} s "
            "Redis gives an unfinished one to another worker: it runs twice at the same time.",
            hint=f"Write CELERY_BROKER_TRANSPORT_OPTIONS = {{'visibility_timeout': {int(limit.value) + 60}}} or more.",
            id="djcelery.W506",
        )
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def unknown_transport(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """E507: the broker's URL begins with a name that kombu doesn't know."""
    broker = _transport()
    # A project may register names of its own in the module of its app.
    if broker is None or not broker.value or known_app() is None or not broker.value.isalnum():
        return []
    gone = configuration.GONE_VALUES[_gone_names()]
    if broker.value in gone or broker.value in {name.lower() for name in TRANSPORT_ALIASES}:
        return []
    hint = "Write redis://, amqp:// or another of those in kombu.transport.TRANSPORT_ALIASES."
    return [Error(f"{broker.name} names {broker.value!r}, which is no broker.", hint=hint, id="djcelery.E507")]


ALL: tuple[Check, ...] = (missing_client, two_folders, delivered_twice, unknown_transport)
#: Run by ``manage.py check --deploy`` only.
DEPLOY: tuple[Check, ...] = (nobody_named_a_broker, memory_broker)
#: Run when a program starts.
START: tuple[Check, ...] = (memory_broker_of_a_program, missing_folders)
