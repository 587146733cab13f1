"""``manage.py celeryd_detach``: a worker in the background."""

from __future__ import annotations

from typing import Any

from djcelery.management.commands.celeryd import Command as WorkerCommand
from djcelery.management.programs import DETACH


class Command(WorkerCommand):
    """Start a worker and leave it running in the background."""

    help = "Run a Celery worker in the background. celeryd.pid in the working directory is written if it is free."
    program = DETACH
    child_command = "celeryd"

    def add_arguments(self, parser):
        parser.add_argument("--fake", action="store_true", help="Don't go into the background; to find errors.")
        super().add_arguments(parser)

    def adjusted(self, options: dict[str, Any]) -> dict[str, Any]:
        return {**options, "detach": True}
