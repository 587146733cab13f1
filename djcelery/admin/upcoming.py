"""What was and what is to come of one periodic task: its next ten runs, or why there are none, and its last ten.

Called by ``schedule`` for the page of a task. Computes from the row as it is stored; reads the run history.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from itertools import islice
from typing import Any

from django.db.models import OuterRef, Subquery
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.timesince import timeuntil
from django.utils.translation import gettext as _

from djcelery import utils
from djcelery.admin import runs
from djcelery.admin.columns import short_moment
from djcelery.admin.tables import table
from djcelery.app import project_app
from djcelery.models import PeriodicRun, PeriodicTask, TaskMeta, upcoming
from djcelery.schedulers import nexttime

#: Runs that a page shows.
COUNT = 10


@dataclass
class NextRuns:
    """The next instants of a task, aware; or why there are none. ``zone``: the clocks that its schedule follows.

    ``is_cut``: the last one is the last at all; ``end`` says why.
    """

    instants: list[datetime] = field(default_factory=list)
    reason: str = ""
    zone: tzinfo | None = None
    end: str = ""


def next_runs(task: PeriodicTask, now: datetime | None = None, count: int = COUNT) -> NextRuns:
    """Return the next *count* runs of *task* after *now* (None: the present), without its jitter.

    Database: 1 query if the row of its times is not loaded.
    """
    app = project_app()
    if not task.enabled:
        return NextRuns(reason=_("It is disabled."))
    chosen = upcoming.chosen_count(task)
    if chosen != 1:
        return NextRuns(reason=_("It has more than one schedule.") if chosen else _("It has no schedule."))
    after = utils.to_utc(now or utils.now())
    try:
        row = upcoming.chosen_row(task)
        times = upcoming.times_of(task, row, app)
        counted = upcoming.counts_from(task, row)
        following = nexttime.upcoming(times, max(after, counted) if counted else after)
        instants = list(islice(following, 1 if task.one_off else count))
    except upcoming.UNREADABLE as exc:
        return NextRuns(reason=_("Its schedule can't be read: %(reason)s") % {"reason": exc})
    zone = _zone(row, app)
    return _until_it_ends(task, instants, zone, count)


def _zone(row: Any, app: Any) -> tzinfo | None:
    """Return the zone whose clocks *row* follows; None if it follows none."""
    if row.change_kind != "crontab":
        return None
    return nexttime.read_zone(row.timezone or upcoming.zone_of(app))


def _until_it_ends(task: PeriodicTask, instants: list[datetime], zone: tzinfo | None, count: int) -> NextRuns:
    expires = utils.to_utc(task.expires) if task.expires else None
    left = [instant for instant in instants if expires is None or instant < expires]
    if not instants:
        return NextRuns(reason=_("Its schedule has no time that is still to come."), zone=zone)
    if not left:
        return NextRuns(reason=_("It expires before its next time."), zone=zone)
    end = ""
    if len(left) < len(instants):
        end = _("Then it expires.")
    elif task.one_off:
        end = _("Then it is switched off, since it is to run once.")
    elif len(left) < count:
        end = _("No time comes after that.")
    return NextRuns(left, zone=zone, end=end)


def next_runs_table(task: PeriodicTask) -> SafeString:
    """Return the next runs as a table: in the project's zone, and in that of the schedule if it is another one."""
    found = next_runs(task)
    if not found.instants:
        return format_html('<p class="djcelery-none">{}</p>', found.reason)
    home = timezone.get_default_timezone()
    is_elsewhere = found.zone is not None and str(found.zone) != str(home)
    heads = [_("in"), str(home), *([str(found.zone)] if is_elsewhere else [])]
    lines = []
    for instant in found.instants:
        clocks = [home, *([found.zone] if is_elsewhere else [])]
        lines.append([_left(instant), *(_clock(instant.astimezone(zone)) for zone in clocks)])
    notes = [found.end] if found.end else []
    if task.jitter_seconds:
        notes.append(_("Each is sent up to %(seconds)s s later, by its jitter.") % {"seconds": task.jitter_seconds})
    if task.last_error:
        notes.append(_("The error above may keep it from running."))
    help_text = format_html_join("", '<p class="help">{}</p>', ((note,) for note in notes))
    return format_html("{}{}", table(heads, lines), help_text)


def _left(instant: datetime) -> str:
    """Return how long it is until *instant*; Django speaks of no seconds."""
    seconds = round((instant - utils.to_utc(utils.now())).total_seconds())
    return _("%(number)s s") % {"number": max(seconds, 0)} if seconds < 60 else timeuntil(instant, depth=2)


def _clock(local: datetime) -> SafeString:
    text = local.replace(microsecond=0)
    return format_html('<span title="{}">{}</span>', str(text), text.strftime("%Y-%m-%d %H:%M:%S"))


def last_runs_table(task: PeriodicTask) -> SafeString:
    """Return the last runs as a table, and a link to all of them.

    Database: 1 query, by the unique index of the runs.
    """
    results = TaskMeta._base_manager.filter(task_id=OuterRef("task_id"))
    found = PeriodicRun.objects.for_task(task).with_state().annotate(result_pk=Subquery(results.values("pk")[:1]))
    lines = [
        [
            short_moment(run.scheduled_at),
            runs.outcome(run),
            runs.state(run) or "",
            runs.late(run) or "",
            runs.task_id(run),
        ]
        for run in found.defer("error")[:COUNT]
    ]
    page = f"{reverse('admin:djcelery_periodicrun_changelist')}?task={task.pk}"
    link = format_html('<p><a href="{}">{}</a></p>', page, _("Runs of this task"))
    if not lines:
        return format_html('<p class="djcelery-none">{}</p>{}', _("None is known."), link)
    heads = [_("scheduled at"), _("outcome"), _("state"), _("lateness"), _("task id")]
    return format_html("{}{}", table(heads, lines), link)
