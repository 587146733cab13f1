"""``manage.py camqadm``: declare, bind, purge and delete queues, get and publish messages."""

from __future__ import annotations

import argparse
from typing import Any

import click
from celery.bin.amqp import amqp

from djcelery.management import amqp as broker
from djcelery.management import lines
from djcelery.management import options as option_tools
from djcelery.management.base import CeleryCommand
from djcelery.management.programs import AMQP_ARGUMENTS


class Command(CeleryCommand):
    """Send commands to the broker."""

    help = 'Send a command to the broker; without one, ask for commands until "exit".'
    usage = "%(prog)s [options] [command [argument ...]]"

    def create_parser(self, prog_name, subcommand, **kwargs):
        kwargs.setdefault("epilog", _overview())
        return super().create_parser(prog_name, subcommand, **kwargs)

    def add_arguments(self, parser):
        option_tools.add_general_options(parser)
        parser.add_argument(
            "args", nargs=argparse.REMAINDER, metavar="command", help="One of those below, and its arguments."
        )

    def handle(self, *args: str, **options: Any) -> None:
        general, words = lines.split(["amqp", *args])
        words = words[1:]
        self.export(options)
        self.handle_default_options(general)
        with self.streams(options):
            if words and ({"help", "-h"} & {words[0]} or "--help" in words):
                click.echo(_overview(*(word for word in words if word in amqp.commands)))
                return
            no_color = bool(options.get("no_color")) or bool({"-C", "--no-color"} & set(general))
            self.converse(words, broker.session(self.app, no_color))

    def converse(self, words: list[str], session: broker.Session) -> None:
        """Run *words* as one command, or read commands if there are none; leave with the exit status."""
        # "celery amqp" is today's program, too: there the old order counts only if today's can't be meant.
        always = not self.typed

        def run(line: list[str]) -> None:
            broker.run_words(broker.legacy_words(line, always), session, self.program_name)

        if not words or words == ["repl"]:
            status = broker.prompt(run, session)
        else:
            self.run_click(amqp, broker.legacy_words(words, always), self.program_name, obj=session)
            status = int(session.failed)
        session.connection.close()
        if status:
            self.leave(status, "The broker refused a command; see above.")


def _overview(*names: str) -> str:
    """Return the arguments of commands, of all if none is named; no broker is needed for it."""
    formatter = click.HelpFormatter(width=100)
    with formatter.section("commands"):
        for name in sorted(names or amqp.commands):
            if name != "repl":
                today = [param.name or "" for param in amqp.commands[name].params]
                formatter.write_text(" ".join([name, *AMQP_ARGUMENTS.get(name, today)]))
    formatter.write_text("All from the first yes or no on may be left out; also on/off, true/false, 1/0.")
    formatter.write_text("Without a command there is a prompt, which exit ends.")
    return formatter.getvalue()
