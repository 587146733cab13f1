"""The views of django-celery, with its names, paths and JSON: send tasks, ask for their states, receive webhooks.

Called by the project's URLs: ``djcelery.urls`` routes four of them; ``task_view()`` and ``task_webhook()`` make views
that a project routes itself. Each has a setting of who may call it; all answers, errors too, are JSON.
Next: ``docs/reference/views.rst``.
"""

from djcelery.views.answers import JsonResponse
from djcelery.views.reading import is_task_successful, registered_tasks, task_status
from djcelery.views.sending import apply, task_view
from djcelery.views.webhook import task_webhook

__all__ = (
    "JsonResponse",
    "apply",
    "is_task_successful",
    "registered_tasks",
    "task_status",
    "task_view",
    "task_webhook",
)
