"""The pages of tasks as the camera saw them: a list of any size, the life of one task, and what can be done about it.

The list is paged by key (``keyset``) and searched by one line (``finding``); the actions are in ``task_actions``.
Rows are the camera's: here only ``retried_as`` is written, when a task is sent again.
Next: ``docs/explain/life-of-a-task-event.rst``.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from djcelery import figures, utils
from djcelery.admin import finding, timeline, values
from djcelery.admin.columns import colored_state, eta, name, runtime, seconds, tstamp
from djcelery.admin.filters import TASK_STATES, EtaFilter, NameFilter, TaskStateFilter, WorkerFilter, time_filter
from djcelery.admin.finding import Key, Search
from djcelery.admin.keyset import KeysetMonitor
from djcelery.admin.relatives import Relatives
from djcelery.admin.task_actions import TaskActions
from djcelery.admin_utils import fixedwidth
from djcelery.models import TaskState
from djcelery.models.monitor import LOST

SEARCH = Search(
    keys={
        "id": Key(finding.identifier("task_id")),
        "name": Key(finding.exact_or_prefix("name"), column="name"),
        "state": Key(finding.state("state", TASK_STATES), column="state"),
        "worker": Key(finding.worker, column="worker"),
        "root": Key(finding.root),
        "when": Key(finding.moments("tstamp"), is_time=True),
        "queue": Key(finding.exact_or_prefix("queue"), is_indexed=False),
        "args": Key(finding.contains("args", "kwargs"), is_indexed=False, is_secret=True),
        "kwargs": Key(finding.contains("kwargs"), is_indexed=False, is_secret=True),
        "result": Key(finding.contains("result", "exception"), is_indexed=False, is_secret=True),
    },
    word=finding.id_or_name("task_id", "name"),
    time_field="tstamp",
    aliases={"uuid": "id", "task_id": "id", "status": "state", "hostname": "worker", "tstamp": "when"},
)


@admin.register(TaskState)
class TaskMonitor(TaskActions, KeysetMonitor):
    """Tasks, newest event first."""

    list_page_title = gettext_lazy("Tasks")
    detail_title = gettext_lazy("Task detail")
    list_defer = ("args", "kwargs", "result", "traceback", "exception", "progress")
    list_starts = ("args", "kwargs")
    secret_columns = ("args", "kwargs", "result", "traceback", "exception", "progress")
    list_select_related = ("worker",)
    list_display = (
        fixedwidth("task_id", name=gettext_lazy("UUID"), is_styled=False),
        colored_state,
        name,
        fixedwidth("args", pretty=True, is_styled=False),
        fixedwidth("kwargs", pretty=True, is_styled=False),
        eta,
        tstamp,
        runtime,
        "worker",
    )
    list_filter = (
        TaskStateFilter,
        NameFilter,
        time_filter("tstamp", gettext_lazy("time")),
        EtaFilter,
        WorkerFilter,
    )
    list_lookups = ("state", "name__exact", "worker", "worker__exact", "task_id", "task_id__exact")
    order = ("tstamp", True)
    sortable_by = (tstamp,)
    search = SEARCH
    search_fields = ("name", "task_id", "args", "kwargs", "worker__hostname")
    fieldsets = (
        (None, {"fields": ("state_now", "task_id", "called", "notes", "times"), "classes": ("extrapretty",)}),
        (gettext_lazy("Result"), {"fields": ("raised", "error", "value", "progressed")}),
        (
            gettext_lazy("Call"),
            {"fields": ("arguments", "keywords", "tries", "queue", "routing_key", "at_worker", "client")},
        ),
        (
            gettext_lazy("Times"),
            {"fields": ("sent", "received", "began", "ended", "took", "due", "expiry", "last_event")},
        ),
        (
            gettext_lazy("Related tasks"),
            {"fields": ("root", "parent", "children", "again", "original", "result_row", "periodic")},
        ),
    )
    legacy_fields = (
        *("state", "task_id", "name", "args", "kwargs", "eta", "runtime", "worker"),
        *("result", "traceback", "expires", "tstamp"),
    )
    readonly_fields = (
        *legacy_fields,
        *(field for _title, part in fieldsets for field in part["fields"] if field not in ("task_id",)),
    )
    #: The columns of fields that aren't called so; a field whose column is empty is left out.
    columns = {
        "called": "name",
        "notes": "flags",
        "raised": "exception",
        "error": "traceback",
        "value": "result",
        "progressed": "progress",
        "arguments": "args",
        "keywords": "kwargs",
        "at_worker": "worker_id",
        "sent": "sent_at",
        "received": "received_at",
        "began": "started_at",
        "ended": "finished_at",
        "took": "runtime",
        "due": "eta",
        "expiry": "expires",
        "root": "root_id",
        "parent": "parent_id",
        "again": "retried_as",
    }

    def get_order(self, request: HttpRequest) -> tuple[str, bool]:
        """Return the order by ETA where only tasks with one are listed: the index on it holds no others."""
        return ("eta", True) if request.GET.get("eta") == EtaFilter.SCHEDULED else self.order

    def get_fieldsets(self, request: HttpRequest, obj: TaskState | None = None) -> list[tuple[Any, dict[str, Any]]]:
        """Return the parts of the page with the fields that are known: of some tasks few events came."""
        parts = super().get_fieldsets(request, obj)
        known = [
            (title, {**part, "fields": [field for field in part["fields"] if self._is_known(obj, field)]})
            for title, part in parts
        ]
        return [(title, part) for title, part in known if part["fields"]]

    def _is_known(self, row: TaskState | None, field: Any) -> bool:
        if row is None or not isinstance(field, str):
            return True
        if field in ("children", "original", "result_row", "periodic", "times"):
            return getattr(self, field)(row) is not None
        if field == "value" and row.exception == row.result:
            # As legacy did, the camera writes an exception there, too.
            return False
        return getattr(row, self.columns.get(field, field), True) not in (None, "")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the list; above it what to do, if nothing comes from a camera."""
        return super().changelist_view(request, {"silence": silence(), **(extra_context or {})})

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show one task, with the actions that this person may run."""
        choices = [(value, label) for value, label in self.get_action_choices(request) if value]
        return super().change_view(request, object_id, form_url, {"task_actions": choices, **(extra_context or {})})

    @admin.display(description=gettext_lazy("state"))
    def state_now(self, row: TaskState) -> SafeString:
        """Return the state, and what it means if the task is lost."""
        if row.state != LOST:
            return colored_state(row)
        text = _(
            "A worker began this task, and was not heard of since; no event told how the task ended. It may have "
            "ended there unseen, be run again by another worker, or be gone. A later event of it corrects this."
        )
        return format_html('{}<p class="help">{}</p>', colored_state(row), text)

    @admin.display(description=gettext_lazy("name"))
    def called(self, row: TaskState) -> SafeString:
        """Return the name, with a link to all tasks of it."""
        page = f"{reverse('admin:djcelery_taskstate_changelist')}?{urlencode({'name': row.name})}"
        return format_html('<strong>{}</strong> <a href="{}">{}</a>', row.name, page, _("all of this name"))

    @admin.display(description=gettext_lazy("not stored as it was"))
    def notes(self, row: TaskState) -> SafeString | str:
        """Return what was cut, escaped or hidden, in words."""
        return self.shown(values.flag_notes(row.flags))

    @admin.display(description=gettext_lazy("course"))
    def times(self, row: TaskState) -> SafeString | None:
        """Return the bar of the task's times."""
        is_going_on = row.state in ("RECEIVED", "STARTED", "PENDING") and not row.finished_at
        parts = timeline.segments(
            row.sent_at, row.received_at, row.started_at, row.finished_at, utils.now() if is_going_on else None
        )
        return timeline.bar(parts)

    @admin.display(description=gettext_lazy("exception"))
    def raised(self, row: TaskState) -> SafeString:
        """Return the exception that ended the last execution."""
        return values.preformatted(row.exception or "")

    @admin.display(description=gettext_lazy("traceback"))
    def error(self, row: TaskState) -> SafeString:
        """Return the traceback."""
        return values.preformatted(row.traceback or "")

    @admin.display(description=gettext_lazy("result"))
    def value(self, row: TaskState) -> SafeString:
        """Return what the task returned, as its worker wrote it."""
        return values.preformatted(row.result or "")

    @admin.display(description=gettext_lazy("progress"))
    def progressed(self, row: TaskState) -> SafeString:
        """Return what the task last told of its progress."""
        return values.preformatted(row.progress or "")

    @admin.display(description=gettext_lazy("arguments"))
    def arguments(self, row: TaskState) -> SafeString:
        """Return the positional arguments, as the worker wrote them."""
        return values.preformatted(row.args or "")

    @admin.display(description=gettext_lazy("keyword arguments"))
    def keywords(self, row: TaskState) -> SafeString:
        """Return the keyword arguments, as the worker wrote them."""
        return values.preformatted(row.kwargs or "")

    @admin.display(description=gettext_lazy("number of retries"))
    def tries(self, row: TaskState) -> int:
        """Return how often the task was retried."""
        return row.retries

    @admin.display(description=gettext_lazy("worker"))
    def at_worker(self, row: TaskState) -> SafeString | str:
        """Return the worker that had the task last."""
        return self.shown(values.row_link(row.worker, row.worker.hostname) if row.worker else None)

    @admin.display(description=gettext_lazy("sent at"))
    def sent(self, row: TaskState) -> str:
        """Return when the task was sent."""
        return self.shown(values.moment(row.sent_at))

    @admin.display(description=gettext_lazy("received at"))
    def received(self, row: TaskState) -> str:
        """Return when the worker took the task."""
        return self.shown(values.moment(row.received_at))

    @admin.display(description=gettext_lazy("started at"))
    def began(self, row: TaskState) -> str:
        """Return when the last execution began."""
        return self.shown(values.moment(row.started_at))

    @admin.display(description=gettext_lazy("finished at"))
    def ended(self, row: TaskState) -> str:
        """Return when the task ended."""
        return self.shown(values.moment(row.finished_at))

    @admin.display(description=gettext_lazy("execution time"))
    def took(self, row: TaskState) -> str:
        """Return how long the last execution took."""
        return self.shown(seconds(row.runtime))

    @admin.display(description=gettext_lazy("ETA"))
    def due(self, row: TaskState) -> str:
        """Return when the task was to run."""
        return self.shown(values.moment(row.eta))

    @admin.display(description=gettext_lazy("expires"))
    def expiry(self, row: TaskState) -> str:
        """Return until when the task may start."""
        return self.shown(values.moment(row.expires))

    @admin.display(description=gettext_lazy("event received at"))
    def last_event(self, row: TaskState) -> str:
        """Return when the last event of the task was."""
        return self.shown(values.moment(row.tstamp))

    @admin.display(description=gettext_lazy("root task"))
    def root(self, row: TaskState) -> SafeString | str:
        """Return a link to the task that the whole workflow began with."""
        return self.shown(_("this task") if row.root_id == row.task_id else _relatives(row).link(row.root_id))

    @admin.display(description=gettext_lazy("parent task"))
    def parent(self, row: TaskState) -> SafeString | str:
        """Return a link to the task that sent this one."""
        return self.shown(_relatives(row).link(row.parent_id))

    @admin.display(description=gettext_lazy("children"))
    def children(self, row: TaskState) -> SafeString | None:
        """Return links to the tasks that this one sent."""
        return _relatives(row).child_links()

    @admin.display(description=gettext_lazy("retried as"))
    def again(self, row: TaskState) -> SafeString | str:
        """Return a link to the task that repeats this one."""
        return self.shown(_relatives(row).link(row.retried_as))

    @admin.display(description=gettext_lazy("repeats"))
    def original(self, row: TaskState) -> SafeString | None:
        """Return a link to the task that this one repeats."""
        return _relatives(row).original_link()

    @admin.display(description=gettext_lazy("result"))
    def result_row(self, row: TaskState) -> SafeString | None:
        """Return a link to the stored result."""
        return _relatives(row).result_link()

    @admin.display(description=gettext_lazy("periodic task"))
    def periodic(self, row: TaskState) -> SafeString | str | None:
        """Return a link to the periodic task that sent this one."""
        return _relatives(row).entry_link()


def _relatives(row: TaskState) -> Relatives:
    """Return the relatives of *row*, looked up once per page."""
    found = row.__dict__.get("_relatives")
    if found is None:
        found = row.__dict__["_relatives"] = Relatives.of(row)
    return found


def silence() -> str:
    """Return what to do if no camera writes or no event comes; ``""`` if all is well.

    Database: 1 query over the table of cameras, 1 over that of workers; 1 more if some of them sent no event of a task.
    """
    cameras = figures.cameras()
    start = _("Run “manage.py celerycam” beside the workers, and start them with -E.")
    if not cameras:
        return _("No camera has run yet, so nothing new is shown here.") + f" {start}"
    running = [camera for camera in cameras if figures.is_running(camera)]
    if not running:
        return _("No camera is running, so nothing new is shown here.") + f" {start}"
    if not any(map(figures.hears, running)):
        return _("A camera is running, but no event came for a while. Start the workers with -E.")
    # Heartbeats come without -E, too.
    workers = figures.workers()
    online = [worker for worker in workers if worker.is_alive()]
    if online and len(figures.unheard(workers)) == len(online):
        return _("Workers ran tasks, but no event of one came. Start them with -E, or choose “Enable event mode”.")
    return ""
