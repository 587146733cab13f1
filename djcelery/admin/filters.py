"""The filters of the lists of tasks and results: choices from small tables or none, never from the listed one.

Called by ``tasks`` and ``results``. A choice that is not offered still filters, and is then offered.
Next: ``docs/explain/life-of-a-task-event.rst``.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from celery import states
from django.contrib import admin
from django.contrib.admin import ListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime
from django.utils.translation import gettext_lazy

from djcelery import utils
from djcelery.admin.search import YEARS
from djcelery.models import TaskHistory, WorkerState
from djcelery.models.monitor import LOST

#: Choices of a filter; what is not among them is found by the search line.
MAX_CHOICES = 100
#: The states of tasks in the order of a life.
TASK_STATES = (
    states.PENDING,
    states.RECEIVED,
    states.STARTED,
    states.RETRY,
    states.SUCCESS,
    states.FAILURE,
    states.REVOKED,
    states.REJECTED,
    LOST,
)
#: Any number of so many digits fits in a column of 64 bits, and of 32 bits.
KEY_DIGITS, SHORT_KEY_DIGITS = 18, 9
# A name has a row per state.
_HISTORY_ROWS = MAX_CHOICES * 10


def is_key(text: str, digits: int = KEY_DIGITS) -> bool:
    """Tell whether *text* can be the key of a row."""
    return text.isascii() and text.isdecimal() and len(text) <= digits


def short_key(text: str | None) -> int | None:
    """Return the key in a parameter, of a column of 32 bits; None if it is none."""
    return int(text) if text and is_key(text, SHORT_KEY_DIGITS) else None


class ChosenFilter(admin.SimpleListFilter):
    """A filter that offers what is chosen beside its ``choices_of()``. It fixes ``column`` to one value."""

    column = ""

    @property
    def fixed(self) -> str:
        """The column that has one value now; ``""`` if nothing is chosen."""
        return self.column if self.value() else ""

    def choices_of(self, request: HttpRequest) -> list[tuple[str, Any]]:
        """Return the choices: the value in the address, and what is shown."""
        raise NotImplementedError

    def chosen_label(self, value: str) -> Any:
        """Return what is shown for a chosen value that isn't offered."""
        return value

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """Return the choices, the chosen one among them."""
        found = self.choices_of(request)
        chosen = self.value()
        if chosen and chosen not in dict(found):
            found.append((chosen, self.chosen_label(chosen)))
        return found


class TaskStateFilter(ChosenFilter):
    """Choose a state of tasks."""

    title = gettext_lazy("state")
    parameter_name = "state__exact"
    column = "state"

    def choices_of(self, request: HttpRequest) -> list[tuple[str, Any]]:
        """Return the states."""
        return [(state, state) for state in TASK_STATES]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        """Return the tasks in the chosen state."""
        return queryset.filter(state=self.value()) if self.value() else queryset


class NameFilter(ChosenFilter):
    """Choose a task name, of those that ran most often as far as the history knows."""

    title = gettext_lazy("name")
    parameter_name = column = "name"

    def choices_of(self, request: HttpRequest) -> list[tuple[str, Any]]:
        """Return the names.

        Database: 1 query over the totals of the history, one row per name and state.
        """
        totals = TaskHistory.objects.filter(period=TaskHistory.TOTAL).order_by("-count")
        names = dict.fromkeys(totals.values_list("name", flat=True)[:_HISTORY_ROWS])
        return [(name, name) for name in sorted([name for name in names if name][:MAX_CHOICES])]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        """Return the rows of the chosen name."""
        return queryset.filter(name=self.value()) if self.value() else queryset


def _workers() -> list[tuple[int, str]]:
    """Return the keys and host names of the workers that were heard of last, by name."""
    workers = WorkerState.objects.order_by("-last_heartbeat").values_list("pk", "hostname")[:MAX_CHOICES]
    return sorted(workers, key=lambda worker: worker[1])


class WorkerFilter(ChosenFilter):
    """Choose a worker, of those that were heard of last."""

    title = gettext_lazy("worker")
    parameter_name = "worker__id__exact"
    column = "worker"

    def choices_of(self, request: HttpRequest) -> list[tuple[str, Any]]:
        """Return the workers by their keys.

        Database: 1 query over the table of workers.
        """
        return [(str(key), hostname) for key, hostname in _workers()]

    def chosen_label(self, value: str) -> Any:
        """Return the host name of a worker that isn't offered, or its key if it is gone.

        Database: 1 query.
        """
        known = WorkerState.objects.filter(pk=short_key(value)).values_list("hostname", flat=True).first()
        return known or f"#{value}"

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        """Return the tasks of the chosen worker."""
        # No row has the key 0.
        return queryset.filter(worker_id=short_key(self.value()) or 0) if self.value() else queryset


class HostnameFilter(ChosenFilter):
    """Choose a worker by its host name, where it is stored as text."""

    title = gettext_lazy("worker")
    parameter_name = column = "worker"

    def choices_of(self, request: HttpRequest) -> list[tuple[str, Any]]:
        """Return the host names.

        Database: 1 query over the table of workers.
        """
        return [(hostname, hostname) for _key, hostname in _workers()]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        """Return the rows of the chosen worker."""
        return queryset.filter(worker=self.value()) if self.value() else queryset


class EtaFilter(admin.SimpleListFilter):
    """Choose the tasks that were given a time to run at, or the others."""

    title = gettext_lazy("ETA")
    parameter_name = "eta"
    SCHEDULED, NONE = "scheduled", "none"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """Return the choices."""
        return [(self.SCHEDULED, gettext_lazy("scheduled")), (self.NONE, gettext_lazy("none"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        """Return the tasks of the chosen kind."""
        if self.value() not in (self.SCHEDULED, self.NONE):
            return queryset
        return queryset.filter(eta__isnull=self.value() == self.NONE)


class TimeFilter(ListFilter):
    """Choose the last hour, day or week, or a range of one's own. Subclasses name the ``field``."""

    title = gettext_lazy("time")
    template = "admin/djcelery/time_filter.html"
    field = ""
    WITHIN = "within"
    AGES = {
        "hour": (timedelta(hours=1), gettext_lazy("Last hour")),
        "day": (timedelta(days=1), gettext_lazy("Last day")),
        "week": (timedelta(days=7), gettext_lazy("Last 7 days")),
    }

    def __init__(self, request: HttpRequest, params: dict[str, Any], model: type[Model], model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        for name in self.parameters():
            value = params.pop(name, [""])[-1]
            # The form sends its empty fields, too.
            if value:
                self.used_parameters[name] = value
        self.hidden: list[tuple[str, str]] = []

    @classmethod
    def parameters(cls) -> tuple[str, str, str]:
        """Return the names of the parameters: of an age, of the beginning and of the end."""
        return cls.WITHIN, f"{cls.field}__gte", f"{cls.field}__lt"

    @classmethod
    def is_chosen(cls, request: HttpRequest, field: str) -> bool:
        """Tell whether the address says from when on *field* is to be."""
        return request.GET.get(cls.WITHIN) in cls.AGES or bool(request.GET.get(f"{field}__gte"))

    def has_output(self) -> bool:
        """Tell that the filter is always shown."""
        return True

    def expected_parameters(self) -> list[str]:
        """Return the names of the parameters."""
        return list(self.parameters())

    @property
    def start(self) -> str:
        """The beginning as the field of the form takes it."""
        return self._shown(1)

    @property
    def end(self) -> str:
        """The end as the field of the form takes it."""
        return self._shown(2)

    def _shown(self, position: int) -> str:
        value = self._moment(position)
        return utils.correct_awareness(value).strftime("%Y-%m-%dT%H:%M") if value else ""

    def _moment(self, position: int) -> datetime | None:
        text = self.used_parameters.get(self.parameters()[position])
        return parse_moment(text) if text else None

    def choices(self, changelist: Any) -> Iterator[dict[str, Any]]:
        """Yield the ages; leaves the other parameters of the list to the form of the template."""
        names = self.expected_parameters()
        self.hidden = [
            (name, value)
            for name, values in changelist.filter_params.items()
            if name not in names
            for value in (values if isinstance(values, list) else [values])
        ]
        chosen = self.used_parameters.get(self.WITHIN)
        yield {
            "selected": not self.used_parameters,
            "query_string": changelist.get_query_string(remove=names),
            "display": gettext_lazy("Any time"),
        }
        for age, (_length, label) in self.AGES.items():
            query = changelist.get_query_string({self.WITHIN: age}, remove=names)
            yield {"selected": chosen == age, "query_string": query, "display": label}

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        """Return the rows within the chosen time."""
        found = Q()
        age = self.AGES.get(self.used_parameters.get(self.WITHIN, ""))
        if age:
            found &= Q(**{f"{self.field}__gte": utils.now() - age[0]})
        for position, name in ((1, "gte"), (2, "lt")):
            value = self._moment(position)
            if value:
                found &= Q(**{f"{self.field}__{name}": value})
        return queryset.filter(found)


def parse_moment(text: str) -> datetime:
    """Return the instant that *text* names, a date or a date with a time; without an offset, in the project's zone.

    Raises:
        IncorrectLookupParameters: It names none; the admin shows the list without filters.
    """
    try:
        value = parse_datetime(text)
        if value is None and (day := parse_date(text)):
            value = datetime(day.year, day.month, day.day)  # noqa: DTZ001 - made aware below
        if value is None:
            raise ValueError(text)
        if timezone.is_naive(value):
            value = timezone.make_aware(value, timezone.get_default_timezone())
        if value.year not in YEARS:
            raise ValueError(text)
    except (ValueError, OverflowError) as exc:
        raise IncorrectLookupParameters(str(exc)) from exc
    return utils.correct_awareness(value)


def time_filter(column: str, label: Any) -> type[TimeFilter]:
    """Return the filter by the time in *column*."""
    return type("TimeFilter", (TimeFilter,), {"field": column, "title": label})
