"""The project as people see it: its admin in a browser, which takes no script, style or font from elsewhere."""

from legacyproj.adopted import *  # noqa: F403
from legacyproj.adopted import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "django.contrib.staticfiles"]
MIDDLEWARE = [
    "legacyproj.website.strict",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
ROOT_URLCONF = "legacyproj.urls"
STATIC_URL = "/static/"
ALLOWED_HOSTS = ["127.0.0.1"]
# Logging in is not what the tests are about.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
CELERY_TRACK_STARTED = True
# Redis keeps tests apart by the prefix of its keys: people see the usual name.
CELERY_DEFAULT_QUEUE = "celery"


def strict(get_response):
    """Middleware that has the browser refuse, and report on its console, whatever is not a file of this site."""

    def answer(request):
        response = get_response(request)
        response["Content-Security-Policy"] = "default-src 'self'"
        return response

    return answer
