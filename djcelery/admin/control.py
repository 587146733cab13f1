"""Control commands from the admin: choose rows, ask, send, say what became of it, log it.

Called by the actions of tasks and of workers; sends through ``app.control`` of the project's Celery app. Workers
don't answer here: a message says what was sent, not what was done.
Next: ``docs/explain/life-of-a-task-event.rst``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.contrib import messages
from django.contrib.admin import ModelAdmin, helpers
from django.contrib.admin.models import CHANGE, LogEntry
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from djcelery.admin.filters import is_key
from djcelery.brokers import bounded, control_over

logger = logging.getLogger(__name__)

#: How many rows one action takes at most.
MAX_ROWS = 10_000
#: How many of them a page that asks has a field of their own for: Django takes 1,000 fields in a POST.
MAX_CONFIRMED_ROWS = 500
#: The field that has the keys of more rows than that, and how many of them the page names.
ROWS_FIELD = "djcelery_rows"
_SHOWN_ROWS = 100
# For each call of the broker.
_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class Step:
    """One broadcast: the method of ``app.control``, its arguments, and the rows that it is about.

    ``note`` is what the log says beside the command.
    """

    command: str
    rows: Sequence[Model]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    def __str__(self) -> str:
        return f"{self.command} ({self.note})" if self.note else self.command


def allowed(request: HttpRequest, codename: str) -> bool:
    """Tell whether this person has djcelery's permission *codename*."""
    return request.user.has_perm(f"djcelery.{codename}")


@contextmanager
def broker(app: Any) -> Iterator[Any]:
    """Give a connection to send by; a broker that is missing or silent is an error within seconds.

    Raises:
        Exception: Whatever the transport raises; without redis-py, kombu's raises AttributeError.
    """
    with bounded(app, _TIMEOUT_S) as connection:
        # Without this, kombu would wait for a missing broker as long as it is missing.
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=connection.connect_timeout)
        yield connection


def send(steps: Sequence[Step]) -> tuple[list[Step], str]:
    """Send broadcasts to the workers by one connection; return those that were sent, and why the next one was not.

    Stops at the first that fails: the broker won't take the next one either. The reason is ``""`` if all were sent.
    """
    from djcelery.app import project_app

    app, sent = project_app(), list[Step]()
    try:
        with broker(app) as connection:
            control = control_over(app, connection)
            for step in steps:
                getattr(control, step.command)(*step.args, connection=connection, **step.kwargs)
                sent.append(step)
    except Exception as exc:  # a transport may raise anything
        # Names of tasks are any text; in this form they stay on one line of the log.
        logger.warning("The broker did not take %r: %s", next(map(str, steps[len(sent) :]), ""), exc, exc_info=True)
        return sent, str(exc) or type(exc).__name__
    return sent, ""


def take(
    modeladmin: ModelAdmin,
    request: HttpRequest,
    queryset: QuerySet,
    max_rows: int = MAX_CONFIRMED_ROWS,
    columns: Sequence[str] = (),
) -> list[Any]:
    """Return the chosen rows; if there are none or too many, say so and return an empty list.

    Those of a page that asked are taken by their keys: the list may be filtered by a state that they have left. Only
    *columns* are loaded, or all that the list loads if there are none.
    """
    if request.POST.get("post"):
        queryset = modeladmin.get_queryset(request).filter(pk__in=_posted_keys(request))
    if columns:
        queryset = queryset.select_related(None).defer(None).only(*columns)
    else:
        queryset = queryset.defer(*getattr(modeladmin, "list_defer", ()))
    rows = list(queryset[: max_rows + 1])
    if len(rows) > max_rows:
        text = _("Nothing was sent: more than %(count)d rows are selected. Narrow the list down first.")
        modeladmin.message_user(request, text % {"count": max_rows}, messages.ERROR)
        return []
    if not rows:
        modeladmin.message_user(request, _("Nothing was sent: the selected rows are gone."), messages.WARNING)
    return rows


def _posted_keys(request: HttpRequest) -> list[int]:
    packed = request.POST.get(ROWS_FIELD, "")
    texts = packed.split(",") if packed else request.POST.getlist(helpers.ACTION_CHECKBOX_NAME)
    return [int(text) for text in texts if is_key(text)][: MAX_ROWS + 1]


def perform(modeladmin: ModelAdmin, request: HttpRequest, steps: Sequence[Step], sent: Any) -> None:
    """Send *steps*, log each row that was sent, and tell the person the counts.

    Args:
        modeladmin: Whose messages and rows they are.
        request: Of the person who acts.
        steps: The broadcasts, in order.
        sent: Lazy plural text with ``%(count)d``: what was sent about so many rows.

    Database: one INSERT of log entries per step.
    """
    if not steps:
        return
    taken, reason = send(steps)
    for step in taken:
        LogEntry.objects.log_actions(request.user.pk, step.rows, CHANGE, f"Sent to the workers: {step}.")
    done = sum(len(step.rows) for step in taken)
    missed = sum(len(step.rows) for step in steps) - done
    if done:
        modeladmin.message_user(request, sent % {"count": done}, messages.SUCCESS)
    if missed:
        text = ngettext(
            "Not sent for %(count)d row, because the broker did not take it: %(reason)s",
            "Not sent for %(count)d rows, because the broker did not take it: %(reason)s",
            missed,
        )
        modeladmin.message_user(request, text % {"count": missed, "reason": reason}, messages.ERROR)


def ask(modeladmin: ModelAdmin, request: HttpRequest, rows: Sequence[Model], **context: Any) -> TemplateResponse | None:
    """Return the page that asks before an action, or None if the person has answered or chose no row.

    Takes the same *context* as ``page()``.
    """
    if not rows or request.POST.get("post"):
        return None
    return page(modeladmin, request, rows, **context)


def page(
    modeladmin: ModelAdmin,
    request: HttpRequest,
    rows: Sequence[Model],
    *,
    action: str,
    title: str,
    template: str = "djcelery/confirm_action.html",
    **context: Any,
) -> TemplateResponse:
    """Return a page about *rows*, whose form runs *action* on them again, with ``post=yes``."""
    opts = modeladmin.model._meta
    is_packed = len(rows) > MAX_CONFIRMED_ROWS
    request.current_app = modeladmin.admin_site.name  # type: ignore[attr-defined]
    return TemplateResponse(
        request,
        template,
        {
            **modeladmin.admin_site.each_context(request),
            "title": title,
            "subtitle": None,
            "queryset": rows,
            "shown_rows": rows[:_SHOWN_ROWS] if is_packed else rows,
            "rest": len(rows) - _SHOWN_ROWS if is_packed else 0,
            "rows_field": ROWS_FIELD,
            "packed": ",".join(str(row.pk) for row in rows) if is_packed else "",
            "object_name": opts.verbose_name,
            "action": action,
            "action_checkbox_name": helpers.ACTION_CHECKBOX_NAME,
            "opts": opts,
            "app_label": opts.app_label,
            "media": modeladmin.media,
            **context,
        },
    )
