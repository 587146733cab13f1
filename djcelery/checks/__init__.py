"""System checks: settings that do nothing any more, that contradict each other, or that lose messages.

Called by ``manage.py check`` and before a worker, beat or camera starts; ``apps`` registers them.
One module for each question; each lists its checks in ``ALL``, ``DEPLOY`` (for ``check --deploy``), ``DATABASE``
(for ``check --database``) and ``START`` (when worker, beat or camera start). A check never raises; only those in
the last two open a connection, by ``looking``.
Ids: ``djcelery.E1xx`` settings, ``E2xx`` results, ``E3xx`` scheduler, ``E4xx`` monitor, ``E5xx`` broker,
``E6xx`` views, ``E7xx`` databases; never reused. Next: ``docs/reference/checks.rst``.
"""

from __future__ import annotations

from djcelery.checks import broker, celeryapp, databases, monitor, results, schedule, settings, views, webhooks
from djcelery.checks.common import TAG, Check, starting
from djcelery.checks.results import cache_backend_alone, cache_that_forgets
from djcelery.checks.settings import (
    gone_values,
    own_settings,
    pickle_was_default,
    renamed,
    two_spellings,
    without_effect,
)

__all__ = (
    "ALL",
    "DATABASE",
    "DEPLOY",
    "START",
    "TAG",
    "Check",
    "cache_backend_alone",
    "cache_that_forgets",
    "gone_values",
    "own_settings",
    "pickle_was_default",
    "renamed",
    "starting",
    "two_spellings",
    "without_effect",
)

_MODULES = (settings, celeryapp, results, schedule, monitor, broker, views, webhooks, databases)


def _listed(kind: str) -> tuple[Check, ...]:
    return tuple(check for module in _MODULES for check in getattr(module, kind, ()))


#: Checks of settings, run by every ``manage.py check``.
ALL = _listed("ALL")
#: Checks that only ``manage.py check --deploy`` runs.
DEPLOY = _listed("DEPLOY")
#: Checks that only ``manage.py check --database`` runs.
DATABASE = _listed("DATABASE")
#: Checks that find something only while a program starts; see ``starting``.
START = _listed("START")
