"""The pages of workers: what their heartbeats said, their latest tasks, and what they do now if they are asked.

Every action has a permission of its own (``has_…_permission``), which Django checks on the server, and asks first.
Sending is in ``control``, asking in ``inspection``. Rows are the camera's; a person may add or rename one.
Next: ``docs/monitor.rst``.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import F, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.formats import number_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from djcelery.admin import control, inspection, values, worker_actions
from djcelery.admin.base import ModelMonitor
from djcelery.admin.columns import ago, colored, colored_state, local_text, node_state
from djcelery.admin.tables import table
from djcelery.admin_utils import display_field
from djcelery.app import project_app
from djcelery.forms import remember_told
from djcelery.humanize import naturaldate
from djcelery.models import TaskState, WorkerState

#: Seconds by which a clock may differ before it is marked.
SKEW_S = 5.0
#: Tasks on the page of a worker.
LATEST_TASKS = 20
#: Workers that the filter by state looks at.
_MAX_FILTERED = 10_000


@display_field(gettext_lazy("last heartbeat"), "last_heartbeat")
def heard(node: WorkerState) -> SafeString | None:
    """Return how long ago the last heartbeat was."""
    return ago(node.last_heartbeat) if node.last_heartbeat else None


@display_field(gettext_lazy("software"), "version")
def software(node: WorkerState) -> str | None:
    """Return the name and version of what runs there."""
    return " ".join(filter(None, (node.software, node.version))) or None


@display_field(gettext_lazy("processed"), "processed")
def processed(node: WorkerState) -> str | None:
    """Return how many tasks it has run since it started."""
    return _number(node.processed)


@display_field(gettext_lazy("active"), "active")
def active(node: WorkerState) -> str | None:
    """Return how many tasks run; of a worker that is offline it isn't known."""
    return _number(node.active) if node.is_alive() else None


@display_field(gettext_lazy("load"), None)
def load(node: WorkerState) -> str | None:
    """Return the load of its machine, of 1, 5 and 15 minutes."""
    return node.load or None


@display_field(gettext_lazy("clock skew"), "clock_skew")
def skew(node: WorkerState) -> SafeString | str | None:
    """Return by how much its clock is ahead; marked if that is much."""
    if not node.clock_skew:
        return None
    text = f"{node.clock_skew:+.1f} s"
    if abs(node.clock_skew) <= SKEW_S:
        return text
    title = _("The clock of this machine is wrong, or the camera's: what they say of times doesn't fit.")
    return format_html('<span title="{}">{}</span>', title, colored(text, "red"))


@display_field(gettext_lazy("missed"), "missed")
def missed(node: WorkerState) -> SafeString | str | None:
    """Return how many of its tasks no event came of."""
    if not node.missed:
        return _number(node.missed)
    return format_html(
        '<span title="{}">{}</span>',
        _("Tasks that it ran and of which no event came."),
        colored(number_format(node.missed), "orange"),
    )


def _number(value: int | None) -> str | None:
    return None if value is None else number_format(value, use_l10n=True, force_grouping=True)


class OnlineFilter(admin.SimpleListFilter):
    """Choose the workers that are online, or those that aren't."""

    title = gettext_lazy("state")
    parameter_name = "online"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """Return the choices."""
        return [("1", _("Online")), ("0", _("Offline"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        """Return the workers of the chosen state. Database: 1 query, of the latest 10,000 workers."""
        if self.value() not in ("0", "1"):
            return queryset
        latest = WorkerState.objects.order_by("-last_heartbeat")
        rows = latest.only("last_heartbeat", "offline_at", "frequency")[:_MAX_FILTERED]
        online = [row.pk for row in rows if row.is_alive()]
        return queryset.filter(pk__in=online) if self.value() == "1" else queryset.exclude(pk__in=online)


# What stands beside one another on the page.
_FIGURES = (
    ("state", "heard", "frequency"),
    ("came_online", "said_goodbye"),
    ("runs", "pid"),
    ("processed_tasks", "active_tasks", "missed_tasks"),
    ("load_now", "clock"),
)


@admin.register(WorkerState)
class WorkerMonitor(worker_actions.WorkerActions, ModelMonitor):
    """Workers, the latest heartbeat first."""

    can_add = True
    can_change = True
    list_page_title = gettext_lazy("Worker Nodes")
    detail_title = gettext_lazy("Node detail")
    list_display = ("hostname", node_state, heard, processed, active, missed, skew, load, software)
    list_filter = (OnlineFilter,)
    list_lookups = ("hostname", "hostname__exact")
    # PostgreSQL has NULL first otherwise.
    ordering = (F("last_heartbeat").desc(nulls_last=True), "hostname")
    search_fields = ("hostname",)
    fieldsets = (
        (None, {"fields": ("hostname", *_FIGURES)}),
        (gettext_lazy("Now"), {"fields": ("live",)}),
        (gettext_lazy("Latest tasks"), {"fields": ("latest_tasks",)}),
    )
    readonly_fields = (*(name for line in _FIGURES for name in line), "live", "latest_tasks")

    class Media:
        js = ("djcelery/live.js",)

    def get_fieldsets(self, request: HttpRequest, obj: WorkerState | None = None) -> list[tuple[Any, dict[str, Any]]]:
        """Return the parts of the page: of a new row its name alone, and nothing that this person may not see."""
        if obj is None:
            return [(None, {"fields": ("hostname",)})]
        hidden = {
            "live": not self.has_inspect_permission(request),
            "latest_tasks": not control.allowed(request, "view_taskstate"),
        }
        parts = super().get_fieldsets(request, obj)
        return [part for part in parts if not hidden.get(part[1]["fields"][0], False)]

    # one worker

    @admin.display(description=gettext_lazy("state"))
    def state(self, node: WorkerState) -> SafeString:
        """Return ONLINE or OFFLINE."""
        return node_state(node)

    @admin.display(description=gettext_lazy("last heartbeat"))
    def heard(self, node: WorkerState) -> Any:
        """Return when it was heard last, and how long ago that was."""
        if node.last_heartbeat is None:
            return self.shown(None)
        return f"{local_text(node.last_heartbeat)} ({naturaldate(node.last_heartbeat, include_seconds=True)})"

    @admin.display(description=gettext_lazy("online since"))
    def came_online(self, node: WorkerState) -> Any:
        """Return when it came online."""
        return self.shown(node.online_at and local_text(node.online_at))

    @admin.display(description=gettext_lazy("said good-bye"))
    def said_goodbye(self, node: WorkerState) -> Any:
        """Return when it said that it ends; nothing if it never did."""
        return self.shown(node.offline_at and local_text(node.offline_at))

    @admin.display(description=gettext_lazy("software"))
    def runs(self, node: WorkerState) -> Any:
        """Return what runs there, and on what system."""
        return self.shown(" ".join(filter(None, (software(node), node.system and f"({node.system})"))) or None)

    @admin.display(description=gettext_lazy("processed"))
    def processed_tasks(self, node: WorkerState) -> Any:
        """Return how many tasks it has run since it started."""
        return self.shown(processed(node))

    @admin.display(description=gettext_lazy("active"))
    def active_tasks(self, node: WorkerState) -> Any:
        """Return how many tasks run."""
        return self.shown(active(node))

    @admin.display(description=gettext_lazy("load"))
    def load_now(self, node: WorkerState) -> Any:
        """Return the load of its machine, of 1, 5 and 15 minutes."""
        return self.shown(load(node))

    @admin.display(description=gettext_lazy("clock skew"))
    def clock(self, node: WorkerState) -> Any:
        """Return by how much its clock is ahead."""
        return self.shown(skew(node))

    @admin.display(description=gettext_lazy("missed"))
    def missed_tasks(self, node: WorkerState) -> Any:
        """Return how many of its tasks no event came of."""
        return self.shown(missed(node))

    @admin.display(description=gettext_lazy("latest tasks"))
    def latest_tasks(self, node: WorkerState) -> Any:
        """Return the tasks that it was the last to say something of.

        Database: 1 query.
        """
        columns = ("task_id", "state", "name", "tstamp", "runtime")
        tasks = list(TaskState.objects.filter(worker=node).order_by("-tstamp", "-pk").only(*columns)[:LATEST_TASKS])
        if not tasks:
            return self.shown(None)
        heads = (_("when"), _("state"), _("name"), _("execution time"), _("UUID"))
        return table(
            heads,
            (
                (
                    ago(task.tstamp),
                    colored_state(task),
                    task.name or "",
                    values.seconds(task.runtime) or "",
                    values.row_link(task, task.task_id),
                )
                for task in tasks
            ),
        )

    # what it does now

    @admin.display(description=gettext_lazy("live details"))
    def live(self, node: WorkerState) -> SafeString:
        """Return a button that asks the worker; without scripts it is a link to a page of its own."""
        place = "djcelery-live"
        return format_html(
            '<a class="button" href="{}" data-djcelery-into="#{}">{}</a><div id="{}" aria-live="polite"></div>',
            reverse("admin:djcelery_workerstate_live", args=[node.pk]),
            place,
            _("Ask the worker"),
            place,
        )

    def get_urls(self) -> list[Any]:
        """Return the pages of workers, with that of the live details."""
        live = path(
            "<path:object_id>/live/", self.admin_site.admin_view(self.live_view), name="djcelery_workerstate_live"
        )
        return [live, *super().get_urls()]

    def live_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show what the worker says of itself, within a second; with ``fragment`` in the query only the inner part.

        Raises:
            PermissionDenied: This person may not see workers, or not ask them.
            Http404: There is no such worker.

        Database: 1 query, and 1 more for links to tasks.
        """
        node = self.get_object(request, unquote(object_id))
        may_see = self.has_view_or_change_permission(request, node)
        if not may_see or not self.has_inspect_permission(request):
            raise PermissionDenied
        if node is None:
            raise Http404(_("There is no such worker."))
        answers = inspection.ask(inspection.DETAILS, [node.hostname])
        replies = answers.replies.get(node.hostname, {})
        remember_told(inspection.registered_names(replies.get("registered")))
        sees_arguments = self.may_see_arguments(request)
        details = inspection.details(project_app(), replies, sees_arguments) if replies else {}
        if control.allowed(request, "view_taskstate"):
            inspection.link_tasks(details.get("tasks", ()), _task_links)
        context = {
            **self.admin_site.each_context(request),
            **details,
            "title": _("Live details of %(hostname)s") % {"hostname": node.hostname},
            "subtitle": None,
            "opts": self.opts,
            "original": node,
            "problem": answers.problem,
            "sees_arguments": sees_arguments,
            "media": self.media,
        }
        request.current_app = self.admin_site.name  # type: ignore[attr-defined]
        is_fragment = "fragment" in request.GET
        return TemplateResponse(request, f"djcelery/worker_{'details' if is_fragment else 'live'}.html", context)


def _task_links(ids: list[str]) -> dict[str, SafeString]:
    """Return links to the pages of the tasks *ids*, of those that the camera has seen. Database: 1 query, or none."""
    known = TaskState.objects.filter(task_id__in=ids).only("task_id") if ids else ()
    return {row.task_id: values.row_link(row, row.task_id) for row in known}
