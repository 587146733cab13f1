"""The roots of djcelery's commands.

``CeleryCommand`` runs Celery's own command line inside manage.py and gives its exit status back;
``ProgramCommand`` is one long-running program: its options, detaching and PID file. What differs
between the programs is data in ``programs``; each module in ``commands`` only names its entry.
Next: ``docs/explain/starting-celery.rst``.
"""

from __future__ import annotations

import os
import sys
from argparse import SUPPRESS, RawDescriptionHelpFormatter
from collections.abc import Iterable
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from functools import cached_property
from typing import Any, NoReturn

import celery
import click
from celery.app.utils import find_app
from celery.bin.celery import celery as celery_program
from celery.utils.nodenames import default_nodename, host_format, node_format
from django.core.management.base import BaseCommand, CommandError, CommandParser, DjangoHelpFormatter
from django.db import connections

import djcelery
from djcelery.app import project_app
from djcelery.checks import TAG, starting
from djcelery.conf import DjangoSettings
from djcelery.management import daemon, greenlets, lines
from djcelery.management import options as option_tools
from djcelery.management.programs import Program

__all__ = ("DB_SHARED_THREAD", "CeleryCommand", "ProgramCommand", "patch_thread_ident")

#: Legacy name: what django-celery said when greenlets shared a connection.
DB_SHARED_THREAD = "A database connection made in one thread can't be used in another."

#: General options that child processes must see, and the environment variable that carries each.
ENVIRONMENT = {
    "broker": "CELERY_BROKER_URL",
    "result_backend": "CELERY_RESULT_BACKEND",
    "loader": "CELERY_LOADER",
    "config": "CELERY_CONFIG_MODULE",
}


def patch_thread_ident() -> None:
    """Do nothing; legacy name. Python 3 needs no patch of Django's check for threads."""


class HelpFormatter(RawDescriptionHelpFormatter, DjangoHelpFormatter):
    """Keep the lines of ``--version`` and of the text below the options."""


class CeleryCommand(BaseCommand):
    """A command that runs a part of Celery; control and status commands derive from it directly."""

    requires_system_checks: Any = []
    #: First line of the help; the options are too many to repeat there.
    usage = "%(prog)s [options]"
    #: Legacy: leave ``--settings`` and the like on the line that ``handle_default_options`` returns.
    keep_base_opts = False

    #: ``sys.argv[0]`` when this runs from a command line; None under ``call_command``.
    script: str | None = None
    #: The value of ``-A`` on the command line, known before the line is parsed.
    app_name: str | None = None
    #: What the user typed instead of this command's name, such as ``celery worker``.
    typed: str | None = None

    def get_version(self) -> str:
        """Return two lines, Celery's version and djcelery's."""
        return f"celery {celery.__version__}\ndjcelery {djcelery.__version__}"

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        kwargs.setdefault("formatter_class", HelpFormatter)
        kwargs.setdefault("usage", self.usage)
        return super().create_parser(prog_name, subcommand, **kwargs)

    def run_from_argv(self, argv: list[str]) -> None:
        self.script = os.path.abspath(argv[0])
        try:
            self.handle_default_options(argv[2:])
        except CommandError as exc:
            self.stderr.write(f"{argv[1]}: {exc}")
            sys.exit(exc.returncode)
        super().run_from_argv(argv)

    def restart_for_greenlets(self, argv: list[str]) -> None:
        """Start this command line once more with a patched standard library, if its ``--pool`` needs that."""
        try:
            pool, _ = lines.take(argv[2:], {"-P": True, "--pool": True})
            self.handle_default_options(argv[2:])
        except CommandError:
            # The parser says what is wrong.
            return
        greenlets.restart(str(pool.get("--pool") or pool.get("-P")), daemon.manage_line(argv[0]), argv[1:])

    def handle_default_options(self, argv: list[str]) -> list[str]:
        """Apply ``--settings``, ``--pythonpath`` and ``--broker``, wherever they stand, to this process and children.

        Returns:
            The other arguments; all of them if ``keep_base_opts`` is set.
        """
        names = {"--settings": True, "--pythonpath": True, "-b": True, "--broker": True}
        found, rest = lines.take(argv, names)
        peeked, _ = lines.take(rest, {"-A": True, "--app": True, "--loader": True})
        name = peeked.get("--app") or peeked.get("-A")
        self.app_name = str(name) if name else self.app_name
        self.export(
            {
                "settings": found.get("--settings"),
                "pythonpath": found.get("--pythonpath"),
                "broker": found.get("--broker") or found.get("-b"),
                # Read when the app is made, which is before the line is parsed.
                "loader": peeked.get("--loader"),
            }
        )
        return argv if self.keep_base_opts else rest

    def export(self, options: dict[str, Any]) -> None:
        """Put general options into the environment, where every child process finds them.

        A relative ``pythonpath`` in *options* is made absolute.
        """
        if options.get("settings"):
            os.environ["DJANGO_SETTINGS_MODULE"] = options["settings"]
        if options.get("pythonpath"):
            # Absolute, since --workdir may come between here and the child.
            path = options["pythonpath"] = os.path.abspath(options["pythonpath"])
            if path not in sys.path:
                sys.path.insert(0, path)
            paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
            if path not in paths:
                os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [path, *paths]))
        for name, variable in ENVIRONMENT.items():
            if isinstance(options.get(name), str):
                os.environ[variable] = options[name]

    @cached_property
    def app(self) -> Any:
        """The Celery app: that of ``-A``, else the project's; None if ``-A`` names none."""
        if not self.app_name:
            return project_app()
        try:
            return find_app(self.app_name)
        except (ImportError, AttributeError):
            # Celery says the same, in full, when it gets the line.
            return None

    @property
    def script_name(self) -> str:
        """The name of manage.py."""
        return os.path.basename(self.script or "manage.py")

    @property
    def program_name(self) -> str:
        """What the user typed to get here, such as ``manage.py celeryctl``."""
        return f"{self.script_name} {self.typed or type(self).__module__.rpartition('.')[2]}"

    def run_celery(
        self, line: list[str], program_name: str | None = None, defaults: dict[str, Any] | None = None, **options: Any
    ) -> None:
        """Run ``celery`` with *line* in this process; return if it succeeded.

        Args:
            line: Arguments after ``celery``.
            program_name: For usage messages.
            defaults: Defaults of the sub-command's options, by the sub-command's name.
            options: The command's own; ``stdout`` and ``stderr`` are used.
        """
        with self.streams(options):
            self.run_click(
                self.click_program(options),
                line,
                program_name or self.program_name,
                # "celery" alone reads these from the environment, such as CELERY_WORKER_CONCURRENCY.
                auto_envvar_prefix="CELERY",
                default_map={"app": self.app, **(defaults or {})},
            )

    def click_program(self, options: dict[str, Any]) -> click.Group:
        """Return the program that ``run_celery`` runs; overridden where a sub-command is not Celery's."""
        return celery_program

    def run_click(self, program: click.Command, line: list[str], program_name: str, **context: Any) -> None:
        """Run a click program; leave with its exit status unless that is 0."""
        app_option = celery_program.params[0]
        # The project may use a variable APP for something else; CELERY_APP works.
        app_option.envvar = None
        try:
            status = program.main(args=line, prog_name=program_name, standalone_mode=False, **context)
        except click.ClickException as exc:
            if self._called_from_command_line:
                exc.show()
            self.leave(exc.exit_code, exc.format_message())
        except click.Abort:
            self.leave(1, "Aborted!")
        if isinstance(status, int) and status:
            self.leave(status, f"{program_name} ended with status {status}.")

    def streams(self, options: dict[str, Any]) -> ExitStack:
        """Return a context in which printing goes to the streams that ``call_command`` was given."""
        stack = ExitStack()
        if options.get("stdout"):
            stack.enter_context(redirect_stdout(options["stdout"]))
        if options.get("stderr"):
            stack.enter_context(redirect_stderr(options["stderr"]))
        return stack

    def change_directory(self, path: str) -> None:
        """Change to *path*, on behalf of ``--workdir``."""
        try:
            os.chdir(path)
        except OSError as exc:
            raise CommandError(f"--workdir={path}: {exc.strerror}.") from exc

    def die(self, msg: str) -> NoReturn:
        """End with *msg* and exit status 1; under ``call_command`` that is a ``CommandError``."""
        raise CommandError(msg)

    def leave(self, status: int, message: str) -> NoReturn:
        """End with exit status *status*; under ``call_command`` that is a ``CommandError``."""
        if self._called_from_command_line:
            sys.exit(status)
        raise CommandError(message, returncode=status)


class ProgramCommand(CeleryCommand):
    """A long-running program: worker, beat, event viewer or camera."""

    requires_system_checks = [TAG]
    program: Program

    def get_check_kwargs(self, options: dict[str, Any]) -> dict[str, Any]:
        self._checked_options = options
        # Those that look into the database bound their time themselves.
        return {**super().get_check_kwargs(options), "databases": list(connections)}

    def check(self, *args: Any, **kwargs: Any) -> None:
        """Run the checks, with those for this program's start. An error ends the command."""
        with starting(self.program.name, getattr(self, "_checked_options", {})):
            super().check(*args, **kwargs)

    @property
    def stealth_options(self) -> tuple[str, ...]:
        """Keywords that ``call_command`` accepts without an option of that name: the legacy ones."""
        return tuple(self.program.keywords)

    def add_arguments(self, parser: CommandParser) -> None:
        option_tools.add_options(parser, self.program, self.app)
        # For a child that has detached: the file to write if it is free.
        parser.add_argument("--default-pidfile", help=SUPPRESS)

    def handle(self, *args: Any, **options: Any) -> None:
        options = option_tools.translated(self.program, self.adjusted(options))
        if options.get("app") and not self.app_name:
            self.app_name = options["app"]
            self.__dict__.pop("app", None)
        self.export(options)
        for name, instead in self.program.removed.items():
            if options.get(name.lstrip("-").replace("-", "_")):
                self.warn(f"{name} has no effect. {instead}")
        if options.get("workdir"):
            self.change_directory(options["workdir"])
        if options.get("detach"):
            self.detach(options)
            return
        daemon.drop_privileges(options.get("uid"), options.get("gid"))
        self.start(options)

    def adjusted(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return *options* with what this program has its own idea of; overridden where it has one."""
        return options

    def start(self, options: dict[str, Any]) -> None:
        """Run the program in this process until it ends."""
        pidfile = self.default_pidfile(options)
        problem = daemon.write_default_pidfile(pidfile) if pidfile else None
        if problem:
            self.warn(problem)
        done = ("workdir", "detach", "uid", "gid", "umask", "executable")
        self.run_celery(
            option_tools.celery_line(self.program, self.app, options, leave_out=done),
            program_name=f"{self.script_name} celery",
            defaults={self.program.command: self.celery_defaults(options)},
            stdout=options.get("stdout"),
            stderr=options.get("stderr"),
        )

    def celery_defaults(self, options: dict[str, Any]) -> dict[str, Any]:
        settings = DjangoSettings()
        level = settings.get(self.program.level_setting) if self.program.level_setting else None
        logfile = settings.get(self.program.file_setting) if self.program.file_setting else None
        if self.configured("logfile"):
            logfile = None
        return option_tools.defaults(self.program, options, level, logfile)

    def configured(self, name: str) -> Any:
        """Return today's setting for the option *name*, such as ``CELERY_WORKER_PIDFILE``, or None."""
        return getattr(self.app.conf, f"{self.program.command}_{name}", None) if self.app is not None else None

    def default_pidfile(self, options: dict[str, Any]) -> str:
        """Return the PID file that nobody asked for by name, or ""."""
        if options.get("pidfile") or self.configured("pidfile"):
            return ""
        return options.get("default_pidfile") or self.program.pidfile

    def child_line(self, options: dict[str, Any], leave_out: Iterable[str] = ()) -> list[str]:
        """Return the interpreter's arguments for the same program, in the foreground of a child process."""
        done = ("workdir", "detach", "uid", "gid", "umask", "executable", *leave_out)
        line = [*daemon.manage_line(self.script), self.child_command]
        if options.get("default_pidfile"):
            line.append(f"--default-pidfile={options['default_pidfile']}")
        return line + option_tools.own_line(self.program, self.app, options, leave_out=done)

    @property
    def child_command(self) -> str:
        """The command that runs this program in the foreground."""
        return self.program.name

    def detach(self, options: dict[str, Any]) -> None:
        """Become a process in the background that runs this program; doesn't return."""
        pidfile = options.get("pidfile") or self.configured("pidfile")
        logfile = options.get("logfile") or self.celery_defaults(options).get("logfile") or self.configured("logfile")
        if not pidfile:
            options["default_pidfile"] = self.default_pidfile(options) or self.program.detached_pidfile
        name = host_format(default_nodename(options.get("hostname")))
        daemon.detach(
            self.child_line(options),
            executable=options.get("executable") or self.configured("executable") or sys.executable,
            pidfile=pidfile and node_format(pidfile, name),
            logfile=logfile and node_format(logfile, name),
            uid=options.get("uid"),
            gid=options.get("gid"),
            umask=options.get("umask") or self.configured("umask"),
            fake=bool(options.get("fake") or os.environ.get("C_FAKEFORK")),
        )

    def warn(self, text: str) -> None:
        """Write *text* to standard error as a warning of this program."""
        self.stderr.write(f"{self.program.name}: {text}", self.style.WARNING)
