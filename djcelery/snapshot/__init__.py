"""The camera: writes what the events say of tasks and workers to the monitor's tables.

``celerycam`` runs ``program``, with a receiver of its own; ``celery events -c djcelery.snapshot.Camera`` runs
``camera.Camera`` on Celery's. Both take events apart in ``intake`` and ``merging`` and write by ``writer``.
Next: ``docs/explain/life-of-a-task-event.rst``.
"""

from __future__ import annotations

from djcelery.conf import conf
from djcelery.deprecation import Old, old_names
from djcelery.snapshot.camera import (
    NOT_SAVED_ATTRIBUTES,
    SUCCESS_STATES,
    WORKER_UPDATE_FREQ,
    Camera,
    aware_tstamp,
)

__all__ = ("NOT_SAVED_ATTRIBUTES", "SUCCESS_STATES", "WORKER_UPDATE_FREQ", "Camera", "aware_tstamp")

__getattr__ = old_names(
    __name__,
    {
        "EXPIRE_SUCCESS": Old("the setting CELERYCAM_EXPIRE_SUCCESS", lambda: conf.CELERYCAM_EXPIRE_SUCCESS),
        "EXPIRE_ERROR": Old("the setting CELERYCAM_EXPIRE_ERROR", lambda: conf.CELERYCAM_EXPIRE_ERROR),
        "EXPIRE_PENDING": Old("the setting CELERYCAM_EXPIRE_PENDING", lambda: conf.CELERYCAM_EXPIRE_PENDING),
    },
)
