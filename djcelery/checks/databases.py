"""Are the tables there, and does the database do what processes side by side need? Ids ``djcelery.W701`` to ``W704``.

Called by ``manage.py check``; with ``--database`` and before a program starts they look into the database.
Next: ``docs/explain/connections.rst``.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Info, Warning
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.recorder import MigrationRecorder

from djcelery.checks.common import Check, given, starting_now
from djcelery.checks.looking import alias_of, look
from djcelery.checks.results import owner_of
from djcelery.managers.results import isolation_level
from djcelery.models import PeriodicTask, TaskMeta, TaskState

#: One model of each part: results, schedule, monitor.
_PARTS = (TaskMeta, PeriodicTask, TaskState)


def _aliases() -> list[str]:
    """Return the aliases of the databases that djcelery writes to."""
    found = {alias_of(model) for model in _PARTS}
    return sorted(alias for alias in found if alias is not None and alias in connections)


def isolation(app_configs: Any = None, databases: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W701: transactions on MySQL or MariaDB see no news of other processes. One SELECT per database."""
    found = []
    for alias in sorted(set(databases or ()) & set(_aliases())):
        if connections[alias].vendor != "mysql":
            continue
        level = look(isolation_level, alias) or ""
        if level.upper().replace(" ", "-") in ("REPEATABLE-READ", "SERIALIZABLE"):
            message = f"Transactions on the database {alias!r} are {level}: one that waits for a result never sees it."
            hint = f"Write DATABASES[{alias!r}]['OPTIONS']['isolation_level'] = 'read committed', Django's default."
            found.append(Warning(message, hint=hint, id="djcelery.W701"))
    return found


def replicas(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """I702: a router reads djcelery's tables elsewhere than it writes them."""
    found = []
    for model in _PARTS:
        reads, writes = alias_of(model, reading=True), alias_of(model)
        if reads and writes and reads != writes:
            message = f"{model.__name__} is read from the database {reads!r} and written to {writes!r}."
            hint = "What the first hasn't got yet is missing in the admin. Have the router name one alias for djcelery."
            found.append(Info(message, hint=hint, id="djcelery.I702"))
    return found


def sqlite_locks(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W703: several processes write to one SQLite file, and take its lock half-way through a transaction."""
    found = []
    for alias in _aliases():
        connection = connections[alias]
        if connection.vendor != "sqlite" or connection.is_in_memory_db():
            continue
        mode = connection.settings_dict["OPTIONS"].get("transaction_mode")
        if not isinstance(mode, str) or mode.upper() not in ("IMMEDIATE", "EXCLUSIVE"):
            message = (
                f"The database {alias!r} is SQLite without transaction_mode: a transaction that reads before it writes "
                "fails with 'database is locked' when another process writes meanwhile."
            )
            hint = (
                f"Write DATABASES[{alias!r}]['OPTIONS'] = {{'transaction_mode': 'IMMEDIATE', 'timeout': 20, "
                "'init_command': 'PRAGMA journal_mode=WAL;'}."
            )
            found.append(Warning(message, hint=hint, id="djcelery.W703"))
    return found


# -- when a program starts -------------------------------------------------------------------------


def unapplied_migrations(app_configs: Any = None, databases: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W704: tables or columns that this program needs are missing. One SELECT per database."""
    start = starting_now()
    if start is None or not databases or "djcelery" in settings.MIGRATION_MODULES:
        return []
    if start.program not in ("celeryd", "celerybeat", "celerycam") or not _needs_tables(start.program):
        return []
    found = []
    for alias in sorted(set(databases) & set(_aliases())):
        missing = look(_missing_migrations, alias)
        if missing:
            found.append(
                Warning(
                    f"Migrations of djcelery are not applied to the database {alias!r}: {', '.join(missing)}.",
                    hint=f"Run manage.py migrate djcelery{'' if alias == 'default' else f' --database {alias}'}; "
                    "on tables that django-celery made, with --fake-initial.",
                    id="djcelery.W704",
                )
            )
    return found


def _needs_tables(program: str) -> bool:
    backend = given("result_backend")
    # A worker uses them to store results.
    return program != "celeryd" or (backend is not None and owner_of(backend.value) in ("database", ""))


def _missing_migrations(connection: BaseDatabaseWrapper) -> list[str]:
    folder = files("djcelery.migrations")
    names = (path.name for path in folder.iterdir())
    wanted = {name.removesuffix(".py") for name in names if name.endswith(".py") and not name.startswith("_")}
    applied = {name for app, name in MigrationRecorder(connection).applied_migrations() if app == "djcelery"}
    return sorted(wanted - applied)


ALL: tuple[Check, ...] = (replicas,)
#: Run by ``manage.py check --deploy`` only.
DEPLOY: tuple[Check, ...] = (sqlite_locks,)
#: Run by ``manage.py check --database`` only.
DATABASE: tuple[Check, ...] = (isolation,)
#: Run when a program starts.
START: tuple[Check, ...] = (unapplied_migrations,)
