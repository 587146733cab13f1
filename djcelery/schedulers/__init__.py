"""The beat scheduler whose entries are rows of ``PeriodicTask``.

``scheduler`` is the loop that beat calls; ``entry`` is one row as people's code sees it.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from djcelery.schedulers.entry import DEFAULT_MAX_INTERVAL, ModelEntry
from djcelery.schedulers.scheduler import ADD_ENTRY_ERROR, DatabaseScheduler

__all__ = ("ADD_ENTRY_ERROR", "DEFAULT_MAX_INTERVAL", "DatabaseScheduler", "ModelEntry")
