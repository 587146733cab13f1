"""Querysets and managers of the result, schedule and monitor tables.

Called by the engines and by user code through ``Model.objects``; no model is imported here.
"""

from djcelery.managers.base import ExtendedManager, ExtendedQuerySet, transaction_retry, update_model_with_dict
from djcelery.managers.chords import ChordManager
from djcelery.managers.monitor import TaskStateManager
from djcelery.managers.results import ResultManager, TaskManager, TaskQuerySet, TaskSetManager, TxIsolationWarning
from djcelery.managers.schedule import PeriodicTaskManager, PeriodicTaskQuerySet
from djcelery.managers.statements import FINAL_STATES, may_replace

__all__ = (
    "FINAL_STATES",
    "ChordManager",
    "ExtendedManager",
    "ExtendedQuerySet",
    "PeriodicTaskManager",
    "PeriodicTaskQuerySet",
    "ResultManager",
    "TaskManager",
    "TaskQuerySet",
    "TaskSetManager",
    "TaskStateManager",
    "TxIsolationWarning",
    "may_replace",
    "transaction_retry",
    "update_model_with_dict",
)
