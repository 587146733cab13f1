"""What the pages over large tables share: cheap lists, and rows that only the engines write.

Next: ``monitor`` and ``results``, which are built on it.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.functional import cached_property


class BoundedPaginator(Paginator):
    """A paginator that looks at the first ``max_rows`` rows only.

    Counting all rows of a large table takes longer than anybody waits; a filter or a search finds what
    is older.

    Database: one COUNT over a subquery of at most ``max_rows`` rows.
    """

    max_rows = 10_000

    @cached_property
    def _found(self) -> int:
        return self.object_list.order_by()[: self.max_rows + 1].count()

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


class MonitorList(ChangeList):
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


class ModelMonitor(admin.ModelAdmin):
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

    paginator = BoundedPaginator
    show_full_result_count = False
    # Counts per filter value are one COUNT over the whole table each.
    show_facets = admin.ShowFacets.NEVER

    class Media:
        css = {"all": ("djcelery/style.css",)}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Return the list class."""
        return MonitorList

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

    def may_control(self, request: HttpRequest) -> bool:
        """Tell whether this person may act on what a row stands for: by the model's "change" permission.

        The action permissions of subclasses (``has_revoke_permission`` and so on) ask this.
        """
        return super().has_change_permission(request)
