"""``manage.py celerycam``: snapshots of the cluster's state, in the database."""

from __future__ import annotations

import math
from typing import Any

from django.core.management.base import CommandError

from djcelery.management.commands.celeryev import EventsCommand
from djcelery.management.programs import CAM, CAMERA


class Command(EventsCommand):
    """Take snapshots with djcelery's camera."""

    help = "Take snapshots of the state of tasks and workers, and keep them in the database for the admin."
    program = CAM

    def add_arguments(self, parser):
        # Before Celery's own, which then go without their -f.
        parser.add_argument(
            "-f",
            dest="frequency_or_logfile",
            metavar="SECONDS|FILE",
            help="A number is the frequency (-F), anything else the log file (--logfile).",
        )
        super().add_arguments(parser)

    def adjusted(self, options: dict[str, Any]) -> dict[str, Any]:
        options = dict(options)
        value = options.pop("frequency_or_logfile", None)
        if value is not None:
            name = "logfile" if _number(value) is None else "frequency"
            if options.get(name) is None:
                options[name] = value
        frequency = options.get("frequency")
        if frequency is not None and not (_number(frequency) or 0) > 0:
            raise CommandError(f"The frequency {frequency!r} is not a number of seconds above 0.")
        camera = options.pop("camera", None)
        if camera and camera != CAMERA:
            self.warn(f"--camera={camera} is not used: celerycam always uses {CAMERA}. Use celeryev -c {camera}.")
        return options

    def default_pidfile(self, options: dict[str, Any]) -> str:
        return "" if options.get("dump") else super().default_pidfile(options)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
