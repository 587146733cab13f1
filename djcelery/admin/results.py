"""The pages of stored results, read-only.

A value is loaded and decoded on the page of its row alone; what can't be decoded is shown as text
that says why. How values look is in ``values``.
Next: ``docs/explain/life-of-a-result.rst``.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from celery.utils.text import abbrtask
from django.contrib import admin
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from djcelery.admin import finding, values
from djcelery.admin.base import Hidden
from djcelery.admin.columns import ago, colored_state, colored_status, runtime, worker
from djcelery.admin.filters import ChosenFilter, HostnameFilter, NameFilter, time_filter
from djcelery.admin.finding import Key, Search
from djcelery.admin.keyset import KeysetMonitor
from djcelery.admin_utils import display_field
from djcelery.models import Chord, ChordPart, StoredResult, TaskMeta, TaskSetMeta, TaskState
from djcelery.models.results import ALL_STATES

_NAME_LENGTH = 32
#: The value of the state filter that stands for all states that aren't Celery's.
OTHER_STATES = "other"

DoneFilter = time_filter("date_done", gettext_lazy("time"))

_ALIASES = {"task_id": "id", "uuid": "id", "status": "state", "hostname": "worker", "date_done": "done"}
TASK_SEARCH = Search(
    keys={
        "id": Key(finding.identifier("task_id")),
        "name": Key(finding.exact_or_prefix("name"), column="name"),
        "state": Key(finding.state("status", ALL_STATES), column="status"),
        "worker": Key(finding.exact_or_prefix("worker"), column="worker"),
        "root": Key(finding.root),
        "done": Key(finding.moments("date_done"), is_time=True),
        "queue": Key(finding.exact_or_prefix("queue"), is_indexed=False),
        "periodic": Key(finding.exact_or_prefix("periodic_task"), is_indexed=False),
        "args": Key(finding.contains("args", "kwargs"), is_indexed=False, is_secret=True),
        "kwargs": Key(finding.contains("kwargs"), is_indexed=False, is_secret=True),
        "result": Key(finding.contains("result"), is_indexed=False, is_secret=True),
    },
    word=finding.id_or_name("task_id", "name"),
    time_field="date_done",
    aliases=_ALIASES,
)
GROUP_SEARCH = Search(
    keys={"id": Key(finding.identifier("taskset_id")), "done": Key(finding.moments("date_done"), is_time=True)},
    word=finding.id_or_name("taskset_id"),
    time_field="date_done",
    aliases=_ALIASES,
)
CHORD_SEARCH = Search(
    keys={"id": Key(finding.identifier("group_id"))}, word=finding.id_or_name("group_id"), time_field="changed_at"
)


@display_field(gettext_lazy("when"), "date_done")
def done(row: StoredResult) -> SafeString:
    """Return how long ago the row was written, with the time in the tooltip."""
    return ago(row.date_done)


@display_field(gettext_lazy("task id"), None)
def task_id(row: TaskMeta) -> SafeString:
    """Return the id; on narrow screens style.css shows its beginning, the tooltip all of it."""
    return format_html('<span title="{}">{}</span>', row.task_id, row.task_id)


@display_field(gettext_lazy("name"), None)
def name(row: TaskMeta) -> SafeString | None:
    """Return the task's name, a long package abbreviated, with all of it in the tooltip."""
    return row.name and format_html('<span title="{}">{}</span>', row.name, abbrtask(row.name, _NAME_LENGTH))


class StateFilter(ChosenFilter):
    """Choose one of Celery's states, or all others."""

    title = gettext_lazy("state")
    parameter_name = "status__exact"
    column = "status"

    @property
    def fixed(self) -> str:
        """The column that has one value now."""
        return "" if self.value() == OTHER_STATES else super().fixed

    def choices_of(self, request: HttpRequest) -> list[tuple[str, Any]]:
        """Return the choices."""
        return [*((state, state) for state in ALL_STATES), (OTHER_STATES, _("other"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        """Return the rows of the chosen state."""
        if not self.value():
            return queryset
        return queryset.filter(_other_states() if self.value() == OTHER_STATES else Q(status=self.value()))


def _other_states() -> Q:
    """Return the condition of a state that isn't Celery's, in the form of ranges, which an index serves."""
    known = sorted(ALL_STATES)
    found = Q(status__lt=known[0]) | Q(status__gt=known[-1])
    for lower, upper in pairwise(known):
        found |= Q(status__gt=lower, status__lt=upper)
    return found


class ResultMonitor(KeysetMonitor):
    """Base of the pages of stored results."""

    @admin.display(description=gettext_lazy("result"))
    def value(self, row: TaskMeta | TaskSetMeta) -> SafeString:
        """Return the stored value as Python would write it."""
        return values.preformatted(row.result if isinstance(row.result, Hidden) else values.value_text(row.result))

    @admin.display(description=gettext_lazy("encoding"))
    def encoding(self, row: StoredResult) -> str:
        """Return how the value is stored."""
        return row.content_type or _("pickle of django-celery")

    @admin.display(description=gettext_lazy("written at"))
    def written(self, row: StoredResult) -> str | None:
        """Return when the row was written last."""
        return values.moment(row.date_done)


@admin.register(TaskMeta)
class TaskMetaAdmin(ResultMonitor):
    """Results of tasks, newest first."""

    list_page_title = gettext_lazy("Task results")
    detail_title = gettext_lazy("Task result")
    list_defer = ("result", "traceback", "meta", "args", "kwargs", "progress")
    secret_columns = ("result", "traceback", "args", "kwargs", "progress")
    list_display = (task_id, name, colored_status, done, runtime, worker)
    list_filter = (StateFilter, NameFilter, DoneFilter, HostnameFilter)
    list_lookups = ("status", "name__exact", "task_id", "task_id__exact", "worker__exact")
    order = ("date_done", True)
    filtered_from = 2
    sortable_by = (done,)
    search = TASK_SEARCH
    search_fields = ("task_id", "name")
    fieldsets = (
        (None, {"fields": ("task_id", "name", "state", "notes")}),
        (gettext_lazy("Result"), {"fields": ("progressed", "value", "error", "encoding")}),
        (
            gettext_lazy("Call"),
            {"fields": ("arguments", "keywords", "queue", "periodic_task", "retries", "worker")},
        ),
        (gettext_lazy("Times"), {"fields": ("sent", "began", "ended", "took", "written")}),
        (gettext_lazy("Related tasks"), {"fields": ("root", "parent", "group", "children", "seen")}),
    )
    readonly_fields = tuple(field for _title, options in fieldsets for field in options["fields"])
    #: The columns of fields that aren't called so; a field whose column is empty is left out.
    columns = {
        "state": "status",
        "notes": "flags",
        "progressed": "progress",
        "error": "traceback",
        "arguments": "args",
        "keywords": "kwargs",
        "sent": "created",
        "began": "started",
        "ended": "finished",
        "took": "runtime",
        "root": "root_id",
        "parent": "parent_id",
        "group": "group_id",
        "children": "meta",
    }

    def get_fieldsets(self, request: HttpRequest, obj: TaskMeta | None = None) -> list[tuple[Any, dict[str, Any]]]:
        """Return the parts of the page with the fields that are known: rows of django-celery have few."""
        parts = super().get_fieldsets(request, obj)
        known = [
            (title, {**part, "fields": [f for f in part["fields"] if self._is_known(obj, f)]}) for title, part in parts
        ]
        return [(title, part) for title, part in known if part["fields"]]

    def _is_known(self, row: TaskMeta | None, field: Any) -> bool:
        if row is not None and field == "seen":
            return self.seen(row) is not None
        # What is no column, such as a field of a subclass, is always shown.
        column = self.columns.get(field, field) if isinstance(field, str) else ""
        return getattr(row, column, True) not in (None, "")

    @admin.display(description=gettext_lazy("state"))
    def state(self, row: TaskMeta) -> SafeString:
        """Return the state, also one that isn't among the choices of the field."""
        return colored_status(row)

    @admin.display(description=gettext_lazy("not stored as it was"))
    def notes(self, row: TaskMeta) -> SafeString | str:
        """Return what was cut, escaped or hidden, in words."""
        return self.shown(values.flag_notes(row.flags))

    @admin.display(description=gettext_lazy("progress"))
    def progressed(self, row: TaskMeta) -> SafeString | str:
        """Return what the task last told of its progress."""
        return self.shown(values.json_text(row.progress))

    @admin.display(description=gettext_lazy("traceback"))
    def error(self, row: TaskMeta) -> SafeString | str:
        """Return the traceback, if there is one."""
        return self.shown(values.preformatted(row.traceback) if row.traceback else None)

    @admin.display(description=gettext_lazy("arguments"))
    def arguments(self, row: TaskMeta) -> SafeString | str:
        """Return the positional arguments as JSON."""
        return self.shown(values.json_text(row.args))

    @admin.display(description=gettext_lazy("keyword arguments"))
    def keywords(self, row: TaskMeta) -> SafeString | str:
        """Return the keyword arguments as JSON."""
        return self.shown(values.json_text(row.kwargs))

    @admin.display(description=gettext_lazy("sent at"))
    def sent(self, row: TaskMeta) -> SafeString | str:
        """Return when the task was sent."""
        return self.shown(values.moment(row.created))

    @admin.display(description=gettext_lazy("started at"))
    def began(self, row: TaskMeta) -> SafeString | str:
        """Return when the last execution began."""
        return self.shown(values.moment(row.started))

    @admin.display(description=gettext_lazy("finished at"))
    def ended(self, row: TaskMeta) -> SafeString | str:
        """Return when the task ended."""
        return self.shown(values.moment(row.finished))

    @admin.display(description=gettext_lazy("execution time"))
    def took(self, row: TaskMeta) -> SafeString | str:
        """Return how long the last execution took."""
        return self.shown(values.seconds(row.runtime))

    @admin.display(description=gettext_lazy("root task"))
    def root(self, row: TaskMeta) -> SafeString | str:
        """Return a link to the task that the whole workflow began with."""
        return self.shown(_("this task") if row.root_id == row.task_id else _task_link(row.root_id))

    @admin.display(description=gettext_lazy("parent task"))
    def parent(self, row: TaskMeta) -> SafeString | str:
        """Return a link to the task that sent this one."""
        return self.shown(_task_link(row.parent_id))

    @admin.display(description=gettext_lazy("group"))
    def group(self, row: TaskMeta) -> SafeString | str:
        """Return links to the saved group and to the chord of this task; its group's id, if neither is stored."""
        if not row.group_id:
            return self.get_empty_value_display()
        group = TaskSetMeta.objects.filter(taskset_id=row.group_id).defer("result").first()
        chord = Chord.objects.filter(group_id=row.group_id).defer("header").first()
        links = [values.row_link(found, found._meta.verbose_name) for found in (group, chord) if found]
        return format_html("{} {}", row.group_id, format_html_join(" ", "({})", ((link,) for link in links)))

    @admin.display(description=gettext_lazy("children"))
    def children(self, row: TaskMeta) -> SafeString | str:
        """Return links to the tasks that this one started."""
        return self.shown(values.task_links(values.task_ids(row.to_dict()["children"])))

    @admin.display(description=gettext_lazy("events"))
    def seen(self, row: TaskMeta) -> SafeString | None:
        """Return a link to what the camera saw of the task.

        Database: 1 query, by the unique index.
        """
        if "_seen" not in row.__dict__:
            row.__dict__["_seen"] = TaskState.objects.filter(task_id=row.task_id).only("state").first()
        found = row.__dict__["_seen"]
        return found and format_html("{} {}", values.row_link(found, _("task")), colored_state(found))


@admin.register(TaskSetMeta)
class TaskSetMetaAdmin(ResultMonitor):
    """Saved groups, newest first."""

    list_page_title = gettext_lazy("Group results")
    detail_title = gettext_lazy("Group result")
    list_defer = ("result",)
    # Ids of tasks, but what django-celery stored may have values in it.
    secret_columns = ("result",)
    list_display = ("taskset_id", done)
    list_filter = (DoneFilter,)
    order = ("date_done", True)
    sortable_by = (done,)
    search = GROUP_SEARCH
    search_fields = ("taskset_id",)
    fields = ("taskset_id", "written", "encoding", "value", "children")
    readonly_fields = fields

    def hide(self, row: Model) -> None:
        """Hide the value; the ids of the tasks are no secret."""
        if "result" in row.__dict__:
            row.__dict__["_ids"] = list(values.task_ids(row.__dict__["result"]))
        super().hide(row)

    @admin.display(description=gettext_lazy("tasks"))
    def children(self, row: TaskSetMeta) -> SafeString | str:
        """Return links to the tasks of the group."""
        ids = row.__dict__.get("_ids")
        return self.shown(values.task_links(values.task_ids(row.result) if ids is None else ids))


@admin.register(Chord)
class ChordAdmin(ResultMonitor):
    """Chords that wait for their parts, or whose callback was sent; newest first."""

    list_defer = ("header",)
    list_display = ("group_id", "progress", "state", "changed_at")
    search = CHORD_SEARCH
    search_fields = ("group_id",)
    fields = ("group_id", "progress", "state", "changed_at", "dispatched_at", "parts")
    readonly_fields = fields

    @admin.display(description=gettext_lazy("returned"))
    def progress(self, row: Chord) -> str:
        """Return how many of the parts returned."""
        size = "?" if row.size is None else row.size + row.added
        return _("%(done)s of %(size)s") % {"done": row.done, "size": size}

    @admin.display(description=gettext_lazy("state"))
    def state(self, row: Chord) -> str:
        """Return whether the callback was sent."""
        return _("callback sent") if row.dispatched_at else _("waiting for its parts")

    @admin.display(description=gettext_lazy("parts that returned"))
    def parts(self, row: Chord) -> SafeString | str:
        """Return links to the tasks that returned; none once the callback was sent."""
        parts = ChordPart.objects.filter(group_id=row.group_id).order_by("pk")
        return self.shown(values.task_links(parts.values_list("task_id", flat=True)[: values.MAX_CHILDREN + 1]))


def _task_link(task_id: str | None) -> SafeString | None:
    return values.task_links([task_id]) if task_id else None
