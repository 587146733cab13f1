"""The tables of the monitor: workers, and what their events said of each task.

Written by the camera, one row per worker and per task id, and deleted by it; read by the admin. What lasts
longer than rows of tasks is in ``history``.
Next: ``docs/explain/life-of-a-task-event.rst``.
"""

from __future__ import annotations

import time

from celery.events.state import heartbeat_expires
from django.db import models
from django.utils.translation import gettext_lazy as _

from djcelery import managers, utils
from djcelery.models.indexes import FilterIndex, SparseIndex
from djcelery.models.results import TASK_STATE_CHOICES

#: The state of a task that was started by a worker which is gone. Any later event of the task replaces it.
LOST = "LOST"


class WorkerState(models.Model):
    """A worker that the camera has seen: its last heartbeat, and what that said. The unique key is ``hostname``.

    Deleted by the camera when it was not heard of for ``DJCELERY_WORKER_EXPIRES``. Columns that came after
    django-celery are NULL in its rows.
    """

    hostname = models.CharField(_("hostname"), max_length=255, unique=True)
    last_heartbeat = models.DateTimeField(_("last heartbeat"), null=True, db_index=True)
    online_at = models.DateTimeField(_("online since"), null=True, blank=True, editable=False)
    offline_at = models.DateTimeField(
        _("offline since"),
        null=True,
        blank=True,
        editable=False,
        help_text=_("when it said good-bye; empty if it did not"),
    )
    software = models.CharField(_("software"), max_length=64, null=True, blank=True, editable=False)
    version = models.CharField(_("version"), max_length=64, null=True, blank=True, editable=False)
    system = models.CharField(_("system"), max_length=64, null=True, blank=True, editable=False)
    pid = models.BigIntegerField(_("process id"), null=True, blank=True, editable=False)
    processed = models.BigIntegerField(
        _("processed"),
        null=True,
        blank=True,
        editable=False,
        help_text=_("tasks since the worker started, by its own count"),
    )
    active = models.IntegerField(_("active"), null=True, blank=True, editable=False, help_text=_("tasks that run now"))
    load = models.CharField(
        _("load"), max_length=64, null=True, blank=True, editable=False, help_text=_("of 1, 5 and 15 minutes")
    )
    clock_skew = models.FloatField(
        _("clock skew"),
        null=True,
        blank=True,
        editable=False,
        help_text=_("seconds by which its clock is ahead of the camera's"),
    )
    frequency = models.FloatField(
        _("heartbeat interval"), null=True, blank=True, editable=False, help_text=_("seconds between two heartbeats")
    )
    missed = models.BigIntegerField(
        _("missed"), null=True, blank=True, editable=False, help_text=_("tasks it ran of which no event came")
    )
    seen = models.BigIntegerField(
        _("seen"),
        null=True,
        blank=True,
        editable=False,
        help_text=_("tasks since the worker started of which events came, or that are counted as missed"),
    )

    objects = managers.WorkerStateManager()

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")
        get_latest_by = "last_heartbeat"
        ordering = ("-last_heartbeat",)
        permissions = (
            ("shutdown_workerstate", "Can shut workers down"),
            ("events_workerstate", "Can switch the events of workers on and off"),
            ("pool_workerstate", "Can grow and shrink the pools of workers"),
            ("consumer_workerstate", "Can have workers take from queues or leave them"),
            ("timelimit_workerstate", "Can set time limits of tasks on workers"),
            ("inspect_workerstate", "Can ask workers what they do"),
        )

    def __str__(self) -> str:
        return self.hostname

    def __repr__(self) -> str:
        return f"<WorkerState: {self.hostname}>"

    def is_alive(self) -> bool:
        """Tell whether the worker is online: its last heartbeat is recent, and it has not said good-bye since.

        Recent is four heartbeats, and 30 seconds at least; by Celery's rule, two minutes, if the row doesn't know how
        often heartbeats come.
        """
        if not self.last_heartbeat or (self.offline_at and self.offline_at >= self.last_heartbeat):
            return False
        if self.frequency:
            return time.time() < self.heartbeat_timestamp + max(30.0, 4 * self.frequency)
        return time.time() < heartbeat_expires(self.heartbeat_timestamp)

    @property
    def heartbeat_timestamp(self) -> float:
        """The last heartbeat in seconds since the epoch."""
        return utils.to_utc(self.last_heartbeat).timestamp()


class TaskState(models.Model):
    """What the camera has seen of one task. Written by ``Camera``, deleted by its cleanup.

    Columns that came after django-celery are NULL in its rows. ``retried_as`` is written by the admin.
    """

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
    queue = models.CharField(_("queue"), max_length=200, null=True, blank=True, editable=False)
    routing_key = models.CharField(_("routing key"), max_length=200, null=True, blank=True, editable=False)
    root_id = models.CharField(_("root task id"), max_length=255, null=True, blank=True, editable=False)
    parent_id = models.CharField(_("parent task id"), max_length=255, null=True, blank=True, editable=False)
    client = models.CharField(
        _("client"), max_length=255, null=True, blank=True, editable=False, help_text=_("who sent the task")
    )
    sent_at = models.DateTimeField(_("sent at"), null=True, blank=True, editable=False)
    received_at = models.DateTimeField(_("received at"), null=True, blank=True, editable=False)
    started_at = models.DateTimeField(_("started at"), null=True, blank=True, editable=False)
    finished_at = models.DateTimeField(_("finished at"), null=True, blank=True, editable=False)
    exception = models.TextField(_("exception"), null=True, blank=True, editable=False)
    progress = models.TextField(
        _("progress"), null=True, blank=True, editable=False, help_text=_("JSON of the last event of the project's own")
    )
    retried_as = models.CharField(_("retried as"), max_length=36, null=True, blank=True, editable=False)
    flags = models.CharField(
        _("flags"),
        max_length=255,
        null=True,
        blank=True,
        editable=False,
        help_text=_("what was cut, escaped or redacted"),
    )

    objects = managers.TaskStateManager()

    class Meta:
        verbose_name = _("task")
        verbose_name_plural = _("tasks")
        get_latest_by = "tstamp"
        ordering = ("-tstamp",)
        # One for each filter of the admin and each pair of them: without the pair, a state that a frequent task never
        # has would be looked for in all its rows.
        indexes = (
            FilterIndex(fields=("state", "tstamp"), name="djcelery_task_state"),
            # PostgreSQL alone has operator classes: this one serves LIKE 'shop.%' too, whatever the collation.
            FilterIndex(fields=("name", "tstamp"), name="djcelery_task_name", opclasses=("varchar_pattern_ops", "")),
            FilterIndex(fields=("worker", "tstamp"), name="djcelery_task_worker"),
            FilterIndex(fields=("name", "state", "tstamp"), name="djcelery_task_name_state"),
            FilterIndex(fields=("worker", "state", "tstamp"), name="djcelery_task_worker_state"),
            FilterIndex(fields=("name", "worker", "tstamp"), name="djcelery_task_name_worker"),
            SparseIndex(fields=("eta",), name="djcelery_task_eta", present="eta"),
            SparseIndex(fields=("root_id", "parent_id"), name="djcelery_task_root", present="parent_id"),
            SparseIndex(fields=("retried_as",), name="djcelery_task_again", present="retried_as"),
        )
        permissions = (
            ("revoke_taskstate", "Can revoke tasks"),
            ("terminate_taskstate", "Can terminate running tasks"),
            ("kill_taskstate", "Can kill running tasks"),
            ("ratelimit_taskstate", "Can limit the rate of tasks"),
            ("retry_taskstate", "Can send tasks again"),
            ("arguments_taskstate", "Can see arguments and results of tasks"),
            ("apply_taskstate", "Can send the tasks that views may send"),
        )

    def __str__(self) -> str:
        text = f"{self.state or '':<10} {self.task_id or '':<36} {self.name or 'UNKNOWN'}"
        return f"{text} eta:{self.eta}" if self.eta else text

    def __repr__(self) -> str:
        return f"<TaskState: {self.state} {self.name or 'UNKNOWN'}[{self.task_id}] ts:{self.tstamp}>"
