"""Is everything all right? What isn't, in plain words, and what to do about it.

Called by ``overview`` with what ``figures`` has gathered. Pure: no query, no clock, no broker.
Next: ``docs/monitor.rst``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from djcelery import figures, utils
from djcelery.admin.figures import Figures
from djcelery.humanize import naturaldate

ERROR, WARNING = "error", "warning"
#: Names that a sentence lists; the others are counted.
_LISTED = 3
#: Failures are a problem from so many in the period on, and from this share of what came to an end.
_FEW_FAILURES, _FAILED_SHARE = 5, 0.1
_OLD_MESSAGE_S = 300.0
_SKEW_S = 5.0


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be.

    ``level``: ``ERROR`` if work is not done, ``WARNING`` if it may be. ``page``: the model whose list shows more, or
    None; ``query``: its filter.
    """

    level: str
    what: str
    todo: str
    page: str | None = None
    query: str = ""


def find(found: Figures) -> list[Problem]:
    """Return the problems, errors first."""
    problems = [problem for rule in RULES for problem in rule(found)]
    return sorted(problems, key=lambda problem: problem.level != ERROR)


def _cameras(found: Figures) -> Iterator[Problem]:
    start = _("Start one: python manage.py celerycam")
    if not found.running_cameras:
        last = found.cameras[0] if found.cameras else None
        if last is None:
            yield Problem(ERROR, _("No camera has ever written here, so nothing of what happens is seen."), start)
        else:
            what = _("No camera is running: %(name)s wrote %(ago)s.")
            ago = naturaldate(last.shutter_at, include_seconds=True)
            yield Problem(ERROR, what % {"name": last.name, "ago": ago}, start)
        return
    for camera in found.running_cameras:
        if camera.error:
            what = _("The camera %(name)s reports: %(error)s") % {"name": camera.name, "error": short(camera.error)}
            yield Problem(ERROR, what, _("Its log has more. What it could not write it keeps, and tries again."))


def _events(found: Figures) -> Iterator[Problem]:
    """Cameras run, and hear nothing."""
    running = found.running_cameras
    if not running or any(figures.hears(camera, found.now) for camera in running):
        return
    heard = [camera.event_at for camera in running if camera.event_at]
    ago = naturaldate(max(heard, key=utils.to_utc)) if heard else ""
    what = _("No events arrive; the last came %(ago)s.") % {"ago": ago} if heard else _("No events arrive.")
    todo = _(
        "Start workers with events: python manage.py celeryd -E. Check that workers and camera use the same broker."
    )
    yield Problem(ERROR, what, todo)


def _workers(found: Figures) -> Iterator[Problem]:
    if found.workers and not found.online:
        todo = _("Start one: python manage.py celeryd -E")
        yield Problem(ERROR, _("No worker is online."), todo, "workerstate")
    elif found.silent:
        what = ngettext(
            "%(names)s fell silent without saying good-bye.",
            "%(names)s fell silent without saying good-bye.",
            len(found.silent),
        )
        names = _listed([worker.hostname for worker in found.silent])
        todo = _("Its machine or process may have died. If it was removed on purpose, its row goes by itself.")
        yield Problem(WARNING, what % {"names": names}, todo, "workerstate")
    events = _("Start workers with -E, or choose “Enable event mode” in their list.")
    if found.unheard:
        names = _listed([worker.hostname for worker in found.unheard])
        what = _("%(names)s ran tasks, and no event of one came.") % {"names": names}
        note = _("If they have it, this ends with their next task.")
        yield Problem(WARNING, what, f"{events} {note}", "workerstate")
    if found.lossy:
        names = _listed([worker.hostname for worker in found.lossy])
        what = _("Most tasks of %(names)s ran without an event.") % {"names": names}
        yield Problem(WARNING, what, events, "workerstate")
    skewed = [worker.hostname for worker in found.online if abs(worker.clock_skew or 0) >= _SKEW_S]
    if skewed:
        what = _("The clock of %(names)s is wrong by seconds.") % {"names": _listed(skewed)}
        yield Problem(WARNING, what, _("Times of its tasks are wrong, too. Synchronise it."), "workerstate")


def _broker(found: Figures) -> Iterator[Problem]:
    if found.broker.is_away:
        what = _("The broker doesn't answer: %(problem)s") % {"problem": short(found.broker.problem)}
        yield Problem(ERROR, what, _("Nothing can be sent or received until it does."))
        return
    for queue in found.broker.queues:
        if queue.consumers == 0 and queue.messages:
            what = ngettext(
                "Nobody takes from the queue %(name)s, where %(count)d message waits.",
                "Nobody takes from the queue %(name)s, where %(count)d messages wait.",
                queue.messages,
            )
            todo = _("Start a worker for it: python manage.py celeryd -E -Q %(name)s") % {"name": queue.name}
            yield Problem(ERROR, what % {"name": queue.name, "count": queue.messages}, todo)
        elif queue.oldest_s is not None and queue.oldest_s > _OLD_MESSAGE_S:
            ago = naturaldate(found.now - timedelta(seconds=queue.oldest_s))
            what = _("The oldest message in the queue %(name)s was sent %(ago)s.") % {"name": queue.name, "ago": ago}
            yield Problem(WARNING, what, _("Workers can't keep up, or none takes from it. Start more."))


def _beat(found: Figures) -> Iterator[Problem]:
    lease, schedule = found.leader, found.schedule
    start = _("Start one: python manage.py celerybeat -S djcelery.schedulers.DatabaseScheduler")
    if schedule.enabled and lease is None:
        yield Problem(WARNING, _("Periodic tasks are enabled, and no beat has ever run here."), start, "periodictask")
    elif schedule.enabled and lease is not None and not lease.is_held:
        ago = naturaldate(found.now + timedelta(seconds=lease.left_s), include_seconds=True)
        what = _("No beat is running: the last one led until %(ago)s. Periodic tasks are not sent.") % {"ago": ago}
        yield Problem(ERROR, what, start, "periodictask")
    elif schedule.overdue:
        what = ngettext("%(names)s is overdue.", "%(names)s are overdue.", len(schedule.overdue))
        names = _listed([entry.name for entry in schedule.overdue])
        yield Problem(ERROR, what % {"names": names}, _("The log of beat says why."), "periodictask")
    if schedule.unsent:
        what = ngettext(
            "Beat could not send %(count)d run so far: %(error)s",
            "Beat could not send %(count)d runs so far: %(error)s",
            schedule.unsent,
        )
        error = short(schedule.unsent_error or _("it waits for the broker"))
        todo = _("They are sent as soon as the broker takes them.")
        yield Problem(ERROR, what % {"count": schedule.unsent, "error": error}, todo, "periodicrun", "outcome=unsent")
    if schedule.held_out:
        what = ngettext(
            "Beat doesn't run %(names)s, because of an error.",
            "Beat doesn't run %(names)s, because of errors.",
            len(schedule.held_out),
        )
        names = _listed([name for _pk, name, _error in schedule.held_out])
        query = "enabled__exact=1&held_out=1"
        yield Problem(ERROR, what % {"names": names}, _("Its page says what to correct."), "periodictask", query)


def _tasks(found: Figures) -> Iterator[Problem]:
    failed = found.totals["FAILURE"]
    if failed >= _FEW_FAILURES and failed >= _FAILED_SHARE * found.finished:
        name, number = found.most_failed or ("", 0)
        if 2 * number > failed:
            what = ngettext(
                "%(count)d task failed, %(share)d %% of all that ended; most of them %(name)s.",
                "%(count)d tasks failed, %(share)d %% of all that ended; most of them %(name)s.",
                failed,
            )
        else:
            what = ngettext(
                "%(count)d task failed, %(share)d %% of all that ended.",
                "%(count)d tasks failed, %(share)d %% of all that ended.",
                failed,
            )
        share = round(100 * failed / max(found.finished, 1))
        what %= {"count": failed, "share": share, "name": name or _("(unknown)")}
        todo = _("The list of failed tasks has their tracebacks.")
        yield Problem(WARNING, what, todo, "taskstate", _searched("FAILURE"))
    if found.lost:
        what = ngettext(
            "%(count)d task of the last day is lost: its worker went away while it ran.",
            "%(count)d tasks of the last day are lost: their workers went away while they ran.",
            found.lost,
        )
        todo = _("Send again what must be done; the list has an action for it.")
        yield Problem(WARNING, what % {"count": found.lost}, todo, "taskstate", _searched("LOST"))
    if found.stuck:
        what = ngettext(
            "%(count)d task was received over an hour ago and not started.",
            "%(count)d tasks were received over an hour ago and not started.",
            found.stuck,
        )
        todo = _("Their workers are busy, or went away and took them along.")
        yield Problem(WARNING, what % {"count": found.stuck}, todo, "taskstate", _searched("RECEIVED"))
    if found.malformed:
        what = ngettext(
            "%(count)d malformed event arrived within the last hour.",
            "%(count)d malformed events arrived within the last hour.",
            found.malformed,
        )
        todo = _("They are kept apart, with the reasons, in the table of malformed events.")
        yield Problem(WARNING, what % {"count": found.malformed}, todo)


def _searched(state: str) -> str:
    # The search line of the task list.
    return urlencode({"q": f"state:{state}"})


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_LISTED])
    rest = len(names) - _LISTED
    if rest <= 0:
        return shown
    more = ngettext("%(names)s and %(count)d more", "%(names)s and %(count)d more", rest)
    return more % {"names": shown, "count": rest}


def short(text: str, length: int = 200) -> str:
    """Return *text* on one line, cut if it is long."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[:length]}…"


RULES: tuple[Callable[[Any], Iterator[Problem]], ...] = (_broker, _cameras, _events, _workers, _beat, _tasks)
