"""``manage.py djcelerymon``: the project's pages, and the camera that fills the admin's monitor, in one process."""

from __future__ import annotations

import copy
import dataclasses
import os
import signal
import sys
from types import FrameType
from typing import Any, NoReturn

import click
from celery.bin.celery import celery as celery_program
from django.apps import apps
from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from django.http.request import validate_host
from django.urls import NoReverseMatch, reverse

from djcelery.management import web
from djcelery.management.commands import celerycam
from djcelery.management.programs import CAM

MON = dataclasses.replace(
    CAM,
    name="djcelerymon",
    pidfile="",
    removed={"--nothreading": "Leave it out; every request has a thread of its own."},
    help={
        **CAM.help,
        "--name": CAM.help["--name"].replace("celerycam@", "djcelerymon@"),
        "--pidfile": "Write the process id to this file, and refuse to start while the process in it is alive.",
        "--dump": "Not for this command; use celeryev --dump.",
        "--detach": "Not for this command, which runs in the foreground; use a process manager such as systemd.",
    },
)
_INSTEAD = {
    "dump": "--dump is not for djcelerymon. Use celeryev --dump.",
    "detach": "djcelerymon runs in the foreground. Start it by a process manager such as systemd, or use celerycam "
    "--detach and a web server.",
}
# What browsers on this machine, or at the end of an SSH tunnel, call it.
_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


class Command(celerycam.Command):
    """Serve the project, the admin in it, and take snapshots beside."""

    help = "Serve the project's pages, such as the admin, and take snapshots for its monitor, in one process."
    usage = "%(prog)s [port or host:port] [options]"
    program = MON

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        if os.path.basename(prog_name) == subcommand:
            # The program of this name, see djcelery.mon.
            parser.prog = subcommand
        return parser

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "addrport",
            nargs="?",
            metavar="port or host:port",
            help="Where to listen. Default: 127.0.0.1:8000, which only this machine reaches. Port 0 is any free one.",
        )
        parser.add_argument("-6", "--ipv6", dest="use_ipv6", action="store_true", help="Use IPv6: [::1] by default.")
        parser.add_argument("--nostatic", action="store_true", help="Don't serve static files.")
        parser.add_argument("--noreload", action="store_true", help="Accepted and not needed: it never reloads.")
        super().add_arguments(parser)

    def adjusted(self, options: dict[str, Any]) -> dict[str, Any]:
        for name, instead in _INSTEAD.items():
            if options.get(name):
                raise CommandError(instead)
        # Not celerycam's name: on RabbitMQ one of two cameras with the same stands by.
        return {**super().adjusted(options), "name": options.get("name") or "djcelerymon@%h"}

    def start(self, options: dict[str, Any]) -> None:
        signal.signal(signal.SIGINT, _end)
        self.require_pages()
        self.require_client()
        address = web.parse_address(options.get("addrport"), bool(options.get("use_ipv6")))
        server = web.WebServer(address, web.application(not options.get("nostatic")))
        self.tell(server, options)
        server.start()
        try:
            super().start(options)
        finally:
            server.stop()
            if server.failure is not None:
                raise CommandError(f"The web server has ended: {server.failure!r}.") from server.failure

    def click_program(self, options: dict[str, Any]) -> click.Group:
        program = copy.copy(celery_program)
        program.commands = {**celery_program.commands, "events": CAMERA_PROGRAM}
        return program

    def require_pages(self) -> None:
        """Refuse settings with which no page could be served.

        Raises:
            CommandError: ``ROOT_URLCONF`` or ``ALLOWED_HOSTS`` is missing.
        """
        if not getattr(settings, "ROOT_URLCONF", None):
            raise CommandError(
                "The settings name no ROOT_URLCONF, so there are no pages to serve. "
                "For a monitor beside the project run python -m djcelery.mon."
            )
        if not settings.DEBUG and not settings.ALLOWED_HOSTS:
            raise CommandError(
                "ALLOWED_HOSTS is empty and DEBUG is off: all requests would be refused. Add 'localhost'."
            )

    def require_client(self) -> None:
        """Refuse a broker whose client library is not installed, before anything is started.

        Raises:
            CommandError: It names what could not be imported.
        """
        try:
            _ = self.app.connection_for_read().transport
        except (ImportError, AttributeError) as exc:
            # AttributeError: kombu's module of Redis derives a class from what it could not import.
            raise CommandError(
                f"The client library of the broker can't be used: {exc}. Install it, such as by: "
                'pip install "celery[redis]"'
            ) from exc

    def tell(self, server: web.WebServer, options: dict[str, Any]) -> None:
        """Write where the pages are, and warn of what may be in their way."""
        names = (*_LOCAL_NAMES, str(server.address).rpartition(":")[0])
        if not settings.DEBUG and not any(validate_host(name, settings.ALLOWED_HOSTS) for name in names):
            self.warn("ALLOWED_HOSTS names neither localhost nor 127.0.0.1; requests by these names are refused.")
        if not server.is_loopback:
            self.warn(
                f"Other machines reach {server.address}, and passwords are sent there unencrypted. Listen on 127.0.0.1 "
                "and use an SSH tunnel, or a web server with HTTPS before it."
            )
        if not options.get("nostatic") and not apps.is_installed("django.contrib.staticfiles"):
            self.warn("django.contrib.staticfiles is not installed; the admin's styles are not served.")
        try:
            place = reverse("admin:index")
        except NoReverseMatch:
            place = "/"
            self.warn("No URL of this project leads to the admin.")
        self.stdout.write(f"-> djcelerymon: http://{server.address}{place} (end it with Ctrl-C)")
        # The one who started it may read a pipe.
        self.stdout.flush()


def _end(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(0)


CAMERA_PROGRAM = celerycam.CameraProgram("events", callback=celerycam.CAMERA_PROGRAM.callback)
CAMERA_PROGRAM.title = "djcelerymon"
