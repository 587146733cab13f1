"""Where may HTTP dispatch send requests? Ids ``djcelery.W610`` to ``W619``.

Called by ``manage.py check`` and before a program starts. Reads Django's settings.
Next: ``docs/reference/checks.rst``.
"""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Warning

from djcelery.checks.common import Check
from djcelery.conf import conf
from djcelery.exceptions import SettingError

#: A network of so many addresses is no list of receivers any more.
_WIDE_PREFIX = {4: 8, 6: 16}


def tokens_in_the_open(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Warn of bearer tokens that are sent without encryption."""
    try:
        origins = list(conf.DJCELERY_WEBHOOK_SEND_TOKENS)
    except SettingError:
        # E101 says so.
        return []
    return [
        Warning(
            f"DJCELERY_WEBHOOK_SEND_TOKENS sends a token to http://{host}:{port}, which everybody on the way can read.",
            hint="Write https.",
            id="djcelery.W610",
        )
        for scheme, host, port in origins
        if scheme == "http"
    ]


def wide_networks(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Warn of networks that let webhooks reach nearly everything."""
    try:
        networks = conf.DJCELERY_WEBHOOK_ALLOW.networks
    except SettingError:
        return []
    return [
        Warning(
            f"DJCELERY_WEBHOOK_ALLOW holds {network}, so whoever can send a task reaches this machine's own services.",
            hint="Name the hosts or the networks of the receivers.",
            id="djcelery.W611",
        )
        for network in networks
        if network.prefixlen < _WIDE_PREFIX[network.version]
    ]


ALL: tuple[Check, ...] = ()
#: Run by ``manage.py check --deploy`` only.
DEPLOY: tuple[Check, ...] = (tokens_in_the_open, wide_networks)
