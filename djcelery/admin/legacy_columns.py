"""The columns whose markup projects know from django-celery: colours and fonts are style attributes.

``djcelery.admin`` exports them for the admins of projects. Our own pages have those of ``columns``, which differ in
nothing else.
"""

from __future__ import annotations

from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from djcelery.admin.columns import NODE_STATE_COLORS, TASK_STATE_COLORS, local_text
from djcelery.admin_utils import display_field
from djcelery.models import TaskState, WorkerState


def _colored(text: str, color: str) -> SafeString:
    return format_html('<b><span style="color: {};">{}</span></b>', color, text)


@display_field(gettext_lazy("state"), "state")
def colored_state(task: TaskState) -> SafeString:
    """Return the state in its colour; states that Celery doesn't know are black."""
    return _colored(task.state, TASK_STATE_COLORS.get(task.state, "black"))


@display_field(gettext_lazy("state"), "last_heartbeat")
def node_state(node: WorkerState) -> SafeString:
    """Return ONLINE or OFFLINE, by the age of the last heartbeat."""
    state = "ONLINE" if node.is_alive() else "OFFLINE"
    return _colored(state, NODE_STATE_COLORS[state])


@display_field(gettext_lazy("ETA"), "eta")
def eta(task: TaskState) -> SafeString | str:
    """Return when the task was to run, in the project's time zone."""
    return local_text(task.eta) if task.eta else format_html('<span style="color: gray;">{}</span>', _("none"))
