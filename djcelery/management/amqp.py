"""``camqadm``: commands to the broker, one from the command line or many from a prompt.

Called by ``commands.camqadm``. The commands are those of ``celery amqp``; this adds the arguments of
django-celery, an exit status that tells of failures, and the prompt.
"""

from __future__ import annotations

import itertools
import shlex
import sys
from collections.abc import Callable
from typing import Any

import click
from celery.bin.amqp import AMQPContext, amqp
from celery.bin.base import CLIContext
from celery.platforms import EX_FAILURE, EX_OK, EX_UNAVAILABLE
from django.core.management.base import CommandError

from djcelery.management.programs import AMQP_ARGUMENTS, AMQP_REMOVED

__all__ = ("legacy_words", "prompt", "session")


class Session(AMQPContext):
    """The connection that all commands of one camqadm share; knows whether one has failed."""

    failed = False

    def echo_error(self, exception: Any) -> None:
        """Print an error of the broker, and remember that there was one."""
        self.failed = True
        super().echo_error(exception)


def session(app: Any, no_color: bool) -> Session:
    """Connect to the broker of *app*.

    Raises:
        CommandError: The broker can't be reached; exit status 69.
    """
    errors = app.connection_for_write().connection_errors
    try:
        made = Session(CLIContext(app=app, no_color=no_color, workdir=None))
    except errors as exc:
        raise CommandError(f"The broker can't be reached: {exc}.", returncode=EX_UNAVAILABLE) from exc
    if made.channel is None:
        raise CommandError("The broker can't be reached.", returncode=EX_UNAVAILABLE)
    return made


def legacy_words(words: list[str], always: bool) -> list[str]:
    """Return *words*, a command and its arguments in django-celery's order, in today's.

    Args:
        words: Such as ``["queue.declare", "mail", "no", "yes", "no", "no"]``.
        always: Whether the old order is meant even if today's has room for as many arguments.

    Raises:
        CommandError: An argument without a counterpart is wanted; the message names it.
    """
    names = AMQP_ARGUMENTS.get(words[0], ())
    old = [name for name in names if name in AMQP_REMOVED]
    if not old or (not always and len(words) - 1 < len(names)):
        return words
    result = [words[0]]
    for name, value in itertools.zip_longest(names, words[1:]):
        if value is None or name not in old:
            result += [] if value is None else [value]
        elif click.BOOL.convert(value, None, None):
            raise CommandError(f"{words[0]}: {name}={value} has no counterpart in Celery 5. {AMQP_REMOVED[name]}")
    return result


def prompt(run: Callable[[list[str]], None], made: Session) -> int:
    """Read commands from standard input until "exit" or its end; return the exit status.

    Errors are printed and don't end the prompt; a script on standard input fails if one of them did.
    """
    ask = sys.stdin.isatty()
    for number in itertools.count(1):
        try:
            words = shlex.split(input(f"{number}> " if ask else ""))
        except EOFError:
            break
        except KeyboardInterrupt:
            click.echo("(bibi)")
            break
        except ValueError as exc:
            made.echo_error(exc)
            continue
        if words[:1] == ["exit"]:
            break
        if words:
            _run_one(run, words, made)
    return EX_FAILURE if made.failed and not ask else EX_OK


def _run_one(run: Callable[[list[str]], None], words: list[str], made: Session) -> None:
    try:
        run([*words[1:2], "--help"] if words[0] == "help" else words)
    except click.ClickException as exc:
        made.failed = True
        exc.show()
    except CommandError as exc:
        made.echo_error(exc)


def run_words(words: list[str], made: Session, program_name: str) -> None:
    """Run one command in *made*.

    Raises:
        ClickException: There is no such command, or its arguments are wrong.
    """
    amqp.main(args=words, prog_name=program_name, standalone_mode=False, obj=made)
