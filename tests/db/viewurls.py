"""URLs of the tests of the views: those of ``djcelery.urls``, and what projects wire by hand."""

from __future__ import annotations

from celery import current_app
from celery.local import Proxy
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.urls import include, path, re_path

from djcelery import views

#: A task of whichever app is current when it is called.
add = Proxy(lambda: current_app.tasks["shop.add"])


@views.task_webhook
def total(request, *args, **kwargs):
    """Add the numbers of the form."""
    return sum(int(value) for value in request.POST.getlist("n"))


@views.task_webhook
def writes_and_fails(request):
    get_user_model().objects.create_user("half done")
    raise KeyError("s3cret of the receiver")


@views.task_webhook
async def awaited(request):
    return request.method


@views.task_webhook
def odd(request):
    return object


urlpatterns = [
    path("admin/", admin.site.urls),
    path("celery/", include("djcelery.urls")),
    # As projects of django-celery did.
    re_path(r"^by-hand/apply/(?P<task_name>.+?)/", views.apply, name="by-hand"),
    path("shop/add/", views.task_view(add), name="add"),
    path("shop/add/<int:y>/", views.task_view(add), name="add-to"),
    path("hooks/total/", total, name="total"),
    path("hooks/fails/", writes_and_fails, name="fails"),
    path("hooks/awaited/", awaited, name="awaited"),
    path("hooks/odd/", odd, name="odd"),
]
