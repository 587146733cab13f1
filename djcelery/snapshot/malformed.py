"""Keeps malformed events apart, for people to look at, and says in the log that there are some.

Called by ``writer``. Writes ``MalformedEvent``.
Next: ``docs/explain/life-of-a-task-event.rst``.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence

from django.db import DataError, Error, transaction
from django.db.models import Max

from djcelery import db, utils
from djcelery.snapshot.news import Malformed

logger = logging.getLogger(__name__)

#: Rows that are kept.
KEPT_ROWS = 1000
#: Seconds for which one reason is not logged again, and reasons of which that is known.
_QUIET_S, _MOST_REASONS = 60.0, 100
_SHOWN_CHARACTERS = 200


class MalformedLog:
    """The malformed events that came to the camera *name*."""

    def __init__(self, name: str, alias: str) -> None:
        self.name, self.alias = name[:255], alias
        self._logged_mono: dict[str, float] = {}
        self._unlogged: Counter[str] = Counter()

    def write(self, events: Sequence[Malformed]) -> None:
        """Insert *events* and delete the oldest beyond the latest thousand; log one line per reason and minute.

        Raises:
            django.db.Error: The database can't be written at present.

        Database: three statements.
        """
        from djcelery.models import MalformedEvent

        kept = MalformedEvent.objects.using(self.alias)
        rows = [
            MalformedEvent(
                seen_at=utils.fromtimestamp(event.received_at_s),
                camera=self.name,
                reason=event.reason[:255],
                body=event.body,
            )
            for event in events[-KEPT_ROWS:]
        ]
        try:
            with transaction.atomic(using=self.alias):
                kept.bulk_create(rows)
        except Error as exc:
            if not (db.is_bad_text(exc) or isinstance(exc, DataError)):
                raise
            for row in rows:
                row.pk, row.body = None, db.three_byte(row.body)[:2000]
            kept.bulk_create(rows)
        latest = kept.aggregate(latest=Max("pk"))["latest"] or 0
        kept.filter(pk__lte=latest - KEPT_ROWS).delete()
        self._say(events)

    def _say(self, events: Sequence[Malformed]) -> None:
        now_mono = time.monotonic()
        if len(self._logged_mono) > _MOST_REASONS:
            self._logged_mono.clear()
        self._unlogged.update(event.reason for event in events)
        for event in events:
            last_mono = self._logged_mono.get(event.reason)
            if not self._unlogged[event.reason] or (last_mono is not None and now_mono < last_mono + _QUIET_S):
                continue
            self._logged_mono[event.reason] = now_mono
            count = self._unlogged.pop(event.reason)
            body = event.body[:_SHOWN_CHARACTERS]
            logger.error(
                "Events that can't be read: %d since this was said last; %s. One is %s", count, event.reason, body
            )
