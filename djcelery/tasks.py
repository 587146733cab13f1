"""The tasks that djcelery offers, where ``autodiscover_tasks()`` looks for them.

Called by Celery when it imports task modules. Next: ``docs/webhooks.rst``.
"""

from djcelery.webhooks import http_dispatch, post_json

__all__ = ("http_dispatch", "post_json")
