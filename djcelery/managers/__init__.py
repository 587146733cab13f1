"""Querysets and managers of the result, schedule and monitor tables.

Called by the engines and by user code through ``Model.objects``; no model is imported here.
"""

from djcelery.managers.base import ExtendedManager, ExtendedQuerySet, transaction_retry, update_model_with_dict
from djcelery.managers.chords import ChordManager
from djcelery.managers.history import CameraStateManager, TaskHistoryManager
from djcelery.managers.monitor import TaskStateManager, WorkerStateManager
from djcelery.managers.results import ResultManager, TaskManager, TaskQuerySet, TaskSetManager, TxIsolationWarning
from djcelery.managers.runs import PeriodicRunManager, PeriodicRunQuerySet, ScheduleChangeManager
from djcelery.managers.schedule import NotedManager, NotedQuerySet, PeriodicTaskManager, PeriodicTaskQuerySet
from djcelery.managers.statements import FINAL_STATES, may_replace

__all__ = (
    "FINAL_STATES",
    "CameraStateManager",
    "ChordManager",
    "ExtendedManager",
    "ExtendedQuerySet",
    "NotedManager",
    "NotedQuerySet",
    "PeriodicRunManager",
    "PeriodicRunQuerySet",
    "PeriodicTaskManager",
    "PeriodicTaskQuerySet",
    "ResultManager",
    "ScheduleChangeManager",
    "TaskHistoryManager",
    "TaskManager",
    "TaskQuerySet",
    "TaskSetManager",
    "TaskStateManager",
    "TxIsolationWarning",
    "WorkerStateManager",
    "may_replace",
    "transaction_retry",
    "update_model_with_dict",
)
