"""The times of a task as a small bar: how long it was in the queue, in the worker, and running.

Called by ``tasks``. Inline SVG whose colours come from the style sheet; what it shows is in words beside it.
Next: ``docs/explain/life-of-a-task-event.rst``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from djcelery.admin.columns import seconds

_WIDTH = 1000
_HEIGHT = 20
# What took a millisecond of an hour is to be seen, too.
_LEAST_WIDTH = 4

QUEUED, WAITING, RUNNING = "queued", "waiting", "running"


class Segment(NamedTuple):
    """A stretch of a task's life, in seconds. ``is_open`` if it goes on."""

    kind: str
    length_s: float
    is_open: bool = False


def segments(
    sent: datetime | None,
    received: datetime | None,
    started: datetime | None,
    finished: datetime | None,
    now: datetime | None,
) -> list[Segment]:
    """Return what is known of a task's life, in order.

    Args:
        sent, received, started, finished: When it was; None if no event told. Clocks of different machines may
            disagree: what would be negative is 0.
        now: The end of what goes on; None for a task that has ended or is lost.
    """
    found = []
    if sent:
        found.append(_segment(QUEUED, sent, received or started or finished, now))
    if received:
        # One that was revoked has ended without a start.
        found.append(_segment(WAITING, received, started or finished, now))
    if started:
        found.append(_segment(RUNNING, started, finished, now))
    return [segment for segment in found if segment]


def _segment(kind: str, start: datetime, end: datetime | None, now: datetime | None) -> Segment | None:
    last = end or now
    return Segment(kind, max((last - start).total_seconds(), 0.0), end is None) if last else None


def in_words(parts: Sequence[Segment]) -> str:
    """Return the stretches as a sentence each."""
    texts = {
        (QUEUED, False): _("%(time)s in the queue"),
        (QUEUED, True): _("%(time)s in the queue so far"),
        (WAITING, False): _("%(time)s waiting in the worker"),
        (WAITING, True): _("%(time)s waiting in the worker so far"),
        (RUNNING, False): _("%(time)s running"),
        (RUNNING, True): _("%(time)s running so far"),
    }
    return ", ".join(texts[part.kind, part.is_open] % {"time": seconds(part.length_s)} for part in parts)


def bar(parts: Sequence[Segment]) -> SafeString | None:
    """Return the bar with its words below; None if nothing is known."""
    if not parts:
        return None
    total = sum(part.length_s for part in parts)
    rectangles = []
    left = 0.0
    for part in parts:
        share = part.length_s / total if total else 1 / len(parts)
        # What a stretch has at least, the longer ones go without.
        width = _LEAST_WIDTH + share * (_WIDTH - _LEAST_WIDTH * len(parts))
        kind = f"djcelery-{part.kind}" + (" djcelery-open" if part.is_open else "")
        rectangles.append((kind, f"{left:.1f}", f"{width:.1f}", _HEIGHT))
        left += width
    words = in_words(parts)
    return format_html(
        '<svg class="djcelery-bar" role="img" aria-label="{}" viewBox="0 0 {} {}" preserveAspectRatio="none">{}</svg>'
        '<p class="djcelery-bar-words">{}</p>',
        words,
        _WIDTH,
        _HEIGHT,
        format_html_join("", '<rect class="{}" x="{}" y="0" width="{}" height="{}"/>', rectangles),
        words,
    )
