"""Decorators and columns for model admins; nothing in here knows a model.

Called by ``djcelery.admin`` and by the admins of projects that were written for django-celery.
"""

from __future__ import annotations

from collections.abc import Callable
from pprint import pformat
from typing import Any, TypeVar

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

F = TypeVar("F", bound=Callable[..., Any])

#: For ``format_html``: title, size in points, text.
FIXEDWIDTH_STYLE = '<span title="{}" style="font-size: {}pt; font-family: Menlo, Courier; ">{}</span> '

#: The same for pages whose Content-Security-Policy refuses style attributes; style.css has the font.
FIXEDWIDTH_CLASS = '<span title="{}" class="djcelery-fixed">{}</span> '

# What a line break counts for when text is cut: legacy wrote it as "|br/|" while it counted.
_BREAK_LENGTH = 5
_TITLE_LENGTH = 255


def attrs(**kwargs: Any) -> Callable[[F], F]:
    """Return a decorator that sets the attributes *kwargs* of a function."""

    def set_attributes(fun: F) -> F:
        for name, value in kwargs.items():
            setattr(fun, name, value)
        return fun

    return set_attributes


def display_field(
    short_description: Any, admin_order_field: str | None, allow_tags: bool = True, **kwargs: Any
) -> Callable[[F], F]:
    """Return a decorator that makes a function a list column.

    Args:
        short_description: The header.
        admin_order_field: The field to sort by; None for a column that can't be sorted.
        allow_tags: Ignored. HTML must come from ``format_html``; any other text is escaped.
        **kwargs: More attributes of the function.
    """
    return attrs(short_description=short_description, admin_order_field=admin_order_field, **kwargs)


def action(short_description: Any, **kwargs: Any) -> Callable[[F], F]:
    """Return a decorator that labels an admin action. ``allowed_permissions=[…]`` says who may run it."""
    return attrs(short_description=short_description, **kwargs)


def fixedwidth(
    field: str,
    name: Any = None,
    pt: int = 6,
    width: int = 16,
    maxlen: int = 64,
    pretty: bool = False,
    is_styled: bool = True,
) -> Callable[[Any], SafeString | None]:
    """Return a list column that shows *field* in a fixed-width font, cut, with more of it in the tooltip.

    Args:
        field: The attribute to show, and the field to sort by.
        name: The header; None takes *field*.
        pt: Size of the font in points.
        width: Characters per line of what is not text, such as a list (*pretty* only).
        maxlen: Characters to show.
        pretty: Show any value, None included. Without it values are text, and None is Django's empty value.
        is_styled: Name the font in the markup. Without it style.css does, and *pt* is ignored.
    """

    @display_field(name or field, field)
    def column(task: Any) -> SafeString | None:
        value = getattr(task, field)
        if value is None and not pretty:
            return None
        text = value if isinstance(value, str) else pformat(value, width=width)
        if text.startswith(("u'", 'u"')):
            # What a worker under Python 2 sent.
            text = text[2:-1]
        lines = _cut(text[: maxlen + 1].replace(",", ",\n"), maxlen).split("\n")
        shown = format_html_join(SafeString("<br/>"), "{}", ((line,) for line in lines))
        title = text[:_TITLE_LENGTH]
        return (
            format_html(FIXEDWIDTH_STYLE, title, pt, shown)
            if is_styled
            else format_html(FIXEDWIDTH_CLASS, title, shown)
        )

    # Django makes the column's CSS class from it.
    column.__name__ = field
    return column


def _cut(text: str, maxlen: int) -> str:
    """Return *text*, cut before it counts more than *maxlen*."""
    used = 0
    for position, character in enumerate(text):
        used += _BREAK_LENGTH if character == "\n" else 1
        if used > maxlen:
            return f"{text[:position].rstrip()}..."
    return text
