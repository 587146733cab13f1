"""From the text of a URL to what may be connected to: its parts, and addresses that are public or allowed.

Called by ``transport`` before each request. Reads a setting and asks the resolver, once.
Next: ``docs/webhooks.rst``.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from djcelery import parsers
from djcelery.conf import conf
from djcelery.exceptions import WebhookRefused, WebhookUnreachable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Blanks and control characters, which ``urlsplit`` drops silently, and what browsers take for a slash.
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\]")
#: IPv6 addresses that stand for an IPv4 address behind a gateway.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
#: Public by their registration only: Azure's host of virtual machines, and IPv4 in IPv6 by 6to4.
_NOT_PUBLIC = (ipaddress.ip_network("168.63.129.16/32"), ipaddress.ip_network("2002::/16"))


class Target(NamedTuple):
    """Where a request goes."""

    scheme: str
    host: str
    port: int
    #: Path and query, as they are sent.
    path: str

    @property
    def origin(self) -> tuple[str, str, int]:
        """What decides whether a token is sent."""
        return self.scheme, self.host, self.port

    @property
    def netloc(self) -> str:
        """Host and port as the header ``Host`` has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == parsers.PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        # Paths and queries of webhooks hold secrets: this is what logs and errors show.
        return f"{self.scheme}://{self.netloc}/…"


def parse(url: Any) -> Target:
    """Return the parts of *url*.

    Raises:
        WebhookRefused: It is no absolute http or https URL, or holds a user or a password.
    """
    if not isinstance(url, str) or not url:
        raise WebhookRefused("A webhook needs the URL to call, as the argument 'url'.")
    if _FORBIDDEN.search(url):
        raise WebhookRefused("The URL of a webhook holds a blank, a control character or a backslash. Quote it.")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = parts.hostname or ""
    except ValueError as exc:
        raise WebhookRefused("The URL of a webhook can't be read: its host or port is malformed.") from exc
    if parts.scheme not in parsers.PORTS:
        raise WebhookRefused(f"A webhook is called by http or https, not by {parts.scheme[:20]!r}.")
    if "@" in parts.netloc:
        raise WebhookRefused(
            "The URL of a webhook holds a user or a password, which would be stored with the task's arguments. "
            "Leave them out; DJCELERY_WEBHOOK_SEND_TOKENS sends tokens."
        )
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
    query = quote(parts.query, safe="/%:@!$&'()*+,;=~?[]")
    port = parsers.PORTS[parts.scheme] if port is None else port
    return Target(parts.scheme, _host(host), port, f"{path}?{query}" if query else path)


def _host(host: str) -> str:
    try:
        return str(ipaddress.IPv6Address(host)) if ":" in host and "%" not in host else parsers.host_name(host)
    except (ValueError, UnicodeError) as exc:
        raise WebhookRefused(f"The URL of a webhook has no usable host: {host[:100]!r}.") from exc


def addresses(target: Target) -> list[tuple[int, Any]]:
    """Return ``(family, socket address)`` of *target*, each of which may be connected to.

    The resolver is asked once, and what it said is what is connected to: an answer that changes
    afterwards changes nothing. It has its own time limits.

    Raises:
        WebhookRefused: One of its addresses is neither public nor allowed by ``DJCELERY_WEBHOOK_ALLOW``.
        WebhookUnreachable: The name can't be resolved.
    """
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError, OverflowError) as exc:
        raise WebhookUnreachable(f"The host of {target} can't be resolved: {exc}.") from exc
    allowed = conf.DJCELERY_WEBHOOK_ALLOW
    for family, _, _, _, where in found:
        if family not in (socket.AF_INET, socket.AF_INET6):
            raise WebhookRefused(f"{target} has an address that is none of the Internet.")
        if target.host not in allowed.names and not may_be_called(str(where[0]), allowed.networks):
            raise WebhookRefused(
                f"{target} is at {where[0]}, which is not a public address. If webhooks may call it, "
                "name the host or its network in DJCELERY_WEBHOOK_ALLOW."
            )
    return [(family, where) for family, _, _, _, where in found]


def may_be_called(text: str, networks: tuple[Any, ...] = ()) -> bool:
    """Tell whether address *text* is public, or within *networks*."""
    address = _meant(ipaddress.ip_address(text))
    return any(address in network for network in networks) or is_public(address)


def _meant(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, else *address*."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_public(address: Address) -> bool:
    """Tell whether *address* is one that anybody on the Internet could reach."""
    return address.is_global and not (
        address.is_private
        or address.is_multicast
        or address.is_reserved
        or address.is_loopback
        or address.is_link_local
        or address.is_unspecified
        or getattr(address, "is_site_local", False)
        or any(address in network for network in _NOT_PUBLIC)
    )
