"""The tables of times: intervals, crontabs, events of the sun, and fixed instants.

Written by people (admin, ORM) and by ``CELERYBEAT_SCHEDULE``; a row serves any number of periodic tasks. Rows
that are equal are left alone.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta, timezone
from decimal import Decimal
from typing import Any

from celery import schedules
from django.core.exceptions import ValidationError
from django.db import models
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from djcelery import times, utils
from djcelery.models import rules
from djcelery.models.noted import NotedModel

PERIOD_CHOICES = (
    ("days", _("Days")),
    ("hours", _("Hours")),
    ("minutes", _("Minutes")),
    ("seconds", _("Seconds")),
    ("microseconds", _("Microseconds")),
)

#: Celery's events, in the order of a day.
SOLAR_CHOICES = (
    ("dawn_astronomical", _("Astronomical dawn")),
    ("dawn_nautical", _("Nautical dawn")),
    ("dawn_civil", _("Civil dawn")),
    ("sunrise", _("Sunrise")),
    ("solar_noon", _("Solar noon")),
    ("sunset", _("Sunset")),
    ("dusk_civil", _("Civil dusk")),
    ("dusk_nautical", _("Nautical dusk")),
    ("dusk_astronomical", _("Astronomical dusk")),
)


def cronexp(field: Any) -> str:
    """Return a crontab field, a text, number or collection of numbers, as text without spaces; an empty one is ``*``.

    0 is a minute as good as any: django-celery wrote ``*`` for it.
    """
    if isinstance(field, Iterable) and not isinstance(field, str):
        field = ",".join(str(value) for value in sorted(field))
    return str(field).replace(" ", "") if field not in (None, "") else "*"


class TimesModel(NotedModel):
    """What the four tables have in common. ``changed_at``: when the times of an existing row last changed."""

    changed_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        abstract = True


class IntervalSchedule(TimesModel):
    """A period, such as every 10 seconds. Rows are shared by any number of periodic tasks."""

    change_kind = "interval"
    definition = frozenset({"every", "period"})

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
        if self.period in texts:
            return texts[self.period].format(every=self.every)
        # In an old row it is any text, and no template.
        return f"every {self.every} {self.period}"

    def clean_fields(self, exclude: Any = None) -> None:
        """Check the fields, and that the period can be run and is no shorter than a second.

        Raises:
            ValidationError: Names the period, at ``every``.
        """
        super().clean_fields(exclude=exclude)
        if not {"every", "period"} & set(exclude or ()):
            try:
                rules.check_interval(self.every, self.period)
            except ValidationError as exc:
                raise ValidationError({"every": exc}) from exc

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


class CrontabSchedule(TimesModel):
    """Times in the manner of a crontab. Rows are shared by any number of periodic tasks."""

    change_kind = "crontab"
    definition = frozenset({"minute", "hour", "day_of_week", "day_of_month", "month_of_year", "timezone"})

    minute = models.CharField(_("minute"), max_length=64, default="*")
    hour = models.CharField(_("hour"), max_length=64, default="*")
    day_of_week = models.CharField(_("day of week"), max_length=64, default="*")
    day_of_month = models.CharField(_("day of month"), max_length=64, default="*")
    month_of_year = models.CharField(_("month of year"), max_length=64, default="*")
    timezone = models.CharField(
        _("time zone"),
        max_length=63,
        null=True,
        blank=True,
        help_text=_("Such as Europe/Brussels; empty for the zone of the Celery app."),
    )

    class Meta:
        verbose_name = _("crontab")
        verbose_name_plural = _("crontabs")
        ordering = ("month_of_year", "day_of_month", "day_of_week", "hour", "minute")

    def __str__(self) -> str:
        fields = (self.minute, self.hour, self.day_of_week, self.day_of_month, self.month_of_year)
        zone = f" {self.timezone}" if self.timezone else ""
        return f"{' '.join(map(cronexp, fields))} (m/h/d/dM/MY){zone}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save; an empty time zone becomes NULL."""
        self.timezone = self.timezone or None
        super().save(*args, **kwargs)

    def clean_fields(self, exclude: Any = None) -> None:
        """Check the fields, and that the time zone exists.

        Raises:
            ValidationError: At ``timezone``.
        """
        super().clean_fields(exclude=exclude)
        if self.timezone and "timezone" not in (exclude or ()):
            try:
                rules.check_zone(self.timezone)
            except ValidationError as exc:
                raise ValidationError({"timezone": exc}) from exc

    def clean(self) -> None:
        """Refuse what Celery's crontab can't read, and what never fires, such as 31 February.

        Raises:
            ValidationError: Names the text and what is wrong with it.
        """
        rules.check_crontab(self)

    @property
    def schedule(self) -> schedules.crontab:
        """The schedule as Celery's object, by the clocks of the row's time zone, or else of the app's.

        Raises:
            ValueError: A field is no crontab expression, no month has such a day, or the zone is unknown.
        """
        fields = (self.minute, self.hour, self.day_of_week, self.day_of_month, self.month_of_year)
        try:
            return times.ZonedCrontab(*fields, zone=self.timezone) if self.timezone else schedules.crontab(*fields)
        except schedules.ParseException as exc:  # for "", "1,,2" and "*/"; no ValueError itself
            raise ValueError(str(exc)) from exc

    @classmethod
    def from_schedule(cls, schedule: schedules.crontab) -> CrontabSchedule:
        """Return the first row with the expressions (and time zone) of *schedule*, or an unsaved one."""
        spec = {
            "minute": cronexp(schedule._orig_minute),
            "hour": cronexp(schedule._orig_hour),
            "day_of_week": cronexp(schedule._orig_day_of_week),
            "day_of_month": cronexp(schedule._orig_day_of_month),
            "month_of_year": cronexp(schedule._orig_month_of_year),
            "timezone": schedule.zone if isinstance(schedule, times.ZonedCrontab) else None,
        }
        return cls.objects.filter(**spec).order_by("pk").first() or cls(**spec)


class SolarSchedule(TimesModel):
    """An event of the sun at a place. Needs the package ``ephem``. Rows are shared by any number of periodic tasks."""

    change_kind = "solar"
    definition = frozenset({"event", "latitude", "longitude"})

    event = models.CharField(_("event"), max_length=24, choices=SOLAR_CHOICES)
    latitude = models.DecimalField(
        _("latitude"), max_digits=9, decimal_places=6, help_text=_("Degrees, north positive: -90 to 90.")
    )
    longitude = models.DecimalField(
        _("longitude"), max_digits=9, decimal_places=6, help_text=_("Degrees, east positive: -180 to 180.")
    )

    class Meta:
        verbose_name = _("event of the sun")
        verbose_name_plural = _("events of the sun")
        ordering = ("event", "latitude", "longitude")

    def __str__(self) -> str:
        return f"{self.get_event_display()} ({self.latitude}, {self.longitude})"

    def clean_fields(self, exclude: Any = None) -> None:
        """Check the fields, and that there is such a place.

        Raises:
            ValidationError: At ``latitude`` or ``longitude``.
        """
        super().clean_fields(exclude=exclude)
        left_out = set(exclude or ())
        rules.check_place(*(None if name in left_out else getattr(self, name) for name in ("latitude", "longitude")))

    @property
    def schedule(self) -> schedules.solar:
        """The schedule as Celery's object.

        Raises:
            ImproperlyConfigured: The package ``ephem`` is not installed.
            ValueError: There is no such event or place.
        """
        return schedules.solar(self.event, float(self.latitude), float(self.longitude))

    @classmethod
    def from_schedule(cls, schedule: schedules.solar) -> SolarSchedule:
        """Return the first row with the event and place of *schedule*, or an unsaved one."""
        millionth = Decimal("0.000001")
        place = {
            "latitude": Decimal(str(schedule.lat)).quantize(millionth),
            "longitude": Decimal(str(schedule.lon)).quantize(millionth),
        }
        spec = {"event": schedule.event, **place}
        return cls.objects.filter(**spec).order_by("pk").first() or cls(**spec)


class ClockedSchedule(TimesModel):
    """One instant. Rows are shared by any number of periodic tasks."""

    change_kind = "clocked"
    definition = frozenset({"clocked_time"})

    clocked_time = models.DateTimeField(_("time"))

    class Meta:
        verbose_name = _("fixed time")
        verbose_name_plural = _("fixed times")
        ordering = ("clocked_time",)
        indexes = (models.Index(fields=("clocked_time",), name="djcelery_clocked_time"),)

    def __str__(self) -> str:
        return utils.local_text(self.clocked_time)

    def clean_fields(self, exclude: Any = None) -> None:
        """Check the field, and that the year is one that all databases and time zones know.

        Raises:
            ValidationError: At ``clocked_time``.
        """
        super().clean_fields(exclude=exclude)
        if "clocked_time" not in (exclude or ()):
            rules.check_moments(self, "clocked_time")

    @property
    def schedule(self) -> times.Clocked:
        """The schedule as an object that Celery can ask."""
        return times.Clocked(utils.to_utc(self.clocked_time))

    @classmethod
    def from_schedule(cls, schedule: Any) -> ClockedSchedule:
        """Return the first row of the instant of *schedule*, or an unsaved one."""
        instant = utils.correct_awareness(schedule.instant.astimezone(timezone.utc))
        found = cls.objects.filter(clocked_time=instant).order_by("pk").first()
        return found or cls(clocked_time=instant)
