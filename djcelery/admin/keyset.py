"""Lists of tables of any size: pages by key, never counted, never by OFFSET, in orders that an index serves.

Called by ``tasks`` and ``results``. A cursor names the last row of a page by the value that the list is ordered by, and
its key; so a page costs the same wherever it is, and shows the right rows while others are written.
Next: ``docs/explain/life-of-a-task-event.rst``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

from django.conf import settings
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ORDER_VAR, ChangeList
from django.core.exceptions import ValidationError
from django.db import connections
from django.db.models import F, Model, Q, QuerySet
from django.db.models.functions import Left
from django.http import HttpRequest
from django.utils.timezone import is_aware

from djcelery.admin.base import ModelMonitor, MonitorList
from djcelery.admin.filters import ChosenFilter, TimeFilter
from djcelery.admin.finding import Outcome, Search, help_text
from djcelery.admin.search import YEARS, SearchError

#: Parameters of the address: the rows after a cursor in the order of the list, or before it.
AFTER_VAR = "after"
BEFORE_VAR = "before"
#: Characters that a list loads of a wide column.
SHOWN_CHARACTERS = 300

# Between key and value in a cursor; no key holds it.
_SEPARATOR = "~"
# SQLite's driver can't pass larger numbers.
_KEYS_END = 2**63


class Order(NamedTuple):
    """What a list is ordered by: a field without NULL, then the key in the same direction.

    ``is_filtered`` if the indexes for filtered lists are to serve it, see ``FilterIndex``.
    """

    field: str
    is_descending: bool
    is_filtered: bool = False

    @property
    def fields(self) -> list[str]:
        """The order as ``order_by()`` takes it."""
        return [f"{'-' if self.is_descending else ''}{field}" for field in dict.fromkeys((self.field, "pk"))]

    def applied(self, rows: QuerySet) -> QuerySet:
        """Return *rows* in this order."""
        if not self.is_filtered or connections[rows.db].vendor != "postgresql":
            return rows.order_by(*self.fields)
        field = F(self.field)
        first = field.desc(nulls_last=True) if self.is_descending else field.asc(nulls_first=True)
        return rows.order_by(first, self.fields[-1])

    def reversed(self) -> Order:
        """Return the order from the other end."""
        return self._replace(is_descending=not self.is_descending)


class Cursor(NamedTuple):
    """A row's place in a list: the value that the list is ordered by, and the key."""

    value: Any
    key: int

    def __str__(self) -> str:
        if isinstance(self.value, datetime):
            value = self.value.astimezone(timezone.utc) if is_aware(self.value) else self.value
            return f"{self.key}{_SEPARATOR}{value.isoformat()}"
        return f"{self.key}{_SEPARATOR}{self.value}"

    @classmethod
    def of(cls, row: Model, order: Order) -> Cursor:
        """Return the cursor of *row*."""
        return cls(getattr(row, order.field), row.pk)

    @classmethod
    def parse(cls, text: str, model: type[Model], order: Order) -> Cursor:
        """Return the cursor that *text* was written from.

        Raises:
            IncorrectLookupParameters: It wasn't written by a list in this order; the admin shows the first page.
        """
        key, _separator, value = text.partition(_SEPARATOR)
        pk = model._meta.pk
        field = pk if order.field == "pk" else model._meta.get_field(order.field)
        try:
            parsed = cls(field.to_python(value), pk.to_python(key))  # type: ignore[union-attr]
        except (ValidationError, OverflowError) as exc:
            raise IncorrectLookupParameters(str(exc)) from exc
        at = parsed.value
        is_moment = not isinstance(at, datetime) or (at.year in YEARS and is_aware(at) == settings.USE_TZ)
        if at is None or not is_moment or parsed.key is None or not 0 <= parsed.key < _KEYS_END:
            raise IncorrectLookupParameters(text)
        return parsed

    def rows_after(self, order: Order) -> Q:
        """Return the condition of the rows that come after this one."""
        compare = "lt" if order.is_descending else "gt"
        beyond = Q(**{f"pk__{compare}": self.key})
        if order.field == "pk":
            return beyond
        # The first condition is what an index finds the place by; the others only part equals.
        return Q(**{f"{order.field}__{compare}e": self.value}) & (
            Q(**{f"{order.field}__{compare}": self.value}) | beyond
        )


class Page(NamedTuple):
    """The rows of a page, and whether there are any before and after it."""

    rows: list[Any]
    has_before: bool
    has_after: bool


def page(rows: QuerySet, order: Order, size: int, after: Cursor | None = None, before: Cursor | None = None) -> Page:
    """Return *size* of *rows* after or before a cursor, or the first.

    Database: 1 query; 2 if fewer than *size* are before the cursor, since that is the first page.
    """
    if before is not None:
        back = order.reversed()
        found = list(back.applied(rows.filter(before.rows_after(back)))[: size + 1])
        if len(found) > size:
            return Page(found[:size][::-1], True, True)
        after = None
    if after is not None:
        rows = rows.filter(after.rows_after(order))
    found = list(order.applied(rows)[: size + 1])
    return Page(found[:size], after is not None, len(found) > size)


class KeysetList(MonitorList):
    """A change list that is paged by key. Columns other than those of ``sortable_by`` don't order it."""

    is_keyed = True
    search_problem = ""
    search_note = ""
    # Until the first queryset is made, which is when the list itself is.
    _cursors: dict[str, str] = {}
    _order = Order("pk", True)
    _is_read = False

    def get_queryset(self, request: HttpRequest, *args: Any, **kwargs: Any) -> QuerySet:
        """Return the rows of the list, in order; none if the search line can't be understood."""
        if not self._is_read:
            self._is_read = True
            self._cursors = {name: self.params.pop(name, "") for name in (AFTER_VAR, BEFORE_VAR)}
            for name in self._cursors:
                self.filter_params.pop(name, None)
        rows = super().get_queryset(request, *args, **kwargs)
        # The beginnings of the wide columns.
        starts = self.model_admin.list_starts if self.model_admin.may_see_arguments(request) else ()
        rows = rows.annotate(**{f"{column}_start": Left(column, SHOWN_CHARACTERS) for column in starts})
        found: Outcome = getattr(request, "djcelery_search", Outcome(rows))
        self.search_problem, self.search_note = found.problem, found.note
        fixed = {spec.fixed for spec in self.filter_specs if isinstance(spec, ChosenFilter) and spec.fixed}
        # The indexes for filtered lists are in the order of the page, and in no other.
        is_usual = self._order.field == self.model_admin.order[0]
        if is_usual and len(fixed | found.fixed) >= self.model_admin.filtered_from:
            self._order = self._order._replace(is_filtered=True)
        return rows

    def get_ordering(self, request: HttpRequest, queryset: QuerySet) -> list[str]:
        """Return the chosen order if an index serves it, else the order of the page."""
        field, is_descending = self.model_admin.get_order(request)
        self._order = Order(field, is_descending)
        if ORDER_VAR in self.params:
            for index, direction in super().get_ordering_field_columns().items():
                column = self.list_display[index] if 0 <= index < len(self.list_display) else None
                if column is not None and column in self.sortable_by:
                    self._order = Order(self.get_ordering_field(column), direction == "desc")
                break
        return self._order.fields

    def get_ordering_field_columns(self) -> dict[int, str]:
        """Return the column that the list is ordered by, so that its header says so."""
        order = self._order
        fields = [self.get_ordering_field(column) for column in self.list_display]
        return {fields.index(order.field): "desc" if order.is_descending else "asc"} if order.field in fields else {}

    def get_results(self, request: HttpRequest) -> None:
        """Read the page; count nothing."""
        order = self._order
        after, before = (
            Cursor.parse(text, self.model, order) if text else None
            for text in (self._cursors[AFTER_VAR], self._cursors[BEFORE_VAR])
        )
        found = page(self.queryset, order, self.list_per_page, after, before)
        self.has_before, self.has_after = found.has_before, found.has_after
        self.model_admin.prepare(request, found.rows)
        self.result_list = found.rows
        # Equal, so that Django speaks of no total; its own pages and "show all" are off.
        self.result_count = self.full_result_count = len(found.rows)
        self.show_full_result_count = self.can_show_all = self.multi_page = False
        self.show_admin_actions = bool(found.rows)
        self.paginator = None

    @property
    def is_newest_first(self) -> bool:
        """Whether the page before this one is the newer one."""
        return self._order.is_descending

    @property
    def first_url(self) -> str:
        """The address of the first page."""
        return self.get_query_string()

    @property
    def before_url(self) -> str:
        """The address of the page before this one; ``""`` if there is none."""
        if not (self.has_before and self.result_list):
            return ""
        return self.get_query_string({BEFORE_VAR: str(Cursor.of(self.result_list[0], self._order))})

    @property
    def after_url(self) -> str:
        """The address of the page after this one; ``""`` if there is none."""
        if not self.has_after:
            return ""
        return self.get_query_string({AFTER_VAR: str(Cursor.of(self.result_list[-1], self._order))})


class KeysetMonitor(ModelMonitor):
    """Base of the pages over tables that may have millions of rows."""

    #: What a list is ordered by; the field has an index with every filter, and no NULL.
    order = ("pk", True)
    #: From how many fixed columns on the order is that of the indexes for filtered lists, see ``FilterIndex``.
    filtered_from = 1
    sortable_by: tuple[Any, ...] = ()
    #: Wide columns of which a list loads the beginning.
    list_starts: tuple[str, ...] = ()
    #: How the search line is read.
    search: Search | None = None

    class Media:
        css = {"all": ("djcelery/tasks.css",)}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Return the list class."""
        return KeysetList

    def get_order(self, request: HttpRequest) -> tuple[str, bool]:
        """Return the field that the list is ordered by, and whether descending."""
        return self.order

    def prepare(self, request: HttpRequest, rows: Sequence[Any]) -> None:
        """Give the rows of a list what their columns show: beginnings of wide columns, or what hides them."""
        if not self.may_see_arguments(request):
            for row in rows:
                self.hide(row)
            return
        for row in rows:
            for column in self.list_starts:
                # As if loaded, so that a column that shows it makes no query of its own.
                setattr(row, column, getattr(row, f"{column}_start"))

    def get_search_results(self, request: HttpRequest, queryset: QuerySet, search_term: str) -> tuple[QuerySet, bool]:
        """Return the rows that the search line finds; none if it can't be understood, see ``finding``."""
        found = Outcome(queryset)
        if self.search is not None and search_term.strip():
            try:
                found = self.search.apply(
                    queryset,
                    search_term,
                    may_see_secrets=self.may_see_arguments(request),
                    is_time_chosen=TimeFilter.is_chosen(request, self.search.time_field),
                )
            except SearchError as exc:
                found = Outcome(queryset.none(), problem=str(exc))
        # For the list, which Django gives the rows alone.
        request.djcelery_search = found  # type: ignore[attr-defined]
        return found.rows, False

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        """Return the list, with the help that fits what this person may search by."""
        changelist = super().get_changelist_instance(request)
        if self.search is not None and self.search_help_text is None:
            changelist.search_help_text = help_text(self.search.keys, self.may_see_arguments(request))
        return changelist
