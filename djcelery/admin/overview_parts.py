"""The parts of the overview: what was gathered, as texts, charts and links for its templates.

Called by ``overview``. No query of its own. Names and texts that tasks and workers sent are escaped by the templates
and by ``charts``.
Next: ``docs/monitor.rst``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from celery import states
from django.utils.formats import date_format
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from djcelery import figures as shared
from djcelery import utils
from djcelery.admin import charts, problems
from djcelery.admin.charts import Series, number
from djcelery.admin.figures import PERIODS, RECEIVED, STACKED, Figures
from djcelery.humanize import naturaldate
from djcelery.managers.history_reads import FINISHED, NameFigures
from djcelery.models import TaskState, WorkerState

#: Rows of each small table.
ROWS = 8
#: The charts, whose patterns the legend and the tables use, too.
THROUGHPUT, FAILED = "djcelery-throughput", "djcelery-failed"
#: What the chart of failures shows, from the bottom up.
_BAD = (states.FAILURE, "LOST", states.REJECTED, states.RETRY)
_MARKS = 4
_NONE = "–"


def parts(found: Figures, links: Any) -> dict[str, Any]:
    """Return the context of the templates; *links* is an ``overview.Links``."""
    troubles = problems.find(found)
    schedule = found.schedule
    return {
        "found": found,
        "period": found.period,
        "periods": list(PERIODS.values()),
        "updated": date_format(_local(found.now), "H:i:s"),
        "problems": [(problem, links.list(problem.page, problem.query)) for problem in troubles],
        "summary": summary(troubles),
        "said": " ".join([summary(troubles), *(problem.what for problem in troubles[:3])]),
        # Changes when a problem comes or goes, not when a minute passes.
        "kinds": " ".join(f"{problem.level}-{problem.page}-{problem.query}" for problem in troubles),
        "good_news": good_news(found),
        "cards": cards(found, links),
        **throughput(found),
        "names": [_name(one, found, links) for one in found.names if one.counts],
        "workers": [_worker(worker, found, links) for worker in found.workers[:ROWS]],
        "more_workers": max(0, len(found.workers) - ROWS),
        "queues": [
            (queue, rough(queue.oldest_s))
            for queue in sorted(found.broker.queues, key=lambda queue: (-(queue.messages or 0), queue.name))[:ROWS]
        ],
        "beat": _beat(found),
        "overdue": [
            (entry.name, _age(entry.due_at, found), links.row("periodictask", entry.pk))
            for entry in schedule.overdue[:ROWS]
        ],
        "held_out": [(name, text, links.row("periodictask", pk)) for pk, name, text in schedule.held_out[:ROWS]],
        "cameras": [_camera(camera, found) for camera in found.cameras[:ROWS]],
        "failures": [_failure(task, links) for task in found.failures],
        "all_failures": links.tasks(state=states.FAILURE),
        "all_workers": links.list("workerstate"),
        "all_entries": links.list("periodictask"),
    }


def length(seconds: float | None) -> str:
    """Return a length of time as people say it, such as "38 ms", "1.2 s", "3 min 20 s"; a dash for None."""
    if seconds is None:
        return _NONE
    if seconds < 1:
        return _("%(number)s ms") % {"number": number(seconds * 1000, 0 if seconds >= 0.01 or not seconds else 1)}
    if seconds < 60:
        return _("%(number)s s") % {"number": number(seconds, 1 if seconds < 10 else 0)}
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return _("%(minutes)d min %(seconds)d s") % {"minutes": minutes, "seconds": rest}
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return _("%(hours)d h %(minutes)d min") % {"hours": hours, "minutes": minutes}
    return _("%(days)d d %(hours)d h") % {"days": hours // 24, "hours": hours % 24}


def rough(seconds: float | None) -> str:
    """Return a length of time in one unit, such as "4 s", "2 min", "3 h"; a dash for None."""
    if seconds is None:
        return _NONE
    if seconds < 60:
        return _("%(number)s s") % {"number": int(seconds)}
    if seconds < 3600:
        return _("%(number)s min") % {"number": int(seconds / 60)}
    if seconds < 86400:
        return _("%(number)s h") % {"number": int(seconds / 3600)}
    return _("%(number)s d") % {"number": number(int(seconds / 86400))}


def _local(moment: datetime) -> datetime:
    return utils.correct_awareness(utils.to_utc(moment))


def _age(moment: datetime | None, found: Figures) -> str:
    return rough(shared.seconds_since(moment, found.now))


# -- is everything all right? ----------------------------------------------------------------------


def summary(troubles: Sequence[problems.Problem]) -> str:
    """Return the state of all in one sentence, which a screen reader says when it changes."""
    if not troubles:
        return _("Everything is all right.")
    text = ngettext("%(count)d thing needs a look:", "%(count)d things need a look:", len(troubles))
    return text % {"count": len(troubles)}


def good_news(found: Figures) -> list[str]:
    """Return what was looked at and found well."""
    workers, queues = len(found.online), len(found.broker.queues)
    online = ngettext("%(count)d worker is online", "%(count)d workers are online", workers)
    answers = ngettext("the broker answers for %(count)d queue", "the broker answers for %(count)d queues", queues)
    said = [online % {"count": workers}, answers % {"count": queues}, _("the camera writes")]
    if found.leader is not None and found.leader.is_held:
        said.append(_("beat sends, and nothing is overdue"))
    return said


# -- figures first ---------------------------------------------------------------------------------


def cards(found: Figures, links: Any) -> list[dict[str, Any]]:
    """Return the cards: a figure, what it is of, a remark, a state for the colour, and its page."""
    failed, online = found.totals["FAILURE"], len(found.online)
    period = {"hour": _("in the last hour"), "day": _("in the last day"), "week": _("in the last week")}
    share = number(round(100 * failed / max(found.finished, 1), 1))
    rate, of_workers = number(round(found.per_minute, 1)), _("online, of %(count)s known")
    return [
        _card(_("Tasks per minute"), rate, _("now, over five minutes"), "SUCCESS"),
        _card(_("Finished"), number(found.finished), period[found.period.key], "SUCCESS", links.tasks()),
        _card(
            _("Failed"),
            number(failed),
            _("%(share)s %% of what ended") % {"share": share},
            "FAILURE" if failed else "SUCCESS",
            links.tasks(state=states.FAILURE),
        ),
        _card(
            _("Running"),
            f"{number(shared.MAX_COUNT)}+" if found.running > shared.MAX_COUNT else number(found.running),
            _("started, not at their end"),
            "RECEIVED",
            links.tasks(state=states.STARTED),
        ),
        _queue_card(found),
        _card(
            _("Workers"),
            number(online),
            of_workers % {"count": number(len(found.workers))},
            "SUCCESS" if online else "FAILURE",
            links.list("workerstate"),
        ),
        _beat_card(found, links),
        _camera_card(found),
    ]


def _card(label: str, figure: str, remark: str, state: str, page: str = "") -> dict[str, Any]:
    return {"label": label, "figure": figure, "remark": remark, "state": state, "page": page}


def _queue_card(found: Figures) -> dict[str, Any]:
    if found.messages is None:
        return _card(_("In the queues"), "?", _("the broker is away"), "FAILURE")
    oldest = found.oldest_s
    remark = _("messages") if oldest is None else _("the oldest for %(length)s") % {"length": rough(oldest)}
    return _card(_("In the queues"), number(found.messages), remark, "RECEIVED")


def _beat_card(found: Figures, links: Any) -> dict[str, Any]:
    lease, overdue, page = found.leader, len(found.schedule.overdue), links.list("periodictask")
    if lease is None:
        return _card(_("Beat"), _NONE, _("never ran here"), "RECEIVED", page)
    if not lease.is_held:
        remark = _("for %(length)s") % {"length": rough(lease.age_s)}
        return _card(_("Beat"), _("down"), remark, "FAILURE", page)
    remark = ngettext("%(count)d entry is overdue", "%(count)d entries are overdue", overdue) % {"count": overdue}
    return _card(_("Beat"), _("up"), remark, "FAILURE" if overdue else "SUCCESS", page)


def _camera_card(found: Figures) -> dict[str, Any]:
    if not found.cameras:
        return _card(_("Camera"), _NONE, _("never ran here"), "FAILURE")
    latest = found.cameras[0]
    remark = _("wrote %(length)s ago") % {"length": _age(latest.shutter_at, found)}
    is_up = bool(found.running_cameras)
    return _card(_("Camera"), _("up") if is_up else _("down"), remark, "SUCCESS" if is_up else "FAILURE")


# -- charts ----------------------------------------------------------------------------------------


def throughput(found: Figures) -> dict[str, Any]:
    """Return the two charts, their legend, the marks of time below them, and the table that says the same."""
    bad = [Series(state, str(STACKED[state]), found.bins(state)) for state in _BAD]
    stacks = [Series(state, str(name), found.bins(state)) for state, name in STACKED.items()]
    shown = [series for series in stacks if series.key == states.SUCCESS or any(series.values)]
    level = Series(RECEIVED, _("Received"), found.bins(RECEIVED))
    labels = [_bin_label(start, found) for start in found.starts]
    each = _("per minute") if found.period.step < timedelta(hours=1) else _("per hour")
    totals = ", ".join(f"{series.label} {number(sum(series.values))}" for series in [*shown, level])
    title = _("Tasks that came to an end, %(each)s") % {"each": each}
    bad_title = _("Tasks that failed, were lost, rejected or retried, %(each)s") % {"each": each}
    legend = [(charts.swatch(THROUGHPUT, one.key), one.label, number(sum(one.values))) for one in shown]
    legend.append((charts.swatch(THROUGHPUT, level.key, is_line=True), level.label, number(sum(level.values))))
    return {
        "each": each,
        "throughput": charts.bars(THROUGHPUT, title, totals, labels, shown, level),
        "bad": charts.bars(FAILED, bad_title, totals, labels, bad, ticks=2)
        if any(any(s.values) for s in bad)
        else None,
        "legend": legend,
        "marks": [_mark(found, place) for place in range(_MARKS)] + [_("now")],
        "chart_table": charts.table(
            _("Tasks %(each)s; times without any are left out") % {"each": each},
            [_("Time"), *(series.label for series in [*shown, level])],
            [
                (label, row)
                for label, row in zip(
                    labels, zip(*(series.values for series in [*shown, level]), strict=True), strict=True
                )
                if any(row)
            ],
        ),
    }


def _bin_label(start: datetime, found: Figures) -> str:
    return date_format(_local(start), "H:i" if found.period.key == "hour" else "D j H:i")


def _mark(found: Figures, place: int) -> str:
    start = _local(found.starts[len(found.starts) * place // _MARKS])
    return date_format(start, "D j" if found.period.key == "week" else "H:i")


# -- tables ----------------------------------------------------------------------------------------


def breakable(name: str) -> SafeString:
    """Return the name of a task, which a line may break after each of its parts."""
    return format_html_join("", "{}<wbr>", ((part,) for part in re.findall(r"[^._]*[._]?", name)))


def _name(one: NameFigures, found: Figures, links: Any) -> dict[str, Any]:
    line = [one.finished_at[start] for start in found.starts]
    shares = [(state, one.counts[state]) for state in FINISHED]
    told = ", ".join(f"{STACKED[state]} {number(count)}" for state, count in shares if count)
    page, failed = links.tasks(name=one.name) if one.name else "", one.counts["FAILURE"]
    return {
        "name": breakable(one.name) if one.name else _("(unknown)"),
        "page": page,
        "finished": number(one.finished),
        "failed": number(failed),
        "failed_page": links.tasks(state=states.FAILURE, name=one.name) if failed and page else "",
        "failed_share": number(round(100 * one.failed_share, 1)) if failed else "",
        "retried": number(one.counts["RETRY"]),
        "share": charts.share(shares, told, THROUGHPUT) if one.finished else "",
        "line": charts.sparkline(line, _("most at once %(count)s") % {"count": number(max(line, default=0))}),
        "lengths": [
            length(value)
            for value in (
                *one.runtime.percentiles(0.5, 0.95),
                one.runtime.longest,
                *one.waiting.percentiles(0.5, 0.95),
            )
        ],
    }


def _worker(worker: WorkerState, found: Figures, links: Any) -> dict[str, Any]:
    is_online = worker in found.online
    if is_online:
        state, color = _("online"), "SUCCESS"
    elif shared.said_goodbye(worker):
        state, color = _("ended"), "PENDING"
    else:
        state, color = _("silent"), "FAILURE"
    return {
        "name": worker.hostname,
        "page": links.row("workerstate", worker.pk),
        "state": state,
        "color": color,
        "active": _NONE if worker.active is None or not is_online else number(worker.active),
        "processed": _NONE if worker.processed is None else number(worker.processed),
        "heartbeat": _age(worker.last_heartbeat, found),
    }


def _beat(found: Figures) -> dict[str, Any] | None:
    lease = found.leader
    if lease is None:
        return None
    return {
        "leader": lease.leader,
        "is_held": lease.is_held,
        "renewed": rough(lease.age_s),
        "since": rough(lease.held_s),
        "token": lease.token,
        "standbys": found.standbys,
        "is_partial": found.schedule.looked_at >= shared.MAX_ENTRIES,
        "others": [other for other in found.leases if other is not lease],
    }


def _camera(camera: Any, found: Figures) -> dict[str, Any]:
    counters = ("events", "missed", "malformed", "dropped", "refused", "waiting")
    return {
        "name": camera.name,
        "is_running": camera in found.running_cameras,
        "shutter": _age(camera.shutter_at, found),
        "event": _age(camera.event_at, found),
        "counters": [
            (type(camera)._meta.get_field(name).verbose_name, number(getattr(camera, name))) for name in counters
        ],
    }


def _failure(task: TaskState, links: Any) -> dict[str, Any]:
    if task.exception is None:
        why: str | SafeString = ""
    else:
        why = task.exception if links.may_see_arguments else _("(hidden)")
    return {
        "name": task.name or _("(unknown)"),
        "page": links.row("taskstate", task.pk),
        "when": naturaldate(task.tstamp, include_seconds=True),
        "worker": task.worker.hostname if task.worker else "",
        "why": problems.short(why),
    }
