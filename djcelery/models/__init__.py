"""The tables: results, schedule and monitor, under the names django-celery gave them.

Tables, columns and the migration ``0001_initial`` are those of django-celery 2.1 to 3.3, so an old
database is adopted in place. Engines write the rows, admin and user code read them.
Next: ``docs/explain/tables.rst``.
"""

from djcelery.models.monitor import TaskState, WorkerState
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
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    PeriodicTasks,
    cronexp,
    periodic_task_saved,
    schedule_row_changed,
)

__all__ = (
    "ALL_STATES",
    "PERIOD_CHOICES",
    "TASK_STATE_CHOICES",
    "Chord",
    "ChordPart",
    "CrontabSchedule",
    "IntervalSchedule",
    "PeriodicTask",
    "PeriodicTasks",
    "StoredResult",
    "TaskMeta",
    "TaskSetMeta",
    "TaskState",
    "WorkerState",
    "cronexp",
    "periodic_task_saved",
    "schedule_row_changed",
)
