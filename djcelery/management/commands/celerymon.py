"""``manage.py celerymon``: says where the work of the old monitor is done now."""

from __future__ import annotations

import sys

from django.core.management.base import CommandError

from djcelery.management.base import CeleryCommand

INSTEAD = (
    'celerymon is gone. To see tasks and workers in the admin, run "manage.py celerycam" and start workers with -E; '
    'for a web monitor without the database, install Flower (pip install flower) and run "manage.py celery flower". '
    "No setting CELERYMON_… has an effect."
)


class Command(CeleryCommand):
    """Say that celerymon is gone; fail."""

    help = INSTEAD

    def run_from_argv(self, argv):
        if {"-h", "--help", "--version"} & set(argv[2:]):
            super().run_from_argv(argv)
        self.stderr.write(INSTEAD)
        sys.exit(1)

    def handle(self, *args, **options):
        raise CommandError(INSTEAD)
