"""Parsers of single settings: a value goes in as a person wrote it, and comes out as the code wants it.

Called by ``conf``. Pure. Each raises ``TypeError`` or ``ValueError`` whose message says what to write instead.
Next: ``docs/reference/settings.rst``.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from typing import Any, NamedTuple
from urllib.parse import urlsplit

#: Longer waits than this, about 30 years, don't fit where they go: into sockets, and into times on the calendar.
LONGEST_S = 1e9


def count(value: Any) -> int | None:
    """Parse a whole number, None or 0 for "no limit"."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError("use a whole number of tasks, or None")
    return value or None


def positive(value: Any) -> int:
    """Parse a whole number above zero."""
    # The largest numbers don't fit where sizes go.
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < sys.maxsize:
        raise TypeError("use a whole number above zero")
    return value


def flag(value: Any) -> bool:
    if not isinstance(value, (bool, int)):
        raise TypeError("use True or False")
    return bool(value)


def seconds(value: Any) -> float:
    """Parse a number of seconds above zero, or a timedelta; at most ``LONGEST_S``."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= LONGEST_S:
        raise TypeError(f"use a number of seconds above zero, at most {LONGEST_S:.0f}")
    return float(value)


def lease_name(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 64 or not value.isprintable():
        raise TypeError("use a text of 1 to 64 characters that can be printed")
    return value


def token(value: Any) -> str | None:
    """Parse a secret: a text, or None or an empty one for "no token"."""
    if value is not None and not isinstance(value, str):
        raise TypeError("use a text, or None")
    return value or None


def schedule_policy(value: Any) -> str:
    if value not in ("mirror", "seed"):
        raise ValueError("use 'mirror' or 'seed'")
    return value


def bytes(value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise TypeError("use a whole number of bytes, or None for no limit")
    return value or None


def too_large(value: Any) -> str:
    if value not in ("refuse", "cut"):
        raise ValueError("use 'refuse' or 'cut'")
    return value


def _listed(value: Any, of: str) -> Collection[Any]:
    """Return *value* if it is a list or set, which can be read again and again."""
    if isinstance(value, str):
        raise TypeError(f"use a list of {of}, not one string")
    if isinstance(value, Mapping) or not isinstance(value, Collection):
        raise TypeError(f"use a list of {of}")
    return value


_REDACTABLE = ("args", "kwargs", "result", "traceback")


def redacted(value: Any) -> frozenset[str]:
    """Parse what isn't stored: names of ``_REDACTABLE``, or one item such as ``kwargs.password``."""
    names = frozenset(_listed(value, "names"))
    for name in names:
        column, dot, item = name.partition(".") if isinstance(name, str) else ("", "", "")
        fits = item.isdecimal() if column == "args" else column == "kwargs" and item
        if column not in _REDACTABLE or (dot and not fits):
            raise ValueError(f"{name!r} is none of {', '.join(_REDACTABLE)}, nor one item such as 'kwargs.password'")
    return names


def dotted_names(value: Any) -> frozenset[str]:
    names = frozenset(_listed(value, "dotted names"))
    for name in names:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"{name!r} is not the dotted name of a module or class")
    return names


def one_of(*choices: str) -> Callable[[Any], str]:
    """Return a parser that takes nothing but *choices*."""

    def parse(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"use {' or '.join(map(repr, choices))}")
        return value

    return parse


def task_patterns(value: Any) -> tuple[str, ...]:
    """Parse names of tasks and patterns of such names."""
    for name in _listed(value, "names"):
        if not isinstance(name, str) or not name:
            raise TypeError(f"{name!r} is not the name of a task")
    return tuple(value)


class Receivers(NamedTuple):
    """Which receivers of webhooks may be called though they are not public: host names, and networks."""

    names: frozenset[str]
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]


def receivers(value: Any) -> Receivers:
    """Parse host names, addresses and networks such as ``10.1.0.0/16``."""
    names, networks = set(), []
    for item in _listed(value, "host names and networks"):
        if not isinstance(item, str):
            raise TypeError(f"{item!r} is not a text")
        try:
            networks.append(ipaddress.ip_network(item.strip("[]")))
        except ValueError:
            if "/" in item or ":" in item:
                raise
            names.add(host_name(item))
    return Receivers(frozenset(names), tuple(networks))


def host_name(value: str) -> str:
    """Return a host as it is compared: in small letters, as ASCII, without the dot at its end.

    Raises:
        ValueError: It is no host name.
    """
    name = value.removesuffix(".").encode("idna").decode().lower()
    if not name or not all(character.isalnum() or character in "._-" for character in name):
        raise ValueError(f"{value!r} is not the name of a host")
    return name


#: The ports that a URL means when it names none.
PORTS = {"http": 80, "https": 443}


def tokens(value: Any) -> dict[tuple[str, str, int], str]:
    """Parse secrets by the beginning of a URL, such as ``https://hooks.example.com``: (scheme, host, port)."""
    if not isinstance(value, Mapping):
        raise TypeError("use a dictionary of tokens by the beginning of a URL")
    found = {}
    for url, secret in value.items():
        origin = _origin(url)
        if not isinstance(secret, str) or not secret.isascii() or not secret.isprintable() or not secret:
            raise ValueError(f"the token for {url!r} is not a text of printable ASCII characters")
        found[origin] = secret
    return found


def _origin(url: Any) -> tuple[str, str, int]:
    # What can't be read is not shown: who has mixed up the two wrote a token there.
    wrong = "a key is not the beginning of a URL such as 'https://hooks.example.com'"
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        port, host = parts.port, parts.hostname or ""
        host = host if not host or ":" in host else host_name(host)
    except ValueError:
        raise ValueError(wrong) from None
    if "@" in parts.netloc:
        raise ValueError("a URL has a user or a password; write just its beginning, as 'https://hooks.example.com'")
    if parts.scheme not in PORTS or not host or parts.path not in ("", "/"):
        raise ValueError(wrong)
    return parts.scheme, host, port or PORTS[parts.scheme]
