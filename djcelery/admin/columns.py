"""List columns: functions that take the row and return text or safe HTML.

What a task sent, such as its name, goes through ``format_html`` only. Colours are classes of ``style.css``, since a
strict Content-Security-Policy refuses style attributes; ``legacy_columns`` has those of django-celery.
"""

from __future__ import annotations

from datetime import datetime

from celery import states
from celery.utils.text import abbrtask
from django.utils.formats import number_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from djcelery import utils
from djcelery.admin_utils import display_field
from djcelery.humanize import naturaldate
from djcelery.models import TaskMeta, TaskState, WorkerState
from djcelery.models.monitor import LOST

TASK_STATE_COLORS = {
    states.SUCCESS: "green",
    states.FAILURE: "red",
    states.REVOKED: "magenta",
    states.STARTED: "yellow",
    states.RETRY: "orange",
    "RECEIVED": "blue",
    LOST: "red",
}
NODE_STATE_COLORS = {"ONLINE": "green", "OFFLINE": "gray"}

_NAME_LENGTH = 16
_WITHOUT_OFFSET = len("2026-06-01 12:00:00")


def colored(text: str, color: str) -> SafeString:
    """Return *text* in bold and in *color*, one that can be read on white and on dark."""
    return format_html('<b class="djcelery-{}">{}</b>', color, text)


def local_text(value: datetime) -> str:
    """Return *value* in the project's time zone, to the second, with its offset if it is aware."""
    return str(utils.correct_awareness(value).replace(microsecond=0))


def short_moment(value: datetime) -> SafeString:
    """Return *value* in the project's time zone, to the second; the tooltip has its offset, too."""
    text = local_text(value)
    return format_html('<span title="{}">{}</span>', text, text[:_WITHOUT_OFFSET])


@display_field(gettext_lazy("state"), "state")
def colored_state(task: TaskState) -> SafeString:
    """Return the state in its colour; states that Celery doesn't know are black."""
    return colored(task.state, TASK_STATE_COLORS.get(task.state, "black"))


@display_field(gettext_lazy("state"), "status")
def colored_status(task: TaskMeta) -> SafeString:
    """Return the state of a stored result in its colour."""
    return colored(task.status, TASK_STATE_COLORS.get(task.status, "black"))


@display_field(gettext_lazy("state"), "last_heartbeat")
def node_state(node: WorkerState) -> SafeString:
    """Return ONLINE or OFFLINE, by the age of the last heartbeat."""
    state = "ONLINE" if node.is_alive() else "OFFLINE"
    return colored(state, NODE_STATE_COLORS[state])


@display_field(gettext_lazy("ETA"), "eta")
def eta(task: TaskState) -> SafeString:
    """Return when the task was to run, in the project's time zone."""
    if not task.eta:
        return format_html('<span class="djcelery-gray">{}</span>', _("none"))
    return short_moment(task.eta)


@display_field(gettext_lazy("runtime"), None)
def runtime(task: TaskState | TaskMeta) -> str | None:
    """Return how long the last execution took, to the millisecond."""
    return seconds(task.runtime)


def seconds(value: float | None) -> str | None:
    """Return a length of time in seconds, to the millisecond."""
    return None if value is None else f"{number_format(value, 3)} s"


@display_field(gettext_lazy("worker"), None)
def worker(task: TaskState | TaskMeta) -> SafeString | None:
    """Return the worker that has the task, cut like the id."""
    return format_html('<span title="{}">{}</span>', task.worker, task.worker) if task.worker else None


@display_field(gettext_lazy("when"), "tstamp")
def tstamp(task: TaskState) -> SafeString:
    """Return how long ago the last event came, with the time in the tooltip."""
    return ago(task.tstamp)


def ago(value: datetime) -> SafeString:
    """Return how long ago *value* was, with the time itself in the tooltip."""
    return format_html('<div title="{}">{}</div>', local_text(value), naturaldate(value))


@display_field(gettext_lazy("name"), "name")
def name(task: TaskState) -> SafeString:
    """Return the task's name, its package abbreviated, with all of it in the tooltip."""
    return format_html('<div title="{}"><b>{}</b></div>', task.name or "", abbrtask(task.name, _NAME_LENGTH))
