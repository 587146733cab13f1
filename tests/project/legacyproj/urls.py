from django.contrib import admin
from django.http import HttpResponse
from django.urls import path

urlpatterns = [
    path("admin/", admin.site.urls),
    # Browsers ask for it by themselves.
    path("favicon.ico", lambda request: HttpResponse(status=204)),
]
