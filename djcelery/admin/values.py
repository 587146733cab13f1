"""Stored values as the pages of results show them: cut, escaped, and never loaded by code of the project.

Called by ``results``; reads rows only to link to them. Everything that a task sent goes through
``format_html``.
Next: ``docs/explain/life-of-a-result.rst``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from pprint import pformat
from typing import Any

from celery.result import ResultBase
from celery.utils.saferepr import saferepr
from django.db.models import Model
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from djcelery import db, utils
from djcelery.admin.columns import colored_status
from djcelery.admin.columns import seconds as seconds
from djcelery.models import TaskMeta

#: Characters of a value, and tasks of a group, that a page shows.
MAX_SHOWN = 10_000
MAX_CHILDREN = 200
_MAX_LEVELS = 50
_LINE_WIDTH = 100

#: What the words of ``TaskMeta.flags`` mean: the column, and what was done to its value.
FLAG_COLUMNS = {
    "args": gettext_lazy("Arguments"),
    "kwargs": gettext_lazy("Keyword arguments"),
    "result": gettext_lazy("Result"),
    "traceback": gettext_lazy("Traceback"),
    "exception": gettext_lazy("Exception"),
    "progress": gettext_lazy("Progress"),
}
FLAG_CHANGES = {
    "cut": gettext_lazy("too long; only a part is stored."),
    "repr": gettext_lazy("not JSON; some values are stored as Python would write them."),
    "redacted": gettext_lazy("hidden, by the sender or by DJCELERY_REDACT."),
    "escaped": gettext_lazy("characters that the database can't store are written as escapes."),
}


def value_text(value: Any) -> str:
    """Return *value* as Python would write it, over several lines; a long one is cut by ``saferepr``."""
    short = saferepr(value, maxlen=MAX_SHOWN, maxlevels=_MAX_LEVELS)
    if len(short) >= MAX_SHOWN:
        return short
    try:
        # Costs as much as the value is large, so only what is known to be small comes here.
        return pformat(value, width=_LINE_WIDTH)
    except Exception:  # noqa: BLE001 - a class that the project allowed may have any __repr__
        return short


def json_text(value: Any) -> SafeString | None:
    """Return a JSON *value* on one line if it is short, else indented; None if it is None.

    A text stands for a value that isn't JSON, and is shown without quotes.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return preformatted(value)
    text = json.dumps(value, ensure_ascii=False)
    if len(text) > _LINE_WIDTH:
        text = json.dumps(value, ensure_ascii=False, indent=2)
    return preformatted(text)


def preformatted(text: str) -> SafeString:
    """Return *text* in a fixed-width font; cut, with a note that says so, if it is long."""
    # JSON may hold halves of characters, which no page can.
    shown = format_html('<pre class="djcelery-text">{}</pre>', db.storable(text[:MAX_SHOWN]))
    if len(text) < MAX_SHOWN:
        return shown
    note = _("Cut: only about the first %(count)d characters are shown.") % {"count": MAX_SHOWN}
    return format_html('{}<p class="help">{}</p>', shown, note)


def flag_notes(flags: str | None) -> SafeString | None:
    """Return what the words in *flags* mean, one per line; None if there are none. Unknown ones stay as they are."""
    notes = []
    for flag in (flags or "").split():
        column, _underscore, change = flag.rpartition("_")
        if column in FLAG_COLUMNS and change in FLAG_CHANGES:
            notes.append(f"{FLAG_COLUMNS[column]}: {FLAG_CHANGES[change]}")
        else:
            notes.append(flag)
    return listed(notes) if notes else None


def moment(value: datetime | None) -> str | None:
    """Return *value* in the project's time zone, to the millisecond."""
    if value is None:
        return None
    return utils.correct_awareness(value).isoformat(sep=" ", timespec="milliseconds")


def row_link(row: Model, text: Any) -> SafeString:
    """Return a link to the page of *row*."""
    page = reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])
    return format_html('<a href="{}">{}</a>', page, text)


def task_links(ids: Iterable[str]) -> SafeString | None:
    """Return the tasks *ids*, with links to the results that are stored and their states; None if there are none.

    Database: 1 query, by the unique index; none without ids.
    """
    # As they are stored: what a result holds may be any text.
    all_ids = list(dict.fromkeys(map(db.storable, ids)))
    if not all_ids:
        return None
    shown = all_ids[:MAX_CHILDREN]
    stored = {row.task_id: row for row in TaskMeta.objects.filter(task_id__in=shown).only("task_id", "status")}
    lines = [
        format_html("{} {}", row_link(stored[i], i), colored_status(stored[i])) if i in stored else i for i in shown
    ]
    rest = len(all_ids) - MAX_CHILDREN
    if rest > 0:
        lines.append(_("and %(count)d more") % {"count": rest})
    return listed(lines)


def listed(lines: Iterable[object]) -> SafeString:
    """Return *lines* as a list, escaped."""
    shown = format_html_join("", "<li>{}</li>", ((line,) for line in lines))
    return format_html('<ul class="djcelery-links">{}</ul>', shown)


def task_ids(stored: Any) -> Iterator[str]:
    """Yield the ids of the tasks in *stored*: result objects, or what their ``as_tuple()`` gave.

    Such a tuple is ``((id, parent), children)``, for a task ``children`` is None; JSON made it a list.
    """
    if isinstance(stored, ResultBase):
        stored = stored.as_tuple()
    if not isinstance(stored, (list, tuple)):
        return
    match stored:
        case [[str(task_id), _parent], None]:
            yield task_id
        case [[str(), _parent], [*members]]:
            yield from task_ids(members)
        case _:
            for item in stored:
                yield from task_ids(item)
