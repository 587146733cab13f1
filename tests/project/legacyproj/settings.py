import os

from environ import broker_options, broker_url, databases, prefix

import djcelery

djcelery.setup_loader()

SECRET_KEY = "legacy"
USE_TZ = True
TIME_ZONE = "Europe/Brussels"
DATABASES = databases()
DJCELERY_KEEP_RESULT_CONNECTION = os.environ.get("KEEP_RESULT_CONNECTION", "1") == "1"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "djcelery",
    "shop",
]

BROKER_URL = broker_url()
BROKER_TRANSPORT_OPTIONS = broker_options()
CELERY_DEFAULT_QUEUE = f"{prefix()}celery"
CELERY_BROADCAST_EXCHANGE = f"{prefix()}pidbox"
CELERY_EVENT_EXCHANGE = f"{prefix()}events"
CELERY_EVENT_QUEUE_PREFIX = f"{prefix()}celeryev"
# What a test leaves on the broker is gone soon.
DJCELERY_CAMERA_QUEUE_TTL_S = float(os.environ.get("CAMERA_QUEUE_TTL_S", "120"))
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_RESULT_SERIALIZER = "json"
CELERYD_CONCURRENCY = 1
CELERYD_HIJACK_ROOT_LOGGER = True
CELERYBEAT_SCHEDULER = "djcelery.schedulers.DatabaseScheduler"
CELERYBEAT_SCHEDULE = {}
