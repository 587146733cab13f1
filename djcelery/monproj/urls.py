"""The pages of the stand-alone monitor: the admin at the root, and its documentation pages if they can be shown.

Named by ``ROOT_URLCONF`` in ``djcelery.mon``. Next: ``docs/djcelerymon.rst``.
"""

from __future__ import annotations

from importlib.util import find_spec

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

urlpatterns: list[URLPattern | URLResolver] = []
if find_spec("docutils") is not None:
    # Before the admin, which answers to every path.
    urlpatterns.append(path("doc/", include("django.contrib.admindocs.urls")))
urlpatterns.append(path("", admin.site.urls))
