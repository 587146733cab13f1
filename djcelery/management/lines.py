"""Free-form command lines: the options that may stand anywhere are found and moved.

Called by the umbrella commands (``celery``, ``celeryctl``, ``camqadm``) and by ``celeryd_multi``,
whose lines only the program behind them can parse. Celery wants its general options before the
sub-command and Django's nowhere; legacy scripts write both where they like.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import click
from celery.bin.celery import celery
from django.core.management.base import CommandError

from djcelery.management.options import group_options
from djcelery.management.programs import METHODS, SUBCOMMAND_OPTIONS, SUBCOMMANDS

__all__ = ("modern", "split", "take")

#: Django's options that Celery doesn't know, and whether they take a value.
DJANGO_OPTIONS = {
    "--settings": True,
    "--pythonpath": True,
    "-v": True,
    "--verbosity": True,
    "--traceback": False,
    "--force-color": False,
}


def general_options() -> dict[str, bool]:
    """Return the options that Celery wants before the sub-command, and whether they take a value."""
    return {name: not option.is_flag for option in group_options() for name in option.opts}


def take(words: Iterable[str], names: Mapping[str, bool]) -> tuple[dict[str, str | bool], list[str]]:
    """Take the options in *names* out of *words*; return their values by option string, and the rest.

    Understands ``--x=v``, ``--x v``, ``-x v`` and ``-xv``; everything after ``--`` stays. The last one wins.

    Args:
        words: A command line.
        names: Option strings, and whether they take a value.

    Raises:
        CommandError: An option at the end lacks its value.
    """
    found: dict[str, str | bool] = {}
    rest: list[str] = []
    queue = iter(words)
    for word in queue:
        name, sign, value = word.partition("=")
        if not word.startswith("--") and names.get(word[:2]) and len(word) > 2:
            name, sign, value = word[:2], "=", word[2:]
        if word == "--":
            rest += [word, *queue]
        elif name not in names or (sign and not names[name]):
            rest.append(word)
        elif not names[name]:
            found[name] = True
        elif sign:
            found[name] = value
        else:
            following = next(queue, None)
            if following is None:
                raise CommandError(f"{name} needs a value.", returncode=2)
            found[name] = following
    return found, rest


def known_options(words: Iterable[str]) -> set[str]:
    """Return the option strings that the (nested) sub-command named by *words* has itself."""
    command: click.Command = celery
    own: set[str] = set()
    for word in words:
        if not isinstance(command, click.Group):
            break
        found = command.commands.get(word)
        if found is not None:
            command = found
            own |= {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
    return own


def split(words: list[str]) -> tuple[list[str], list[str]]:
    """Split *words*, which begin with a sub-command, into Celery's general options and the rest.

    Options that the sub-command has itself, such as ``result --traceback``, stay where they are;
    Django's are left out.
    """
    own = known_options(words)
    _, rest = take(words, {name: value for name, value in DJANGO_OPTIONS.items() if name not in own})
    found, rest = take(rest, {name: value for name, value in general_options().items() if name not in own})
    return [_joined(name, value) for name, value in found.items()], rest


def _joined(name: str, value: str | bool) -> str:
    if value is True:
        return name
    return f"{name}={value}" if name.startswith("--") else f"{name}{value}"


def modern(words: list[str]) -> list[str]:
    """Return *words*, which begin with a legacy sub-command, as today's Celery calls things."""
    if words[0] == "help":
        return [*words[1:], "--help"]
    name = SUBCOMMANDS.get(words[0], words[0])
    rest = [SUBCOMMAND_OPTIONS.get((name, word), word) for word in words[1:]]
    for index, word in enumerate(rest):
        if (name, word) in METHODS:
            name, rest[index] = METHODS[name, word]
            break
    return [name, *rest]
