"""The admin pages of every model; importing it registers them on the default site.

``tasks`` and ``workers`` show what the camera saw and send control commands to workers, ``schedule`` edits what
beat sends, ``runs`` shows what it sent, ``results`` shows what the result backend stored, ``overview`` says
whether everything is all right. ``base`` and ``columns`` are shared by them; ``control`` is the one place that
sends to the broker.
"""

from djcelery.admin.base import ModelMonitor, MonitorList
from djcelery.admin.columns import NODE_STATE_COLORS, TASK_STATE_COLORS, name, tstamp
from djcelery.admin.legacy_columns import colored_state, eta, node_state
from djcelery.admin.overview import Overview, OverviewAdmin
from djcelery.admin.results import ChordAdmin, TaskMetaAdmin, TaskSetMetaAdmin
from djcelery.admin.runs import PeriodicRunAdmin
from djcelery.admin.schedule import PeriodicTaskAdmin
from djcelery.admin.tasks import TaskMonitor
from djcelery.admin.times import ClockedScheduleAdmin, CrontabScheduleAdmin, IntervalScheduleAdmin, SolarScheduleAdmin
from djcelery.admin.workers import WorkerMonitor
from djcelery.admin_utils import action, display_field, fixedwidth
from djcelery.forms import LaxChoiceField, PeriodicTaskForm, TaskChoiceField, TaskSelectWidget

# Projects take the models from here, to register them on a site of their own.
from djcelery.models import CrontabSchedule, IntervalSchedule, PeriodicTask, TaskState, WorkerState

__all__ = (
    "NODE_STATE_COLORS",
    "TASK_STATE_COLORS",
    "ChordAdmin",
    "ClockedScheduleAdmin",
    "CrontabSchedule",
    "CrontabScheduleAdmin",
    "IntervalSchedule",
    "IntervalScheduleAdmin",
    "LaxChoiceField",
    "ModelMonitor",
    "MonitorList",
    "Overview",
    "OverviewAdmin",
    "PeriodicRunAdmin",
    "PeriodicTask",
    "PeriodicTaskAdmin",
    "PeriodicTaskForm",
    "SolarScheduleAdmin",
    "TaskChoiceField",
    "TaskMetaAdmin",
    "TaskMonitor",
    "TaskSelectWidget",
    "TaskSetMetaAdmin",
    "TaskState",
    "WorkerMonitor",
    "WorkerState",
    "action",
    "colored_state",
    "display_field",
    "eta",
    "fixedwidth",
    "name",
    "node_state",
    "tstamp",
)
