"""Django settings of the test suite; the database engine comes from DATABASE_URL, sqlite by default.

DATABASE_URL is ``sqlite`` (in memory), ``sqlite:////absolute/path``, ``postgresql://user@host:port/name`` or
``mysql://user@host:port/name``.
"""

import os
from urllib.parse import urlsplit


def database(url: str) -> dict:
    """Return Django's settings for the database at *url*."""
    parts = urlsplit(url)
    if parts.scheme in ("", "sqlite"):
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": (parts.scheme and parts.path[1:]) or ":memory:"}
    engine = {"postgresql": "postgresql", "mysql": "mysql"}[parts.scheme]
    return {
        "ENGINE": f"django.db.backends.{engine}",
        "NAME": parts.path.lstrip("/"),
        "USER": parts.username,
        "PASSWORD": parts.password or "",
        "HOST": parts.hostname,
        "PORT": parts.port or "",
        "TEST": {"NAME": f"test_{parts.path.lstrip('/')}"},
    }


SECRET_KEY = "tests"
USE_TZ = True
TIME_ZONE = "Europe/Brussels"
DATABASES = {"default": database(os.environ.get("DATABASE_URL", "sqlite"))}
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "djcelery",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
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
ROOT_URLCONF = "tests.urls"
STATIC_URL = "/static/"
# Logging in is not what the tests are about.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
BROKER_URL = os.environ.get("BROKER_URL", "memory://")
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
