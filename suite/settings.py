"""Django settings under which Celery's own integration suite runs; the database comes from DATABASE_URL."""

import os

from tests.settings import database

SECRET_KEY = "suite"
USE_TZ = True
DATABASES = {"default": database(os.environ["DATABASE_URL"])}
DATABASES["default"]["TEST"] = {"NAME": "djcelery_suite"}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # The test database of SQLite would be in memory, which a forked pool process can't share.
    DATABASES["default"]["TEST"] = {"NAME": DATABASES["default"]["NAME"]}
    DATABASES["default"]["OPTIONS"] = {"init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL"}
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "djcelery"]
if os.environ.get("SUITE_BACKEND", "").startswith("django_celery_results"):
    INSTALLED_APPS.append("django_celery_results")
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
