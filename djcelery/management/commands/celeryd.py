"""``manage.py celeryd``: a worker."""

from __future__ import annotations

from typing import Any

from djcelery.management.base import ProgramCommand
from djcelery.management.programs import WORKER
from djcelery.management.reloader import Reloader


class Command(ProgramCommand):
    """Run a worker."""

    help = "Run a Celery worker."
    program = WORKER

    def run_from_argv(self, argv):
        self.restart_for_greenlets(argv)
        super().run_from_argv(argv)

    def add_arguments(self, parser):
        parser.add_argument(
            "--autoreload",
            action="store_true",
            help="Watch the code and start the worker anew when a file changes; tasks in progress end first. "
            "For development.",
        )
        super().add_arguments(parser)

    def start(self, options: dict[str, Any]) -> None:
        if not options.get("autoreload"):
            super().start(options)
            return
        first = self.child_line(options)
        # What is waiting was to be deleted once, not again with every change.
        later = self.child_line(options, leave_out=["purge"])
        status = Reloader(self.app, first, later).run()
        if status:
            self.leave(status, f"The worker ended with status {status}.")
