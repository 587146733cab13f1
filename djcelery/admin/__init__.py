"""The admin pages of every model; importing it registers them on the default site.

``monitor`` shows what the camera saw and sends control commands to workers, ``schedule`` edits what
beat sends, ``results`` shows what the result backend stored. ``base`` and ``columns`` are shared by
them; ``control`` is the one place that talks to the broker.
"""

from djcelery.admin.base import ModelMonitor, MonitorList
from djcelery.admin.columns import (
    NODE_STATE_COLORS,
    TASK_STATE_COLORS,
    colored_state,
    eta,
    name,
    node_state,
    tstamp,
)
from djcelery.admin.monitor import TaskMonitor, WorkerMonitor
from djcelery.admin.results import ChordAdmin, TaskMetaAdmin, TaskSetMetaAdmin
from djcelery.admin.schedule import CrontabScheduleAdmin, IntervalScheduleAdmin, PeriodicTaskAdmin
from djcelery.admin_utils import action, display_field, fixedwidth
from djcelery.forms import LaxChoiceField, PeriodicTaskForm, TaskChoiceField, TaskSelectWidget

__all__ = (
    "NODE_STATE_COLORS",
    "TASK_STATE_COLORS",
    "ChordAdmin",
    "CrontabScheduleAdmin",
    "IntervalScheduleAdmin",
    "LaxChoiceField",
    "ModelMonitor",
    "MonitorList",
    "PeriodicTaskAdmin",
    "PeriodicTaskForm",
    "TaskChoiceField",
    "TaskMetaAdmin",
    "TaskMonitor",
    "TaskSelectWidget",
    "TaskSetMetaAdmin",
    "WorkerMonitor",
    "action",
    "colored_state",
    "display_field",
    "eta",
    "fixedwidth",
    "name",
    "node_state",
    "tstamp",
)
