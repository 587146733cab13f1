"""The pages of the monitor: tasks and workers as the camera saw them, and control commands to workers.

Every action has a permission of its own (``has_…_permission``), which Django checks on the server;
what stops work asks first. Sending is in ``control``.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, ngettext_lazy

from djcelery.admin import control
from djcelery.admin.base import ModelMonitor
from djcelery.admin.columns import colored_state, eta, name, node_state, tstamp
from djcelery.admin.control import Step
from djcelery.admin_utils import fixedwidth
from djcelery.forms import RateLimitForm
from djcelery.models import TaskState, WorkerState

# Workers keep a revoked id in memory; a message of very many ids would block them for long.
_IDS_PER_BROADCAST = 1000


@admin.register(TaskState)
class TaskMonitor(ModelMonitor):
    """Tasks, newest event first."""

    list_page_title = gettext_lazy("Tasks")
    detail_title = gettext_lazy("Task detail")
    list_defer = ("result", "traceback")
    date_hierarchy = "tstamp"
    list_select_related = ("worker",)
    list_display = (
        fixedwidth("task_id", name=gettext_lazy("UUID"), pt=8),
        colored_state,
        name,
        fixedwidth("args", pretty=True),
        fixedwidth("kwargs", pretty=True),
        eta,
        tstamp,
        "worker",
    )
    list_filter = ("state", "name", "tstamp", "eta", "worker")
    search_fields = ("name", "task_id", "args", "kwargs", "worker__hostname")
    readonly_fields = (
        "state",
        "task_id",
        "name",
        "args",
        "kwargs",
        "eta",
        "runtime",
        "worker",
        "result",
        "traceback",
        "expires",
        "tstamp",
    )
    fieldsets = (
        (
            None,
            {
                "fields": ("state", "task_id", "name", "args", "kwargs", "eta", "runtime", "worker", "tstamp"),
                "classes": ("extrapretty",),
            },
        ),
        (
            gettext_lazy("Details"),
            {"fields": ("result", "traceback", "expires"), "classes": ("collapse", "extrapretty")},
        ),
    )
    actions = ("revoke_tasks", "terminate_tasks", "kill_tasks", "rate_limit_tasks")

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        """Tell whether this person may keep tasks from starting."""
        return self.may_control(request)

    def has_terminate_permission(self, request: HttpRequest) -> bool:
        """Tell whether this person may end running tasks."""
        return self.may_control(request)

    def has_kill_permission(self, request: HttpRequest) -> bool:
        """Tell whether this person may kill the processes of running tasks."""
        return self.may_control(request)

    def has_rate_limit_permission(self, request: HttpRequest) -> bool:
        """Tell whether this person may set rate limits."""
        return self.may_control(request)

    @admin.action(description=gettext_lazy("Revoke selected tasks"), permissions=["revoke"])
    def revoke_tasks(self, request: HttpRequest, queryset: QuerySet[TaskState]) -> None:
        """Ask the workers not to start the tasks."""
        rows = control.take(self, request, queryset)
        sent = ngettext_lazy(
            "Asked the workers to revoke %(count)d task.",
            "Asked the workers to revoke %(count)d tasks.",
            "count",
        )
        control.perform(self, request, _revocations(rows), sent)

    @admin.action(description=gettext_lazy("Terminate selected tasks"), permissions=["terminate"])
    def terminate_tasks(self, request: HttpRequest, queryset: QuerySet[TaskState]) -> TemplateResponse | None:
        """Ask the workers to end the tasks, running ones included. Asks first."""
        rows = control.take(self, request, queryset, control.MAX_CONFIRMED_ROWS)
        question = ngettext(
            "Terminate this task? If it is running, its process gets the signal TERM, and what it was doing is lost.",
            "Terminate these %(count)d tasks? The processes of those that are running get the signal TERM, "
            "and what they were doing is lost.",
            len(rows),
        )
        page = control.ask(
            self,
            request,
            rows,
            action="terminate_tasks",
            title=_("Terminate tasks"),
            question=question % {"count": len(rows)},
            button=_("Yes, terminate"),
        )
        if page:
            return page
        sent = ngettext_lazy(
            "Asked the workers to terminate %(count)d task.",
            "Asked the workers to terminate %(count)d tasks.",
            "count",
        )
        control.perform(self, request, _revocations(rows, terminate=True), sent)
        return None

    @admin.action(description=gettext_lazy("Kill selected tasks"), permissions=["kill"])
    def kill_tasks(self, request: HttpRequest, queryset: QuerySet[TaskState]) -> TemplateResponse | None:
        """Ask the workers to kill the processes of the tasks. Asks first."""
        rows = control.take(self, request, queryset, control.MAX_CONFIRMED_ROWS)
        question = ngettext(
            "Kill this task? If it is running, its process ends at once and can't clean up after itself.",
            "Kill these %(count)d tasks? The processes of those that are running end at once "
            "and can't clean up after themselves.",
            len(rows),
        )
        page = control.ask(
            self,
            request,
            rows,
            action="kill_tasks",
            title=_("Kill tasks"),
            question=question % {"count": len(rows)},
            button=_("Yes, kill"),
        )
        if page:
            return page
        sent = ngettext_lazy(
            "Asked the workers to kill %(count)d task.",
            "Asked the workers to kill %(count)d tasks.",
            "count",
        )
        control.perform(self, request, _revocations(rows, terminate=True, signal="KILL"), sent)
        return None

    @admin.action(description=gettext_lazy("Rate limit selected tasks"), permissions=["rate_limit"])
    def rate_limit_tasks(self, request: HttpRequest, queryset: QuerySet[TaskState]) -> TemplateResponse | None:
        """Set one rate limit for every name among the tasks, on all workers. Asks for it first."""
        rows = control.take(self, request, queryset, control.MAX_CONFIRMED_ROWS)
        names = sorted({row.name for row in rows if row.name})
        if rows and not names:
            text = _("Nothing was sent: the names of the selected tasks are not known.")
            self.message_user(request, text, messages.WARNING)
        if not names:
            return None
        form = RateLimitForm(request.POST if request.POST.get("post") else None)
        if not form.is_valid():
            return control.page(
                self,
                request,
                rows,
                action="rate_limit_tasks",
                title=_("Rate limit selection"),
                template="djcelery/confirm_rate_limit.html",
                form=form,
                names=names,
            )
        limit = form.cleaned_data["rate_limit"]
        steps = [
            Step(
                "rate_limit",
                [row for row in rows if row.name == task_name],
                (task_name, limit),
                note=f"{task_name} {limit}",
            )
            for task_name in names
        ]
        sent = ngettext_lazy(
            "Asked the workers for the rate limit of %(count)d task.",
            "Asked the workers for the rate limit of %(count)d tasks.",
            "count",
        )
        control.perform(self, request, steps, sent)
        return None


def _revocations(rows: list[TaskState], **options: Any) -> list[Step]:
    """Return the broadcasts that revoke *rows*."""
    starts = range(0, len(rows), _IDS_PER_BROADCAST)
    groups = [rows[start : start + _IDS_PER_BROADCAST] for start in starts]
    note = ", ".join(f"{name} {value}" for name, value in options.items())
    return [Step("revoke", group, ([row.task_id for row in group],), options, note) for group in groups]


@admin.register(WorkerState)
class WorkerMonitor(ModelMonitor):
    """Workers, the latest heartbeat first."""

    can_add = True
    can_change = True
    list_page_title = gettext_lazy("Worker Nodes")
    detail_title = gettext_lazy("Node detail")
    list_display = ("hostname", node_state)
    readonly_fields = ("last_heartbeat",)
    actions = ("shutdown_nodes", "enable_events", "disable_events")

    def has_shutdown_permission(self, request: HttpRequest) -> bool:
        """Tell whether this person may shut workers down."""
        return self.may_control(request)

    def has_events_permission(self, request: HttpRequest) -> bool:
        """Tell whether this person may switch the events of workers."""
        return self.may_control(request)

    @admin.action(description=gettext_lazy("Shutdown selected worker nodes"), permissions=["shutdown"])
    def shutdown_nodes(self, request: HttpRequest, queryset: QuerySet[WorkerState]) -> TemplateResponse | None:
        """Ask the workers to finish what they do and to end. Asks first."""
        rows = control.take(self, request, queryset, control.MAX_CONFIRMED_ROWS)
        question = ngettext(
            "Shut this worker down? It finishes the tasks that it runs and takes no new ones; "
            "it must be started again where it runs.",
            "Shut these %(count)d workers down? They finish the tasks that they run and take no new ones; "
            "they must be started again where they run.",
            len(rows),
        )
        page = control.ask(
            self,
            request,
            rows,
            action="shutdown_nodes",
            title=_("Shut down workers"),
            question=question % {"count": len(rows)},
            button=_("Yes, shut down"),
        )
        if page:
            return page
        sent = ngettext_lazy("Asked %(count)d worker to shut down.", "Asked %(count)d workers to shut down.", "count")
        self._broadcast(request, rows, "shutdown", sent)
        return None

    @admin.action(description=gettext_lazy("Enable event mode for selected nodes."), permissions=["events"])
    def enable_events(self, request: HttpRequest, queryset: QuerySet[WorkerState]) -> None:
        """Ask the workers to send events."""
        sent = ngettext_lazy(
            "Asked %(count)d worker to send events.", "Asked %(count)d workers to send events.", "count"
        )
        self._broadcast(request, control.take(self, request, queryset), "enable_events", sent)

    @admin.action(description=gettext_lazy("Disable event mode for selected nodes."), permissions=["events"])
    def disable_events(self, request: HttpRequest, queryset: QuerySet[WorkerState]) -> None:
        """Ask the workers to send no more events."""
        sent = ngettext_lazy(
            "Asked %(count)d worker to send no more events.",
            "Asked %(count)d workers to send no more events.",
            "count",
        )
        self._broadcast(request, control.take(self, request, queryset), "disable_events", sent)

    def _broadcast(self, request: HttpRequest, rows: list[WorkerState], command: str, sent: Any) -> None:
        if rows:  # no destination would mean every worker
            hostnames = [row.hostname for row in rows]
            control.perform(self, request, [Step(command, rows, kwargs={"destination": hostnames})], sent)
