"""``manage.py celeryresults``: delete old results now, or rewrite legacy ones.

Only parses; each sub-command is a module beside ``commands``. Next: ``docs/reference/commands.rst``.
"""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from djcelery.checks import TAG
from djcelery.management import results_cleanup, results_convert

#: By name: a module with the class docstring's first line as help, ``add_arguments`` and ``run``.
SUBCOMMANDS: dict[str, Any] = {"cleanup": results_cleanup.Cleanup, "convert": results_convert.Convert}


class Command(BaseCommand):
    """Work on stored results."""

    help = "Work on the results that the database result backend has stored."
    requires_system_checks = [TAG]

    def add_arguments(self, parser: CommandParser) -> None:
        subparsers = parser.add_subparsers(dest="subcommand", metavar="SUBCOMMAND", required=True)
        for name, subcommand in SUBCOMMANDS.items():
            text = subcommand.__doc__ or ""
            subcommand.add_arguments(subparsers.add_parser(name, help=text.splitlines()[0], description=text))

    def handle(self, *args: Any, subcommand: str, **options: Any) -> None:
        SUBCOMMANDS[subcommand](self.stdout, options).run()
