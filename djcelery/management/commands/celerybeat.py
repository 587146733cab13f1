"""``manage.py celerybeat``: the periodic task scheduler, and what it would do (``--dry-run``)."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser

from djcelery.management.base import ProgramCommand
from djcelery.management.programs import BEAT
from djcelery.management.results_cleanup import age


class Command(ProgramCommand):
    """Run the periodic task scheduler."""

    help = "Run the Celery periodic task scheduler."
    program = BEAT

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        group = parser.add_argument_group("looking ahead")
        group.add_argument(
            "--dry-run",
            action="store_true",
            help="Print what would be sent, and what not and why; write nothing, send nothing, and end.",
        )
        group.add_argument(
            "--for",
            dest="period",
            type=age,
            metavar="AGE",
            help="How far --dry-run looks ahead: seconds, or 90m, 12h, 30d, 4w. Default: 1h.",
        )

    def adjusted(self, options: dict[str, Any]) -> dict[str, Any]:
        if not options.get("dry_run"):
            if options.get("period"):
                raise CommandError("--for says how far --dry-run looks ahead. Add --dry-run, or leave it out.")
            return options
        # Printed here and now, by whoever asks.
        return {name: value for name, value in options.items() if name not in ("detach", "uid", "gid")}

    def start(self, options: dict[str, Any]) -> None:
        if not options.get("dry_run"):
            super().start(options)
            return
        from djcelery.management import dry_run

        if self.app is None:
            raise CommandError(f"There is no Celery app {self.app_name!r}. Correct -A, or leave it out.")
        scheduler = dry_run.scheduler_class(options.get("scheduler"), self.app)
        try:
            for line in dry_run.DryRun(scheduler, self.app, options.get("period") or timedelta(hours=1)).lines():
                self.stdout.write(line)
        except BrokenPipeError:
            # Whoever reads, such as head, has seen enough. Else Python complains at its end that it can't flush.
            if self._called_from_command_line:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
