"""One setting under two names with different values: no program may start."""

from legacyproj.settings import *  # noqa: F403

CELERYD_CONCURRENCY = 1
CELERY_WORKER_CONCURRENCY = 2
