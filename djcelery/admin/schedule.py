"""The pages of the schedule: periodic tasks, intervals and crontabs.

What is saved here reaches a running beat through the models; nothing here talks to it.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.db import router, transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy, ngettext_lazy

from djcelery import utils
from djcelery.forms import CrontabScheduleForm, IntervalScheduleForm, PeriodicTaskForm
from djcelery.models import CrontabSchedule, IntervalSchedule, PeriodicTask


@admin.register(PeriodicTask)
class PeriodicTaskAdmin(admin.ModelAdmin):
    """Periodic tasks, the enabled ones first."""

    form = PeriodicTaskForm
    list_display = ("enabled", "__str__", "task", "args", "kwargs", "last_run_at", "total_run_count")
    list_display_links = ("enabled", "__str__", "task")
    list_select_related = ("interval", "crontab")
    ordering = ("-enabled", "name")
    search_fields = ("name", "task")
    actions = ("enable_tasks", "disable_tasks")
    fieldsets = (
        (
            None,
            {
                "fields": ("name", "regtask", "task", "enabled", "description"),
                "classes": ("extrapretty", "wide"),
            },
        ),
        (gettext_lazy("Schedule"), {"fields": ("interval", "crontab"), "classes": ("extrapretty", "wide")}),
        (
            gettext_lazy("Arguments"),
            {"fields": ("args", "kwargs"), "classes": ("extrapretty", "wide", "collapse")},
        ),
        (
            gettext_lazy("Execution Options"),
            {
                "fields": ("expires", "queue", "exchange", "routing_key"),
                "classes": ("extrapretty", "wide", "collapse"),
            },
        ),
    )

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the list, with a warning if beat doesn't read it."""
        context = {"wrong_scheduler": not _beat_reads_the_database(), **(extra_context or {})}
        return super().changelist_view(request, extra_context=context)

    @admin.action(description=gettext_lazy("Enable selected periodic tasks"), permissions=["change"])
    def enable_tasks(self, request: HttpRequest, queryset: QuerySet[PeriodicTask]) -> None:
        """Switch the tasks on."""
        changed = ngettext_lazy(
            "%(count)d periodic task was enabled.", "%(count)d periodic tasks were enabled.", "count"
        )
        self._switch(request, queryset, True, changed)

    @admin.action(description=gettext_lazy("Disable selected periodic tasks"), permissions=["change"])
    def disable_tasks(self, request: HttpRequest, queryset: QuerySet[PeriodicTask]) -> None:
        """Switch the tasks off; they keep the time of their last run."""
        changed = ngettext_lazy(
            "%(count)d periodic task was disabled.", "%(count)d periodic tasks were disabled.", "count"
        )
        self._switch(request, queryset, False, changed)

    def _switch(self, request: HttpRequest, queryset: QuerySet[PeriodicTask], enabled: bool, changed: Any) -> None:
        """Set ``enabled`` where it isn't yet, log each such row and tell the counts."""
        rows = list(queryset)
        to_change = [row for row in rows if row.enabled != enabled]
        if to_change:
            with transaction.atomic(using=router.db_for_write(PeriodicTask)):
                # Through the queryset, since that tells beat once for all rows.
                PeriodicTask.objects.filter(pk__in=[row.pk for row in to_change]).update(enabled=enabled)
                log = "Changed Enabled: switched on." if enabled else "Changed Enabled: switched off."
                LogEntry.objects.log_actions(request.user.pk, to_change, CHANGE, log)
            self.message_user(request, changed % {"count": len(to_change)}, messages.SUCCESS)
        already = len(rows) - len(to_change)
        if already:
            unchanged = ngettext_lazy(
                "%(count)d periodic task was so already.", "%(count)d periodic tasks were so already.", "count"
            )
            self.message_user(request, unchanged % {"count": already}, messages.INFO)


def _beat_reads_the_database() -> bool:
    """Tell whether the scheduler in the configuration of beat is the one that reads these tables."""
    from djcelery.app import project_app

    try:
        return utils.is_database_scheduler(project_app().conf.beat_scheduler)
    except Exception:  # noqa: BLE001 - importing what the setting names may raise anything; that is a "no"
        return False


@admin.register(IntervalSchedule)
class IntervalScheduleAdmin(admin.ModelAdmin):
    """Intervals."""

    form = IntervalScheduleForm


@admin.register(CrontabSchedule)
class CrontabScheduleAdmin(admin.ModelAdmin):
    """Crontabs."""

    form = CrontabScheduleForm
