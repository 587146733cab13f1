"""Celery's own options as arguments of a management command, and the way back.

Called by ``base.ProgramCommand``: ``add_options`` fills the parser, ``celery_line`` makes the line for
Celery, and ``own_line`` the line for a child process of ours. All three walk over the options that
Celery's programs declare, so none of today's is missing; ``programs`` adds what differs.
"""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Iterable, Iterator
from typing import Any

import click
from celery.bin.celery import celery
from celery.utils.log import LOG_LEVELS
from django.core.management.base import CommandError

from djcelery.management.programs import GLOBAL_HELP, METAVARS, Program

__all__ = (
    "add_general_options",
    "add_options",
    "base_line",
    "celery_line",
    "celery_options",
    "defaults",
    "log_level",
    "own_line",
    "translated",
)

# Names by which Celery knows the levels; it rejects WARN and every number.
_LEVEL_NAMES = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}


# -- the options that Celery declares ---------------------------------------------------------


def group_options() -> list[click.Option]:
    """Return the options that stand before the sub-command, but for those that Django's parser has."""
    return [param for param in celery.params if isinstance(param, click.Option) and param.name != "version"]


def program_options(program: Program, app: Any) -> list[click.Option]:
    """Return the options of *program*'s sub-command, with its own and those that the project added to *app*."""
    added = app.user_options if app is not None else {}
    params = [*celery.commands[program.command].params, *program.own]
    params += [*added.get(program.command, ()), *added.get("preload", ())]
    unique = {param.name: param for param in params if isinstance(param, click.Option)}
    return list(unique.values())


def long_name(option: click.Option) -> str:
    """Return the first long spelling of *option*."""
    return next((name for name in option.opts if name.startswith("--")), option.opts[0])


def _is_flag(option: click.Option) -> bool:
    return bool(option.is_flag or option.count)


# -- to the parser ----------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser, program: Program, app: Any) -> None:
    """Add every option of *program* to *parser*: Celery's of today, then the legacy ones.

    Nothing has a default here, so that a parsed line tells what was given from what was not.
    """
    own = parser.add_argument_group(f"{program.command} options")
    for option in program_options(program, app):
        _add(own, option, _help(option, program), program.spellings.get(long_name(option), ()))
    for name, instead in program.removed.items():
        own.add_argument(name, action="store_true", help=f"Accepted and without effect. {_escaped(instead)}")
    add_general_options(parser)
    if celery.commands[program.command].context_settings.get("allow_extra_args"):
        parser.add_argument(
            "assignments",
            nargs="*",
            metavar="setting=value",
            type=_assignment,
            help="Celery settings for this run, after --, such as worker.prefetch_multiplier=1.",
        )


def add_general_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every sub-command of Celery has."""
    for option in group_options():
        _add(parser, option, _escaped(GLOBAL_HELP.get(long_name(option)) or option.help or ""))


def _add(parser: Any, option: click.Option, text: str, more_names: Iterable[str] = ()) -> None:
    names = [name for name in (*option.opts, *more_names) if name not in _taken(parser)]
    if not names:
        return
    if option.secondary_opts:
        switch = {"action": "store_const", "default": None, "dest": option.name}
        parser.add_argument(*names, const=True, help=text, **switch)
        parser.add_argument(*option.secondary_opts, const=False, help="The opposite.", **switch)
    elif _is_flag(option):
        # SUPPRESS: "-C" must not undo the default of Django's own "--no-color".
        parser.add_argument(*names, action="store_true", default=argparse.SUPPRESS, dest=option.name, help=text)
    else:
        kind = log_level if option.name == "loglevel" else str
        metavar = METAVARS.get(long_name(option), (option.name or "value").upper())
        parser.add_argument(*names, type=kind, dest=option.name, metavar=metavar, help=text)


def _taken(parser: Any) -> Iterable[str]:
    return parser._option_string_actions


def _help(option: click.Option, program: Program) -> str:
    name = long_name(option)
    text = program.help.get(name) or GLOBAL_HELP.get(name) or (option.help or "").replace("%%", "%")
    if name == "--loglevel":
        setting = f"{program.level_setting}, else " if program.level_setting else ""
        text += f" Default: {setting}{program.log_level}."
    elif name == "--logfile" and program.file_setting:
        text += f" The setting {program.file_setting} is its default."
    elif isinstance(option.type, click.Choice):
        text += f" One of {', '.join(map(str, option.type.choices))}."
    return _escaped(text)


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _assignment(text: str) -> str:
    key, sign, _ = text.partition("=")
    if not sign or not key.replace("_", "").replace(".", "").isalnum():
        raise argparse.ArgumentTypeError(
            f"{text!r} is not understood. Write options with - or --, and settings as setting=value."
        )
    return text


def log_level(value: Any) -> str | int:
    """Return the name of a log level as Celery writes it, or its number if it has no name.

    Args:
        value: A name that ``logging`` knows, in any case, or a number as text or integer.

    Raises:
        ArgumentTypeError: Neither.
    """
    text = str(value).strip()
    number = int(text) if text.isdigit() else logging.getLevelName(text.upper())
    if not isinstance(number, int):
        raise argparse.ArgumentTypeError(
            f"{value!r} is not a log level. Use DEBUG, INFO, WARNING, ERROR, CRITICAL or a number."
        )
    if number not in _LEVEL_NAMES:
        # celery beat looks the number up to print it.
        LOG_LEVELS.setdefault(number, str(number))
    return _LEVEL_NAMES.get(number, number)


# -- from the parsed line ---------------------------------------------------------------------


def celery_line(program: Program, app: Any, options: dict[str, Any], leave_out: Iterable[str] = ()) -> list[str]:
    """Return the arguments of ``celery`` that mean the same as *options*, the sub-command among them.

    Args:
        program: Whose options they are.
        app: The Celery app.
        options: What ``translated`` returned.
        leave_out: Names of options that somebody else has dealt with.

    Raises:
        CommandError: A value can't be translated.
    """
    skip = {*leave_out, *(name.lstrip("-").replace("-", "_") for name in program.forced)}
    assignments = list(options.get("assignments") or ())
    if isinstance(options.get("loglevel"), int):
        # Only a default may be a number that has no name; see defaults().
        skip.add("loglevel")
    if program.command == "beat" and options.get("max_interval") is not None:
        seconds = _seconds("--max-interval", options["max_interval"])
        options = {**options, "max_interval": int(seconds)}
        if not seconds.is_integer():
            # "celery beat --max-interval" takes whole numbers; the setting behind it takes any.
            skip.add("max_interval")
            assignments.append(f"beat.max_loop_interval={seconds}")
    line = [*_written(group_options(), options, skip), program.command]
    line += _written(program_options(program, app), options, skip)
    line += [f"{name}={value}" for name, value in program.forced.items()]
    return [*line, "--", *assignments] if assignments else line


def defaults(program: Program, options: dict[str, Any], level: Any, logfile: Any) -> dict[str, Any]:
    """Return what Celery shall take for the options that the line doesn't give.

    They stay defaults: the environment variables that Celery reads for its options win over them.

    Args:
        program: Whose options they are.
        options: What ``translated`` returned.
        level: The project's default log level, or None.
        logfile: The project's default log file, or None.

    Raises:
        CommandError: The project's log level is none; the message names the setting.
    """
    chosen = options.get("loglevel")
    if chosen is None:
        try:
            chosen = log_level(program.log_level if level is None else level)
        except argparse.ArgumentTypeError as exc:
            raise CommandError(f"{program.level_setting}: {exc}") from exc
    return {"loglevel": chosen, **({"logfile": logfile} if logfile else {})}


def translated(program: Program, options: dict[str, Any]) -> dict[str, Any]:
    """Return *options* (a parsed line, or keywords of ``call_command``) with legacy names and values replaced.

    Raises:
        CommandError: The log level is none.
    """
    result = {program.keywords.get(name, name): value for name, value in options.items() if value is not None}
    if "loglevel" in result:
        try:
            result["loglevel"] = log_level(result["loglevel"])
        except argparse.ArgumentTypeError as exc:
            raise CommandError(f"--loglevel: {exc}") from exc
    return result


def own_line(program: Program, app: Any, options: dict[str, Any], leave_out: Iterable[str] = ()) -> list[str]:
    """Return *options* as arguments of the management command itself, for a child process."""
    line = base_line(options, leave_out)
    line += _written(program_options(program, app), options, set(leave_out))
    assignments = list(options.get("assignments") or ())
    return [*line, "--", *assignments] if assignments else line


def base_line(options: dict[str, Any], leave_out: Iterable[str] = ()) -> list[str]:
    """Return Django's and Celery's general options in *options* as arguments."""
    line = [f"--{name}={options[name]}" for name in ("settings", "pythonpath") if options.get(name)]
    line += [flag for flag in ("--traceback", "--force-color") if options.get(flag.strip("-").replace("-", "_"))]
    return line + celery_options(options, leave_out)


def celery_options(options: dict[str, Any], leave_out: Iterable[str] = ()) -> list[str]:
    """Return Celery's general options in *options* as arguments."""
    return list(_written(group_options(), options, set(leave_out)))


def _written(params: Iterable[click.Option], options: dict[str, Any], skip: set[str]) -> Iterator[str]:
    for option in params:
        value = options.get(option.name or "")
        if option.name in skip or value is None or (value is False and not option.secondary_opts):
            continue
        if option.secondary_opts:
            yield long_name(option) if value else option.secondary_opts[0]
        elif _is_flag(option):
            yield long_name(option)
        elif isinstance(value, (list, tuple, set, frozenset)):
            yield f"{long_name(option)}={','.join(map(str, value))}"
        else:
            yield f"{long_name(option)}={value}"


def _seconds(name: str, value: Any) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise CommandError(f"{name}={value}: use a number of seconds from 0 on.")
    return number
