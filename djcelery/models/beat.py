"""What beat and the editors of the schedule tell each other: the lease, the runs, and notes of changes.

``BeatLease``, ``BeatStandby`` and ``PeriodicRun`` are written by beat alone, ``ScheduleChange`` by whoever
edits the schedule.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

from datetime import timedelta

from django.db import models
from django.utils.translation import gettext_lazy as _

from djcelery import managers, utils


class BeatLease(models.Model):
    """Which of several beats sends, and until when; one row per ``name``. Times are the database's UTC clock.

    Written by ``djcelery.schedulers.lease`` alone. ``token`` grows with each holder.
    """

    name = models.CharField(_("name"), max_length=64)
    holder = models.CharField(_("holder"), max_length=255)
    token = models.BigIntegerField(_("token"))
    expires_at = models.DateTimeField(_("expires at"))
    acquired_at = models.DateTimeField(_("acquired at"))

    objects = managers.ExtendedManager()

    class Meta:
        verbose_name = _("lease of beat")
        verbose_name_plural = _("leases of beat")
        constraints = (models.UniqueConstraint(fields=("name",), name="djcelery_beatlease_name"),)

    def __str__(self) -> str:
        return f"{self.name}: {self.holder}"


class BeatStandby(models.Model):
    """A beat that stands by, for people to see; one row per ``holder``. It decides nothing.

    Written by each beat that stands by, every ten seconds; deleted when it leads or ends, and by the next that does.
    """

    name = models.CharField(_("name"), max_length=64)
    holder = models.CharField(_("holder"), max_length=255)
    seen_at = models.DateTimeField(_("seen at"))

    objects = managers.ExtendedManager()

    class Meta:
        verbose_name = _("beat that stands by")
        verbose_name_plural = _("beats that stand by")
        constraints = (models.UniqueConstraint(fields=("holder",), name="djcelery_beatstandby_holder"),)

    def __str__(self) -> str:
        return f"{self.name}: {self.holder}"

    @property
    def beat(self) -> str:
        """Host and process id of the beat."""
        return self.holder.rpartition(":")[0] or self.holder


class PeriodicRun(models.Model):
    """One firing of a periodic task, whose task id is fixed before it is sent.

    Written by beat: claimed, then sent. ``outcome`` is NULL until it is known what became of it. The task
    may be gone, so it is no foreign key. Deleted by ``delete_expired()``.
    """

    SENT, SKIPPED, DROPPED = "sent", "skipped", "dropped"
    OUTCOMES = ((SENT, _("sent")), (SKIPPED, _("skipped")), (DROPPED, _("dropped")))

    id = models.BigAutoField(primary_key=True)
    periodic_task_id = models.IntegerField(_("periodic task"))
    name = models.CharField(_("name"), max_length=200)
    scheduled_at = models.DateTimeField(_("scheduled at"))
    task_id = models.CharField(_("task id"), max_length=255)
    claimed_at = models.DateTimeField(_("claimed at"))
    sent_at = models.DateTimeField(_("sent at"), null=True)
    outcome = models.CharField(_("outcome"), max_length=16, null=True, choices=OUTCOMES)
    error = models.TextField(_("error"), null=True)
    token = models.BigIntegerField()

    objects = managers.PeriodicRunManager()

    class Meta:
        verbose_name = _("run of a periodic task")
        verbose_name_plural = _("runs of periodic tasks")
        constraints = (
            models.UniqueConstraint(fields=("periodic_task_id", "scheduled_at"), name="djcelery_periodicrun_once"),
            # Not unique=True: PostgreSQL would make a second index, for LIKE, that each run had to pay for.
            models.UniqueConstraint(fields=("task_id",), name="djcelery_periodicrun_task_id"),
        )
        indexes = (models.Index(fields=("outcome", "scheduled_at"), name="djcelery_periodicrun_outcome"),)

    def __str__(self) -> str:
        return f"{self.name} at {utils.local_text(self.scheduled_at)}: {self.outcome or 'unsent'}"

    @property
    def lateness(self) -> timedelta | None:
        """How long after its instant the run was sent; None while it isn't."""
        return self.sent_at - self.scheduled_at if self.sent_at else None


class ScheduleChange(models.Model):
    """A note that something of the schedule has changed, written in the transaction of the change itself.

    Each change has its own row, so that two editors never wait for each other. The beat that leads reads the
    notes and deletes exactly those that it has read. ``key`` is NULL for ``all``.
    """

    ALL = "all"

    id = models.BigAutoField(primary_key=True)
    kind = models.CharField(max_length=16)
    key = models.IntegerField(null=True)
    created = models.DateTimeField()

    objects = managers.ScheduleChangeManager()

    class Meta:
        verbose_name = _("note of a change")
        verbose_name_plural = _("notes of changes")

    def __str__(self) -> str:
        return self.kind if self.key is None else f"{self.kind} {self.key}"
