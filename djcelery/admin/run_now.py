"""Running periodic tasks at once: an extra message, which changes neither the schedule nor what beat knows of it.

Called by the action of ``schedule``. Sends with the options of the row, as beat would; a row that beat holds out is
refused for the same reason. Writes a log entry per message.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from django.contrib import messages
from django.contrib.admin import ModelAdmin
from django.contrib.admin.models import CHANGE, LogEntry
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from kombu.exceptions import OperationalError as BrokerError
from kombu.utils.uuid import uuid

from djcelery import db, utils
from djcelery.admin import control
from djcelery.app import project_app
from djcelery.exceptions import ScheduleError
from djcelery.forms import project_tasks
from djcelery.models import PeriodicTask
from djcelery.schedulers import loading, settings_entries
from djcelery.schedulers.claims import Run
from djcelery.schedulers.entry import unstored_options
from djcelery.schedulers.outbox import DueEntry, expiry

logger = logging.getLogger(__name__)

#: Tasks that one action runs.
MAX_ROWS = 100
#: Tasks that a message names.
MAX_SHOWN = 20
# What says that beat sent a message: this is none of its runs.
_BEATS_HEADERS = ("celery_beat_task", "periodic_scheduled_at")


@dataclass
class Outcome:
    """What became of tasks that were to run: their ids by row, and of the others why not.

    ``away``: why the broker takes nothing; ``left``: rows that were not tried because of that.
    """

    sent: list[tuple[PeriodicTask, str]] = field(default_factory=list)
    refused: list[tuple[PeriodicTask, str]] = field(default_factory=list)
    away: str = ""
    left: int = 0


class Refused(Exception):
    """A row can't be run; the text says why."""


def run_now(rows: Iterable[PeriodicTask], tells_why: bool = True) -> Outcome:
    """Send one message for each of *rows*, over one connection; expiry counts from now.

    Without *tells_why* the outcome has no texts of exceptions that may quote arguments.

    Database: 1 query. Those of the tasks themselves, if tasks are run eagerly.
    """
    app, outcome, wanted = project_app(), Outcome(), list(rows)
    project_tasks()
    tasks = PeriodicTask._base_manager.filter(pk__in=[row.pk for row in wanted])
    entries, planner = {row.pk: row for row in loading.read(tasks)}, loading.Planner(app.timezone)
    try:
        with nullcontext() if app.conf.task_always_eager else control.broker(app) as connection:
            while wanted:
                row = wanted[0]
                try:
                    entry = _entry(app, planner, entries.get(row.pk))
                except Refused as exc:
                    outcome.refused.append((row, str(exc)))
                else:
                    _send(app, connection, row, entry, outcome, tells_why)
                wanted.pop(0)
    except Exception as exc:  # a transport may raise anything
        logger.warning("The broker takes no message: %s", exc, exc_info=True)
        outcome.away, outcome.left = str(exc) or type(exc).__name__, len(wanted)
    return outcome


def _entry(app: Any, planner: loading.Planner, row: Any) -> DueEntry:
    """Return what is to be sent for *row*, as ``loading`` reads it.

    Raises:
        Refused: Beat would hold the row out, it is gone, or its message would have expired.
    """
    if row is None:
        raise Refused(_("It was deleted."))
    now = utils.to_utc(utils.now())
    try:
        plan = planner.plan(row, now)
    except Exception as exc:  # whatever is wrong with a row, beat holds it out, too
        raise Refused(str(exc) if isinstance(exc, ScheduleError) else f"{type(exc).__name__}: {exc}") from exc
    run = Run(plan.pk, plan.name, now, uuid())
    expires = expiry(plan, run)
    if expires is not None and expires <= now:
        raise Refused(_("It has expired: %(time)s.") % {"time": utils.local_text(expires)})
    of_settings = (settings_entries.of_settings(app) or {}).get(plan.name)
    entry = DueEntry(plan, run, app, unstored_options(of_settings))
    headers = entry.options["headers"]
    entry.options["headers"] = {name: value for name, value in headers.items() if name not in _BEATS_HEADERS}
    return entry


def _send(app: Any, connection: Any, row: PeriodicTask, entry: DueEntry, outcome: Outcome, tells_why: bool) -> None:
    """Send the message of *entry*.

    Raises:
        Exception: The broker is away.
    """
    task, options = app.tasks.get(entry.task), {"retry": False, **entry.options}
    away = (BrokerError, OSError, *(connection.connection_errors if connection is not None else ()))
    try:
        if task is not None:
            task.apply_async(entry.args, entry.kwargs, connection=connection, **options)
        else:
            app.send_task(entry.task, entry.args, entry.kwargs, connection=connection, **options)
    except Exception as exc:  # the arguments may not fit, the queue not exist; the other rows are sent all the same
        if isinstance(exc, away):
            raise
        logger.warning("Periodic task %s %r can't be run now: %s", row.pk, row.name, exc)
        name = type(exc).__name__
        outcome.refused.append((row, f"{name}: {db.storable(str(exc))}" if tells_why else name))
    else:
        outcome.sent.append((row, entry.options["task_id"]))


def tell(modeladmin: ModelAdmin, request: HttpRequest, outcome: Outcome) -> None:
    """Log what was sent, and tell the person: the ids, linked to where their results will be, and the failures.

    Database: one INSERT per message that was sent.
    """
    for row, task_id in outcome.sent:
        LogEntry.objects.log_actions(request.user.pk, [row], CHANGE, f"Run at once, as task {task_id}.")
    if outcome.sent:
        text = ngettext("%(count)d task was sent:", "%(count)d tasks were sent:", len(outcome.sent))
        lines = [(row.name, _link(request, task_id)) for row, task_id in outcome.sent]
        modeladmin.message_user(request, _listed(text, lines), messages.SUCCESS)
    if outcome.refused:
        text = ngettext("%(count)d task can't be run:", "%(count)d tasks can't be run:", len(outcome.refused))
        lines = [(row.name, why) for row, why in outcome.refused]
        modeladmin.message_user(request, _listed(text, lines), messages.ERROR)
    if outcome.left:
        text = ngettext(
            "Not sent for %(count)d row, because the broker did not take it: %(reason)s",
            "Not sent for %(count)d rows, because the broker did not take it: %(reason)s",
            outcome.left,
        )
        modeladmin.message_user(request, text % {"count": outcome.left, "reason": outcome.away}, messages.ERROR)


def _listed(text: str, lines: list[tuple[str, Any]]) -> SafeString:
    """Return *text* and the first of *lines*, each on a line of its own."""
    shown = format_html_join("", "<br>{}: {}", lines[:MAX_SHOWN])
    rest = len(lines) - MAX_SHOWN
    more = format_html("<br>{}", _("and %(count)d more") % {"count": rest}) if rest > 0 else ""
    return format_html("{}{}{}", text % {"count": len(lines)}, shown, more)


def _link(request: HttpRequest, task_id: str) -> SafeString | str:
    """Return *task_id*, linked to a list that shows the task as soon as it is known, if this person may see one."""
    for model in ("taskstate", "taskmeta"):
        if control.allowed(request, f"view_{model}"):
            page = reverse(f"admin:djcelery_{model}_changelist")
            return format_html('<a href="{}?q={}">{}</a>', page, task_id, task_id)
    return task_id
