import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "modernproj.settings")

app = Celery("modernproj")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
