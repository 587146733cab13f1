"""The web server of ``djcelerymon``: the project's pages and their static files, from a thread beside the camera.

Called by the command. It is Django's own threaded server, made for one person on this machine: no HTTPS, no limit to
what a client may ask for. When it ends by itself, the main thread is told by SIGTERM.
Next: ``docs/djcelerymon.rst``.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from django.apps import apps
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.exceptions import ImproperlyConfigured, SuspiciousOperation
from django.core.handlers.exception import response_for_exception
from django.core.management.base import CommandError
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler, get_internal_wsgi_application
from django.http import HttpRequest
from django.http.response import HttpResponseBase

__all__ = ("Address", "WebServer", "application", "parse_address")

logger = logging.getLogger(__name__)

LOOPBACK, LOOPBACK_IPV6, PORT = "127.0.0.1", "::1", 8000
#: Seconds after which a connection on which nothing is said is closed.
IDLE_S = 60
_STOP_S, _PAUSE_S = 5.0, 0.1
_ADDRESS = re.compile(r"(?:(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):)?(?P<port>[0-9]{1,5})")


class Address(NamedTuple):
    """Where the server listens; *host* is a name or an address without brackets."""

    host: str
    port: int
    is_ipv6: bool = False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str | None, is_ipv6: bool = False) -> Address:
    """Return the address in *text*: a port, or ``host:port``; on loopback where it names no host.

    Raises:
        CommandError: It is neither.
    """
    if not text:
        return Address(LOOPBACK_IPV6 if is_ipv6 else LOOPBACK, PORT, is_ipv6)
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise CommandError(f"{text!r} is no address. Write a port, 65535 at most, or host:port such as 127.0.0.1:8000.")
    host = match["host"] or (LOOPBACK_IPV6 if is_ipv6 else LOOPBACK)
    if host.startswith("["):
        host, is_ipv6 = host[1:-1], True
    return Address(host, int(match["port"]), is_ipv6)


def application(serve_static: bool = True) -> Callable[..., Any]:
    """Return the project's WSGI application, which also serves static files if *serve_static*.

    Django does that in ``DEBUG`` only, and ``DEBUG`` is not for us to set.

    Raises:
        CommandError: ``WSGI_APPLICATION`` or ``STATIC_URL`` can't be used.
    """
    try:
        found: Callable[..., Any] = get_internal_wsgi_application()
        if serve_static and apps.is_installed("django.contrib.staticfiles"):
            return _StaticFiles(found)
    except ImproperlyConfigured as exc:
        raise CommandError(str(exc)) from exc
    return found


class _StaticFiles(StaticFilesHandler):
    def get_response(self, request: HttpRequest) -> HttpResponseBase:
        try:
            return super().get_response(request)
        except SuspiciousOperation as exc:
            # A path that leaves the folders of static files: Django's own would break, and write a traceback.
            return response_for_exception(request, exc)


class _RequestHandler(WSGIRequestHandler):
    timeout = IDLE_S


class _Server(ThreadedWSGIServer):
    def get_request(self) -> Any:
        try:
            return super().get_request()
        except OSError as exc:
            if exc.errno in (errno.EBADF, errno.EINVAL, errno.ENOTSOCK):
                # An OSError would be taken as that of one client, again and again.
                raise RuntimeError(f"its socket is gone: {exc}") from exc
            # Such as too many open files, which takes all of the processor while nobody waits.
            time.sleep(_PAUSE_S)
            raise

    def handle_error(self, request: Any, client_address: Any) -> None:
        if isinstance(sys.exc_info()[1], (TimeoutError, ConnectionError)):
            logger.debug("The connection of %s has ended.", client_address)
        else:
            logger.exception("A request of %s could not be answered.", client_address)


class WebServer(threading.Thread):
    """Serves *app* at *address* from when it is started until ``stop``.

    Raises:
        CommandError: The address is in use, or can't be listened at.
    """

    def __init__(self, address: Address, app: Callable[..., Any]):
        super().__init__(name="djcelerymon web", daemon=True)
        try:
            self.server = _Server((address.host, address.port), _RequestHandler, ipv6=address.is_ipv6)
        except OSError as exc:
            raise CommandError(f"{address}: {_reason(exc, address.port)}") from exc
        self.server.set_app(app)
        #: As *address*, with the port that was found for port 0.
        self.address = address._replace(port=self.server.server_port)
        #: What has ended it before it was stopped.
        self.failure: BaseException | None = None
        self._is_stopped = False

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return ipaddress.ip_address(self.server.server_address[0]).is_loopback

    def run(self) -> None:
        try:
            self.server.serve_forever()
        except BaseException as exc:  # noqa: BLE001 - the main thread raises it
            self.failure = exc
        if not self._is_stopped:
            self.failure = self.failure or RuntimeError("it has ended")
            # To that thread, whose handler makes the camera write what it has.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    def stop(self) -> None:
        """Stop listening; what is being answered is cut when the process ends."""
        self._is_stopped = True
        if self.ident is not None:
            self.server.shutdown()
            self.join(_STOP_S)
        self.server.server_close()


def _reason(exc: OSError, port: int) -> str:
    if exc.errno == errno.EADDRINUSE:
        return f"the port is in use. End the program that has it, or name another, such as {port % 65535 + 1}."
    if exc.errno == errno.EACCES:
        return "this user may not listen there. Use a port from 1024 on."
    if exc.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address."
    if isinstance(exc, socket.gaierror):
        return "there is no such host."
    return str(exc)
