"""Which row of ours stands for a schedule of django-celery-beat: one with the same times, made if there is none.

Called by ``beat``. Reads their four tables of times, and writes ours through the models.
Next: ``docs/coming-from-results-and-beat.rst``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from celery import schedules
from django.core.exceptions import ValidationError
from django.db.backends.base.base import BaseDatabaseWrapper

from djcelery import utils
from djcelery.importing.reading import Row, Table, Unreadable, instant
from djcelery.importing.runs import LeftOut, words
from djcelery.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, SolarSchedule
from djcelery.models.schedule import cronexp

__all__ = ("KINDS", "Kind", "Times")

_MILLIONTH = Decimal("0.000001")
_CRONTAB = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")


@dataclass(frozen=True)
class Kind:
    """One kind of schedule: the reference to it, its name in a summary, their table, and what ours is made of."""

    name: str
    what: str
    model: Any
    columns: tuple[str, ...]
    convert: Callable[[BaseDatabaseWrapper, Row], dict[str, Any]]

    @property
    def table(self) -> str:
        """The name of their table."""
        return f"django_celery_beat_{self.name}schedule"


class Times:
    """The rows of one kind: theirs, and ours by what they say.

    ``known`` has the primary key of ours for each definition, None for one that a dry run would make.

    Database: one SELECT per 2000 rows of ours.
    """

    def __init__(self, kind: Kind, connection: BaseDatabaseWrapper, *, is_dry_run: bool) -> None:
        self.kind = kind
        self.connection = connection
        self.is_dry_run = is_dry_run
        self.theirs = Table(connection, kind.table)
        self.known: dict[tuple[Any, ...], int | None] = {}
        for batch in Table(connection, kind.model._meta.db_table).batches(kind.columns, 2000):
            for row in batch:
                try:
                    if not isinstance(row, Unreadable):
                        self.known.setdefault(tuple(kind.convert(connection, row).values()), row["id"])
                except (ValueError, TypeError, ArithmeticError):
                    # No task of theirs can need a row that nobody can read.
                    continue
        self.before = frozenset(self.known)

    def definition(self, row: Row | Unreadable) -> tuple[Any, ...]:
        """Return what *row* of theirs says.

        Raises:
            LeftOut: It can't be read, or says nothing that beat could run.
        """
        if isinstance(row, Unreadable):
            raise LeftOut(str(row))
        try:
            values = self.kind.convert(self.connection, row)
            made = self.kind.model(**values)
            made.clean_fields()
            made.clean()
        except ValidationError as exc:
            raise LeftOut(words(exc)) from exc
        except (ValueError, TypeError, ArithmeticError) as exc:
            raise LeftOut(f"its times can't be read ({exc})") from exc
        return tuple(values.values())

    def make(self, definition: tuple[Any, ...]) -> None:
        """Make a row of ours for *definition*.

        Raises:
            django.db.Error: The row could not be written.
        """
        row = self.kind.model(**dict(zip(self.kind.columns, definition, strict=True)))
        if not self.is_dry_run:
            row.save(using=self.connection.alias)
        self.known[definition] = row.pk

    def of(self, keys: Iterable[int]) -> dict[int, int | LeftOut | None]:
        """Return for each of *keys* of theirs the primary key of ours, or why there is none.

        Database: one SELECT.
        """
        found: dict[int, int | LeftOut | None] = {}
        wanted = sorted(set(keys))
        for row in self.theirs.rows(self.kind.columns, wanted) if self.theirs.columns else ():
            key = row.pk if isinstance(row, Unreadable) else row["id"]
            try:
                definition = self.definition(row)
                if definition not in self.known:
                    raise LeftOut("it could not be written")
                found[key] = self.known[definition]
            except LeftOut as exc:
                found[key] = LeftOut(f"its {self.kind.name} {key} can't be imported: {exc}")
        missing = {key: LeftOut(f"its {self.kind.name} {key} is gone") for key in wanted if key not in found}
        return {**found, **missing}


def _interval(connection: BaseDatabaseWrapper, row: Row) -> dict[str, Any]:
    return {"every": row["every"], "period": row["period"]}


def _crontab(connection: BaseDatabaseWrapper, row: Row) -> dict[str, Any]:
    fields = {name: _shortened(name, cronexp(row[name])) for name in _CRONTAB}
    return {**fields, "timezone": row["timezone"] or None}


def _solar(connection: BaseDatabaseWrapper, row: Row) -> dict[str, Any]:
    place = {name: Decimal(str(row[name])).quantize(_MILLIONTH) for name in ("latitude", "longitude")}
    return {"event": row["event"], **place}


def _clocked(connection: BaseDatabaseWrapper, row: Row) -> dict[str, Any]:
    moment = instant(connection, row, "clocked_time")
    return {"clocked_time": moment and utils.correct_awareness(utils.to_utc(moment))}


KINDS = (
    Kind("interval", "intervals", IntervalSchedule, ("every", "period"), _interval),
    Kind("crontab", "crontabs", CrontabSchedule, (*_CRONTAB, "timezone"), _crontab),
    Kind("solar", "solar schedules", SolarSchedule, ("event", "latitude", "longitude"), _solar),
    Kind("clocked", "clocked schedules", ClockedSchedule, ("clocked_time",), _clocked),
)


def _shortened(name: str, expression: str) -> str:
    """Return *expression*, which may be longer there than our column takes, or a shorter one of the same times."""
    limit = CrontabSchedule._meta.get_field(name).max_length
    if len(expression) <= limit:
        return expression
    try:
        wanted = getattr(schedules.crontab(**{name: expression}), name)
    except (ValueError, schedules.ParseException):
        # Whoever checks it says what is wrong.
        return expression
    return ",".join(_runs(sorted(wanted)))


def _runs(numbers: list[int]) -> Iterable[str]:
    """Yield *numbers*, which are in order, as crontab expressions: ``1-9`` or ``0-50/10`` for three and more."""
    while numbers:
        step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
        length = 1
        while length < len(numbers) and numbers[length] - numbers[length - 1] == step:
            length += 1
        if length < 3:
            length = 1
            yield str(numbers[0])
        else:
            yield f"{numbers[0]}-{numbers[length - 1]}" + (f"/{step}" if step > 1 else "")
        numbers = numbers[length:]
