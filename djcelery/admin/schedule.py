"""The pages of periodic tasks: what beat is to send, and when; what it sent is in ``runs``, the times in ``times``.

What is saved here reaches a running beat through the models; nothing here talks to it. The list is in
``schedule_list``, what was and what is to come of one task in ``upcoming``, running it at once in ``run_now``.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

import copy
from contextlib import suppress
from datetime import datetime
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.views.main import ChangeList
from django.contrib.admin.widgets import AutocompleteSelect
from django.core.exceptions import PermissionDenied
from django.db import router, transaction
from django.db.models import QuerySet, prefetch_related_objects
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, ngettext_lazy

from djcelery import figures, utils
from djcelery.admin import control, inspection, run_now, schedule_list, upcoming
from djcelery.admin.base import Hidden, RefusingAdmin, ShownValues
from djcelery.admin.columns import short_moment
from djcelery.admin.filters import is_key
from djcelery.app import project_app
from djcelery.forms import PeriodicTaskForm, registered_task_choices, remember_told
from djcelery.models import PeriodicTask
from djcelery.schedulers import unreadable

_WIDE = ("extrapretty", "wide")


class ScheduleSelect(AutocompleteSelect):
    """Django's field that completes what a person types; its own looks for a chosen key that is no number."""

    def optgroups(self, name: str, value: list[str], attrs: dict[str, Any] | None = None) -> Any:
        """Return the choices that are shown at once: the chosen row."""
        return super().optgroups(name, [key for key in value if not key or is_key(str(key))], attrs)


@admin.register(PeriodicTask)
class PeriodicTaskAdmin(ShownValues, RefusingAdmin):
    """Periodic tasks, the enabled ones first."""

    form = PeriodicTaskForm
    list_display = (
        "enabled",
        "name",
        schedule_list.flags,
        schedule_list.schedule,
        schedule_list.next_run,
        schedule_list.last_run,
        schedule_list.last_state,
        schedule_list.late,
        "task",
    )
    list_display_links = ("enabled", "name", "task")
    list_filter = ("enabled", schedule_list.HeldOutFilter, schedule_list.OverdueFilter)
    list_lookups = ("name", "task", "task__exact", *(f"{name}__id__exact" for name in schedule_list.TIMES))
    ordering = ("-enabled", "name")
    # Each count of a filter looks at all tasks.
    show_facets = admin.ShowFacets.NEVER
    search_fields = ("name", "task")
    actions = ("enable_tasks", "disable_tasks", "run_tasks")
    fieldsets = (
        (None, {"fields": ("name", "regtask", "task", "enabled", "description"), "classes": _WIDE}),
        (
            gettext_lazy("Schedule"),
            {"fields": ("interval", "crontab", "solar", "clocked", "start_time", "one_off"), "classes": _WIDE},
        ),
        (gettext_lazy("Arguments"), {"fields": ("args", "kwargs"), "classes": (*_WIDE, "collapse")}),
        (
            gettext_lazy("Execution Options"),
            {
                "fields": (
                    "expires",
                    "expire_seconds",
                    "queue",
                    "exchange",
                    "routing_key",
                    "priority",
                    "headers",
                ),
                "classes": (*_WIDE, "collapse"),
            },
        ),
        (
            gettext_lazy("Missed and overlapping runs"),
            {
                "fields": ("missed_runs", "grace_seconds", "no_overlap", "overlap_timeout", "jitter_seconds"),
                "classes": (*_WIDE, "collapse"),
            },
        ),
    )
    #: Columns that not everybody sees who sees the task.
    secret_columns = ("args", "kwargs", "headers")
    #: What beat knows of a task; not on the page of a new one.
    status = ("in_words", "next_runs", "last_run", "last_runs", "run_count", "counted_from", "source")
    readonly_fields = ("problem", *status)

    class Media:
        css = {"all": ("djcelery/style.css",)}
        js = ("djcelery/live.js",)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Return the list class."""
        return schedule_list.PeriodicTaskList

    def may_see_arguments(self, request: HttpRequest) -> bool:
        """Tell whether this person may see what tasks are given: who may change it, and who may see all arguments."""
        return self.has_change_permission(request) or control.allowed(request, "arguments_taskstate")

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> PeriodicTask | None:
        """Return the row of a page, without what this person may not see; then it can't be changed, either."""
        row = None
        with suppress(*unreadable.ERRORS):
            row = super().get_object(request, object_id, from_field)
        if row is None and is_key(object_id):
            # Django takes a row that it can't read for one that is gone.
            schedule_list.readable(request, PeriodicTask._base_manager.all(), [object_id])
        elif row is not None and not self.may_see_arguments(request):
            for column in self.secret_columns:
                if getattr(row, column):
                    setattr(row, column, Hidden(_("(hidden)")))
        return row

    def get_autocomplete_fields(self, request: HttpRequest) -> list[str]:
        """Return the fields that name times; on a site of the project's own those that can be searched there."""
        # As the class attribute, Django's checks would refuse a site that has not registered all of the models.
        kinds = {name: PeriodicTask._meta.get_field(name).related_model for name in schedule_list.TIMES}
        site = self.admin_site
        return [
            name
            for name, kind in kinds.items()
            if site.is_registered(kind) and site.get_model_admin(kind).search_fields
        ]

    def get_fieldsets(self, request: HttpRequest, obj: PeriodicTask | None = None) -> list[tuple[Any, dict[str, Any]]]:
        """Return the parts of the form; what beat knows of a new task is nothing."""
        parts = list(super().get_fieldsets(request, obj))
        if obj is None:
            return parts
        if obj.last_error:
            parts.insert(0, (None, {"fields": ("problem",), "classes": _WIDE}))
        return [*parts, (gettext_lazy("Status"), {"fields": self.status, "classes": _WIDE})]

    @admin.display(description=gettext_lazy("in words"))
    def in_words(self, row: PeriodicTask) -> str:
        """Return the schedule in words."""
        return schedule_list.in_words(row) or self.get_empty_value_display()

    @admin.display(description=gettext_lazy("next runs"))
    def next_runs(self, row: PeriodicTask) -> SafeString:
        """Return the next ten runs, or why there are none."""
        return upcoming.next_runs_table(row)

    @admin.display(description=gettext_lazy("last run"))
    def last_run(self, row: PeriodicTask) -> SafeString | str:
        """Return when the task ran last, as far as beat knows."""
        return self._moment(row.last_run_at)

    @admin.display(description=gettext_lazy("number of runs"))
    def run_count(self, row: PeriodicTask) -> int:
        """Return how often beat sent the task."""
        return row.total_run_count

    def _moment(self, value: datetime | None) -> SafeString | str:
        return self.shown(value and short_moment(value))

    @admin.display(description=gettext_lazy("last error"))
    def problem(self, row: PeriodicTask) -> SafeString:
        """Return why beat holds the task out."""
        note = _("Beat does not run this task until that is mended.")
        markup = '<ul class="djcelery-links"><li class="djcelery-red">{}</li></ul><p class="help">{}</p>'
        return format_html(markup, row.last_error or "", note)

    @admin.display(description=gettext_lazy("last runs"))
    def last_runs(self, row: PeriodicTask) -> SafeString:
        """Return the last ten runs, and a link to all of them."""
        return upcoming.last_runs_table(row)

    @admin.display(description=gettext_lazy("counts from"))
    def counted_from(self, row: PeriodicTask) -> SafeString | str:
        """Return the instant before which no run counts as missed."""
        return self._moment(row.scheduled_from)

    @admin.display(description=gettext_lazy("origin"))
    def source(self, row: PeriodicTask) -> str:
        """Return where the task was defined first."""
        return _("CELERYBEAT_SCHEDULE in the settings") if row.origin == "settings" else self.shown(row.origin)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Return the field of a schedule."""
        if db_field.name in self.get_autocomplete_fields(request):
            kwargs.setdefault("widget", ScheduleSelect(db_field, self.admin_site, using=kwargs.get("using")))
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def save_model(self, request: HttpRequest, obj: PeriodicTask, form: ModelForm, change: bool) -> None:
        """Save, and say what may be wrong all the same."""
        super().save_model(request, obj, form, change)
        for text in getattr(form, "warnings", ()):
            self.message_user(request, text, messages.WARNING)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the list, with a warning if no beat reads it."""
        return super().changelist_view(request, extra_context={**_warnings(), **(extra_context or {})})

    # the tasks that workers know

    def has_inspect_permission(self, request: HttpRequest) -> bool:
        """Tell whether this person may ask workers what they know."""
        return control.allowed(request, "inspect_workerstate")

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Return the form, with a link that asks the workers for their tasks."""
        form = super().get_form(request, obj, change, **kwargs)
        if "regtask" in form.base_fields and self.has_inspect_permission(request):
            # The class shares this field with all others.
            field = form.base_fields["regtask"] = copy.copy(form.base_fields["regtask"])
            field.help_text = format_html(
                '{} <a href="{}" data-djcelery-into="#id_regtask">{}</a>',
                _("Tasks of this process, and of workers as far as they are known."),
                reverse("admin:djcelery_periodictask_registered"),
                _("Ask the workers"),
            )
        return form

    def get_urls(self) -> list[Any]:
        """Return the pages of periodic tasks, with the one that asks the workers for their tasks."""
        view = self.admin_site.admin_view(self.registered_view)
        return [path("registered/", view, name="djcelery_periodictask_registered"), *super().get_urls()]

    def registered_view(self, request: HttpRequest) -> HttpResponse:
        """Ask the workers which tasks they know; with ``fragment`` in the query return the choices of the form.

        Raises:
            PermissionDenied: This person may not ask workers, or not edit periodic tasks.

        Database: 1 query, and those of ``registered_task_choices()``.
        """
        may_edit = self.has_add_permission(request) or self.has_change_permission(request)
        if not (may_edit and self.has_inspect_permission(request)):
            raise PermissionDenied
        alive = sum(worker.is_alive() for worker in figures.workers())
        answers = inspection.ask({"registered": {}}, expected=alive or None)
        told = {host: inspection.registered_names(reply.get("registered")) for host, reply in answers.replies.items()}
        remember_told(name for names in told.values() for name in names)
        if "fragment" in request.GET:
            if answers.problem:
                return HttpResponse(answers.problem, status=503, content_type="text/plain; charset=utf-8")
            return HttpResponse(format_html_join("\n", '<option value="{}">{}</option>', registered_task_choices()))
        text = ngettext("%(count)d worker has told its tasks.", "%(count)d workers have told their tasks.", len(told))
        self.message_user(request, answers.problem or text % {"count": len(told)}, messages.INFO)
        return HttpResponseRedirect(reverse("admin:djcelery_periodictask_changelist"))

    # actions

    def has_run_permission(self, request: HttpRequest) -> bool:
        """Tell whether this person may run tasks at once."""
        return control.allowed(request, "run_periodictask")

    @admin.action(description=gettext_lazy("Run selected tasks now"), permissions=["run"])
    def run_tasks(self, request: HttpRequest, queryset: QuerySet[PeriodicTask]) -> TemplateResponse | None:
        """Send the tasks once, beside their schedule. Asks first."""
        rows = control.take(self, request, queryset, run_now.MAX_ROWS)
        prefetch_related_objects(rows, *schedule_list.TIMES)
        question = ngettext(
            "Run this task now, once? Its schedule stays as it is, and so does what beat knows of its last run.",
            "Run these %(count)d tasks now, once each? Their schedules stay as they are, "
            "and so does what beat knows of their last runs.",
            len(rows),
        ) % {"count": len(rows)}
        if any(row.no_overlap for row in rows):
            question += " " + _("Whether a run that must not be overlapped is done is not looked at.")
        page = control.ask(
            self,
            request,
            rows,
            action="run_tasks",
            title=_("Run tasks now"),
            template="djcelery/confirm_form.html",
            question=question,
            button=_("Yes, run now"),
        )
        if page:
            return page
        if rows:
            run_now.tell(self, request, run_now.run_now(rows, tells_why=self.may_see_arguments(request)))
        return None

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
        rows = list(queryset.select_related(*schedule_list.TIMES))
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


def _warnings() -> dict[str, Any]:
    """Return what the list says about beat: that the settings name another scheduler, or that none of ours runs.

    A beat of ours that leads was started with this scheduler, whatever the settings say here.

    Database: 1 query.
    """
    leases = figures.leases()
    if any(lease.is_held for lease in leases):
        return {"wrong_scheduler": False, "beat_away": ""}
    if not _beat_reads_the_database():
        return {"wrong_scheduler": True, "beat_away": ""}
    if not leases:
        text = _("No beat has ever run on this database. Start one: python manage.py celerybeat")
        return {"wrong_scheduler": False, "beat_away": text}
    last = max(leases, key=lambda lease: lease.left_s)
    text = _("No beat is running: %(holder)s is gone since %(seconds)d s. Start one: python manage.py celerybeat")
    return {"wrong_scheduler": False, "beat_away": text % {"holder": last.leader, "seconds": -last.left_s}}


def _beat_reads_the_database() -> bool:
    """Tell whether the scheduler in the configuration of beat is the one that reads these tables."""
    try:
        return utils.is_database_scheduler(project_app().conf.beat_scheduler)
    except Exception:  # noqa: BLE001 - importing what the setting names may raise anything; that is a "no"
        return False
