"""The page of the runs of periodic tasks: what beat claimed and sent, when, and what became of it. Read-only.

The state is that of the result table, read in the query of the list itself.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db import connections
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from djcelery.admin import values
from djcelery.admin.base import ModelMonitor, can_be_found
from djcelery.admin.columns import TASK_STATE_COLORS, colored, short_moment
from djcelery.admin.filters import short_key
from djcelery.admin.finding import begins_with
from djcelery.admin_utils import display_field
from djcelery.models import PeriodicRun, PeriodicTask, TaskMeta

_OUTCOME_COLORS = {PeriodicRun.SENT: "green", PeriodicRun.SKIPPED: "gray", PeriodicRun.DROPPED: "red"}
#: Periodic tasks whose runs a search by name shows.
_MAX_TASKS = 100
UNSENT = "unsent"


@display_field(gettext_lazy("scheduled at"), None)
def scheduled(row: PeriodicRun) -> SafeString:
    """Return the instant of the run."""
    return short_moment(row.scheduled_at)


@display_field(gettext_lazy("periodic task"), None)
def name(row: PeriodicRun) -> SafeString:
    """Return the name of the periodic task, as a link to the runs of it alone."""
    return format_html('<a href="?task={}">{}</a>', row.periodic_task_id, row.name)


@display_field(gettext_lazy("sent at"), None)
def sent(row: PeriodicRun) -> SafeString | None:
    """Return when the message was sent."""
    return short_moment(row.sent_at) if row.sent_at else None


@display_field(gettext_lazy("lateness"), None)
def late(row: PeriodicRun) -> str | None:
    """Return how long after its instant the run was sent."""
    return None if row.lateness is None else values.seconds(row.lateness.total_seconds())


@display_field(gettext_lazy("outcome"), None)
def outcome(row: PeriodicRun) -> SafeString | str:
    """Return what became of the run as far as beat knows."""
    if row.outcome is None:
        return _("not sent yet")
    return colored(row.get_outcome_display(), _OUTCOME_COLORS.get(row.outcome, "black"))


@display_field(gettext_lazy("task id"), None)
def task_id(row: PeriodicRun) -> SafeString:
    """Return the id, as a link to the result if there is one; style.css cuts it like that of a result."""
    shown = format_html('<span title="{}">{}</span>', row.task_id, row.task_id)
    if row.result_pk is None:
        return shown
    return format_html('<a href="{}">{}</a>', reverse("admin:djcelery_taskmeta_change", args=[row.result_pk]), shown)


@display_field(gettext_lazy("state"), None)
def state(row: PeriodicRun) -> SafeString | None:
    """Return the state of the task, if its result is stored."""
    return row.state and colored(row.state, TASK_STATE_COLORS.get(row.state, "black"))


class OutcomeFilter(admin.SimpleListFilter):
    """Choose what became of the runs; those that are not sent yet included."""

    title = gettext_lazy("outcome")
    parameter_name = "outcome"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """Return the choices."""
        return [*PeriodicRun.OUTCOMES, (UNSENT, _("not sent yet"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        """Return the runs of the chosen outcome."""
        if not self.value():
            return queryset
        return queryset.filter(outcome=None if self.value() == UNSENT else self.value())


class TaskFilter(admin.SimpleListFilter):
    """Says which periodic task was chosen, by a link; there may be too many to list them."""

    title = gettext_lazy("periodic task")
    parameter_name = "task"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """Return the chosen task, by its name or else its number; nothing if none is chosen.

        Database: 1 query if one is chosen.
        """
        chosen = short_key(self.value())
        if chosen is None:
            return []
        known = PeriodicTask.objects.filter(pk=chosen).values_list("name", flat=True).first()
        return [(str(chosen), known or f"#{chosen}")]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        """Return the runs of the chosen task."""
        chosen = short_key(self.value())
        return queryset if chosen is None else queryset.filter(periodic_task_id=chosen)


@admin.register(PeriodicRun)
class PeriodicRunAdmin(ModelMonitor):
    """Runs of periodic tasks, newest first."""

    list_page_title = gettext_lazy("Runs of periodic tasks")
    detail_title = gettext_lazy("Run of a periodic task")
    list_defer = ("error",)
    list_display = (scheduled, name, outcome, state, sent, late, task_id)
    list_filter = (OutcomeFilter, TaskFilter)
    # What no index serves can't be sorted by.
    sortable_by = ()
    search_fields = ("name",)
    search_help_text = gettext_lazy("Finds runs by the beginning of the name of the periodic task, or by the task id.")
    fields = ("task", "instant", "claimed", "dispatched", "delay", "what_became", "message", "reason")
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        """Return the runs with the states of their tasks, and the keys of their results."""
        results = TaskMeta._base_manager.filter(task_id=OuterRef("task_id"))
        runs = super().get_queryset(request).with_state()  # type: ignore[attr-defined]
        return runs.annotate(result_pk=Subquery(results.values("pk")[:1]))

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        """Return the order that an index serves: that of all runs, or that of the runs of a task."""
        is_of_tasks = short_key(request.GET.get("task")) is not None or request.GET.get("q")
        return ("-scheduled_at", "-pk") if is_of_tasks else ("-pk",)

    def get_search_results(self, request: HttpRequest, queryset: QuerySet, search_term: str) -> tuple[QuerySet, bool]:
        """Return the run of that task id; if there is none, the runs of the periodic tasks of that name.

        Database: 2 queries by unique indexes; the queryset's own is served by an index too.
        """
        text = search_term.strip()
        if not text:
            return queryset, False
        if not can_be_found(text):
            return queryset.none(), False
        if PeriodicRun.objects.filter(task_id=text).exists():
            return queryset.filter(task_id=text), False
        tasks = PeriodicTask.objects.filter(begins_with(connections[queryset.db].vendor, "name", text))
        keys = list(tasks.order_by("name").values_list("pk", flat=True)[:_MAX_TASKS])
        return queryset.filter(periodic_task_id__in=keys), False

    @admin.display(description=gettext_lazy("periodic task"))
    def task(self, row: PeriodicRun) -> SafeString | str:
        """Return the name of the task, linked to its page if it is still there."""
        task = PeriodicTask.objects.filter(pk=row.periodic_task_id).only("pk").first()
        return values.row_link(task, row.name) if task else row.name

    @admin.display(description=gettext_lazy("scheduled at"))
    def instant(self, row: PeriodicRun) -> str:
        """Return the instant of the run."""
        return self.shown(values.moment(row.scheduled_at))

    @admin.display(description=gettext_lazy("claimed at"))
    def claimed(self, row: PeriodicRun) -> str:
        """Return when beat wrote down that it would send the run."""
        return self.shown(values.moment(row.claimed_at))

    @admin.display(description=gettext_lazy("sent at"))
    def dispatched(self, row: PeriodicRun) -> str:
        """Return when the message was sent."""
        return self.shown(values.moment(row.sent_at))

    @admin.display(description=gettext_lazy("lateness"))
    def delay(self, row: PeriodicRun) -> str:
        """Return how long after its instant the run was sent."""
        return self.shown(late(row))

    @admin.display(description=gettext_lazy("outcome"))
    def what_became(self, row: PeriodicRun) -> SafeString | str:
        """Return what became of the run as far as beat knows."""
        return outcome(row)

    @admin.display(description=gettext_lazy("task id"))
    def message(self, row: PeriodicRun) -> SafeString | str:
        """Return the task id, linked to the result, and the state."""
        return self.shown(values.task_links([row.task_id]))

    @admin.display(description=gettext_lazy("error"))
    def reason(self, row: PeriodicRun) -> SafeString | str:
        """Return why the run was skipped or dropped, or could not be sent so far."""
        return self.shown(row.error and values.preformatted(row.error))
