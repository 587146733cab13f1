"""What a row of the schedule must keep to be run, in words for the person who enters it.

Called by ``clean_fields()`` and ``clean()`` of the models, and so by forms. Rows that django-celery let
through are never refused by the database; beat holds them out instead.
"""

from __future__ import annotations

import json
from datetime import timedelta
from importlib import import_module
from typing import Any

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from djcelery import times

SHORTEST_PERIOD = timedelta(seconds=1)
#: Years of instants: beyond, databases and time zones have limits of their own.
YEARS = range(1900, 9000)
#: What a column of 32 bits holds; SQLite takes more, which Python can't count from any instant.
LARGEST = 2**31 - 1
#: Headers by which a message of Celery says which task it is, under which id. The run history says so beforehand, so
#: nobody else may; what the others say (``shadow``, ``timelimit``, ``argsrepr``, …) is up to whoever sets them.
OWN_HEADERS = frozenset({"id", "task"})
#: The least and the most that a number may be; None is the largest.
RANGES: dict[str, tuple[int, int | None]] = {
    "priority": (0, 255),
    "expire_seconds": (1, None),
    "grace_seconds": (0, None),
    "overlap_timeout": (1, None),
    "jitter_seconds": (0, None),
}


def parse_json(text: str | None, kind: type, example: str) -> str:
    """Return *text*, or *example* if it is empty, once it is known to be JSON of the type *kind*.

    Raises:
        ValidationError: It isn't.
    """
    text = (text or "").strip() or example
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as exc:
        raise ValidationError(_("Unable to parse JSON: %(reason)s"), params={"reason": exc}) from exc
    except RecursionError as exc:
        raise ValidationError(_("Unable to parse JSON: it is nested too deep")) from exc
    if not isinstance(value, kind):
        message = (
            _('Must be a JSON array, such as [1, "two"].')
            if kind is list
            else _('Must be a JSON object, such as {"name": "value"}.')
        )
        raise ValidationError(message)
    return text


def check_headers(text: str) -> None:
    """Refuse headers, as JSON, that would have the message run another task, or under another id.

    Raises:
        ValidationError: Names the header.
    """
    for name in sorted(OWN_HEADERS & json.loads(text).keys()):
        raise ValidationError(
            _("The header “%(name)s” is the message's own; give it another name."), params={"name": name}
        )


def _refuse_constant(name: str) -> None:
    # Python reads NaN and Infinity; other JSON parsers, among them those of databases, do not.
    raise ValueError(f"{name} is not JSON")


def check_interval(every: int, period: str) -> None:
    """Refuse a period that can't be run, or is shorter than a second.

    Raises:
        ValidationError: Names the period.
    """
    if every < 1:
        raise ValidationError(_("The interval must be at least 1; %(every)s can't be run."), params={"every": every})
    params = {"every": every, "period": period}
    try:
        length = timedelta(**{period: every})
    except (OverflowError, TypeError) as exc:
        raise ValidationError(_("%(every)s %(period)s is no period that can be run."), params=params) from exc
    if length < SHORTEST_PERIOD:
        raise ValidationError(_("%(every)s %(period)s is shorter than a second."), params=params)


def check_crontab(row: Any) -> None:
    """Refuse fields that Celery can't read, a day that no month has, and a zone that doesn't exist.

    Raises:
        ValidationError: Names the text and what is wrong with it.
    """
    # A layer above; looked up by name when it is needed, as in ``upcoming``.
    nexttime = import_module("djcelery.schedulers.nexttime")
    try:
        row.schedule  # noqa: B018 - building it is the check
        fields = (row.minute, row.hour, row.day_of_week, row.day_of_month, row.month_of_year)
        if nexttime.Crontab(*fields).never_fires:
            # Celery before 5.7 takes it.
            raise ValueError(f"day {row.day_of_month} never comes in month {row.month_of_year}")
    except (ValueError, TypeError) as exc:
        raise ValidationError(_("Not a crontab that Celery can read: %(reason)s"), params={"reason": exc}) from exc


def check_schedule(row: Any) -> None:
    """Refuse a chosen row of times that django-celery let through, and that can't be run.

    Raises:
        ValidationError: Says why; it belongs to no single field.
    """
    if hasattr(row, "every"):
        check_interval(row.every, row.period)
    elif hasattr(row, "minute"):
        check_crontab(row)


def check_range(name: str, value: int | None) -> None:
    """Refuse a number that is out of its range.

    Raises:
        ValidationError: Names the range.
    """
    least, most = RANGES[name]
    if value is None or least <= value <= (LARGEST if most is None else most):
        return
    if most is None and value > LARGEST:
        raise ValidationError(_("Must be at most %(most)s."), params={"most": LARGEST})
    if most is None:
        raise ValidationError(_("Must be at least %(least)s."), params={"least": least})
    raise ValidationError(_("Must be between %(least)s and %(most)s."), params={"least": least, "most": most})


def check_moments(row: Any, *names: str) -> None:
    """Refuse years in which not every database and time zone can count.

    Raises:
        ValidationError: By field.
    """
    errors = {
        name: ValidationError(
            _("Give a year from %(first)s to %(last)s."), params={"first": YEARS[0], "last": YEARS[-1]}
        )
        for name in names
        if getattr(row, name) is not None and getattr(row, name).year not in YEARS
    }
    if errors:
        raise ValidationError(errors)


def check_zone(name: str) -> None:
    """Refuse a zone that doesn't exist.

    Raises:
        ValidationError: Names it.
    """
    try:
        times.read_zone(name)
    except ValueError as exc:
        raise ValidationError(
            _("There is no time zone “%(name)s”; give a name such as Europe/Brussels."), params={"name": name}
        ) from exc


def check_place(latitude: Any, longitude: Any) -> None:
    """Refuse degrees that no place has.

    Raises:
        ValidationError: By field.
    """
    errors = {}
    for field, degrees, most in (("latitude", latitude, 90), ("longitude", longitude, 180)):
        if degrees is not None and not -most <= degrees <= most:
            errors[field] = ValidationError(
                _("%(degrees)s is not between -%(most)s and %(most)s degrees."),
                params={"degrees": degrees, "most": most},
            )
    if errors:
        raise ValidationError(errors)


def check_task(row: Any) -> None:
    """Refuse settings of a periodic task that contradict each other.

    Raises:
        ValidationError: Says which; it belongs to no single field.
    """
    problems = []
    if row.expires and row.expire_seconds is not None:
        problems.append(_("Only one of expires and expire seconds can be set."))
    if row.start_time and row.expires and row.start_time >= row.expires:
        problems.append(_("The task expires before its start time, so it would never run."))
    clocked = row.clocked.clocked_time if row.clocked_id else None
    if row.start_time and clocked and clocked < row.start_time:
        problems.append(_("The clocked time is before the start time, so the task would never run."))
    if row.expires and clocked and clocked >= row.expires:
        problems.append(_("The task expires before its clocked time, so it would never run."))
    if row.one_off and row.missed_runs == "all":
        problems.append(_("A one-off task runs once, so it can't make up for all missed runs."))
    if row.overlap_timeout is not None and not row.no_overlap:
        problems.append(_("An overlap timeout needs “no overlap” to be set."))
    if problems:
        raise ValidationError(problems)
