"""The tables of results: tasks, saved groups, and chords that wait for their parts.

Written by the database result backend through ``managers``; read by it, by the admin and by user code.
Next: ``docs/explain/life-of-a-result.rst``.
"""

from __future__ import annotations

from typing import Any

from celery import states
from django.db import models
from django.utils.translation import gettext_lazy as _

from djcelery import managers
from djcelery.models.indexes import FilterIndex, SparseIndex
from djcelery.picklefield import StoredValueField

ALL_STATES = sorted(states.ALL_STATES)
TASK_STATE_CHOICES = list(zip(ALL_STATES, ALL_STATES, strict=True))


class StoredResult(models.Model):
    """What the two result tables share: when the row was written, and how its values are encoded."""

    date_done = models.DateTimeField(_("done at"), auto_now=True)
    hidden = models.BooleanField(editable=False, default=False, db_index=True)
    content_type = models.CharField(
        _("content type"),
        max_length=128,
        null=True,
        editable=False,
        help_text=_("How the values are encoded; empty for a pickle that django-celery wrote."),
    )
    content_encoding = models.CharField(max_length=64, null=True, editable=False)

    class Meta:
        abstract = True


class TaskMeta(StoredResult):
    """The life of one task: what was called, where it ran, when, and how it ended.

    Written by the database result backend, one row per ``task_id``; deleted by
    ``celery.backend_cleanup`` when ``date_done`` is older than ``CELERY_RESULT_EXPIRES`` or
    ``DJCELERY_RETENTION`` says. Columns that came after django-celery are NULL in its rows.
    """

    task_id = models.CharField(_("task id"), max_length=255, unique=True)
    status = models.CharField(_("state"), max_length=50, default=states.PENDING, choices=TASK_STATE_CHOICES)
    result = StoredValueField(null=True, default=None, editable=False)
    traceback = models.TextField(_("traceback"), blank=True, null=True)
    meta: Any = StoredValueField(compress=True, null=True, default=None, editable=False)
    name = models.CharField(_("task name"), max_length=255, null=True, blank=True, editable=False)
    args = models.JSONField(_("arguments"), null=True, blank=True, editable=False)
    kwargs = models.JSONField(_("keyword arguments"), null=True, blank=True, editable=False)
    worker = models.CharField(_("worker"), max_length=255, null=True, blank=True, editable=False)
    queue = models.CharField(_("queue"), max_length=255, null=True, blank=True, editable=False)
    periodic_task = models.CharField(_("periodic task"), max_length=255, null=True, blank=True, editable=False)
    retries = models.IntegerField(_("retries"), null=True, blank=True, editable=False)
    root_id = models.CharField(_("root task id"), max_length=255, null=True, blank=True, editable=False)
    parent_id = models.CharField(_("parent task id"), max_length=255, null=True, blank=True, editable=False)
    group_id = models.CharField(_("group id"), max_length=255, null=True, blank=True, editable=False)
    created = models.DateTimeField(_("sent at"), null=True, blank=True, editable=False)
    started = models.DateTimeField(_("started at"), null=True, blank=True, editable=False)
    finished = models.DateTimeField(_("finished at"), null=True, blank=True, editable=False)
    runtime = models.FloatField(
        _("execution time"), null=True, blank=True, editable=False, help_text=_("in seconds, of the last execution")
    )
    progress = models.JSONField(_("progress"), null=True, blank=True, editable=False)
    flags = models.CharField(
        _("flags"),
        max_length=255,
        null=True,
        blank=True,
        editable=False,
        help_text=_("what was cut, escaped or redacted"),
    )

    objects = managers.TaskManager()

    class Meta:
        verbose_name = _("task state")
        verbose_name_plural = _("task states")
        db_table = "celery_taskmeta"
        indexes = (
            models.Index(fields=("status", "date_done"), name="djcelery_taskmeta_state_done"),
            # PostgreSQL alone has operator classes: this one serves LIKE 'shop.%' too, whatever the collation.
            models.Index(
                fields=("name", "date_done"),
                name="djcelery_taskmeta_name_done",
                opclasses=("varchar_pattern_ops", "timestamptz_ops"),
            ),
            # The rest is for the lists of the admin: one for each filter and each pair of them.
            models.Index(fields=("date_done",), name="djcelery_taskmeta_done"),
            models.Index(
                fields=("worker", "date_done"), name="djcelery_taskmeta_worker", opclasses=("varchar_pattern_ops", "")
            ),
            FilterIndex(fields=("name", "status", "date_done"), name="djcelery_taskmeta_name_state"),
            FilterIndex(fields=("worker", "status", "date_done"), name="djcelery_taskmeta_worker_state"),
            FilterIndex(fields=("name", "worker", "date_done"), name="djcelery_taskmeta_name_worker"),
            SparseIndex(fields=("root_id",), name="djcelery_taskmeta_root", present="parent_id"),
        )

    def __str__(self) -> str:
        return f"<Task: {self.task_id} state={self.status}>"

    def to_dict(self) -> dict[str, Any]:
        """Return the row as the dictionary that Celery's backends call meta."""
        meta = self.meta if isinstance(self.meta, dict) else {}
        return {
            "task_id": self.task_id,
            "status": self.status,
            "result": self.result,
            "date_done": self.date_done,
            "traceback": self.traceback,
            "children": meta.get("children"),
        }


class TaskSetMeta(StoredResult):
    """A group result that was saved. Written by ``GroupResult.save()``, one row per ``taskset_id``."""

    taskset_id = models.CharField(_("group id"), max_length=255, unique=True)
    result = StoredValueField()

    objects = managers.TaskSetManager()

    class Meta:
        verbose_name = _("saved group result")
        verbose_name_plural = _("saved group results")
        db_table = "celery_tasksetmeta"
        indexes = (models.Index(fields=("date_done",), name="djcelery_tasksetmeta_done"),)

    def __str__(self) -> str:
        return f"<TaskSet: {self.taskset_id}>"

    def to_dict(self) -> dict[str, Any]:
        """Return the row as a dictionary."""
        return {"taskset_id": self.taskset_id, "result": self.result, "date_done": self.date_done}


class Chord(models.Model):
    """A chord whose header is running, or whose callback was sent: then the row stays until it expires.

    Written by the database result backend, one row per ``group_id``.
    """

    id = models.BigAutoField(primary_key=True)
    group_id = models.CharField(_("group id"), max_length=255, unique=True)
    size = models.IntegerField(_("parts"), null=True, help_text=_("empty until the last part is sent"))
    added = models.IntegerField(_("parts added by tasks"), default=0)
    done = models.IntegerField(_("parts that returned"), default=0)
    header = models.TextField(null=True)
    content_type = models.CharField(max_length=128, null=True)
    content_encoding = models.CharField(max_length=64, null=True)
    claimed_by = models.CharField(max_length=255, null=True)
    claimed_at = models.DateTimeField(null=True)
    dispatched_at = models.DateTimeField(_("callback sent at"), null=True)
    changed_at = models.DateTimeField(_("changed at"), db_index=True)

    objects = managers.ChordManager()

    class Meta:
        verbose_name = _("chord")
        verbose_name_plural = _("chords")

    def __str__(self) -> str:
        return f"{self.group_id}: {self.done} of {'?' if self.size is None else self.size + self.added}"


class ChordPart(models.Model):
    """What one task of a chord's header returned; deleted when the callback is sent."""

    id = models.BigAutoField(primary_key=True)
    group_id = models.CharField(max_length=255)
    task_id = models.CharField(max_length=255)
    position = models.IntegerField()
    state = models.CharField(max_length=50)
    value = models.TextField(null=True)
    content_type = models.CharField(max_length=128, null=True)
    content_encoding = models.CharField(max_length=64, null=True)

    objects = managers.ExtendedManager()

    class Meta:
        verbose_name = _("part of a chord")
        verbose_name_plural = _("parts of chords")
        # Two entries of a header can share a task id: one signature, frozen and used twice.
        constraints = (
            models.UniqueConstraint(fields=("group_id", "task_id", "position"), name="djcelery_chordpart_once"),
        )

    def __str__(self) -> str:
        return f"{self.group_id}: {self.task_id}"
