from environ import broker_options, broker_url, databases, prefix

SECRET_KEY = "modern"
USE_TZ = True
TIME_ZONE = "Europe/Brussels"
DATABASES = databases()
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "djcelery",
    "shop",
]

CELERY_BROKER_URL = broker_url()
CELERY_BROKER_TRANSPORT_OPTIONS = broker_options()
CELERY_TASK_DEFAULT_QUEUE = f"{prefix()}celery"
CELERY_CONTROL_EXCHANGE = f"{prefix()}pidbox"
CELERY_EVENT_EXCHANGE = f"{prefix()}events"
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_RESULT_BACKEND = "djcelery-db"
CELERY_WORKER_CONCURRENCY = 1
CELERY_BEAT_SCHEDULER = "djcelery"
