"""What the monitor keeps for longer than rows of tasks: counts per time and name, and how its cameras do.

Written by the camera in the transaction that writes the tasks; read by the overview, the health command and the
metrics.
Next: ``docs/explain/life-of-a-task-event.rst``.
"""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from djcelery import managers


class TaskHistory(models.Model):
    """How often tasks of one name came to one state in one period, and how long they waited and ran.

    One row per ``period``, ``start``, ``name`` and ``state``. ``total`` is the sum since the beginning, with the
    epoch as start; it never shrinks. Written by ``Camera``; minutes are deleted after ``DJCELERY_HISTORY_MINUTES``,
    hours after ``DJCELERY_HISTORY_HOURS``. A task counts in the period in which it came to the state, once: a finished
    task that an event finishes again doesn't count again. RETRY counts retries, RECEIVED first receptions.
    """

    MINUTE, HOUR, TOTAL = "minute", "hour", "total"

    id = models.BigAutoField(primary_key=True)
    period = models.CharField(max_length=8)
    start = models.DateTimeField(_("start"))
    name = models.CharField(_("name"), max_length=200)
    state = models.CharField(_("state"), max_length=64)
    count = models.BigIntegerField(_("count"))
    # Seconds. How many of the tasks they are of: of some only the end was seen.
    runtime_count = models.BigIntegerField(default=0)
    runtime_sum = models.FloatField(default=0)
    runtime_max = models.FloatField(null=True)
    waiting_count = models.BigIntegerField(default=0)
    waiting_sum = models.FloatField(default=0)
    waiting_max = models.FloatField(null=True)
    # As djcelery.managers.history.Histogram writes them: numbers of tasks by bucket.
    runtime_histogram = models.TextField(default="")
    waiting_histogram = models.TextField(default="")

    objects = managers.TaskHistoryManager()

    class Meta:
        verbose_name = _("history of tasks")
        verbose_name_plural = _("history of tasks")
        constraints = (
            models.UniqueConstraint(fields=("period", "start", "name", "state"), name="djcelery_taskhistory_once"),
        )

    def __str__(self) -> str:
        return f"{self.name} {self.state} {self.period} {self.start}: {self.count}"


class CameraState(models.Model):
    """How one camera does. Written by the camera itself at each shutter, one row per ``name`` (its node name).

    The counters are sums since the row was made, over restarts of the camera.
    """

    name = models.CharField(_("name"), max_length=255)
    hostname = models.CharField(_("host"), max_length=255)
    pid = models.BigIntegerField(_("process id"))
    started_at = models.DateTimeField(_("started at"))
    shutter_at = models.DateTimeField(_("last shutter at"))
    event_at = models.DateTimeField(_("last event at"), null=True)
    stopped_at = models.DateTimeField(_("stopped at"), null=True)
    frequency = models.FloatField(_("seconds between two shutters"))
    events = models.BigIntegerField(_("events"), default=0)
    malformed = models.BigIntegerField(_("malformed events"), default=0)
    dropped = models.BigIntegerField(
        _("dropped"), default=0, help_text=_("tasks beyond the limit of what may wait to be written")
    )
    refused = models.BigIntegerField(_("refused"), default=0, help_text=_("rows that the database refused"))
    missed = models.BigIntegerField(_("missed"), default=0, help_text=_("tasks that ran and of which no event came"))
    waiting = models.IntegerField(_("waiting"), default=0, help_text=_("tasks that wait to be written"))
    error = models.TextField(_("error"), null=True)

    objects = managers.CameraStateManager()

    class Meta:
        verbose_name = _("camera")
        verbose_name_plural = _("cameras")
        constraints = (models.UniqueConstraint(fields=("name",), name="djcelery_camerastate_name"),)

    def __str__(self) -> str:
        return self.name


class MalformedEvent(models.Model):
    """An event that can't be read, kept apart. Written by the camera; it keeps the latest thousand."""

    id = models.BigAutoField(primary_key=True)
    seen_at = models.DateTimeField(_("seen at"))
    camera = models.CharField(_("camera"), max_length=255)
    reason = models.CharField(_("reason"), max_length=255)
    body = models.TextField(_("event"), help_text=_("cut to 2,000 characters"))

    objects = managers.ExtendedManager()

    class Meta:
        verbose_name = _("malformed event")
        verbose_name_plural = _("malformed events")

    def __str__(self) -> str:
        return self.reason


class MonitorGate(models.Model):
    """The row that a camera locks while it writes, so that several cameras count nothing twice. One row, ``id`` 1."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    written_at = models.DateTimeField()

    objects = managers.ExtendedManager()

    class Meta:
        verbose_name = _("gate of the monitor")
        verbose_name_plural = _("gates of the monitor")

    def __str__(self) -> str:
        return str(self.written_at)
