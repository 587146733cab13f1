"""The actions of the list of workers: who may send which command, what is asked first, and what is said then.

Base of ``workers``. Sends through ``control``.
Next: ``docs/monitor.rst``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.translation import gettext_lazy, ngettext, ngettext_lazy

from djcelery.admin import control
from djcelery.admin.control import Step
from djcelery.forms import CommandForm, LeaveQueueForm, PoolSizeForm, QueueForm, TimeLimitForm
from djcelery.models import WorkerState


@dataclass(frozen=True)
class Command:
    """One command: the method of ``app.control``, and what is said about it.

    ``question`` and ``sent`` are lazy plurals with ``%(count)d``; ``form`` asks for its arguments.
    """

    method: str
    title: Any
    question: Any
    button: Any
    sent: Any
    form: type[CommandForm] | None = None


SHUTDOWN = Command(
    "shutdown",
    gettext_lazy("Shut down workers"),
    ngettext_lazy(
        "Shut this worker down? It finishes the tasks that it runs and takes no new ones; "
        "it must be started again where it runs.",
        "Shut these %(count)d workers down? They finish the tasks that they run and take no new ones; "
        "they must be started again where they run.",
        "count",
    ),
    gettext_lazy("Yes, shut down"),
    ngettext_lazy("Asked %(count)d worker to shut down.", "Asked %(count)d workers to shut down.", "count"),
)
ENABLE_EVENTS = Command(
    "enable_events",
    gettext_lazy("Enable events"),
    ngettext_lazy(
        "Have this worker send events of its tasks, which the camera needs?",
        "Have these %(count)d workers send events of their tasks, which the camera needs?",
        "count",
    ),
    gettext_lazy("Yes, enable events"),
    ngettext_lazy("Asked %(count)d worker to send events.", "Asked %(count)d workers to send events.", "count"),
)
DISABLE_EVENTS = Command(
    "disable_events",
    gettext_lazy("Disable events"),
    ngettext_lazy(
        "Have this worker send no more events of its tasks? The monitor won't see them then.",
        "Have these %(count)d workers send no more events of their tasks? The monitor won't see them then.",
        "count",
    ),
    gettext_lazy("Yes, disable events"),
    ngettext_lazy(
        "Asked %(count)d worker to send no more events.", "Asked %(count)d workers to send no more events.", "count"
    ),
)
GROW = Command(
    "pool_grow",
    gettext_lazy("Grow pools"),
    ngettext_lazy(
        "Have this worker run more tasks at once, until it is restarted?",
        "Have each of these %(count)d workers run more tasks at once, until it is restarted?",
        "count",
    ),
    gettext_lazy("Grow"),
    ngettext_lazy("Asked %(count)d worker to grow its pool.", "Asked %(count)d workers to grow their pools.", "count"),
    PoolSizeForm,
)
SHRINK = Command(
    "pool_shrink",
    gettext_lazy("Shrink pools"),
    ngettext_lazy(
        "Have this worker run fewer tasks at once, until it is restarted? Tasks that run are finished first.",
        "Have each of these %(count)d workers run fewer tasks at once, until it is restarted? "
        "Tasks that run are finished first.",
        "count",
    ),
    gettext_lazy("Shrink"),
    ngettext_lazy(
        "Asked %(count)d worker to shrink its pool.", "Asked %(count)d workers to shrink their pools.", "count"
    ),
    PoolSizeForm,
)
ADD_CONSUMER = Command(
    "add_consumer",
    gettext_lazy("Take from a queue"),
    ngettext_lazy(
        "Have this worker take from one more queue, until it is restarted?",
        "Have these %(count)d workers take from one more queue, until they are restarted?",
        "count",
    ),
    gettext_lazy("Take from the queue"),
    ngettext_lazy(
        "Asked %(count)d worker to take from the queue.", "Asked %(count)d workers to take from the queue.", "count"
    ),
    QueueForm,
)
CANCEL_CONSUMER = Command(
    "cancel_consumer",
    gettext_lazy("Leave a queue"),
    ngettext_lazy(
        "Have this worker take no more tasks from a queue, until it is restarted?",
        "Have these %(count)d workers take no more tasks from a queue, until they are restarted?",
        "count",
    ),
    gettext_lazy("Leave the queue"),
    ngettext_lazy("Asked %(count)d worker to leave the queue.", "Asked %(count)d workers to leave the queue.", "count"),
    LeaveQueueForm,
)
TIME_LIMIT = Command(
    "time_limit",
    gettext_lazy("Set time limits"),
    ngettext_lazy(
        "How long may a task run on this worker, until it is restarted? It holds for tasks that start from now on.",
        "How long may a task run on these %(count)d workers, until they are restarted? "
        "It holds for tasks that start from now on.",
        "count",
    ),
    gettext_lazy("Set the limits"),
    ngettext_lazy(
        "Asked %(count)d worker to set the time limits.", "Asked %(count)d workers to set the time limits.", "count"
    ),
    TimeLimitForm,
)


def _may(request: HttpRequest, what: str) -> bool:
    return control.allowed(request, f"{what}_workerstate")


class WorkerActions(admin.ModelAdmin):
    """The actions, each with its permission."""

    actions = (
        "shutdown_nodes",
        "enable_events",
        "disable_events",
        "grow_pool",
        "shrink_pool",
        "add_consumer",
        "cancel_consumer",
        "set_time_limit",
    )

    def has_shutdown_permission(self, request: HttpRequest) -> bool:
        """Tell whether this person may shut workers down."""
        return _may(request, "shutdown")

    def has_events_permission(self, request: HttpRequest) -> bool:
        """Tell whether this person may switch the events of workers."""
        return _may(request, "events")

    def has_pool_permission(self, request: HttpRequest) -> bool:
        """Tell whether this person may grow and shrink pools."""
        return _may(request, "pool")

    def has_consumer_permission(self, request: HttpRequest) -> bool:
        """Tell whether this person may have workers take from queues or leave them."""
        return _may(request, "consumer")

    def has_timelimit_permission(self, request: HttpRequest) -> bool:
        """Tell whether this person may set time limits."""
        return _may(request, "timelimit")

    def has_inspect_permission(self, request: HttpRequest) -> bool:
        """Tell whether this person may ask workers what they do."""
        return _may(request, "inspect")

    @admin.action(description=gettext_lazy("Shutdown selected worker nodes"), permissions=["shutdown"])
    def shutdown_nodes(self, request: HttpRequest, queryset: QuerySet[WorkerState]) -> TemplateResponse | None:
        """Ask the workers to finish what they do and to end."""
        return self._command(request, queryset, "shutdown_nodes", SHUTDOWN)

    @admin.action(description=gettext_lazy("Enable event mode for selected nodes."), permissions=["events"])
    def enable_events(self, request: HttpRequest, queryset: QuerySet[WorkerState]) -> TemplateResponse | None:
        """Ask the workers to send events."""
        return self._command(request, queryset, "enable_events", ENABLE_EVENTS)

    @admin.action(description=gettext_lazy("Disable event mode for selected nodes."), permissions=["events"])
    def disable_events(self, request: HttpRequest, queryset: QuerySet[WorkerState]) -> TemplateResponse | None:
        """Ask the workers to send no more events."""
        return self._command(request, queryset, "disable_events", DISABLE_EVENTS)

    @admin.action(description=gettext_lazy("Grow the pools of selected nodes"), permissions=["pool"])
    def grow_pool(self, request: HttpRequest, queryset: QuerySet[WorkerState]) -> TemplateResponse | None:
        """Ask the workers for more processes or threads."""
        return self._command(request, queryset, "grow_pool", GROW)

    @admin.action(description=gettext_lazy("Shrink the pools of selected nodes"), permissions=["pool"])
    def shrink_pool(self, request: HttpRequest, queryset: QuerySet[WorkerState]) -> TemplateResponse | None:
        """Ask the workers for fewer processes or threads."""
        return self._command(request, queryset, "shrink_pool", SHRINK)

    @admin.action(description=gettext_lazy("Have selected nodes take from a queue"), permissions=["consumer"])
    def add_consumer(self, request: HttpRequest, queryset: QuerySet[WorkerState]) -> TemplateResponse | None:
        """Ask the workers to take from one more queue."""
        return self._command(request, queryset, "add_consumer", ADD_CONSUMER)

    @admin.action(description=gettext_lazy("Have selected nodes leave a queue"), permissions=["consumer"])
    def cancel_consumer(self, request: HttpRequest, queryset: QuerySet[WorkerState]) -> TemplateResponse | None:
        """Ask the workers to take no more from a queue."""
        return self._command(request, queryset, "cancel_consumer", CANCEL_CONSUMER)

    @admin.action(description=gettext_lazy("Set time limits of a task on selected nodes"), permissions=["timelimit"])
    def set_time_limit(self, request: HttpRequest, queryset: QuerySet[WorkerState]) -> TemplateResponse | None:
        """Ask the workers to end tasks of a name after some time."""
        return self._command(request, queryset, "set_time_limit", TIME_LIMIT)

    def _command(
        self, request: HttpRequest, queryset: QuerySet[WorkerState], action: str, command: Command
    ) -> TemplateResponse | None:
        """Ask about *command* until it is answered with arguments that can be sent; then send it to the workers."""
        rows = control.take(self, request, queryset, control.MAX_CONFIRMED_ROWS)
        if not rows:  # no destination would mean every worker
            return None
        is_answer = bool(request.POST.get("post"))
        form = command.form(request.POST if is_answer else None) if command.form else None
        if not is_answer or (form is not None and not form.is_valid()):
            return control.page(
                self,
                request,
                rows,
                action=action,
                title=command.title,
                template="djcelery/confirm_form.html" if form else "djcelery/confirm_action.html",
                question=f"{command.question % {'count': len(rows)}} {_offline(rows)}",
                button=command.button,
                form=form,
            )
        arguments = form.arguments() if form else {}
        destination = [row.hostname for row in rows]
        step = Step(
            command.method, rows, kwargs={**arguments, "destination": destination}, note=form.note() if form else ""
        )
        control.perform(self, request, [step], command.sent)
        return None


def _offline(rows: list[WorkerState]) -> str:
    """Return a remark about those of *rows* that won't hear anything."""
    count = sum(not row.is_alive() for row in rows)
    if not count:
        return ""
    text = ngettext(
        "%(count)d of them seems to be offline and won't hear it.",
        "%(count)d of them seem to be offline and won't hear it.",
        count,
    )
    return text % {"count": count}
