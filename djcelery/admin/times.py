"""The pages of the tables of times: intervals, crontabs, events of the sun, and fixed times.

Their searches serve the fields of periodic tasks, which complete what a person types: tables of a million rows are
searched by what stands in the columns, and never counted or sorted as a whole.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from django.contrib import admin, messages
from django.db import router, transaction
from django.db.models import ProtectedError, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from djcelery import utils
from djcelery.admin import values
from djcelery.admin.base import BoundedList, BoundedPaginator, RefusingAdmin, can_be_found
from djcelery.admin.schedule_list import times_in_words
from djcelery.forms import ClockedScheduleForm, CrontabScheduleForm, IntervalScheduleForm, SolarScheduleForm
from djcelery.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule
from djcelery.models.schedule import PERIOD_CHOICES, SOLAR_CHOICES

#: Periodic tasks that the page of a row, and the page that refuses to delete it, name.
MAX_USERS = 20
# Words of a search; more are ignored.
_MAX_WORDS = 8
# Decimals of a place; the columns have 6, and databases can't compare with any number of them.
_MAX_DECIMALS = 20


class TimesAdmin(RefusingAdmin):
    """What the four pages have in common."""

    # By key: no other order has an index on all of these tables.
    ordering = ("-pk",)
    paginator = BoundedPaginator
    show_full_result_count = False
    readonly_fields = ("used_by",)
    #: The column of ``PeriodicTask`` that names such a row.
    used_in: str

    class Media:
        css = {"all": ("djcelery/style.css",)}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[BoundedList]:
        """Return the list class."""
        return BoundedList

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Return the fields; nothing uses a row that is only now made."""
        fields = [name for name in super().get_fields(request, obj) if name != "used_by"]
        return [*fields, "used_by"] if obj else fields

    @admin.display(description=gettext_lazy("schedule"))
    def in_words(self, row: Any) -> str:
        """Return the times in words."""
        return times_in_words(row)

    # searching

    def get_search_results(self, request: HttpRequest, queryset: QuerySet, search_term: str) -> tuple[QuerySet, bool]:
        """Return the rows that all words of *search_term* fit."""
        if not can_be_found(search_term):
            return queryset.none(), False
        for condition in self.conditions(search_term.strip()):
            queryset = queryset.filter(condition)
        return queryset, False

    def conditions(self, text: str) -> Iterator[Q]:
        """Yield a condition per word of *text*."""
        for word in text.lower().split()[:_MAX_WORDS]:
            yield self.condition(word)

    def condition(self, word: str) -> Q:
        """Return the condition of the rows that *word*, in lower case, fits."""
        raise NotImplementedError

    # who uses it

    def users(self, rows: list[Any]) -> list[PeriodicTask]:
        """Return periodic tasks that use one of *rows*, one more than are named. Database: 1 query, by the index."""
        tasks = PeriodicTask.objects.filter(**{f"{self.used_in}__in": [row.pk for row in rows]})
        return list(tasks.order_by().only("name")[: MAX_USERS + 1])

    @admin.display(description=gettext_lazy("used by"))
    def used_by(self, row: Any) -> SafeString | str:
        """Return the periodic tasks that use the row, linked to their pages."""
        users = self.users([row])
        if not users:
            return _("no periodic task")
        lines = [(values.row_link(task, task.name),) for task in users[:MAX_USERS]]
        if len(users) > MAX_USERS:
            page = f"{reverse('admin:djcelery_periodictask_changelist')}?{self.used_in}__id__exact={row.pk}"
            lines.append((format_html('<a href="{}">{}</a>', page, _("and more")),))
        return format_html('<ul class="djcelery-links">{}</ul>', format_html_join("", "<li>{}</li>", lines))

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> tuple[Any, Any, Any, Any]:
        """Return what would be deleted, and the periodic tasks that keep it from that: a few, of however many."""
        users = self.users(list(objs))
        if not users:
            return super().get_deleted_objects(objs, request)
        named = [values.row_link(task, task.name) for task in users[:MAX_USERS]]
        return [], {}, set(), [*named, _("and more")] if len(users) > MAX_USERS else named

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Delete the row, or say why it can't be: a task may have been given it in this moment."""
        try:
            # A transaction of its own: Django's would be broken by the error on the way out.
            with transaction.atomic(using=router.db_for_write(self.model)):
                return super().delete_view(request, object_id, extra_context)
        except ProtectedError:
            text = _("It was not deleted: a periodic task uses it by now.")
            self.message_user(request, text, messages.ERROR)
            return HttpResponseRedirect(
                reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_change", args=[object_id])
            )


def _by_label(choices: Any, word: str) -> list[str]:
    """Return the values of *choices* in whose name or label *word* begins a word."""
    texts = ((value, f"{value} {label}".lower().replace("_", " ")) for value, label in choices)
    return [value for value, text in texts if any(part.startswith(word) for part in text.split())]


@admin.register(IntervalSchedule)
class IntervalScheduleAdmin(TimesAdmin):
    """Intervals."""

    form = IntervalScheduleForm
    used_in = "interval"
    search_fields = ("every", "period")
    search_help_text = gettext_lazy("Such as: 10 minutes")

    def condition(self, word: str) -> Q:
        """Return the condition: a number is how many, a word which unit; "every" says nothing."""
        if word.isascii() and word.isdecimal() and len(word) <= 9:
            return Q(every=int(word))
        if _("every").startswith(word) or "every".startswith(word):
            return Q()
        return Q(period__in=_by_label(PERIOD_CHOICES, word))


@admin.register(CrontabSchedule)
class CrontabScheduleAdmin(TimesAdmin):
    """Crontabs."""

    form = CrontabScheduleForm
    used_in = "crontab"
    list_display = ("__str__", "in_words")
    search_fields = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year", "timezone")
    search_help_text = gettext_lazy(
        "The five fields, such as: 30 7 mon-fri * *; or a time such as 07:30; or a time zone."
    )

    _FIELDS = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")
    _TIME = re.compile(r"([0-2]?\d):([0-5]\d)")

    def conditions(self, text: str) -> Iterator[Q]:
        """Yield the conditions: a field for each of the first words, a time of the day, a zone by its beginning."""
        words, position = text.split()[:_MAX_WORDS], 0
        for word in words:
            time = self._TIME.fullmatch(word)
            if time:
                hours, minutes = ({str(int(part)), f"{int(part):02}"} for part in time.groups())
                yield Q(hour__in=hours, minute__in=minutes)
            elif position < len(self._FIELDS) and self._is_field(word):
                yield Q(**{self._FIELDS[position]: word})
                position += 1
            else:
                yield Q(timezone__istartswith=word)

    @staticmethod
    def _is_field(word: str) -> bool:
        return bool(re.fullmatch(r"(?:[\d*/,-]|(?:sun|mon|tue|wed|thu|fri|sat)(?![a-z]))+", word.lower()))


@admin.register(SolarSchedule)
class SolarScheduleAdmin(TimesAdmin):
    """Events of the sun."""

    form = SolarScheduleForm
    used_in = "solar"
    search_fields = ("event", "latitude", "longitude")
    search_help_text = gettext_lazy("Such as: sunset 51.2")

    def condition(self, word: str) -> Q:
        """Return the condition: a number is the beginning of a latitude or longitude, a word that of an event."""
        try:
            low = Decimal(word.rstrip(","))
        except InvalidOperation:
            return Q(event__in=_by_label(SOLAR_CHOICES, word))
        if not low.is_finite() or low.copy_abs() > 180 or int(low.as_tuple().exponent) < -_MAX_DECIMALS:
            return Q(pk__in=[])
        # 51.2 is what begins like that: from there to below 51.3.
        exponent = low.as_tuple().exponent
        step = Decimal(1).scaleb(min(int(exponent), 0)) if isinstance(exponent, int) else Decimal(1)
        low, high = (low - step, low) if low.is_signed() else (low, low + step)
        return Q(latitude__range=(low, high)) | Q(longitude__range=(low, high))


@admin.register(ClockedSchedule)
class ClockedScheduleAdmin(TimesAdmin):
    """Fixed times."""

    form = ClockedScheduleForm
    used_in = "clocked"
    search_fields = ("clocked_time",)
    search_help_text = gettext_lazy("The beginning of a time, such as: 2026-06 or 2026-06-01 14:30")

    _MOMENT = re.compile(r"(\d{4})(?:-(\d\d?)(?:-(\d\d?)(?:[ T]+(\d\d?)(?::(\d\d)(?::(\d\d))?)?)?)?)?")
    _UNITS = (None, None, timedelta(days=1), timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1))

    def conditions(self, text: str) -> Iterator[Q]:
        """Yield the condition of the times that begin like *text*, in the project's time zone."""
        if text:
            span = self._span(text)
            yield Q(pk__in=[]) if span is None else Q(clocked_time__gte=span[0], clocked_time__lt=span[1])

    def _span(self, text: str) -> tuple[datetime, datetime] | None:
        """Return the first instant that *text* may mean, and the first after those; None if it means none."""
        match = self._MOMENT.fullmatch(text.rstrip("-: T"))
        if match is None:
            return None
        given = [int(part) for part in match.groups() if part is not None]
        try:
            first = datetime(*(*given, *(1, 1, 1)[len(given) :]))  # type: ignore[misc, arg-type]  # noqa: DTZ001
            unit = self._UNITS[len(given) - 1]
            if unit is not None:
                after = first + unit
            elif len(given) == 1:
                after = first.replace(year=first.year + 1)
            else:
                after = (first + timedelta(days=31)).replace(day=1)
            zone = timezone.get_default_timezone()
            # By way of UTC, which shows whether the zone leads out of the calendar.
            instants = (utils.to_utc(moment.replace(tzinfo=zone)) for moment in (first, after))
            start, end = map(utils.correct_awareness, instants)
            return start, end
        except (ValueError, OverflowError):
            return None
