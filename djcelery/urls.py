"""URLs of the views, by the paths and names of django-celery.

Included by a project's URLs, as ``path("celery/", include("djcelery.urls"))``. Slashes at the end are optional.
Next: ``docs/reference/views.rst``.
"""

from django.urls import re_path

from djcelery import views

__all__ = ("task_pattern", "urlpatterns")

task_pattern = r"(?P<task_id>[\w\d\-\.]+)"

urlpatterns = [
    re_path(rf"^{task_pattern}/done/?\Z", views.is_task_successful, name="celery-is_task_successful"),
    re_path(rf"^{task_pattern}/status/?\Z", views.task_status, name="celery-task_status"),
    re_path(r"^tasks/?\Z", views.registered_tasks, name="celery-tasks"),
    re_path(r"^apply/(?P<task_name>.+?)/?\Z", views.apply, name="celery-apply"),
]
