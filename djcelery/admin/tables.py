"""Small tables inside a page. Called by ``workers`` and ``upcoming``; knows no model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString


def table(heads: Iterable[Any], lines: Iterable[Iterable[Any]]) -> SafeString:
    """Return an HTML table; what is not safe HTML is escaped."""
    head = format_html_join("", '<th scope="col">{}</th>', ((text,) for text in heads))
    rows = ((format_html_join("", "<td>{}</td>", ((cell,) for cell in line)),) for line in lines)
    return format_html(
        '<div class="djcelery-scroll"><table class="djcelery-table">'
        "<thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>",
        head,
        format_html_join("", "<tr>{}</tr>", rows),
    )
