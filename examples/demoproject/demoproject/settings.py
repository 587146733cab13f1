"""Settings of the demo: SQLite, a broker in a folder, nothing to install besides Python packages.

Everything that the demo writes is in one folder, ``.demo`` at the top of the repository or DEMO_DIR.
"""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
STATE_DIR = Path(os.environ.get("DEMO_DIR", BASE_DIR.parent.parent / ".demo"))
BROKER_DIR = STATE_DIR / "broker"
for _name in ("messages", "control"):
    # The folder broker creates none of its folders.
    (BROKER_DIR / _name).mkdir(parents=True, exist_ok=True)

# Good enough on loopback, with a database that is thrown away; never for a site.
SECRET_KEY = os.environ.get("DEMO_SECRET_KEY", "only for the demo")
# A worker with DEBUG on keeps every SQL statement in memory.
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "djcelery",
    "shop",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "demoproject.urls"
WSGI_APPLICATION = "demoproject.wsgi.application"
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": STATE_DIR / "demo.sqlite3",
        "OPTIONS": {
            # Five processes share the file: readers don't wait for the writer (WAL), and a
            # transaction takes its lock at the start, where SQLite waits for it, not half-way,
            # where SQLite gives up at once.
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
        },
    }
}

CELERY_BROKER_URL = "filesystem://"
CELERY_BROKER_TRANSPORT_OPTIONS = {
    # Writer and reader are the same project, so "in" and "out" are the same folder.
    "data_folder_in": str(BROKER_DIR / "messages"),
    "data_folder_out": str(BROKER_DIR / "messages"),
    "control_folder": str(BROKER_DIR / "control"),
    # Seconds between two looks into the folder.
    "polling_interval": 0.1,
}
CELERY_RESULT_BACKEND = "djcelery-db"
CELERY_TASK_TRACK_STARTED = True
CELERY_BEAT_SCHEDULE = {
    "count-orders": {"task": "shop.tasks.count_orders", "schedule": 5.0},
}
