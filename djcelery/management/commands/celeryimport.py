"""``manage.py celeryimport``: take over the tables of django-celery-results and django-celery-beat.

Only parses; ``imports`` has the sub-commands. Next: ``docs/coming-from-results-and-beat.rst``.
"""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from djcelery.checks import TAG
from djcelery.management import imports

#: By name: a class with the docstring's first line as help, ``add_arguments`` and ``run``.
SUBCOMMANDS: dict[str, Any] = {"results": imports.Results, "beat": imports.Beat}


class Command(BaseCommand):
    """Copy the rows of other Celery apps into djcelery's tables."""

    help = "Copy the rows of django-celery-results and django-celery-beat into djcelery's tables."
    requires_system_checks = [TAG]

    def add_arguments(self, parser: CommandParser) -> None:
        subparsers = parser.add_subparsers(dest="subcommand", metavar="SUBCOMMAND", required=True)
        for name, subcommand in SUBCOMMANDS.items():
            text = subcommand.__doc__ or ""
            subcommand.add_arguments(subparsers.add_parser(name, help=text.splitlines()[0], description=text))

    def handle(self, *args: Any, subcommand: str, **options: Any) -> None:
        SUBCOMMANDS[subcommand](self.stdout, options).run()
