"""Say times as a person would: "3 minutes ago", "yesterday at 14:05", "at 02:30 on weekdays".

Called by the admin's lists and by project code. Ages are counted in the project's time zone, to the precision
that a person would use; crontabs are said in words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import lru_cache

from celery.schedules import ParseException, crontab_parser
from django.utils.dates import MONTHS, WEEKDAYS
from django.utils.text import get_text_list
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from djcelery import utils
from djcelery.deprecation import Old, old_names


def pluralize_year(n: int) -> str:
    """Return "1 year ago" or "*n* years ago" in the active language."""
    return ngettext("{num} year ago", "{num} years ago", n).format(num=n)


def pluralize_month(n: int) -> str:
    """Return "1 month ago" or "*n* months ago" in the active language."""
    return ngettext("{num} month ago", "{num} months ago", n).format(num=n)


def pluralize_week(n: int) -> str:
    """Return "1 week ago" or "*n* weeks ago" in the active language."""
    return ngettext("{num} week ago", "{num} weeks ago", n).format(num=n)


def pluralize_day(n: int) -> str:
    """Return "1 day ago" or "*n* days ago" in the active language."""
    return ngettext("{num} day ago", "{num} days ago", n).format(num=n)


#: Units by their length in days, longest first, and what says so many of them.
OLDER_CHUNKS: tuple[tuple[float, Callable[[int], str]], ...] = (
    (365.0, pluralize_year),
    (30.0, pluralize_month),
    (7.0, pluralize_week),
    (1.0, pluralize_day),
)


def _un(singular__plural: tuple[str, str], n: int) -> str:
    """Return the form of the pair (singular, plural) for *n*, translated."""
    singular, plural = singular__plural
    return ngettext(singular, plural, n)


def naturaldate(date: datetime | None, include_seconds: bool = False) -> str:
    """Return how long ago *date* was, in the active language; the future is "just now".

    Args:
        date: Aware or naive as ``USE_TZ`` says; a naive one under ``USE_TZ`` is taken as UTC. None gives ``""``.
        include_seconds: Count seconds below one minute; otherwise those are "just now".
    """
    if not date:
        return ""
    now = utils.now()
    date = utils.correct_awareness(date)
    # Instants are compared in UTC, since local clocks jump; days are those of the local calendar.
    elapsed = utils.to_utc(now) - utils.to_utc(date)
    if elapsed.days < 0:
        return _("just now")
    if not elapsed.days:
        return _within_a_day(elapsed.seconds, include_seconds)
    days = (now.date() - date.date()).days
    if days <= 1:
        return _("yesterday at {time}").format(time=date.strftime("%H:%M"))
    chunk, say = next((chunk, say) for chunk, say in OLDER_CHUNKS if days >= chunk)
    return say(round(days / chunk))


def _within_a_day(seconds: int, include_seconds: bool) -> str:
    hours, minutes = seconds // 3600, seconds // 60
    if hours:
        return ngettext("{num} hour ago", "{num} hours ago", hours).format(num=hours)
    if minutes:
        return ngettext("{num} minute ago", "{num} minutes ago", minutes).format(num=minutes)
    if include_seconds and seconds:
        return ngettext("{num} second ago", "{num} seconds ago", seconds).format(num=seconds)
    return _("just now")


# -- crontabs --------------------------------------------------------------------------------------

#: More items than this are not listed in words, and more times of a day not if they have a rhythm.
_MAX_LISTED = 6
_MAX_TIMES_BEFORE_RHYTHM = 3
#: Of each field how many values there are, and the first of them.
_FIELDS = ((60, 0), (24, 0), (7, 0), (31, 1), (12, 1))
_WORKDAYS, _WEEKEND = frozenset({1, 2, 3, 4, 5}), frozenset({0, 6})


def crontab_text(
    minute: object, hour: object, day_of_week: object, day_of_month: object, month_of_year: object, zone: str = ""
) -> str:
    """Return when a crontab fires, in words; its fields as they are if words would be longer, or it can't be read.

    Equal crontabs have equal words, in whatever notation. A day must match both of its fields, as in Celery.
    """
    fields = tuple(str(field).replace(" ", "") for field in (minute, hour, day_of_week, day_of_month, month_of_year))
    try:
        minutes, hours, weekdays, days, months = _values(*fields)
    except (ValueError, ParseException):
        words = None
    else:
        words = _crontab_words(minutes, hours, weekdays, days, months)
    text = " ".join(fields) if words is None else words
    return _("%(schedule)s, %(zone)s") % {"schedule": text, "zone": zone} if zone else text


@lru_cache(maxsize=1024)
def _values(*fields: str) -> tuple[frozenset[int], ...]:
    return tuple(frozenset(crontab_parser(*size).parse(text)) for size, text in zip(_FIELDS, fields, strict=True))


def _crontab_words(minutes: frozenset[int], hours: frozenset[int], *date: frozenset[int]) -> str | None:
    times = _often(minutes, hours) or _spelled_out(minutes, hours)
    weekdays, days, months = date
    which_days, which_months = _days(weekdays, days), _months(months)
    if times is None or which_days is None or which_months is None:
        return None
    if not which_days and not _often(minutes, hours):
        which_days = ngettext("every day", "every {every} days", 1)
    return " ".join(part for part in (times, which_days, which_months) if part)


def _often(minutes: frozenset[int], hours: frozenset[int]) -> str | None:
    """Return words for what is a rhythm through the day; None if it is none."""
    step, hour_step, run = _step(minutes, 60), _step(hours, 24), _run(hours, 3)
    if len(hours) == 24:
        return _every_hour(minutes, step)
    if len(minutes) == 1:
        at = min(minutes)
        if hour_step and len(hours) > 2:
            text = ngettext("every hour", "every {every} hours", hour_step).format(every=hour_step)
            return text if at == 0 else _("%(often)s, at minute %(minute)s") % {"often": text, "minute": at}
        if run:
            return _between(ngettext("every hour", "every {every} hours", 1), _clock(run[0], at), _clock(run[1], at))
        return None
    run = _run(hours, 1)
    if run and step and len(minutes) * len(hours) > _MAX_TIMES_BEFORE_RHYTHM:
        often = ngettext("every minute", "every {every} minutes", step).format(every=step)
        return _between(often, _clock(run[0], min(minutes)), _clock(run[1], max(minutes)))
    return None


def _every_hour(minutes: frozenset[int], step: int | None) -> str | None:
    """Return words for these minutes of each hour; None for too many."""
    if step == 60:
        return ngettext("every hour", "every {every} hours", 1)
    if step:
        return ngettext("every minute", "every {every} minutes", step).format(every=step)
    if len(minutes) > _MAX_LISTED:
        return None
    text = ngettext("every hour, at minute %(minutes)s", "every hour, at the minutes %(minutes)s", len(minutes))
    return text % {"minutes": _listed(map(str, sorted(minutes)))}


def _spelled_out(minutes: frozenset[int], hours: frozenset[int]) -> str | None:
    """Return the times of a day one by one; None if they are too many."""
    if len(minutes) * len(hours) > _MAX_LISTED:
        return None
    return _("at %(times)s") % {"times": _listed(_clock(hour, at) for hour in sorted(hours) for at in sorted(minutes))}


def _days(weekdays: frozenset[int], days: frozenset[int]) -> str | None:
    """Return words for the days of a month; "" for all, None for what is too long to say."""
    of_week, of_month = _days_of_week(weekdays), _days_of_month(days)
    if of_month is None:
        return None
    if of_week and of_month:
        # Cron would take either; Celery takes days that are both.
        return _("%(weekdays)s, but only %(days)s") % {"weekdays": of_week, "days": of_month}
    return of_week or of_month


def _days_of_week(weekdays: frozenset[int]) -> str:
    if len(weekdays) == 7:
        return ""
    if weekdays == _WORKDAYS:
        return _("on weekdays")
    if weekdays == _WEEKEND:
        return _("at weekends")
    # Django's weeks begin on Monday, Celery's on Sunday.
    numbers = sorted((number - 1) % 7 for number in weekdays)
    run = _run(frozenset(numbers), 3)
    if run:
        return _("from %(first)s to %(last)s") % {"first": WEEKDAYS[run[0]], "last": WEEKDAYS[run[1]]}
    return _("on %(weekdays)s") % {"weekdays": _listed(str(WEEKDAYS[number]) for number in numbers)}


def _days_of_month(days: frozenset[int]) -> str | None:
    if len(days) == 31:
        return ""
    run = _run(days, 3)
    if run:
        return _("on the days %(first)s to %(last)s of the month") % {"first": run[0], "last": run[1]}
    if len(days) > _MAX_LISTED:
        return None
    text = ngettext("on day %(days)s of the month", "on the days %(days)s of the month", len(days))
    return text % {"days": _listed(map(str, sorted(days)))}


def _months(months: frozenset[int]) -> str | None:
    if len(months) == 12:
        return ""
    run = _run(months, 3)
    if run:
        return _("from %(first)s to %(last)s") % {"first": MONTHS[run[0]], "last": MONTHS[run[1]]}
    if len(months) > _MAX_LISTED:
        return None
    return _("in %(months)s") % {"months": _listed(str(MONTHS[number]) for number in sorted(months))}


def _step(values: frozenset[int], size: int) -> int | None:
    """Return the distance between *values* if they go evenly around a clock of *size*; None if they don't."""
    step = size // len(values)
    return step if values == frozenset(range(0, size, step)) and size % step == 0 else None


def _run(values: frozenset[int], least: int) -> tuple[int, int] | None:
    """Return the first and last of *values* if they follow one another and are at least so many; else None."""
    first, last = min(values), max(values)
    return (first, last) if len(values) >= least and len(values) == last - first + 1 else None


def _between(often: str, first: str, last: str) -> str:
    return _("%(often)s from %(first)s to %(last)s") % {"often": often, "first": first, "last": last}


def _clock(hour: int, minute: int) -> str:
    return f"{hour:02}:{minute:02}"


def _listed(items: Iterable[str]) -> str:
    return get_text_list(list(items), _("and"))


# -- names of the legacy package ---------------------------------------------------------------


def _pair(unit: str) -> Old:
    """Return the singular and the plural for ``_un()``, as the catalogs have them."""
    return Old("djcelery.humanize.naturaldate()", lambda: (f"{{num}} {unit} ago", f"{{num}} {unit}s ago"))


__getattr__ = old_names(
    __name__,
    given={
        "JUST_NOW": Old("djcelery.humanize.naturaldate()", lambda: gettext_lazy("just now")),
        "YESTERDAY_AT": Old("djcelery.humanize.naturaldate()", lambda: gettext_lazy("yesterday at {time}")),
        "SECONDS_AGO": _pair("second"),
        "MINUTES_AGO": _pair("minute"),
        "HOURS_AGO": _pair("hour"),
        "OLDER_DAY": _pair("day"),
        "OLDER_WEEK": _pair("week"),
        "OLDER_MONTH": _pair("month"),
        "OLDER_YEAR": _pair("year"),
    },
    # Not every language can put a number, a unit and "ago" together.
    gone={"OLDER_AGO": "pluralize_year(), pluralize_month(), pluralize_week() and pluralize_day() say the whole text."},
)
