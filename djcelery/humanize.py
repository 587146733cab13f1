"""Say how long ago something was: "3 minutes ago", "yesterday at 14:05".

Called by the admin's lists and by project code. Counts in the project's time zone, to the precision that
a person would use.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from djcelery import utils


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
