"""Querysets and managers of the result, schedule and monitor tables.

Called by the engines and by user code through ``Model.objects``; no model is imported here.
"""

from djcelery.managers.base import ExtendedManager, ExtendedQuerySet, transaction_retry, update_model_with_dict
from djcelery.managers.chords import ChordManager
from djcelery.managers.monitor import TaskStateManager
from djcelery.managers.results import (
    FINAL_STATES,
    ResultManager,
    TaskManager,
    TaskSetManager,
    TxIsolationWarning,
    may_replace,
)
from djcelery.managers.schedule import PeriodicTaskManager, PeriodicTaskQuerySet

__all__ = (
    "FINAL_STATES",
    "ChordManager",
    "ExtendedManager",
    "ExtendedQuerySet",
    "PeriodicTaskManager",
    "PeriodicTaskQuerySet",
    "ResultManager",
    "TaskManager",
    "TaskSetManager",
    "TaskStateManager",
    "TxIsolationWarning",
    "may_replace",
    "transaction_retry",
    "update_model_with_dict",
)
