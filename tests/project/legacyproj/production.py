"""Settings that differ from the default ones in what a test can see: the node's queue."""

from legacyproj.settings import *  # noqa: F403

CELERY_DEFAULT_QUEUE = f"{prefix()}production"  # noqa: F405
