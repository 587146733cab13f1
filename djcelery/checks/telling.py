"""What beat is told in its log when ``celery beat`` starts it: Celery runs Django's checks and drops what they find.

``apps`` connects ``tell_beat``. ``manage.py celerybeat`` has printed the same before, and is not told again.
Looks into the database; writes nothing. Next: ``docs/reference/checks.rst``.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from django.db import connections

from djcelery.checks import schedule
from djcelery.checks.common import starting, were_run_here

__all__ = ("tell_beat",)

logger = logging.getLogger(__name__)


def tell_beat(sender: Any = None, **kwargs: Any) -> None:
    """Log what the checks for the start of beat find. Receiver of ``beat_init``.

    Database: one SELECT, if the scheduler is one that reads no rows.
    """
    if were_run_here() or os.environ.get("CELERY_SKIP_CHECKS"):
        return
    kind = type(getattr(sender, "scheduler", None))
    with starting("celerybeat", {"scheduler": f"{kind.__module__}:{kind.__qualname__}"}):
        found = [message for check in schedule.START for message in check(databases=list(connections))]
    for message in found:
        if not message.is_silenced():
            logger.log(message.level, "%s", message)
