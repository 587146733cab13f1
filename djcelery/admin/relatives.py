"""What a task's page links to: its workflow, what it was sent again as, its result, and the entry that sent it.

Called by ``tasks``. Every query is by a unique column or an index that holds few rows.
Next: ``docs/explain/life-of-a-task-event.rst``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from djcelery.admin import values
from djcelery.admin.columns import colored_state, colored_status, short_moment
from djcelery.models import PeriodicRun, PeriodicTask, TaskMeta, TaskState

_COLUMNS = ("task_id", "name", "state")


@dataclass
class Relatives:
    """The tasks and rows that belong to one task; what isn't stored is None or missing."""

    tasks: dict[str, TaskState] = field(default_factory=dict)
    children: list[TaskState] = field(default_factory=list)
    original: TaskState | None = None
    result: TaskMeta | None = None
    run: PeriodicRun | None = None
    entry: PeriodicTask | None = None

    @classmethod
    def of(cls, task: TaskState) -> Relatives:
        """Return the relatives of *task*.

        Database: 4 queries, and 1 for each of the named tasks and the entry if there are any; all by indexes.
        """
        rows = TaskState.objects.only(*_COLUMNS)
        named = {task.root_id, task.parent_id, task.retried_as} - {None, "", task.task_id}
        found = cls(
            tasks={row.task_id: row for row in rows.filter(task_id__in=named)} if named else {},
            original=rows.filter(retried_as=task.task_id).first(),
            result=TaskMeta.objects.filter(task_id=task.task_id).only("task_id", "status", "periodic_task").first(),
            run=PeriodicRun.objects.filter(task_id=task.task_id).defer("error").first(),
        )
        # By the root, which the index holds of tasks with a parent only.
        below = rows.filter(root_id=task.root_id or task.task_id, parent_id=task.task_id)
        found.children = list(below.order_by("pk")[: values.MAX_CHILDREN + 1])
        if found.run:
            found.entry = PeriodicTask.objects.filter(pk=found.run.periodic_task_id).only("name").first()
        elif found.result and found.result.periodic_task:
            found.entry = PeriodicTask.objects.filter(name=found.result.periodic_task).only("name").first()
        return found

    def link(self, task_id: str | None) -> SafeString | str | None:
        """Return the task of that id with a link if it is stored; None if there is no id."""
        row = self.tasks.get(task_id or "")
        return task_line(row) if row else task_id or None

    def original_link(self) -> SafeString | None:
        """Return the task that this one repeats."""
        return task_line(self.original) if self.original else None

    def child_links(self) -> SafeString | None:
        """Return the tasks that this one sent."""
        if not self.children:
            return None
        lines: list[object] = [task_line(child) for child in self.children[: values.MAX_CHILDREN]]
        if len(self.children) > values.MAX_CHILDREN:
            lines.append(_("and more; search by root: to see them all"))
        return values.listed(lines)

    def result_link(self) -> SafeString | None:
        """Return the stored result."""
        if self.result is None:
            return None
        return format_html("{} {}", values.row_link(self.result, _("stored result")), colored_status(self.result))

    def entry_link(self) -> SafeString | str | None:
        """Return the periodic task that sent this one, and which of its runs this is."""
        name = self.run.name if self.run else self.result and self.result.periodic_task
        if not name:
            return None
        shown = values.row_link(self.entry, name) if self.entry else name
        if self.run is None:
            return shown
        run = values.row_link(self.run, _("run of"))
        return format_html("{} ({} {})", shown, run, short_moment(self.run.scheduled_at))


def task_line(row: TaskState) -> SafeString:
    """Return a task as a link, with its state and its name."""
    return format_html("{} {} {}", values.row_link(row, row.task_id), colored_state(row), row.name or "")
