"""``manage.py celeryev``: the event viewer."""

from __future__ import annotations

import signal
import sys
import warnings
from types import FrameType
from typing import Any, NoReturn

from djcelery.management.base import ProgramCommand
from djcelery.management.programs import EV


class EventsCommand(ProgramCommand):
    """A program that receives events: celeryev or celerycam."""

    def start(self, options: dict[str, Any]) -> None:
        # Celery leaves SIGTERM to the system here, which loses what the camera has not yet written.
        signal.signal(signal.SIGTERM, _end)
        # Celery 5.7 gives -d to two options of its own; the line that it gets from here has long names only.
        warnings.filterwarnings("ignore", "The parameter -d is used more than once", UserWarning)
        super().start(options)


class Command(EventsCommand):
    """Show events, or take snapshots with a camera."""

    help = "Show the events of the workers on the screen, print them (--dump) or take snapshots (--camera)."
    program = EV

    def default_pidfile(self, options: dict[str, Any]) -> str:
        # Only the camera is a daemon; several people may look at the screen at once.
        return super().default_pidfile(options) if options.get("camera") else ""


def _end(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(0)
