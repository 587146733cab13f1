"""Result backends on the Django ORM and on Django's caches."""

_DATABASE = "djcelery.backends.database:DatabaseBackend"
_CACHE = "djcelery.backends.cache:CacheBackend"

#: Names in ``CELERY_RESULT_BACKEND``, ours and those of django-celery-results; ``apps`` makes them known to Celery.
ALIASES = {
    "djcelery-db": _DATABASE,
    "djcelery-cache": _CACHE,
    "django-db": _DATABASE,
    "django-cache": _CACHE,
}
