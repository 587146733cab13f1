"""What the pages over large tables share: cheap lists, and rows that only the engines write.

Next: ``monitor`` and ``results``, which are built on it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.contrib.admin import helpers
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import BadRequest, PermissionDenied
from django.core.paginator import Paginator
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import DateTimeField, ForeignKey, IntegerField, Model, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.translation import gettext as _

from djcelery import db
from djcelery.admin.filters import KEY_DIGITS, is_key, parse_moment
from djcelery.admin.search import MAX_LENGTH

# What Django's filters of columns, and its hierarchy of dates, put into the address.
_FILTER_LOOKUPS = ("exact", "isnull", "in", "gt", "gte", "lt", "lte")
_DATE_LOOKUPS = ("year", "month", "day", "gte", "lt")


class Hidden(str):
    """A text in place of a value that a person may not see."""

    __slots__ = ()


class BoundedPaginator(Paginator):
    """A paginator that looks at the first ``max_rows`` rows only.

    Counting all rows of a large table takes longer than anybody waits; a filter or a search finds what
    is older.

    Database: one COUNT over a subquery of at most ``max_rows`` rows.
    """

    max_rows = 10_000

    @cached_property
    def _found(self) -> int:
        # Of the keys alone, so that no annotation is computed for rows that are only counted.
        return self.object_list.order_by().values("pk")[: self.max_rows + 1].count()

    @property
    def count(self) -> int:  # type: ignore[override]
        """How many rows there are, at most ``max_rows``."""
        return min(self._found, self.max_rows)

    @property
    def is_cut(self) -> bool:
        """Whether there are more rows than are counted."""
        return self._found > self.max_rows


def _converts_time_zones(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether the database can say on which local day an instant was; MySQL needs its tables of zones for it."""
    is_local = not settings.USE_TZ or connection.timezone_name == timezone.get_current_timezone_name()
    return is_local or connection.features.has_zoneinfo_database


def can_be_found(term: str) -> bool:
    """Tell whether any database can look for *term*: SQLite refuses a pattern of more than 50,000 bytes."""
    return len(term) <= MAX_LENGTH and db.storable(term) == term


class CheckedList(ChangeList):
    """A list whose address is checked before the database sees what is in it."""

    def get_queryset(self, request: HttpRequest, *args: Any, **kwargs: Any) -> QuerySet:
        """Return the rows of the list.

        Raises:
            IncorrectLookupParameters: The address holds what no column can; the admin shows the list without filters.
        """
        if not all(self._is_possible(name, values) for name, values in request.GET.lists()):
            # Databases would refuse it only when the rows are read, where nobody catches that.
            raise IncorrectLookupParameters("a text or number that no column holds")
        return super().get_queryset(request, *args, **kwargs)

    def _is_possible(self, name: str, values: list[str]) -> bool:
        columns = {field.name: field for field in self.lookup_opts.concrete_fields}
        is_number = isinstance(columns.get(name.partition("__")[0]), (ForeignKey, IntegerField))
        texts = [name, *values]
        return texts == [db.storable(text) for text in texts] and not (
            is_number and any(len(value) > KEY_DIGITS for value in values)
        )


class BoundedList(CheckedList):
    """A list that counts what it shows, and never all rows of the table."""

    full_result_count: int | None

    def get_results(self, request: HttpRequest) -> None:
        """Read the page; where nothing is searched or filtered, offer no link to "all"."""
        super().get_results(request)
        if self.full_result_count is None and not self.query and not self.has_active_filters:
            self.full_result_count = self.result_count


class MonitorList(BoundedList):
    """A list with a title of its own, which leaves the wide columns in the database."""

    title: Any
    date_hierarchy: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.title = self.model_admin.list_page_title or self.title
        if not _converts_time_zones(connections[self.root_queryset.db]):
            self.date_hierarchy = None

    def get_queryset(self, *args: Any, **kwargs: Any) -> QuerySet:
        """Return the rows of the list, without the columns that it doesn't show."""
        return super().get_queryset(*args, **kwargs).defer(*self.model_admin.list_defer)


def _in_utf8(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Return *view*, which refuses requests that name another encoding: in UTF-7 there are halves of characters."""

    @functools.wraps(view)
    def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if (request.encoding or "utf-8").lower() not in ("utf-8", "utf8"):
            raise BadRequest("Only UTF-8 is understood.")
        return view(request, *args, **kwargs)

    return checked


class RefusingAdmin(admin.ModelAdmin):
    """A page that refuses what Django passes over.

    That is: actions that it doesn't offer to this person, lookups in the address beside those of its filters, and
    values that databases would only refuse with an error.
    """

    #: Parameters of the list beside those of ``list_filter``.
    list_lookups: tuple[str, ...] = ()

    def get_urls(self) -> list[Any]:
        """Return the pages."""
        patterns = super().get_urls()
        for pattern in patterns:
            pattern.callback = _in_utf8(pattern.callback)
        return patterns

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Return the list class."""
        return CheckedList

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        """Tell whether a parameter of the address may filter the list.

        Django lets any lookup into the row's own columns pass: a pattern that takes the database minutes, or one that
        guesses at what the page hides.
        """
        names = set(self.list_lookups)
        columns: dict[Any, tuple[str, ...]] = {self.date_hierarchy: _DATE_LOOKUPS}
        for spec in self.list_filter:
            if isinstance(spec, (str, tuple)):
                columns[spec if isinstance(spec, str) else spec[0]] = _FILTER_LOOKUPS
            elif hasattr(spec, "parameters"):
                names |= set(spec.parameters())
            else:
                names.add(spec.parameter_name)
        column, _mark, last = lookup.rpartition("__")
        # The filter of a relation looks for "worker__id__exact".
        return lookup in names | set(columns) or last in columns.get(column.removesuffix("__id"), ())

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the list, or run an action on it.

        Raises:
            PermissionDenied: This person may not run the action, or not see the list.
        """
        chosen = {name for name in request.POST.getlist("action") if name}
        if chosen - set(self.get_actions(request)):
            raise PermissionDenied
        keys = request.POST.getlist(helpers.ACTION_CHECKBOX_NAME)
        if not all(map(is_key, keys)):
            post = request.POST.copy()
            post.setlist(helpers.ACTION_CHECKBOX_NAME, [key for key in keys if is_key(key)])
            request.POST = post  # type: ignore[misc, assignment]
        return super().changelist_view(request, extra_context)

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Model | None:
        """Return the row of a page; Django would look for a field without a name if the address has an empty one."""
        return super().get_object(request, object_id, from_field or None)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Return what the address of the page of a new row fills in; what is no time is left out where one goes."""
        initial = dict(super().get_changeform_initial_data(request))
        for field in self.opts.concrete_fields:
            if isinstance(field, DateTimeField) and field.name in initial:
                try:
                    initial[field.name] = parse_moment(initial[field.name])
                except IncorrectLookupParameters:
                    del initial[field.name]
        return initial

    def get_search_results(self, request: HttpRequest, queryset: QuerySet, search_term: str) -> tuple[QuerySet, bool]:
        """Return the rows that *search_term* finds; autocompletion passes on what Django's own field would refuse."""
        if not can_be_found(search_term):
            return queryset.none(), False
        return super().get_search_results(request, queryset, search_term)


class ShownValues(admin.ModelAdmin):
    """A page of a row whose fields say for themselves what is shown for nothing."""

    def shown(self, value: Any) -> Any:
        """Return *value*, or Django's sign for nothing: on the page of a row it would write None."""
        return self.get_empty_value_display() if value is None else value


class ModelMonitor(ShownValues, RefusingAdmin):
    """Base of the pages whose rows an engine writes.

    A page that can be changed saves the fields that the person changed and no other, since the
    engine may have written the row meanwhile.
    """

    can_add = False
    can_delete = False
    can_change = False
    #: Titles of the list and of one row; None for Django's.
    list_page_title: Any = None
    detail_title: Any = None
    #: Columns that the list doesn't load.
    list_defer: tuple[str, ...] = ()
    #: Columns that only who may see arguments sees, in lists and on pages.
    secret_columns: tuple[str, ...] = ()

    paginator = BoundedPaginator
    show_full_result_count = False
    # Counts per filter value are one COUNT over the whole table each.
    show_facets = admin.ShowFacets.NEVER

    class Media:
        css = {"all": ("djcelery/style.css",)}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Return the list class."""
        return MonitorList

    def may_see_arguments(self, request: HttpRequest) -> bool:
        """Tell whether this person may see arguments and results of tasks."""
        return request.user.has_perm("djcelery.arguments_taskstate")

    def hide(self, row: Model) -> None:
        """Replace the secret values of *row*, which must not be saved, by ``Hidden``; none is loaded for it."""
        hidden = Hidden(_("(hidden)"))
        for column in self.secret_columns:
            if row.__dict__.get(column, hidden) is not None:
                setattr(row, column, hidden)

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Model | None:
        """Return the row of a page, without what this person may not see."""
        row = super().get_object(request, object_id, from_field)
        if row is not None and self.secret_columns and not self.may_see_arguments(request):
            self.hide(row)
        return row

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show one row under ``detail_title``."""
        context = {"title": self.detail_title} if self.detail_title else {}
        return super().change_view(request, object_id, form_url, extra_context={**context, **(extra_context or {})})

    def save_model(self, request: HttpRequest, obj: Model, form: ModelForm, change: bool) -> None:
        """Save what the person changed."""
        obj.save(update_fields=form.changed_data if change else None)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Tell whether this person may add a row: never, unless ``can_add``."""
        return self.can_add and super().has_add_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Tell whether this person may edit a row: never, unless ``can_change``."""
        return self.can_change and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Tell whether this person may delete a row: never, unless ``can_delete``."""
        return self.can_delete and super().has_delete_permission(request, obj)
