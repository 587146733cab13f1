"""The actions on tasks: revoke, terminate, kill, limit the rate, send again.

A part of ``TaskMonitor``. Each has a permission of its own, asks first, says what was done and what was not, and
leaves a log entry on each row. Broadcasts are sent by ``control``, tasks by ``resend``.
Next: ``docs/explain/life-of-a-task-event.rst``.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, ngettext_lazy

from djcelery.admin import control, resend
from djcelery.admin.control import Step, allowed
from djcelery.app import project_app
from djcelery.forms import RateLimitForm
from djcelery.models import TaskState

# Workers keep a revoked id in memory; a message of very many ids would block them for long.
_IDS_PER_BROADCAST = 1000


class TaskActions:
    """The actions of the list of tasks, and who may run them."""

    actions = ("revoke_tasks", "terminate_tasks", "kill_tasks", "rate_limit_tasks", "retry_tasks")

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        """Tell whether this person may keep tasks from starting."""
        return allowed(request, "revoke_taskstate")

    def has_terminate_permission(self, request: HttpRequest) -> bool:
        """Tell whether this person may end running tasks."""
        return allowed(request, "terminate_taskstate")

    def has_kill_permission(self, request: HttpRequest) -> bool:
        """Tell whether this person may kill the processes of running tasks."""
        return allowed(request, "kill_taskstate")

    def has_rate_limit_permission(self, request: HttpRequest) -> bool:
        """Tell whether this person may set rate limits."""
        return allowed(request, "ratelimit_taskstate")

    def has_retry_permission(self, request: HttpRequest) -> bool:
        """Tell whether this person may send tasks again."""
        return allowed(request, "retry_taskstate")

    @admin.action(description=gettext_lazy("Revoke selected tasks"), permissions=["revoke"])
    def revoke_tasks(self: Any, request: HttpRequest, queryset: QuerySet[TaskState]) -> TemplateResponse | None:
        """Ask the workers not to start the tasks. Asks first."""
        rows = control.take(self, request, queryset, control.MAX_ROWS)
        question = ngettext(
            "Revoke this task? Workers that have not started it drop it; if it runs, it goes on.",
            "Revoke these %(count)d tasks? Workers that have not started them drop them; those that run go on.",
            len(rows),
        )
        texts = {"title": _("Revoke tasks"), "button": _("Yes, revoke")}
        sent = ngettext_lazy(
            "Asked the workers to revoke %(count)d task.", "Asked the workers to revoke %(count)d tasks.", "count"
        )
        return _asked(self, request, rows, "revoke_tasks", question, texts, sent)

    @admin.action(description=gettext_lazy("Terminate selected tasks"), permissions=["terminate"])
    def terminate_tasks(self: Any, request: HttpRequest, queryset: QuerySet[TaskState]) -> TemplateResponse | None:
        """Ask the workers to end the tasks, running ones included. Asks first."""
        rows = control.take(self, request, queryset)
        question = ngettext(
            "Terminate this task? If it is running, its process gets the signal TERM, and what it was doing is lost.",
            "Terminate these %(count)d tasks? The processes of those that are running get the signal TERM, "
            "and what they were doing is lost.",
            len(rows),
        )
        texts = {"title": _("Terminate tasks"), "button": _("Yes, terminate")}
        sent = ngettext_lazy(
            "Asked the workers to terminate %(count)d task.", "Asked the workers to terminate %(count)d tasks.", "count"
        )
        return _asked(self, request, rows, "terminate_tasks", question, texts, sent, terminate=True)

    @admin.action(description=gettext_lazy("Kill selected tasks"), permissions=["kill"])
    def kill_tasks(self: Any, request: HttpRequest, queryset: QuerySet[TaskState]) -> TemplateResponse | None:
        """Ask the workers to kill the processes of the tasks. Asks first."""
        rows = control.take(self, request, queryset)
        question = ngettext(
            "Kill this task? If it is running, its process ends at once and can't clean up after itself.",
            "Kill these %(count)d tasks? The processes of those that are running end at once "
            "and can't clean up after themselves.",
            len(rows),
        )
        texts = {"title": _("Kill tasks"), "button": _("Yes, kill")}
        sent = ngettext_lazy(
            "Asked the workers to kill %(count)d task.", "Asked the workers to kill %(count)d tasks.", "count"
        )
        return _asked(self, request, rows, "kill_tasks", question, texts, sent, terminate=True, signal="KILL")

    @admin.action(description=gettext_lazy("Rate limit selected tasks"), permissions=["rate_limit"])
    def rate_limit_tasks(self: Any, request: HttpRequest, queryset: QuerySet[TaskState]) -> TemplateResponse | None:
        """Set one rate limit for every name among the tasks, on all workers. Asks for it first."""
        rows = control.take(self, request, queryset)
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
                button=_("Rate limit"),
                form=form,
                names=names,
            )
        limit = form.cleaned_data["rate_limit"]
        steps = [
            Step("rate_limit", [row for row in rows if row.name == name], (name, limit), note=f"{name} {limit}")
            for name in names
        ]
        sent = ngettext_lazy(
            "Asked the workers for the rate limit of %(count)d task.",
            "Asked the workers for the rate limit of %(count)d tasks.",
            "count",
        )
        control.perform(self, request, steps, sent)
        return None

    @admin.action(description=gettext_lazy("Send selected tasks again"), permissions=["retry"])
    def retry_tasks(self: Any, request: HttpRequest, queryset: QuerySet[TaskState]) -> TemplateResponse | None:
        """Send the tasks again with the same arguments, each under a new id. Asks first."""
        rows = control.take(self, request, queryset, resend.MAX_TASKS, resend.COLUMNS)
        if not rows:
            return None
        plans = resend.plan(rows)
        if not request.POST.get("post") and not all(each.reason for each in plans):
            wanted = [each for each in plans if not each.reason]
            question = ngettext(
                "Send this task again, with the same arguments and under a new id?",
                "Send these %(count)d tasks again, with the same arguments and under new ids?",
                len(wanted),
            )
            return control.page(
                self,
                request,
                rows,
                action="retry_tasks",
                title=_("Send tasks again"),
                template="djcelery/confirm_retry.html",
                question=question % {"count": len(wanted)},
                button=_("Yes, send again"),
                wanted=wanted,
                refused=[each for each in plans if each.reason],
                may_see_arguments=self.may_see_arguments(request),
            )
        resend.send(project_app(), plans, tells_why=self.may_see_arguments(request))
        _tell(self, request, plans)
        return None


def _asked(
    modeladmin: Any,
    request: HttpRequest,
    rows: list[TaskState],
    action: str,
    question: str,
    texts: dict[str, str],
    sent: Any,
    **options: Any,
) -> TemplateResponse | None:
    """Return the page that asks, or revoke *rows* with *options* if the person has answered."""
    page = control.ask(modeladmin, request, rows, action=action, question=question % {"count": len(rows)}, **texts)
    if page is None:
        control.perform(modeladmin, request, _revocations(rows, **options), sent)
    return page


def _revocations(rows: list[TaskState], **options: Any) -> list[Step]:
    """Return the broadcasts that revoke *rows*."""
    starts = range(0, len(rows), _IDS_PER_BROADCAST)
    groups = [rows[start : start + _IDS_PER_BROADCAST] for start in starts]
    note = ", ".join(f"{name} {value}" for name, value in options.items())
    return [Step("revoke", group, ([row.task_id for row in group],), options, note) for group in groups]


def _tell(modeladmin: Any, request: HttpRequest, plans: list[resend.Resend]) -> None:
    """Log each task that was sent again, and tell the counts: of those, and of the others by reason.

    Database: one INSERT per task that was sent.
    """
    sent = [each for each in plans if each.new_id]
    for each in sent:
        LogEntry.objects.log_actions(request.user.pk, [each.row], CHANGE, f"Sent again as {each.new_id}.")
    if sent:
        text = ngettext("Sent %(count)d task again.", "Sent %(count)d tasks again.", len(sent))
        modeladmin.message_user(request, text % {"count": len(sent)}, messages.SUCCESS)
    for reason, count in Counter(each.reason for each in plans if each.reason).items():
        text = ngettext(
            "%(count)d task was not sent again: %(reason)s.", "%(count)d tasks were not sent again: %(reason)s.", count
        )
        modeladmin.message_user(request, text % {"count": count, "reason": reason}, messages.ERROR)
