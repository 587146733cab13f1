"""The Celery app, set up the way Celery's manual does it for Django."""

import os

from celery import Celery
from kombu.transport import TRANSPORT_ALIASES

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demoproject.settings")

# Kombu's folder broker with one fault mended; a project with a real broker has no such line.
TRANSPORT_ALIASES["filesystem"] = "demoproject.broker:Transport"

app = Celery("demoproject")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
