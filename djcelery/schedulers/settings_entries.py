"""The entries of ``CELERYBEAT_SCHEDULE`` as rows: written, kept up, and switched off when they are gone.

Called by the scheduler when it begins to lead; writes ``PeriodicTask`` rows, only those that differ. Each row
remembers that it comes from the settings (``origin``) and what they said last (``origin_digest``), so what a
person has edited since is known, and never overwritten without a word.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from celery import schedules
from django.core.exceptions import ObjectDoesNotExist
from django.db import connections, router, transaction
from django.db.models import QuerySet

from djcelery import db, utils
from djcelery.exceptions import ScheduleError
from djcelery.models.periodic import SCHEDULES
from djcelery.schedulers import unreadable
from djcelery.schedulers.entry import is_entry, unstored_options

logger = logging.getLogger(__name__)

ADD_ENTRY_ERROR = "Couldn't add entry %r to database schedule: %r. Contents: %r"

#: The settings win over edits, and an entry that is removed from them is disabled.
MIRROR = "mirror"
#: The settings write an entry once; from then on it is the admin's.
SEED = "seed"
#: ``origin`` of a row from the settings.
ORIGIN = "settings"
#: ``origin_digest`` of a row that was disabled because its entry is gone.
_REMOVED = "removed"


def of_settings(app: Any) -> dict[str, Any] | None:
    """Return the entries of ``CELERYBEAT_SCHEDULE`` by name; None if it is no dictionary."""
    entries = app.conf.beat_schedule or {}
    return {str(name): entry for name, entry in entries.items()} if isinstance(entries, Mapping) else None


def install(
    mapping: Mapping[str, Any], entry_class: Any, model: Any, app: Any, policy: str | None
) -> dict[str, dict[str, Any]]:
    """Create or update a row per entry of *mapping*; one that fails is logged and skipped.

    Args:
        policy: MIRROR or SEED; None creates rows that belong to nobody's settings.

    Returns:
        By name, the options for which there is no column.

    Raises:
        django.db.Error: Not for one entry's sake; the database is away.

    Database: one SELECT per 1,000 entries, and what is to be written.
    """
    rows = known(model, [str(name) for name in mapping])
    options = {}
    for key, entry in mapping.items():
        name = str(key)
        try:
            if not is_entry(entry):
                raise TypeError("an entry is a dictionary, and so are its options")
            options[name] = unstored_options(entry)
            row = rows.get(name)
            if isinstance(row, unreadable.Failure):
                raise row.problem
            with _alone(model):
                _install_one(name, dict(entry), row, entry_class, model, policy)
        except ScheduleError as exc:
            logger.error("%s", exc)
        except Exception as exc:  # whatever is wrong with one entry, the others are installed
            if db.is_transient(exc):
                raise
            # Among them what the database refuses for this entry: a NULL, a text that is too long, a name twice.
            logger.exception(ADD_ENTRY_ERROR, name, exc, entry)
    return options


def known(model: Any, names: list[str]) -> dict[str, Any]:
    """Return the rows *names*; in place of one that can't be read, a ``Failure``.

    Database: one SELECT per 1,000 names.
    """

    def read(part: Sequence[str]) -> list[Any]:
        return list(_rows(model).filter(name__in=part).select_related("interval", "crontab"))

    found = unreadable.by_halves(names, read)
    return {one.key if isinstance(one, unreadable.Failure) else one.name: one for one in found}


def _alone(model: Any) -> AbstractContextManager[Any]:
    """Return what keeps an error within a transaction of the caller to the block."""
    alias = router.db_for_write(model)
    return transaction.atomic(using=alias) if connections[alias].in_atomic_block else nullcontext()


def _install_one(name: str, entry: dict[str, Any], row: Any, entry_class: Any, model: Any, policy: str | None) -> None:
    if row is not None and policy != MIRROR:
        return
    values = _values(entry, row, entry_class)
    digest = digest_of(values)
    if policy is not None:
        values |= {"origin": ORIGIN, "origin_digest": digest}
    if row is None:
        model.objects.create(name=name, **values)
        logger.info("beat: the settings have added the periodic task %r.", name)
        return
    if row.origin_digest == _REMOVED and "enabled" not in values:
        values["enabled"] = True
    differing = sorted(field for field, value in values.items() if _current(row, field) != value)
    if not differing:
        return
    _say_what_is_lost(name, row, values, differing, entry_class)
    for field, value in values.items():
        setattr(row, field, value)
    row.save()


def _values(entry: dict[str, Any], row: Any, entry_class: Any) -> dict[str, Any]:
    """Return the columns that *entry* decides. Times that *row* has already are not looked for in their table."""
    if row is None or not _has_times(row, entry.get("schedule")):
        return entry_class.values_of(**entry)
    return entry_class.values_of({kind: getattr(row, kind) for kind in SCHEDULES}, **entry)


def _has_times(row: Any, wanted: Any) -> bool:
    kinds = [kind for kind in SCHEDULES if getattr(row, f"{kind}_id") is not None]
    if len(kinds) != 1 or kinds[0] not in ("interval", "crontab") or wanted is None:
        return False
    try:
        mine, wanted = row.schedule, schedules.maybe_schedule(wanted)
    except (ObjectDoesNotExist, ValueError, TypeError, OverflowError):
        return False
    return type(mine) is type(wanted) and mine == wanted


def _say_what_is_lost(name: str, row: Any, values: dict[str, Any], differing: list[str], entry_class: Any) -> None:
    """Log the fields in which *row* is about to lose what a person wrote."""
    edited = [field for field in differing if field not in ("origin", "origin_digest", "enabled")]
    own = {field: _current(row, field) for field in values if field not in ("origin", "origin_digest")}
    if not edited or (row.origin == ORIGIN and row.origin_digest == digest_of(own)):
        return
    logger.warning(
        "beat: the periodic task %r was edited; the settings overwrite its %s. "
        "To keep such edits, write DJCELERY_SCHEDULE_POLICY = 'seed'.",
        name,
        ", ".join(edited),
    )


def disable_removed(model: Any, names: Collection[Any]) -> None:
    """Disable the rows that came from the settings, and whose names are no longer among *names*.

    Database: one SELECT, and for those that are enabled an UPDATE and a note.
    """
    for pk, name, _ in removed(model, names):
        logger.warning("beat: the periodic task %r was removed from the settings; it is disabled.", name)
        # Not by save(), for a value of the row may be one that can't be read.
        _rows(model).filter(pk=pk).update(enabled=False, last_run_at=None, origin_digest=_REMOVED)


def removed(model: Any, names: Collection[Any]) -> list[tuple[int, str, str]]:
    """Return key, name and task of the rows that ``disable_removed()`` disables. Database: one SELECT."""
    # Compared here, for not every database takes every name in a condition, such as one with NUL.
    texts = {str(name) for name in names}
    rows = _rows(model).filter(origin=ORIGIN, enabled=True).order_by("pk").values_list("pk", "name", "task")
    return [row for row in rows if row[1] not in texts]


def _rows(model: Any) -> QuerySet:
    # A replica that lags would miss rows that this beat, or the one before, has just written.
    return model.objects.using(router.db_for_write(model))


def _current(row: Any, field: str) -> Any:
    try:
        return getattr(row, field)
    except ObjectDoesNotExist:
        return None


def digest_of(values: Mapping[str, Any]) -> str:
    """Return a digest of what the settings say of an entry, the same in every process."""
    parts = [f"{field}={_text(value)}" for field, value in sorted(values.items()) if field != "enabled"]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _text(value: Any) -> str:
    if hasattr(value, "change_kind"):
        # A row of times: what it says, for its key is another one in another database.
        return f"{value.change_kind} {[str(getattr(value, field)) for field in sorted(value.definition)]}"
    if hasattr(value, "astimezone"):
        return utils.to_utc(value).isoformat()
    return repr(value)
