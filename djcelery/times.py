"""The schedules that Celery has none for: a crontab in a zone of its own, and one fixed instant.

Made by ``djcelery.models`` from rows, and by people in ``CELERYBEAT_SCHEDULE``: nothing here needs Django's
models. Beat itself computes with ``djcelery.schedulers.nexttime``; these are for code that asks Celery's way.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from celery import schedules

#: A schedule that is over is looked at again after this long.
_NEVER_S = 24 * 3600.0


def read_zone(name: str) -> ZoneInfo:
    """Return the zone *name*.

    Raises:
        ValueError: There is no such zone; the message names it.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError, TypeError) as exc:
        raise ValueError(f"The time zone {name!r} is unknown. Give a name such as 'Europe/Brussels'.") from exc


class ZonedCrontab(schedules.crontab):
    """Celery's crontab, by the clocks of the zone *zone* instead of the app's.

    Args:
        minute, hour, day_of_week, day_of_month, month_of_year: As Celery's.
        zone: The name of the zone.

    Raises:
        ValueError: The zone is unknown, or a field is no crontab expression.
    """

    def __init__(self, *fields: Any, zone: str, **kwargs: Any) -> None:
        self.zone = zone
        self._zone = read_zone(zone)
        super().__init__(*fields, **kwargs)

    @property
    def tz(self) -> tzinfo:
        """The zone; Celery reads it wherever it needs the local time."""
        return self._zone

    def remaining_delta(self, last_run_at: datetime, *args: Any, **kwargs: Any) -> Any:
        """Return the time until the next firing, as Celery's; before 5.7 it left aware times as they were."""
        local = self.maybe_make_aware(last_run_at).astimezone(self._zone)
        last, delta, now = super().remaining_delta(local, *args, **kwargs)
        return last, delta, now.astimezone(self._zone)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ZonedCrontab) and self.zone == other.zone and super().__eq__(other)

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]} {self.zone}>"

    def __reduce__(self) -> Any:
        _, fields, kwargs = super().__reduce__()
        return _zoned_crontab, (self.zone, fields, kwargs)


def _zoned_crontab(zone: str, fields: tuple[Any, ...], kwargs: dict[str, Any]) -> ZonedCrontab:
    return ZonedCrontab(*fields, zone=zone, **kwargs)


class Clocked(schedules.BaseSchedule):
    """Fires once, at *instant*; a naive one is in UTC."""

    def __init__(self, instant: datetime, **kwargs: Any) -> None:
        self.instant = (instant if instant.tzinfo else instant.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)
        super().__init__(**kwargs)

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Return the time until the instant; negative once it has passed."""
        return self.instant - self.maybe_make_aware(self.now())

    def is_due(self, last_run_at: datetime) -> Any:
        """Return whether to fire now, and the seconds until the next look."""
        left = self.remaining_estimate(last_run_at).total_seconds()
        is_over = self.maybe_make_aware(last_run_at) >= self.instant
        return schedules.schedstate(left <= 0 and not is_over, left if left > 0 else _NEVER_S)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Clocked) and self.instant == other.instant

    def __repr__(self) -> str:
        return f"<clocked: {self.instant.isoformat()}>"

    def __reduce__(self) -> Any:
        return type(self), (self.instant,)
