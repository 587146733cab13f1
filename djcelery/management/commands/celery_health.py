"""``manage.py celery_health``: tells a supervisor whether worker, beat, camera, broker and database are alive.

Only parses and prints; the probes are in ``djcelery.management.health``. Next: ``docs/monitor.rst``.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from djcelery.app import project_app
from djcelery.management import health


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0 or not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return value


class Command(BaseCommand):
    """Probe the parts of Celery; exit status 0 if all that were asked for are alive, else 1."""

    help = "Tell whether the parts of Celery are alive: one line each; exit status 0 if all are, else 1."
    # A probe runs every few seconds.
    requires_system_checks: Any = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "probes", nargs="*", metavar="PROBE", help=f"Any of {', '.join(health.PROBES)}; default: all."
        )
        parser.add_argument(
            "--max-age",
            type=_seconds,
            metavar="SECONDS",
            help="How old the last heartbeat, renewal of the lease or shutter may be; default: each part's own rule.",
        )
        parser.add_argument("--hostname", metavar="NAME", help="Only the worker, beat or camera of that name.")
        parser.add_argument(
            "--timeout", type=_seconds, default=5.0, metavar="SECONDS", help="Seconds after which no answer is one (5)."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        names = list(dict.fromkeys(options["probes"])) or list(health.PROBES)
        unknown = [name for name in names if name not in health.PROBES]
        if unknown:
            raise CommandError(f"There is no probe {unknown[0]!r}; there are {', '.join(health.PROBES)}.", returncode=2)
        wanted = health.Wanted(options["max_age"], options["hostname"], project_app(), options["timeout"])
        answers = health.run(names, wanted)
        for answer in answers:
            self.stdout.write(str(answer))
        failed = [answer.probe for answer in answers if not answer.is_ok]
        if failed:
            raise CommandError(f"Not alive: {', '.join(failed)}.")
