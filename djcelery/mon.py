"""The monitor for people without a Django project: ``python -m djcelery.mon``, and the program ``djcelerymon``.

Makes settings, an SQLite database with a secret key beside it, and a login, and runs the command ``djcelerymon`` on
them. Where ``DJANGO_SETTINGS_MODULE`` names a project, it only runs the command there.
Reads ``CELERY_CONFIG_MODULE`` for Celery's own settings. Next: ``docs/djcelerymon.rst``.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import os
import re
import secrets
import signal
import socket
import stat
import string
import sys
import zlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

from celery.app.defaults import SETTING_KEYS
from celery.utils.imports import import_from_cwd
from celery.utils.time import timezone as zones
from django.conf import settings
from django.core.management import call_command, execute_from_command_line
from django.core.management.base import CommandError
from django.db import Error, connections

import djcelery
from djcelery import conf
from djcelery.exceptions import SettingError

__all__ = ("DEFAULTS", "DEFAULT_APPS", "configure", "default_settings", "main", "run_monitor")

#: The database, in the working directory unless ``--database`` says otherwise; the key is in a file beside it.
DATABASE = "djcelerymon.db"
LOGIN = "admin"
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")
_PASSWORD_CHARACTERS, _KEY_CHARACTERS = 20, 50

DEFAULT_APPS = (
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.admin",
    "django.contrib.admindocs",
    "djcelery",
)


def _database(path: str) -> dict[str, Any]:
    # Web pages read while the camera writes.
    options = {"timeout": 30, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL;"}
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": path, "OPTIONS": options}


def _local_zone() -> str:
    """Return the name of this machine's time zone, or UTC if it has none that can be named."""
    try:
        return ZoneInfo(str(zones.local)).key
    except (LookupError, ValueError, OSError):
        return "UTC"


#: The settings of the monitor's own project, but for the secret key.
DEFAULTS: dict[str, Any] = {
    "DEBUG": os.environ.get("DJCELERYMON_DEBUG", "0").strip().lower() in _TRUE,
    "ROOT_URLCONF": "djcelery.monproj.urls",
    "ALLOWED_HOSTS": ("localhost", "127.0.0.1", "[::1]"),
    "INSTALLED_APPS": DEFAULT_APPS,
    "MIDDLEWARE": (
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.locale.LocaleMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ),
    "TEMPLATES": (
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": (
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                )
            },
        },
    ),
    "DATABASES": {"default": _database(DATABASE)},
    "DEFAULT_AUTO_FIELD": "django.db.models.BigAutoField",
    "STATIC_URL": "/static/",
    "SITE_ID": 1,
    "USE_TZ": True,
    "TIME_ZONE": _local_zone(),
    # Cookies don't know ports: another site on localhost must not end these sessions.
    "SESSION_COOKIE_NAME": "djcelerymon_session",
    "CSRF_COOKIE_NAME": "djcelerymon_csrf",
    "BROKER_URL": "amqp://",
    "CELERY_TASK_SERIALIZER": "json",
    "CELERY_ACCEPT_CONTENT": ["json"],
}

#: Which of Celery's settings are taken from ``CELERY_CONFIG_MODULE``: how to reach brokers, workers and their queues.
_TAKEN = re.compile(
    r"CELERY_(ACCEPT_CONTENT|ENABLE_UTC|TIMEZONE|(BROKER|CONTROL|EVENT|REDIS|SECURITY|TASK)_\w+)|(DJCELERY|CELERYCAM)_\w+"
)


def _settings_of(module: ModuleType) -> dict[str, Any]:
    """Return Celery's and djcelery's settings in *module*, under the names that they have in Django's settings."""
    old = {**conf.translated_names(), **conf.RENAMED}
    found = {}
    for name, value in vars(module).items():
        new = f"{conf.NAMESPACE}_{name.upper()}" if name in SETTING_KEYS else old.get(name, name)
        if _TAKEN.fullmatch(new):
            found[new] = value
    return found


def _celery_config() -> dict[str, Any]:
    """Return the settings of the module ``CELERY_CONFIG_MODULE``, or of ``celeryconfig`` if there is one.

    Raises:
        SettingError: It is named, and can't be imported.
    """
    name = os.environ.get("CELERY_CONFIG_MODULE")
    if not name:
        return _settings_of(importlib.import_module("celeryconfig")) if find_spec("celeryconfig") is not None else {}
    try:
        return _settings_of(import_from_cwd(name))
    except ImportError as exc:
        raise SettingError(f"CELERY_CONFIG_MODULE={name} can't be imported: {exc}.") from exc


def default_settings(name: str = "djcelerymon_settings", **values: Any) -> str:
    """Register a settings module called *name*, and return the name.

    It has ``DEFAULTS``, then the settings of ``CELERY_CONFIG_MODULE``, then *values*. Without a ``SECRET_KEY`` among
    them it has a new one, with which sessions end with the process.

    Raises:
        SettingError: The config module can't be imported.
    """
    found = {"SECRET_KEY": secrets.token_urlsafe(_KEY_CHARACTERS), **copy.deepcopy(DEFAULTS), **_celery_config()}
    found.update(values)
    if "CELERY_BROKER_URL" in found:
        # Another name of the same setting.
        del found["BROKER_URL"]
    module = ModuleType(name, "Settings of the stand-alone monitor.")
    vars(module).update(found)
    sys.modules[name] = module
    return name


def is_configured() -> bool:
    """Return whether Django has settings of a project, or will find them."""
    return settings.configured or bool(os.environ.get("DJANGO_SETTINGS_MODULE"))


def configure(**values: Any) -> None:
    """Give Django the settings of ``default_settings``, unless it has some; *values* win.

    Raises:
        SettingError: ``CELERY_CONFIG_MODULE`` can't be imported.
    """
    if is_configured():
        return
    os.environ["DJANGO_SETTINGS_MODULE"] = default_settings(**values)
    # The default loader would read the config module alone, and miss these.
    os.environ["CELERY_LOADER"] = djcelery.LOADER


# -- files, tables and the login ---------------------------------------------------------------


def make_private(path: Path) -> None:
    """Make the file *path* if there is none; only its owner may then read and write it.

    Raises:
        OSError: That can't be.
        CommandError: It is another user's.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid():
            raise CommandError(f"{path} belongs to another user (id {found.st_uid}). Name another by --database.")
        if stat.S_IMODE(found.st_mode) & 0o077:
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def secret_key(path: Path) -> str:
    """Return the key in the file *path*, which is made if there is none.

    Raises:
        OSError, CommandError: See ``make_private``.
    """
    make_private(path)
    key = path.read_text().strip()
    if len(key) < _KEY_CHARACTERS:
        key = secrets.token_urlsafe(_KEY_CHARACTERS)
        path.write_text(f"{key}\n")
    return key


def make_login(is_new_password: bool = False) -> str | None:
    """Return the password of the login ``admin`` that was made now; None if there is somebody who may do everything.

    Args:
        is_new_password: Whether ``admin`` gets a new password, who else there is.

    Database: one or two SELECTs, and an INSERT or UPDATE.
    """
    # Models are there only after django.setup().
    from django.contrib.auth import get_user_model

    users = get_user_model()._default_manager
    if not is_new_password and users.filter(is_superuser=True, is_active=True).exists():
        return None
    password = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(_PASSWORD_CHARACTERS))
    user = users.filter(username=LOGIN).first() or users.model(username=LOGIN)
    user.is_staff = user.is_superuser = user.is_active = True
    user.set_password(password)
    user.save()
    return password


def _prepare(path: Path, is_new_password: bool) -> None:
    """Make or update the tables in the database *path*, and the login; print what must be known."""
    import django

    try:
        django.setup()
        # A database of django-celery has the tables of Django, and no note of how they came there.
        call_command("migrate", interactive=False, fake_initial=True, verbosity=0)
        password = make_login(is_new_password)
    except Error as exc:
        raise CommandError(f"The database {path} can't be used: {exc}. Move it away to begin with a new one.") from exc
    finally:
        connections.close_all()
    if password is not None:
        _say(f"The login of the monitor, shown only now:\n\n    user      {LOGIN}\n    password  {password}\n")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


# -- the command line --------------------------------------------------------------------------


def _own_options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="djcelerymon",
        add_help=False,
        allow_abbrev=False,
        usage="djcelerymon [port or host:port] [options]",
        description="The monitor of Celery, without a Django project. Options of its own:",
    )
    add = parser.add_argument
    add("--database", metavar="FILE", default=DATABASE, help=f"The monitor's SQLite database. Default: {DATABASE}.")
    add(
        "--allow-host",
        metavar="NAME",
        action="append",
        default=[],
        help="A name by which browsers call it, beside localhost and the host it listens at; may be repeated.",
    )
    add("--reset-password", action="store_true", help=f"Give {LOGIN} a new password, print it, and end.")
    add("--settings", metavar="MODULE", help="Use the Django project with these settings instead.")
    return parser


def _hosts(words: Sequence[str]) -> list[str]:
    """Return the names for ``ALLOWED_HOSTS`` from a line that may say where to listen."""
    found = re.findall(r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):\d+$", "\n".join(words), re.MULTILINE)
    everywhere = {"0", "0.0.0.0", "[::]"} & set(found)  # noqa: S104 - it is asked for
    return [*found, socket.gethostname().lower()] if everywhere else found


def run_monitor(argv: Sequence[str]) -> None:
    """Run the command ``djcelerymon`` with the arguments after the first of *argv*."""
    execute_from_command_line(["djcelerymon", "djcelerymon", *argv[1:]])


def main(argv: Sequence[str] = sys.argv) -> None:
    """Run the stand-alone monitor until a signal comes; *argv* begins with the program's name."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    parser = _own_options()
    own, words = parser.parse_known_args(list(argv[1:]))
    if own.settings:
        os.environ["DJANGO_SETTINGS_MODULE"] = own.settings
    try:
        if {"-h", "--help", "--version"} & set(words):
            if "--version" not in words:
                _say(f"{parser.format_help()}\nThe others:\n")
            configure()
        elif not is_configured():
            words = _made_ready(own, words)
        elif own.reset_password:
            raise CommandError("--reset-password is for the monitor's own database. Use manage.py changepassword.")
    except (CommandError, SettingError, OSError) as exc:
        sys.stderr.write(f"djcelerymon: {exc}\n")
        sys.exit(1)
    run_monitor([argv[0], *words])


def _made_ready(own: argparse.Namespace, words: list[str]) -> list[str]:
    """Make files, settings, tables and login; return the line for the command.

    Raises:
        CommandError, SettingError, OSError: With what a person must change.
    """
    debug = os.environ.get("DJCELERYMON_DEBUG", "0").strip().lower()
    if debug not in (*_TRUE, *_FALSE):
        sys.stderr.write(f"djcelerymon: DJCELERYMON_DEBUG={debug} is neither true nor false; DEBUG stays off.\n")
    path = Path(own.database).absolute()
    make_private(path)
    configure(
        SECRET_KEY=secret_key(path.with_name(f"{path.name}.key")),
        ALLOWED_HOSTS=[*DEFAULTS["ALLOWED_HOSTS"], *own.allow_host, *_hosts(words)],
        DATABASES={"default": _database(str(path))},
    )
    _prepare(path, own.reset_password)
    if own.reset_password:
        sys.exit(0)
    _say(f"-> djcelerymon: the database is {path}")
    # Several monitors on one host may listen to one broker, and each wants all events. The last --name wins.
    return [f"--name=djcelerymon-{zlib.crc32(os.fsencode(path)):08x}@%h", *words]


def _end(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(0)


if __name__ == "__main__":
    main()
