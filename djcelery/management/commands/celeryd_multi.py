"""``manage.py celeryd_multi``: start, stop and restart several workers."""

from __future__ import annotations

import argparse
import re
import sys
from typing import Any

from celery.bin.multi import MultiTool
from django.core.management.base import CommandError

from djcelery.management import daemon, lines
from djcelery.management import options as option_tools
from djcelery.management.base import ENVIRONMENT, CeleryCommand

#: Options that are meant for this process as well as for the nodes.
_SHARED = ("settings", "pythonpath", "app", "broker", "result_backend", "loader", "config", "workdir")
_SHORT = {"-A": "app", "-b": "broker"}

#: Where nodes put their files, unless the line says otherwise; today's Celery would take /var/run and /var/log.
_PLACES = {"--pidfile": ("-p", "%n.pid"), "--logfile": ("-f", "%n%I.log")}


class Command(CeleryCommand):
    """Manage several workers on this machine."""

    help = (
        "Start, stop and restart several workers on this machine: celeryd_multi start w1 w2 -c 2 -c:w2 4. "
        "PID and log files (NAME.pid, NAME.log) are in the working directory. All about it: celeryd_multi help"
    )
    usage = "%(prog)s verb [node ...] [options of celeryd]"
    keep_base_opts = True

    def add_arguments(self, parser):
        option_tools.add_general_options(parser)
        parser.add_argument(
            "args",
            nargs=argparse.REMAINDER,
            metavar="verb",
            help="start, stop, stopwait (stop_verify), restart, kill, show, get, names, expand or help; "
            "then the names of the nodes or how many, and options of celeryd. Long options need =.",
        )

    def handle(self, *args: str, **options: Any) -> None:
        words = self.prepared(list(args), options)
        tool = MultiTool(
            stdout=options.get("stdout"),
            stderr=options.get("stderr"),
            quiet=bool(options.get("quiet")),
            # Celery colours what goes into a file, too.
            no_color=bool(options.get("no_color")) or not sys.stdout.isatty(),
        )
        try:
            status = tool.execute_from_commandline([self.program_name, *words], cmd=self.node_command())
        except (OSError, ValueError) as exc:
            raise CommandError(str(exc)) from exc
        if status:
            self.leave(status, f"celeryd_multi {' '.join(words[:1])} failed with status {status}.")

    def prepared(self, words: list[str], options: dict[str, Any]) -> list[str]:
        """Return *words* with the places of files filled in, and the shared options as Celery's parser takes them."""
        names = {**{f"--{name.replace('_', '-')}": name for name in _SHARED}, **_SHORT}
        found, rest = lines.take(words, dict.fromkeys(names, True))
        shared = {name: options[name] for name in _SHARED if options.get(name)}
        shared |= {names[name]: value for name, value in found.items()}
        self.export(shared)
        workdir = shared.pop("workdir", None)
        if workdir:
            # The nodes inherit it; and "stop" must look for the PID files where "start" put them.
            self.change_directory(workdir)
        for word in rest:
            if word.startswith("--cmd=") and "celery" not in word.partition("=")[2].split():
                raise CommandError(f"{word}: the command must have the word celery, such as 'manage.py celery worker'.")
        end = rest.index("--") if "--" in rest else len(rest)
        # Celery expands %h and the like in the values of all options, and before 5.7 nothing protects the %2F of a
        # broker's URL; the nodes find that in the environment.
        more = [
            f"--{name.replace('_', '-')}={value}"
            for name, value in shared.items()
            if not ("%" in str(value) and name in ENVIRONMENT)
        ]
        for name, (short, place) in _PLACES.items():
            if not any(word == short or word.partition("=")[0] == name for word in rest[:end]):
                more.append(f"{name}={place}")
        return [*rest[:end], *more, *rest[end:]] if rest else []

    def node_command(self) -> str:
        """Return what starts a node after the interpreter; Celery puts general options behind the word celery."""
        words = [*daemon.manage_line(self.script), "celery", "worker", "--detach"]
        # Celery splits this at spaces, expands % and hands it to a shell-like parser.
        return " ".join(re.sub(r"([^\w@%+=:,./-])", r"\\\1", word).replace("%", "%%") for word in words)
