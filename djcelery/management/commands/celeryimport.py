"""``manage.py celeryimport``: take over the tables of django-celery-results and django-celery-beat.

``imports`` has the sub-commands. Next: ``docs/coming-from-results-and-beat.rst``.
"""

from __future__ import annotations

from djcelery.management import imports
from djcelery.management.subcommands import SubcommandsCommand


class Command(SubcommandsCommand):
    """Copy the rows of other Celery apps into djcelery's tables."""

    help = "Copy the rows of django-celery-results and django-celery-beat into djcelery's tables."
    subcommands = {"results": imports.Results, "beat": imports.Beat}
