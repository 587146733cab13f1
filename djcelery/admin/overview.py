"""The overview: "is everything all right?" in one look, refreshed while it is open.

Registered like the page of a model, so that every admin site that wants it has it, at ``djcelery/overview/``. The page
works without scripts; with them, ``overview.js`` fetches the figures every few seconds. ``figures`` gathers them,
``problems`` judges them, ``overview_parts`` and ``charts`` put them into words and pictures.
Next: ``docs/monitor.rst``.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode

from django.apps import apps as installed
from django.apps.registry import Apps
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from djcelery.admin.figures import PERIODS, gather
from djcelery.admin.overview_parts import parts


class Overview(models.Model):
    """A place in the admin, no table: Django shows and routes pages of models only."""

    id = models.IntegerField(primary_key=True)

    class Meta:
        # Of its own, so that migrations and content types know nothing of it.
        apps = Apps()
        app_label = "djcelery"
        managed = False
        default_permissions = ()
        verbose_name = gettext_lazy("overview")
        verbose_name_plural = gettext_lazy("overview")

    def __str__(self) -> str:
        return "overview"


@admin.register(Overview)
class OverviewAdmin(admin.ModelAdmin):
    """The page of the overview; whoever may see tasks may see it."""

    def get_urls(self) -> list[URLPattern]:
        """Return the page, under its own name and that of a list, and its figures alone."""
        page = self.admin_site.admin_view(never_cache(require_safe(self.overview_view)))
        part = self.admin_site.admin_view(never_cache(require_safe(self.figures_view)))
        return [
            path("", page, name="djcelery_overview"),
            path("", page, name="djcelery_overview_changelist"),
            path("figures/", part, name="djcelery_overview_figures"),
        ]

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Tell whether this person may see tasks."""
        return request.user.has_perm("djcelery.view_taskstate")

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Tell whether the overview is listed."""
        return self.has_view_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: it is a page only."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: it is a page only."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: it is a page only."""
        return False

    def overview_view(self, request: HttpRequest) -> HttpResponse:
        """Show the page. Database: that of ``figures.gather()``, and what the frame of the admin needs."""
        context = {
            **self.admin_site.each_context(request),
            **self._context(request),
            "title": _("Overview"),
            "subtitle": None,
            "opts": self.opts,
            "app_label": self.opts.app_label,
            "app_name": installed.get_app_config(self.opts.app_label).verbose_name,
        }
        return self._response(request, "admin/djcelery/overview.html", context)

    def figures_view(self, request: HttpRequest) -> HttpResponse:
        """Show the figures alone, for the script. Database: that of ``figures.gather()``."""
        return self._response(request, "admin/djcelery/overview_figures.html", self._context(request))

    def _response(self, request: HttpRequest, template: str, context: dict[str, Any]) -> TemplateResponse:
        request.current_app = self.admin_site.name  # type: ignore[attr-defined]
        return TemplateResponse(request, template, context)

    def _context(self, request: HttpRequest) -> dict[str, Any]:
        from djcelery.app import project_app

        if not self.has_view_permission(request):
            raise PermissionDenied
        period = PERIODS.get(request.GET.get("period", ""), PERIODS["hour"])
        found = gather(project_app(), period)
        return parts(found, Links(self.admin_site, request))


class Links:
    """Addresses of lists of this admin site; "" for what this person may not see, or the site doesn't have."""

    def __init__(self, site: admin.AdminSite, request: HttpRequest) -> None:
        self.site = site
        self.request = request
        self._lists: dict[str, str] = {}
        self.may_see_arguments = request.user.has_perm("djcelery.arguments_taskstate")

    def list(self, name: str | None, query: str = "") -> str:
        """Return the list of the model *name*, narrowed by *query*."""
        if not name:
            return ""
        if name not in self._lists:
            may_see, url = self._may_see(name), f"admin:djcelery_{name}_changelist"
            self._lists[name] = reverse(url, current_app=self.site.name) if may_see else ""
        page = self._lists[name]
        return f"{page}?{query}" if query and page else page

    def row(self, name: str, pk: Any) -> str:
        """Return the page of one row of the model *name*."""
        if not self._may_see(name):
            return ""
        return reverse(f"admin:djcelery_{name}_change", args=[pk], current_app=self.site.name)

    def tasks(self, **words: str) -> str:
        """Return the list of tasks, searched by *words* such as ``state="FAILURE"``; all of them without any."""
        line = " ".join(f"{key}:{_quoted(value)}" for key, value in words.items())
        return self.list("taskstate", urlencode({"q": line}) if line else "")

    def _may_see(self, name: str) -> bool:
        page = self.site._registry.get(installed.get_model("djcelery", name))
        return page is not None and page.has_view_permission(self.request)


def _quoted(value: str) -> str:
    """Return *value* as the search line of the task list takes it; in quotation marks it has no special characters."""
    if re.fullmatch(r"[\w.@-]+", value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
