"""One HTTP request to an address that was looked at first: within a time, up to a size, to one place.

Called by ``HttpDispatch``. Follows no redirect, uses no proxy of the environment, keeps no
connection and no cookie. Writes nothing.
Next: ``docs/webhooks.rst``.
"""

from __future__ import annotations

import http.client
import io
import logging
import socket
import ssl
import time
from typing import Any, NamedTuple

from djcelery.exceptions import InvalidResponseError, WebhookRefused, WebhookUnreachable
from djcelery.webhooks.target import Target, addresses

logger = logging.getLogger(__name__)


class Answer(NamedTuple):
    """What a server said."""

    status: int
    reason: str
    body: bytes


class _Deadline:
    """An instant after which nothing is waited for any more."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.at_mono = time.monotonic() + timeout_s

    def arm(self, connection: socket.socket) -> None:
        """Let the next call on *connection* wait for no longer than what is left."""
        left_s = self.at_mono - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        connection.settimeout(left_s)


class _Reader(io.RawIOBase):
    """The receiving half of a connection; a server that sends a byte now and then gains no time by it."""

    def __init__(self, connection: socket.socket, deadline: _Deadline) -> None:
        self.connection = connection
        self.deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.deadline.arm(self.connection)
        return self.connection.recv_into(buffer)


class _Channel:
    """The connection as ``http.client`` uses it, with a deadline for the whole of it."""

    def __init__(self, connection: socket.socket, deadline: _Deadline) -> None:
        self.connection = connection
        self.deadline = deadline

    def sendall(self, data: Any) -> None:
        self.deadline.arm(self.connection)
        self.connection.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self.connection, self.deadline))

    def close(self) -> None:
        """Do nothing: ``http.client`` closes before the answer is read, ``send`` afterwards."""


def send(
    target: Target, method: str, headers: dict[str, str], body: bytes | None, timeout_s: float, max_bytes: int
) -> Answer:
    """Send one request and return the answer, whatever its status.

    Args:
        timeout_s: Seconds for all of it but the resolver's work: connecting, TLS, sending, and the whole answer.
        max_bytes: Longest body of an answer.

    Raises:
        WebhookRefused: The address may not be called, or the certificate is not that of the host.
        WebhookUnreachable: No connection, no answer in time, or half of one.
        InvalidResponseError: The answer is no HTTP, or too long.
    """
    began = time.monotonic()
    wheres = addresses(target)
    # The resolver has limits of its own, which are not the receiver's fault.
    deadline = _Deadline(timeout_s)
    try:
        connection = _connected(target, wheres, deadline)
    except ssl.SSLCertVerificationError as exc:
        raise WebhookRefused(f"{target} has no valid certificate: {exc.verify_message}.") from exc
    except OSError as exc:
        raise WebhookUnreachable(f"{target} can't be connected to: {_why(exc, timeout_s)}.") from exc
    client = http.client.HTTPConnection(target.host, target.port)
    client.sock = _Channel(connection, deadline)  # type: ignore[assignment]
    try:
        client.request(method, target.path, body, {"Host": target.netloc, "Connection": "close", **headers})
        response = client.getresponse()
        answer = Answer(response.status, response.reason, response.read(max_bytes + 1))
        if response.length and len(answer.body) <= max_bytes:
            # read() with a size takes the end of the connection for the end of the answer.
            raise http.client.IncompleteRead(answer.body, response.length)
    except (OSError, http.client.IncompleteRead) as exc:
        # A server that closes the connection before it answers is among the OSErrors.
        raise WebhookUnreachable(f"{target} did not answer: {_why(exc, timeout_s)}.") from exc
    except http.client.HTTPException as exc:
        raise InvalidResponseError(f"{target} did not answer in HTTP ({type(exc).__name__}).") from exc
    finally:
        client.close()
        connection.close()
    logger.info("%s %s: %d in %.2f s", method, target, answer.status, time.monotonic() - began)
    if len(answer.body) > max_bytes:
        raise InvalidResponseError(
            f"The answer of {target} is longer than {max_bytes} bytes. Let it answer less, or raise "
            "DJCELERY_WEBHOOK_MAX_BYTES."
        )
    return answer


def _why(exc: BaseException, timeout_s: float) -> str:
    if isinstance(exc, TimeoutError):
        return f"no end within {timeout_s:g} s, see DJCELERY_WEBHOOK_TIMEOUT_S"
    return f"{type(exc).__name__}: {exc}"


def _connected(target: Target, wheres: list[tuple[int, Any]], deadline: _Deadline) -> socket.socket:
    """Return a connection to the first of the addresses that takes one, encrypted for https."""
    last: OSError = OSError("it has no address")
    for family, where in wheres:
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            deadline.arm(connection)
            connection.connect(where)
            if target.scheme == "https":
                deadline.arm(connection)
                # The certificate is checked for the name in the URL, not for the address.
                return ssl.create_default_context().wrap_socket(connection, server_hostname=target.host)
        except ssl.SSLCertVerificationError:
            connection.close()
            raise
        except OSError as exc:
            connection.close()
            last = exc
        else:
            return connection
    raise last
