"""The tables of the schedule: what is sent, when, and that something changed.

Written by people (admin, ORM) and by ``CELERYBEAT_SCHEDULE``; beat writes each row's last run and count.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from celery import schedules
from django.core.exceptions import ValidationError
from django.db import models, router, transaction
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from djcelery import managers, utils

PERIOD_CHOICES = (
    ("days", _("Days")),
    ("hours", _("Hours")),
    ("minutes", _("Minutes")),
    ("seconds", _("Seconds")),
    ("microseconds", _("Microseconds")),
)


def cronexp(field: Any) -> str:
    """Return a crontab field as text without spaces; an empty one is ``*``."""
    return str(field).replace(" ", "") if field else "*"


class IntervalSchedule(models.Model):
    """A period, such as every 10 seconds. Rows are shared by any number of periodic tasks."""

    every = models.IntegerField(_("every"))
    period = models.CharField(_("period"), max_length=24, choices=PERIOD_CHOICES)

    class Meta:
        verbose_name = _("interval")
        verbose_name_plural = _("intervals")
        ordering = ("period", "every")

    def __str__(self) -> str:
        texts = {
            "days": ngettext("every day", "every {every} days", self.every),
            "hours": ngettext("every hour", "every {every} hours", self.every),
            "minutes": ngettext("every minute", "every {every} minutes", self.every),
            "seconds": ngettext("every second", "every {every} seconds", self.every),
            "microseconds": ngettext("every microsecond", "every {every} microseconds", self.every),
        }
        return texts.get(self.period, f"every {{every}} {self.period}").format(every=self.every)

    @property
    def period_singular(self) -> str:
        """The unit without its last letter: ``hour``."""
        return self.period[:-1]

    @property
    def schedule(self) -> schedules.schedule:
        """The schedule as Celery's object."""
        return schedules.schedule(timedelta(**{self.period: self.every}))

    @classmethod
    def from_schedule(cls, schedule: schedules.schedule, period: str = "seconds") -> IntervalSchedule:
        """Return the first row for the period of *schedule*, or an unsaved one.

        A period that is no whole number of seconds is counted in microseconds. Rows that are equal
        are left alone; the oldest serves.
        """
        delta = max(schedule.run_every, timedelta(0))
        unit = timedelta(**{period: 1})
        if delta % unit:
            period, unit = "microseconds", timedelta(microseconds=1)
        every = delta // unit
        return cls.objects.filter(every=every, period=period).order_by("pk").first() or cls(every=every, period=period)


class CrontabSchedule(models.Model):
    """Times in the manner of a crontab. Rows are shared by any number of periodic tasks."""

    minute = models.CharField(_("minute"), max_length=64, default="*")
    hour = models.CharField(_("hour"), max_length=64, default="*")
    day_of_week = models.CharField(_("day of week"), max_length=64, default="*")
    day_of_month = models.CharField(_("day of month"), max_length=64, default="*")
    month_of_year = models.CharField(_("month of year"), max_length=64, default="*")

    class Meta:
        verbose_name = _("crontab")
        verbose_name_plural = _("crontabs")
        ordering = ("month_of_year", "day_of_month", "day_of_week", "hour", "minute")

    def __str__(self) -> str:
        fields = (self.minute, self.hour, self.day_of_week, self.day_of_month, self.month_of_year)
        return f"{' '.join(map(cronexp, fields))} (m/h/d/dM/MY)"

    def clean(self) -> None:
        """Refuse what Celery's crontab can't read.

        Raises:
            ValidationError: Names the text and what is wrong with it.
        """
        try:
            self.schedule  # noqa: B018 - building it is the check
        except (ValueError, TypeError) as exc:
            raise ValidationError(_("Not a crontab that Celery can read: %(reason)s"), params={"reason": exc}) from exc

    @property
    def schedule(self) -> schedules.crontab:
        """The schedule as Celery's object.

        Raises:
            ValueError: A field is no crontab expression.
        """
        try:
            return schedules.crontab(
                minute=self.minute,
                hour=self.hour,
                day_of_week=self.day_of_week,
                day_of_month=self.day_of_month,
                month_of_year=self.month_of_year,
            )
        except schedules.ParseException as exc:  # for "", "1,,2" and "*/"; no ValueError itself
            raise ValueError(str(exc)) from exc

    @classmethod
    def from_schedule(cls, schedule: schedules.crontab) -> CrontabSchedule:
        """Return the first row with the expressions of *schedule*, or an unsaved one."""
        spec = {
            "minute": cronexp(schedule._orig_minute),
            "hour": cronexp(schedule._orig_hour),
            "day_of_week": cronexp(schedule._orig_day_of_week),
            "day_of_month": cronexp(schedule._orig_day_of_month),
            "month_of_year": cronexp(schedule._orig_month_of_year),
        }
        return cls.objects.filter(**spec).order_by("pk").first() or cls(**spec)


class PeriodicTasks(models.Model):
    """The time of the last change of the schedule; a single row, ``ident`` 1, that beat looks at."""

    ident = models.SmallIntegerField(default=1, primary_key=True, unique=True)
    last_update = models.DateTimeField()

    objects = managers.ExtendedManager()

    class Meta:
        verbose_name = _("change of the schedule")
        verbose_name_plural = _("changes of the schedule")

    def __str__(self) -> str:
        return str(self.last_update)

    @classmethod
    def changed(cls, instance: PeriodicTask | None = None, using: str | None = None, **kwargs: Any) -> None:
        """Note that the schedule has changed, once the caller's transaction is committed.

        A signal receiver, too: an *instance* whose ``no_changes`` is true changes nothing.
        """
        if getattr(instance, "no_changes", False):
            return
        alias = using or router.db_for_write(cls)
        transaction.on_commit(
            lambda: cls.objects.using(alias).update_or_create(ident=1, defaults={"last_update": utils.now()}),
            using=alias,
        )

    @classmethod
    def last_change(cls) -> datetime | None:
        """Return when the schedule last changed, or None if it never did."""
        return cls.objects.filter(ident=1).values_list("last_update", flat=True).first()


class PeriodicTask(models.Model):
    """A task that beat sends by a schedule.

    Edited by people (admin, ORM) and by ``CELERYBEAT_SCHEDULE``; beat itself writes
    ``last_run_at`` and ``total_run_count`` and nothing else. The unique key is ``name``.
    """

    name = models.CharField(_("name"), max_length=200, unique=True, help_text=_("Useful description"))
    task = models.CharField(_("task name"), max_length=200)
    interval = models.ForeignKey(
        IntervalSchedule, null=True, blank=True, verbose_name=_("interval"), on_delete=models.PROTECT
    )
    crontab = models.ForeignKey(
        CrontabSchedule,
        null=True,
        blank=True,
        verbose_name=_("crontab"),
        on_delete=models.PROTECT,
        help_text=_("Use one of interval/crontab"),
    )
    args = models.TextField(_("Arguments"), blank=True, default="[]", help_text=_("JSON encoded positional arguments"))
    kwargs = models.TextField(
        _("Keyword arguments"), blank=True, default="{}", help_text=_("JSON encoded keyword arguments")
    )
    queue = models.CharField(
        _("queue"),
        max_length=200,
        blank=True,
        null=True,
        default=None,
        help_text=_("Queue defined in CELERY_QUEUES"),
    )
    exchange = models.CharField(_("exchange"), max_length=200, blank=True, null=True, default=None)
    routing_key = models.CharField(_("routing key"), max_length=200, blank=True, null=True, default=None)
    expires = models.DateTimeField(_("expires"), blank=True, null=True)
    enabled = models.BooleanField(_("enabled"), default=True)
    last_run_at = models.DateTimeField(editable=False, blank=True, null=True)
    total_run_count = models.PositiveIntegerField(default=0, editable=False)
    date_changed = models.DateTimeField(auto_now=True)
    description = models.TextField(_("description"), blank=True)

    objects = managers.PeriodicTaskManager()

    #: True on an instance whose ``save()`` a running beat need not notice.
    no_changes = False

    class Meta:
        verbose_name = _("periodic task")
        verbose_name_plural = _("periodic tasks")

    def __str__(self) -> str:
        return f"{self.name}: {self.crontab or self.interval or '{no schedule}'}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save; empty queue, exchange and routing key become NULL, a disabled task forgets its last run."""
        self.exchange = self.exchange or None
        self.routing_key = self.routing_key or None
        self.queue = self.queue or None
        if not self.enabled:
            self.last_run_at = None
        super().save(*args, **kwargs)

    def validate_unique(self, *args: Any, **kwargs: Any) -> None:
        """Check the unique name, and that exactly one schedule is set (legacy put that rule here).

        Raises:
            ValidationError: On ``interval`` if no schedule is set, on ``crontab`` if both are.
        """
        super().validate_unique(*args, **kwargs)
        if not self.interval_id and not self.crontab_id:
            raise ValidationError({"interval": [_("One of interval or crontab must be set.")]})
        if self.interval_id and self.crontab_id:
            raise ValidationError({"crontab": [_("Only one of interval or crontab must be set")]})

    def natural_key(self) -> tuple[str]:
        """Return the unique name, for ``dumpdata --natural-primary``."""
        return (self.name,)

    @property
    def schedule(self) -> schedules.BaseSchedule | None:
        """The schedule as Celery's object: the interval's if old data has both, None if it has neither.

        Raises:
            ObjectDoesNotExist: The row that it names is gone.
            ValueError: The crontab row is no crontab.
        """
        chosen = self.interval or self.crontab
        return chosen.schedule if chosen else None

    @classmethod
    def notify_changed(cls, using: str | None = None) -> None:
        """Tell a running beat that tasks have changed, once the caller's transaction is committed."""
        PeriodicTasks.changed(using=using)


def periodic_task_saved(instance: PeriodicTask, using: str, **kwargs: Any) -> None:
    """Tell beat of a saved or deleted task. Receiver of ``post_save`` and ``post_delete``."""
    PeriodicTasks.changed(instance, using=using)


def schedule_row_changed(using: str, **kwargs: Any) -> None:
    """Tell beat of a changed interval or crontab. Receiver of ``post_save`` and ``post_delete``."""
    PeriodicTasks.changed(using=using)
