"""The tables: results, schedule and monitor, under the names django-celery gave them.

Tables, columns and the migration ``0001_initial`` are those of django-celery 2.1 to 3.3, so an old
database is adopted in place. Engines write the rows, admin and user code read them.
Next: ``docs/explain/tables.rst``.
"""

from celery import states

from djcelery.deprecation import Old, old_names
from djcelery.models.beat import BeatLease, BeatStandby, PeriodicRun, ScheduleChange
from djcelery.models.history import CameraState, MalformedEvent, MonitorGate, TaskHistory
from djcelery.models.monitor import LOST, TaskState, WorkerState
from djcelery.models.noted import noted_raw_save
from djcelery.models.periodic import (
    BOOKKEEPING,
    PeriodicTask,
    PeriodicTasks,
    note_migrated,
    periodic_task_saved,
    schedule_row_changed,
)
from djcelery.models.results import (
    ALL_STATES,
    TASK_STATE_CHOICES,
    Chord,
    ChordPart,
    StoredResult,
    TaskMeta,
    TaskSetMeta,
)
from djcelery.models.schedule import (
    PERIOD_CHOICES,
    SOLAR_CHOICES,
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    SolarSchedule,
    cronexp,
)

#: The tables of times.
TIMES = (IntervalSchedule, CrontabSchedule, SolarSchedule, ClockedSchedule)

__all__ = (
    "ALL_STATES",
    "BOOKKEEPING",
    "LOST",
    "PERIOD_CHOICES",
    "SOLAR_CHOICES",
    "TASK_STATE_CHOICES",
    "TIMES",
    "BeatLease",
    "BeatStandby",
    "CameraState",
    "Chord",
    "ChordPart",
    "ClockedSchedule",
    "CrontabSchedule",
    "IntervalSchedule",
    "MalformedEvent",
    "MonitorGate",
    "PeriodicRun",
    "PeriodicTask",
    "PeriodicTasks",
    "ScheduleChange",
    "SolarSchedule",
    "StoredResult",
    "TaskHistory",
    "TaskMeta",
    "TaskSetMeta",
    "TaskState",
    "WorkerState",
    "cronexp",
    "note_migrated",
    "noted_raw_save",
    "periodic_task_saved",
    "schedule_row_changed",
)

for _model in (TaskMeta, TaskSetMeta, IntervalSchedule, CrontabSchedule, PeriodicTask, WorkerState, TaskState):
    # The admins of projects that were written for django-celery name this in list_display.
    _model.__unicode__ = _model.__str__  # type: ignore[attr-defined]

__getattr__ = old_names(
    __name__,
    given={
        "HEARTBEAT_EXPIRE": Old("WorkerState.is_alive()", lambda: 150),
        "TASK_STATUSES": Old("djcelery.models.ALL_STATES", lambda: ALL_STATES),
        "TASK_STATUSES_CHOICES": Old("djcelery.models.TASK_STATE_CHOICES", lambda: TASK_STATE_CHOICES),
        "TASK_STATUS_DONE": Old("celery.states.SUCCESS", lambda: states.SUCCESS),
        "TASK_STATUS_FAILURE": Old("celery.states.FAILURE", lambda: states.FAILURE),
        "TASK_STATUS_PENDING": Old("celery.states.PENDING", lambda: states.PENDING),
        "TASK_STATUS_RETRY": Old("celery.states.RETRY", lambda: states.RETRY),
    },
    gone={"PeriodicTaskMeta": "PeriodicTask has the names, last runs and counts of what beat sends."},
)
