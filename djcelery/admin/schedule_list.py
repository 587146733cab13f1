"""The list of periodic tasks: its columns, its filters, and what is known of the last runs, read in one query.

Called by ``schedule``. The list itself is Django's; the rows of a page get what the run history and the results say.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import ObjectDoesNotExist
from django.db.models import F, OuterRef, Q, QuerySet, Subquery
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timeuntil
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from djcelery import utils
from djcelery.admin import values
from djcelery.admin.base import CheckedList
from djcelery.admin.columns import TASK_STATE_COLORS, ago, colored, local_text
from djcelery.admin_utils import display_field
from djcelery.app import project_app
from djcelery.humanize import crontab_text
from djcelery.models import PeriodicTask, TaskMeta, upcoming
from djcelery.schedulers import unreadable

logger = logging.getLogger(__name__)

#: Enabled tasks that the filter by "overdue" looks at, those that ran longest ago.
MAX_LOOKED_AT = 5_000
_MINUTE = timedelta(minutes=1)
TIMES = ("interval", "crontab", "solar", "clocked")


class PeriodicTaskList(CheckedList):
    """The list, whose rows know of their last runs."""

    def get_results(self, request: HttpRequest) -> None:
        """Read the page: which rows it has, and then all that is shown of them; name those that can't be read.

        Database: Django's queries, of which that of the rows reads no more than keys, and 1 more.
        """
        super().get_results(request)
        # So no table of times is joined to rows that aren't shown, and nothing wide is sorted.
        shown: Any = self.result_list  # type: ignore[has-type]
        keys = list(shown.values_list("pk", flat=True))
        results = TaskMeta._base_manager.filter(task_id=OuterRef("last_task_id"))
        known = PeriodicTask.objects.order_by().select_related(*TIMES)
        facts = known.with_last_run().with_latest_run().annotate(last_result_pk=Subquery(results.values("pk")[:1]))
        by_key = {row.pk: row for row in readable(request, facts, keys)}
        self.result_list: list[Any] = [by_key[key] for key in keys if key in by_key]


def readable(request: HttpRequest, rows: QuerySet, keys: Sequence[Any]) -> list[PeriodicTask]:
    """Return those of *rows* that have one of *keys*; tell the person of any that can't be read."""
    found = []
    for each in unreadable.by_halves(keys, lambda some: list(rows.filter(pk__in=some))):
        if isinstance(each, unreadable.Failure):
            logger.error("Periodic task %s can't be read: %s", each.key, each.problem)
            text = _("Periodic task %(key)s can't be read, and only SQL can mend it: %(reason)s")
            messages.error(request, text % {"key": each.key, "reason": each.problem})
        else:
            found.append(each)
    return found


def in_words(task: PeriodicTask) -> str:
    """Return the schedule of *task* in words; ``""`` if it has none."""
    try:
        row = upcoming.chosen_row(task)
    except ObjectDoesNotExist:
        row = None
    return "" if row is None else times_in_words(row)


def times_in_words(row: Any) -> str:
    """Return what a row of times says, in words."""
    if row.change_kind == "crontab":
        fields = (row.minute, row.hour, row.day_of_week, row.day_of_month, row.month_of_year)
        return crontab_text(*fields, zone=row.timezone or "")
    if row.change_kind == "solar":
        place = {"event": row.get_event_display(), "latitude": _degrees(row.latitude)}
        place["longitude"] = _degrees(row.longitude)
        return _("%(event)s at %(latitude)s, %(longitude)s") % place
    if row.change_kind == "clocked":
        return _("once, at %(time)s") % {"time": local_text(row.clocked_time)}
    return str(row)


def _degrees(value: Any) -> str:
    return f"{float(value):.6f}".rstrip("0").rstrip(".")


# -- columns ---------------------------------------------------------------------------------------


@display_field(gettext_lazy("schedule"), None)
def schedule(task: PeriodicTask) -> str | None:
    """Return the schedule in words."""
    return in_words(task) or None


@display_field(gettext_lazy("next run"), None)
def next_run(task: PeriodicTask) -> SafeString | None:
    """Return in how long the task is to run next, by its row alone, with the time in the tooltip."""
    instant = task.next_run()
    if instant is None:
        return None
    left = timeuntil(instant, depth=1) if instant - utils.now() >= _MINUTE else None
    text = _("in %(time)s") % {"time": left} if left else _("in less than a minute")
    return format_html('<span title="{}">{}</span>', local_text(instant), text)


@display_field(gettext_lazy("last run"), "last_run_at")
def last_run(task: PeriodicTask) -> SafeString | None:
    """Return how long ago the task ran last, as far as beat knows, with the time in the tooltip."""
    return ago(task.last_run_at) if task.last_run_at else None


@display_field(gettext_lazy("last state"), None)
def last_state(task: Any) -> SafeString | None:
    """Return the state of the last run that was sent, linked to its result."""
    if task.last_state is None:
        return None
    shown = colored(task.last_state, TASK_STATE_COLORS.get(task.last_state, "black"))
    page = reverse("admin:djcelery_taskmeta_change", args=[task.last_result_pk])
    return format_html('<a href="{}" title="{}">{}</a>', page, task.last_task_id, shown)


@display_field(gettext_lazy("lateness"), None)
def late(task: Any) -> str | None:
    """Return how long after its instant the last run was sent."""
    return None if task.last_late_by is None else values.seconds(task.last_late_by.total_seconds())


@display_field(gettext_lazy("attention"), "last_error")
def flags(task: PeriodicTask) -> SafeString | None:
    """Return a mark if beat holds the task out, or should have run it and did not; the tooltip has the reason."""
    if task.last_error:
        return marked(task.last_error, _("error"), "red")
    since = task.overdue_since(app=project_app())
    if since is None:
        return None
    return marked(_("It should have run at %(time)s.") % {"time": local_text(since)}, _("overdue"), "orange")


def marked(title: str, text: str, color: str) -> SafeString:
    """Return *text* in *color*, with a tooltip."""
    return format_html('<span title="{}">{}</span>', title, colored(text, color))


# -- filters ---------------------------------------------------------------------------------------


class _YesNoFilter(admin.SimpleListFilter):
    """Choose between two kinds of tasks."""

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        """Return the tasks of the chosen kind."""
        return self.chosen(queryset, self.value() == "1") if self.value() in ("0", "1") else queryset

    def chosen(self, queryset: QuerySet, is_yes: bool) -> QuerySet:
        """Return the tasks of the kind *is_yes*."""
        raise NotImplementedError


class HeldOutFilter(_YesNoFilter):
    """Choose the tasks that beat can't run, or those that it can."""

    title = gettext_lazy("error")
    parameter_name = "held_out"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """Return the choices."""
        return [("1", _("With an error")), ("0", _("Without an error"))]

    def chosen(self, queryset: QuerySet, is_yes: bool) -> QuerySet:
        """Return the tasks with an error, or those without."""
        return queryset.filter(last_error__isnull=not is_yes)


class OverdueFilter(_YesNoFilter):
    """Choose the tasks that should have run and did not."""

    title = gettext_lazy("overdue")
    parameter_name = "overdue"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """Return the choices."""
        return [("1", _("Overdue")), ("0", _("On time"))]

    def chosen(self, queryset: QuerySet, is_yes: bool) -> QuerySet:
        """Return the tasks that are overdue, or the others."""
        keys = overdue_keys()
        return queryset.filter(pk__in=keys) if is_yes else queryset.exclude(pk__in=keys)


def overdue_keys(now: datetime | None = None) -> list[int]:
    """Return the keys of tasks that are overdue; see ``PeriodicTask.overdue_since()``. Those with an error are not.

    Database: 1 query, of the 5,000 enabled tasks that ran longest ago. What ran within the last minute is not read.
    """
    recently = utils.correct_awareness(utils.to_utc(now or utils.now()) - upcoming.OVERDUE_AFTER)
    rows = PeriodicTask.objects.enabled().filter(Q(last_run_at=None) | Q(last_run_at__lt=recently), last_error=None)
    oldest = rows.order_by(F("last_run_at").asc(nulls_first=True), "pk").select_related(*TIMES).with_latest_run()
    app = project_app()
    return [row.pk for row in oldest[:MAX_LOOKED_AT] if row.overdue_since(now, app)]
