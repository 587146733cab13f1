"""Commands that consist of sub-commands: ``celeryresults`` and ``celeryimport``.

Next: ``docs/reference/commands.rst``.
"""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from djcelery.checks import TAG


class SubcommandsCommand(BaseCommand):
    """Parses, and runs the sub-command that was named."""

    requires_system_checks = [TAG]
    #: By name: a class with the docstring's first line as help, ``add_arguments`` and ``run``.
    subcommands: dict[str, Any]

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the sub-commands with their options."""
        subparsers = parser.add_subparsers(dest="subcommand", metavar="SUBCOMMAND", required=True)
        for name, subcommand in self.subcommands.items():
            text = subcommand.__doc__ or ""
            subcommand.add_arguments(subparsers.add_parser(name, help=text.splitlines()[0], description=text))

    def handle(self, *args: Any, subcommand: str, **options: Any) -> None:
        """Run the sub-command."""
        self.subcommands[subcommand](self.stdout, options).run()
