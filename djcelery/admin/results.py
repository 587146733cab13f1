"""The pages of stored results, read-only.

A value is loaded and decoded on the page of its row alone; what can't be decoded is shown as text
that says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from pprint import pformat
from typing import Any
from urllib.parse import urlencode

from celery.result import ResultBase
from celery.utils.saferepr import saferepr
from django.contrib import admin
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from djcelery.admin.base import ModelMonitor
from djcelery.admin.columns import ago, colored_status
from djcelery.admin_utils import display_field
from djcelery.models import StoredResult, TaskMeta, TaskSetMeta

#: Characters of a value, and tasks of a group, that a page shows.
MAX_SHOWN = 10_000
MAX_CHILDREN = 200
_MAX_LEVELS = 50
_LINE_WIDTH = 100


@display_field(gettext_lazy("when"), "date_done")
def done(row: StoredResult) -> SafeString:
    """Return how long ago the row was written, with the time in the tooltip."""
    return ago(row.date_done)


class ResultMonitor(ModelMonitor):
    """Base of the pages of stored results."""

    list_filter: tuple[str, ...] = ("date_done",)

    @admin.display(description=gettext_lazy("result"))
    def value(self, row: TaskMeta | TaskSetMeta) -> SafeString:
        """Return the stored value as Python would write it."""
        return preformatted(value_text(row.result))

    @admin.display(description=gettext_lazy("encoding"))
    def encoding(self, row: StoredResult) -> str:
        """Return how the value is stored."""
        return row.content_type or _("pickle of django-celery")


@admin.register(TaskMeta)
class TaskMetaAdmin(ResultMonitor):
    """Results of tasks, newest first."""

    list_page_title = gettext_lazy("Task results")
    detail_title = gettext_lazy("Task result")
    list_defer = ("result", "traceback", "meta")
    list_display = ("task_id", colored_status, done)
    list_filter = ("status", "date_done")
    ordering = ("-pk",)
    # From the start of the id, so that the index serves.
    search_fields = ("task_id__startswith",)
    fields = ("task_id", "status", "date_done", "encoding", "value", "error", "children")
    readonly_fields = fields

    @admin.display(description=gettext_lazy("traceback"))
    def error(self, row: TaskMeta) -> SafeString | str:
        """Return the traceback, if there is one."""
        return preformatted(row.traceback) if row.traceback else self.get_empty_value_display()

    @admin.display(description=gettext_lazy("children"))
    def children(self, row: TaskMeta) -> SafeString | str:
        """Return links to the tasks that this one started."""
        return task_links(row.to_dict()["children"]) or self.get_empty_value_display()


@admin.register(TaskSetMeta)
class TaskSetMetaAdmin(ResultMonitor):
    """Saved groups, newest first."""

    list_page_title = gettext_lazy("Group results")
    detail_title = gettext_lazy("Group result")
    list_defer = ("result",)
    list_display = ("taskset_id", done)
    ordering = ("-pk",)
    search_fields = ("taskset_id__startswith",)
    fields = ("taskset_id", "date_done", "encoding", "value", "children")
    readonly_fields = fields

    @admin.display(description=gettext_lazy("tasks"))
    def children(self, row: TaskSetMeta) -> SafeString | str:
        """Return links to the tasks of the group."""
        return task_links(row.result) or self.get_empty_value_display()


def value_text(value: Any) -> str:
    """Return *value* as Python would write it, over several lines; a long one is cut by ``saferepr``."""
    short = saferepr(value, maxlen=MAX_SHOWN, maxlevels=_MAX_LEVELS)
    if len(short) >= MAX_SHOWN:
        return short
    try:
        # Costs as much as the value is large, so only what is known to be small comes here.
        return pformat(value, width=_LINE_WIDTH)
    except Exception:  # noqa: BLE001 - a class that the project allowed may have any __repr__
        return short


def preformatted(text: str) -> SafeString:
    """Return *text* in a fixed-width font; cut, with a note that says so, if it is long."""
    shown = format_html('<pre class="djcelery-text">{}</pre>', text[:MAX_SHOWN])
    if len(text) < MAX_SHOWN:
        return shown
    note = _("Cut: only about the first %(count)d characters are shown.") % {"count": MAX_SHOWN}
    return format_html('{}<p class="help">{}</p>', shown, note)


def task_links(children: Any) -> SafeString | None:
    """Return links to the stored results of *children*, results in any form that Celery stores."""
    url = reverse("admin:djcelery_taskmeta_changelist")
    ids = list(dict.fromkeys(task_ids(children)))
    if not ids:
        return None
    links = format_html_join(
        "", '<li><a href="{}?{}">{}</a></li>', ((url, urlencode({"q": i}), i) for i in ids[:MAX_CHILDREN])
    )
    rest = len(ids) - MAX_CHILDREN
    more = format_html("<li>{}</li>", _("and %(count)d more") % {"count": rest}) if rest > 0 else ""
    return format_html('<ul class="djcelery-links">{}{}</ul>', links, more)


def task_ids(stored: Any) -> Iterator[str]:
    """Yield the ids of the tasks in *stored*: result objects, or what their ``as_tuple()`` gave.

    Such a tuple is ``((id, parent), children)``, for a task ``children`` is None; JSON made it a list.
    """
    if isinstance(stored, ResultBase):
        stored = stored.as_tuple()
    if not isinstance(stored, (list, tuple)):
        return
    match stored:
        case [[str(task_id), _parent], None]:
            yield task_id
        case [[str(), _parent], [*members]]:
            yield from task_ids(members)
        case _:
            for item in stored:
                yield from task_ids(item)
