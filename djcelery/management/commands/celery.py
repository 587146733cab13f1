"""``manage.py celery``: every sub-command of Celery, with the options of the old days."""

from __future__ import annotations

import argparse
from typing import Any

import click
from celery.bin.celery import celery
from celery.platforms import EX_USAGE
from django.core.management import load_command_class

from djcelery.management import lines
from djcelery.management import options as option_tools
from djcelery.management.base import CeleryCommand
from djcelery.management.programs import PROGRAMS


class Command(CeleryCommand):
    """Run a sub-command of Celery."""

    help = "Run a sub-command of Celery. General options may stand before or after its name."
    usage = "%(prog)s [general options] sub-command [options]"

    def run_from_argv(self, argv):
        if "worker" in argv:
            self.restart_for_greenlets(argv)
        super().run_from_argv(argv)

    def create_parser(self, prog_name, subcommand, **kwargs):
        kwargs.setdefault("epilog", _overview())
        return super().create_parser(prog_name, subcommand, **kwargs)

    def add_arguments(self, parser):
        option_tools.add_general_options(parser)
        parser.add_argument(
            "args", nargs=argparse.REMAINDER, metavar="sub-command", help="One of those below, and its options."
        )

    def handle(self, *args: str, **options: Any) -> None:
        words = self.translated(lines.modern(list(args))) if args else ["--help"]
        if words[0] in ("-h", "--help"):
            with self.streams(options):
                self.print_help(self.script_name, self.program_name.partition(" ")[2])
            if not args:
                self.leave(EX_USAGE, "No sub-command was given.")
        elif words[0] in PROGRAMS:
            self.hand_over(words, options)
        else:
            general, rest = lines.split(words)
            self.run_celery([*option_tools.celery_options(options), *general, *rest], **options)

    def translated(self, words: list[str]) -> list[str]:
        """Return *words* as today's Celery wants them; for what only one of the umbrella commands does."""
        return words

    def hand_over(self, words: list[str], options: dict[str, Any]) -> None:
        """Run the command that does the work of a sub-command, such as celeryd for ``worker``."""
        command = load_command_class("djcelery", PROGRAMS[words[0]])
        command.script, command.app_name = self.script, self.app_name
        command.typed = f"{self.program_name.partition(' ')[2]} {words[0]}"
        command._called_from_command_line = self._called_from_command_line
        parser = command.create_parser(self.script_name, command.typed)
        parsed = vars(parser.parse_args([*option_tools.base_line(options), *words[1:]]))
        streams = {name: options.get(name) for name in ("stdout", "stderr")}
        command.execute(*parsed.pop("args", ()), **parsed, **streams)


def _overview() -> str:
    """Return the sub-commands with a line about each."""
    formatter = click.HelpFormatter(width=100)
    with formatter.section("sub-commands"):
        formatter.write_dl([(name, celery.commands[name].get_short_help_str(70)) for name in sorted(celery.commands)])
    formatter.write_text("Options of a sub-command: SUB-COMMAND --help")
    return formatter.getvalue()
