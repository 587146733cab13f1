"""The tables of the monitor: workers, and what their events said of each task.

Written by the camera, one row per worker and per task id, and deleted by it; read by the admin.
Next: ``docs/explain/life-of-a-task-event.rst``.
"""

from __future__ import annotations

import time

from celery.events.state import heartbeat_expires
from django.db import models
from django.utils.translation import gettext_lazy as _

from djcelery import managers, utils
from djcelery.models.results import TASK_STATE_CHOICES


class WorkerState(models.Model):
    """A worker that the camera has seen, and its last heartbeat. The unique key is ``hostname``."""

    hostname = models.CharField(_("hostname"), max_length=255, unique=True)
    last_heartbeat = models.DateTimeField(_("last heartbeat"), null=True, db_index=True)

    objects = managers.ExtendedManager()

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")
        get_latest_by = "last_heartbeat"
        ordering = ("-last_heartbeat",)

    def __str__(self) -> str:
        return self.hostname

    def __repr__(self) -> str:
        return f"<WorkerState: {self.hostname}>"

    def is_alive(self) -> bool:
        """Tell whether the last heartbeat is recent: by Celery's rule, two minutes."""
        if not self.last_heartbeat:
            return False
        return time.time() < heartbeat_expires(self.heartbeat_timestamp)

    @property
    def heartbeat_timestamp(self) -> float:
        """The last heartbeat in seconds since the epoch."""
        return utils.to_utc(self.last_heartbeat).timestamp()


class TaskState(models.Model):
    """What the camera has seen of one task. Written by ``Camera``, deleted by its cleanup."""

    state = models.CharField(_("state"), max_length=64, choices=TASK_STATE_CHOICES, db_index=True)
    task_id = models.CharField(_("UUID"), max_length=36, unique=True)
    name = models.CharField(_("name"), max_length=200, null=True, db_index=True)
    tstamp = models.DateTimeField(_("event received at"), db_index=True)
    args = models.TextField(_("Arguments"), null=True)
    kwargs = models.TextField(_("Keyword arguments"), null=True)
    eta = models.DateTimeField(_("ETA"), null=True)
    expires = models.DateTimeField(_("expires"), null=True)
    result = models.TextField(_("result"), null=True)
    traceback = models.TextField(_("traceback"), null=True)
    runtime = models.FloatField(_("execution time"), null=True, help_text=_("in seconds if task succeeded"))
    retries = models.IntegerField(_("number of retries"), default=0)
    worker = models.ForeignKey(WorkerState, null=True, verbose_name=_("worker"), on_delete=models.CASCADE)
    hidden = models.BooleanField(editable=False, default=False, db_index=True)

    objects = managers.TaskStateManager()

    class Meta:
        verbose_name = _("task")
        verbose_name_plural = _("tasks")
        get_latest_by = "tstamp"
        ordering = ("-tstamp",)

    def __str__(self) -> str:
        text = f"{self.state or '':<10} {self.task_id or '':<36} {self.name or 'UNKNOWN'}"
        return f"{text} eta:{self.eta}" if self.eta else text

    def __repr__(self) -> str:
        return f"<TaskState: {self.state} {self.name or 'UNKNOWN'}[{self.task_id}] ts:{self.tstamp}>"
