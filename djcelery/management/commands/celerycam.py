"""``manage.py celerycam``: snapshots of the cluster's state, in the database."""

from __future__ import annotations

import copy
import math
import sys
from typing import Any

import click
from celery import platforms
from celery.bin.base import handle_preload_options
from celery.bin.celery import celery as celery_program
from celery.events.dumper import evdump
from django.core.management.base import CommandError

from djcelery.conf import conf
from djcelery.exceptions import SettingError
from djcelery.management.commands.celeryev import EventsCommand
from djcelery.management.programs import CAM, CAMERA
from djcelery.snapshot.program import Program, node_name


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
            self.warn(
                f"--camera={camera} is not used: celerycam writes events itself, by no class. Use celeryev -c {camera}."
            )
        return options

    def default_pidfile(self, options: dict[str, Any]) -> str:
        return "" if options.get("dump") else super().default_pidfile(options)

    def click_program(self, options: dict[str, Any]) -> click.Group:
        # A copy: "celery events" of the same process keeps Celery's own loop.
        program = copy.copy(celery_program)
        program.commands = {**celery_program.commands, "events": CAMERA_PROGRAM}
        return program


class CameraProgram(click.Command):
    """What ``celery events`` is for this command: the same options and our own, and another loop."""

    #: What the list of processes shows, if setproctitle is installed.
    title = "celery events:cam"

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        # Asked for when the line is parsed: the project's app has added its options by then.
        return [*celery_program.commands["events"].get_params(ctx), *CAM.own]


@click.pass_context
@handle_preload_options
def _run(ctx: click.Context, **options: Any) -> None:
    """Take snapshots until a signal comes, or print events (``--dump``)."""
    app = ctx.obj.app
    if options["dump"]:
        evdump(app=app)
        return
    try:
        enable_events = options["enable_events"] or conf.DJCELERY_CAMERA_ENABLE_EVENTS
        camera = Program(app, node_name(options["name"]), options["frequency"], options["maxrate"], enable_events)
    except SettingError as exc:
        raise CommandError(str(exc)) from exc
    if options["pidfile"]:
        platforms.create_pidlock(options["pidfile"])
    app.log.setup_logging_subsystem(options["loglevel"], options["logfile"])
    platforms.set_process_title(getattr(ctx.command, "title", CameraProgram.title), info=platforms.strargv(sys.argv))
    click.echo(f"-> evcam: Taking snapshots with {CAMERA} (every {options['frequency']} secs.)")
    camera.run()


CAMERA_PROGRAM = CameraProgram("events", callback=_run)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
