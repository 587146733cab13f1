"""The periodic tasks: what beat sends, by which schedule, and how an edit reaches it.

Written by people (admin, ORM) and by ``CELERYBEAT_SCHEDULE``; beat writes the columns ``BOOKKEEPING``.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from celery import schedules
from django.core.exceptions import NON_FIELD_ERRORS, ObjectDoesNotExist, ValidationError
from django.db import connections, models, router
from django.utils.translation import gettext_lazy as _

from djcelery import managers
from djcelery.models import rules, upcoming
from djcelery.models.beat import BeatLease, ScheduleChange
from djcelery.models.noted import NotedModel
from djcelery.models.schedule import ClockedSchedule, CrontabSchedule, IntervalSchedule, SolarSchedule

#: The columns that name a schedule; if old data has several, the first counts.
SCHEDULES = ("interval", "crontab", "solar", "clocked")
#: The columns that beat keeps for itself: to write nothing else is no change of the schedule.
BOOKKEEPING = frozenset({"last_run_at", "total_run_count", "last_error"})
#: The columns that hold JSON, what it must be, and what stands for none.
_JSON = {"args": (list, "[]"), "kwargs": (dict, "{}"), "headers": (dict, "{}")}


class PeriodicTasks(models.Model):
    """The time of the last change of the schedule: the legacy mark, a single row with ``ident`` 1.

    Nothing of djcelery writes it any more, since all editors would wait for its lock; see ``ScheduleChange``.
    """

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
        """Note that *instance* has changed, or anything at all, in the caller's transaction.

        Beat sees it once that is committed. A signal receiver, too: an *instance* whose ``no_changes`` is
        true changes nothing.

        Database: one INSERT.
        """
        if getattr(instance, "no_changes", False):
            return
        kind = instance.change_kind if isinstance(instance, NotedModel) else ScheduleChange.ALL
        alias = using or router.db_for_write(ScheduleChange)
        ScheduleChange.objects.note(kind, [getattr(instance, "pk", None)], using=alias)

    @classmethod
    def last_change(cls) -> datetime | None:
        """Return when the schedule last changed: the legacy mark or the latest note. None if there is neither.

        Database: one SELECT.
        """
        latest = ScheduleChange.objects.order_by("-pk").values("pk")[:1]
        notes = ScheduleChange.objects.filter(pk=models.Subquery(latest)).values_list("created", flat=True)
        marks = cls.objects.filter(ident=1).values_list("last_update", flat=True)
        return max(marks.union(notes, all=True), default=None)


class PeriodicTask(NotedModel):
    """A task that beat sends by a schedule.

    Edited by people (admin, ORM) and by ``CELERYBEAT_SCHEDULE``; beat itself writes ``BOOKKEEPING``, and
    switches a one-off task off. The unique key is ``name``. Columns that came after django-celery are NULL in
    its rows.
    """

    change_kind = "task"
    stamp_field = "scheduled_from"
    definition = frozenset({"interval_id", "crontab_id", "solar_id", "clocked_id", "start_time", "enabled"})
    bookkeeping = BOOKKEEPING
    is_noted_when_new = True

    MISSED_RUNS = (("skip", _("skip them")), ("once", _("run once")), ("all", _("run all")))

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
    last_run_at = models.DateTimeField(_("last run"), editable=False, blank=True, null=True)
    total_run_count = models.PositiveIntegerField(_("number of runs"), default=0, editable=False)
    date_changed = models.DateTimeField(auto_now=True)
    description = models.TextField(_("description"), blank=True)
    # Indexed by name in Meta, so that PostgreSQL builds the index without a lock.
    solar = models.ForeignKey(
        SolarSchedule,
        null=True,
        blank=True,
        verbose_name=_("event of the sun"),
        on_delete=models.PROTECT,
        db_index=False,
    )
    clocked = models.ForeignKey(
        ClockedSchedule, null=True, blank=True, verbose_name=_("fixed time"), on_delete=models.PROTECT, db_index=False
    )
    one_off = models.BooleanField(
        _("one-off"), null=True, blank=True, help_text=_("The task is switched off when it was sent.")
    )
    start_time = models.DateTimeField(
        _("start time"),
        null=True,
        blank=True,
        help_text=_("The first time at which it may run; intervals count from it."),
    )
    priority = models.SmallIntegerField(_("priority"), null=True, blank=True, help_text=_("0 to 255, for the broker."))
    headers = models.TextField(_("headers"), null=True, blank=True, help_text=_("JSON encoded message headers"))
    expire_seconds = models.IntegerField(
        _("expire seconds"),
        null=True,
        blank=True,
        help_text=_("Seconds after its time when a run is of no use any more."),
    )
    scheduled_from = models.DateTimeField(null=True, blank=True, editable=False)
    missed_runs = models.CharField(
        _("missed runs"),
        max_length=16,
        null=True,
        blank=True,
        choices=MISSED_RUNS,
        help_text=_("What to do about runs that were missed; empty for one run, if within the grace time."),
    )
    grace_seconds = models.IntegerField(
        _("grace seconds"),
        null=True,
        blank=True,
        help_text=_("How late a missed run may be made up for; empty for one period, at most a day."),
    )
    no_overlap = models.BooleanField(
        _("no overlap"), null=True, blank=True, help_text=_("Pass over a run while the one before is not done.")
    )
    overlap_timeout = models.IntegerField(
        _("overlap timeout"),
        null=True,
        blank=True,
        help_text=_("Seconds after which a run that is not done counts as lost."),
    )
    jitter_seconds = models.IntegerField(
        _("jitter seconds"), null=True, blank=True, help_text=_("Send each run up to so many seconds later.")
    )
    last_error = models.TextField(_("last error"), null=True, blank=True, editable=False)
    origin = models.CharField(_("origin"), max_length=16, null=True, blank=True, editable=False)
    origin_digest = models.CharField(max_length=64, null=True, blank=True, editable=False)

    objects = managers.PeriodicTaskManager()

    class Meta:
        verbose_name = _("periodic task")
        verbose_name_plural = _("periodic tasks")
        # So that ``interval.periodictask_set.add(task)`` leaves a note, too.
        base_manager_name = "objects"
        permissions = (("run_periodictask", "Can run periodic tasks at once"),)
        indexes = (
            models.Index(fields=("solar",), name="djcelery_periodictask_solar"),
            models.Index(fields=("clocked",), name="djcelery_periodictask_clocked"),
        )

    def __str__(self) -> str:
        try:
            chosen = self.crontab or upcoming.chosen_row(self)
        except ObjectDoesNotExist:
            chosen = None
        return f"{self.name}: {chosen or '{no schedule}'}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save; empty texts of options become NULL, a disabled task forgets its last run.

        Database: UPDATE (or INSERT) of the row and INSERT of a note, in one transaction.
        """
        self.exchange = self.exchange or None
        self.routing_key = self.routing_key or None
        self.queue = self.queue or None
        self.headers = self.headers or None
        self.missed_runs = self.missed_runs or None
        if not self.enabled:
            self.last_run_at = None
        super().save(*args, **kwargs)

    def _is_redefined(self) -> bool:
        # To be switched off is no new definition, to be switched on is one.
        return any(self._is_set(column) and (column != "enabled" or self.enabled) for column in self.definition)

    def _written_by_beat(self) -> frozenset[str]:
        # Beat switches a one-off task off; to write back what was read before would have it run once more.
        return self.bookkeeping | {"enabled"} if self.one_off else self.bookkeeping

    def clean_fields(self, exclude: Any = None) -> None:
        """Check the fields, the JSON of three of them, and that the chosen schedule can be run.

        Raises:
            ValidationError: By field.
        """
        super().clean_fields(exclude=exclude)
        left_out = set(exclude or ())
        errors: dict[str, Any] = {}
        for name in {*_JSON, *SCHEDULES, *rules.RANGES} - left_out:
            try:
                if name in _JSON:
                    text = rules.parse_json(getattr(self, name), *_JSON[name])
                    if name == "headers":
                        rules.check_headers(text)
                elif name in rules.RANGES:
                    rules.check_range(name, getattr(self, name))
                elif getattr(self, f"{name}_id") is not None:
                    rules.check_schedule(getattr(self, name))
            except ValidationError as exc:
                errors[name] = exc
        if errors:
            raise ValidationError(errors)
        rules.check_moments(self, *{"expires", "start_time"} - left_out)

    def clean(self) -> None:
        """Refuse settings that contradict each other.

        Raises:
            ValidationError: Says which.
        """
        super().clean()
        rules.check_task(self)

    def validate_unique(self, *args: Any, **kwargs: Any) -> None:
        """Check the unique name, and that exactly one schedule is set (legacy put that rule here).

        Raises:
            ValidationError: On ``interval`` if no schedule is set, on ``crontab`` if that and an interval are.
        """
        super().validate_unique(*args, **kwargs)
        chosen = [name for name in SCHEDULES if getattr(self, f"{name}_id")]
        if not chosen:
            raise ValidationError({"interval": [_("One of interval or crontab must be set.")]})
        if chosen == ["interval", "crontab"]:
            raise ValidationError({"crontab": [_("Only one of interval or crontab must be set")]})
        if len(chosen) > 1:
            message = _("Only one schedule must be set, not %(names)s.")
            names = ", ".join(str(self._meta.get_field(name).verbose_name) for name in chosen)
            raise ValidationError({NON_FIELD_ERRORS: [ValidationError(message, params={"names": names})]})

    def natural_key(self) -> tuple[str]:
        """Return the unique name, for ``dumpdata --natural-primary``."""
        return (self.name,)

    @property
    def schedule(self) -> schedules.BaseSchedule | None:
        """The schedule as Celery's object: the first in the order of ``SCHEDULES`` if old data has several.

        None if there is none. Beat itself reads the rows, not this.

        Raises:
            ObjectDoesNotExist: The row that it names is gone.
            ValueError: The crontab row is no crontab, or of an unknown zone.
        """
        chosen = upcoming.chosen_row(self)
        return chosen.schedule if chosen else None

    @property
    def counts_from(self) -> datetime | None:
        """The instant (UTC) up to which the task has nothing to make up for; intervals count from it.

        Raises:
            ObjectDoesNotExist: The row of its schedule is gone.
        """
        return upcoming.counts_from(self, upcoming.chosen_row(self))

    def next_run(self, now: datetime | None = None, app: Any = None) -> datetime | None:
        """Return when the task is to run next after *now* (None: the present), before its jitter is added.

        None if it is disabled, expires before, never fires again, or can't be run.

        Args:
            app: The Celery app whose zone crontabs without one follow; None is the current one.
        """
        return upcoming.next_run(self, now, app)

    def overdue_since(self, now: datetime | None = None, app: Any = None) -> datetime | None:
        """Return the instant that beat should have dealt with a minute ago at the latest, and has not; else None.

        None for tasks that are disabled or can't be run. Knows more of rows read by ``with_latest_run()``: runs that
        were passed over, and runs that were claimed and not sent.
        """
        return upcoming.overdue_since(self, now, app)


def periodic_task_saved(instance: PeriodicTask, using: str, **kwargs: Any) -> None:
    """Note a task as changed. A receiver of ``post_save`` for code that connects it itself."""
    PeriodicTasks.changed(instance, using=using)


def schedule_row_changed(using: str, **kwargs: Any) -> None:
    """Note that anything may have changed. A receiver of ``post_save`` for code that connects it itself."""
    PeriodicTasks.changed(using=using)


def note_migrated(using: str, plan: Any = None, **kwargs: Any) -> None:
    """Note that migrations ran: their models, which are historical ones, leave no notes. Receiver of ``post_migrate``.

    Database: nothing if no migration ran; else up to three statements. No note if no beat ever ran here.
    """
    if not plan or not router.allow_migrate_model(using, ScheduleChange):
        return
    present = set(connections[using].introspection.table_names())
    if not {model._meta.db_table for model in (BeatLease, ScheduleChange)} <= present:
        return
    notes = ScheduleChange.objects.using(using)
    if BeatLease.objects.using(using).exists() and not notes.filter(kind=ScheduleChange.ALL).exists():
        ScheduleChange.objects.note(ScheduleChange.ALL, [None], using=using)
