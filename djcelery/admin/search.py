"""The search line of the lists: ``state:FAILURE name:shop.tasks.* "an id"`` to terms, and ages to instants. Pure.

Called by ``finding``, which makes conditions of the terms.
Next: ``docs/explain/life-of-a-task-event.rst``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from django.utils.translation import gettext as _

from djcelery.exceptions import DjCeleryError

#: Characters of a line, and terms in it; more is a mistake of pasting, and would make a very long statement.
MAX_LENGTH = 2000
MAX_TERMS = 50

_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
#: Years of instants to look for: beyond, databases and time zones have limits of their own.
YEARS = range(1970, 9000)
_KEY = re.compile(r"[A-Za-z_]+:")
# What ends a prefix: a star, or the dots by which a shortened id was shown.
_PREFIX_MARKS = "*…"


class SearchError(DjCeleryError, ValueError):
    """A search line can't be understood; the text says why, to the person who wrote it."""


@dataclass(frozen=True)
class Term:
    """One part of a search line. ``key`` is ``""`` for a word without one.

    ``text`` is what is looked for, without the star at its end that makes it a prefix; ``raw`` has it.
    """

    key: str
    text: str
    is_prefix: bool = False

    @property
    def raw(self) -> str:
        """The text as it was written."""
        return f"{self.text}*" if self.is_prefix else self.text


def parse(line: str, keys: Collection[str], aliases: Mapping[str, str] | None = None) -> list[Term]:
    """Return the terms of *line*: ``key:text``, ``key:"text with spaces"``, or a word alone.

    A star at the end of an unquoted text makes it a prefix. In quotation marks nothing has a meaning but a
    backslash, which takes the next character as it is.

    Args:
        keys: The known keys, in lower case; case doesn't matter in the line.
        aliases: Other names of keys.

    Raises:
        SearchError: Nothing else is ever raised, whatever *line* holds.
    """
    if len(line) > MAX_LENGTH:
        raise SearchError(_("This is too long to search by."))
    if "\x00" in line or any("\ud800" <= character <= "\udfff" for character in line):
        raise SearchError(_("This holds characters that no task has."))
    terms: list[Term] = []
    position = 0
    while True:
        position = _skip_spaces(line, position)
        if position >= len(line):
            return terms
        if len(terms) == MAX_TERMS:
            raise SearchError(_("These are more than %(count)d terms.") % {"count": MAX_TERMS})
        key, position = _key(line, position, keys, aliases or {})
        term, position = _value(line, position, key)
        terms.append(term)


def _skip_spaces(line: str, position: int) -> int:
    while position < len(line) and line[position].isspace():
        position += 1
    return position


def _key(line: str, position: int, keys: Collection[str], aliases: Mapping[str, str]) -> tuple[str, int]:
    """Return the key at *position*, and where its value begins; ``""`` if there is none."""
    found = _KEY.match(line, position)
    if found is None:
        return "", position
    name = found.group()[:-1].lower()
    name = aliases.get(name, name)
    if name not in keys:
        text = _("There is no “%(key)s”. The keys are %(keys)s; a text with a colon goes in quotation marks.")
        raise SearchError(text % {"key": found.group(), "keys": ", ".join(f"{key}:" for key in keys)})
    return name, found.end()


def _value(line: str, position: int, key: str) -> tuple[Term, int]:
    """Return the term whose text begins at *position*, and where it ends."""
    characters: list[str] = []
    is_quoted = last_was_quoted = False
    while position < len(line) and (is_quoted or not line[position].isspace()):
        character = line[position]
        position += 1
        if character == '"':
            is_quoted = not is_quoted
            continue
        if is_quoted and character == "\\" and position < len(line):
            character = line[position]
            position += 1
        last_was_quoted = is_quoted
        characters.append(character)
    if is_quoted:
        raise SearchError(_("A quotation mark is missing at the end of “%(text)s”.") % {"text": "".join(characters)})
    text = "".join(characters)
    is_prefix = len(text) > 0 and text[-1] in _PREFIX_MARKS and not last_was_quoted
    if is_prefix:
        text = text[:-1]
    if not text:
        shown = f"{key}:" if key else "*"
        raise SearchError(_("“%(key)s” needs a text beside it, without a space.") % {"key": shown})
    return Term(key, text, is_prefix), position


def span(text: str, now: datetime) -> tuple[datetime, datetime | None]:
    """Return the instants that *text* lies between: an age (``30m``, ``1h``, ``2d``, ``1w``), a day, or two of them.

    Args:
        text: ``1h`` is the last hour, ``2026-11-21`` that day, ``2026-11-01..2026-11-21`` the days from the first
            to the last.
        now: The present, aware or naive as the answer is to be; days are those of its zone.

    Raises:
        SearchError: It is neither.
    """
    age = re.fullmatch(r"([0-9]{1,4})([mhdw])", text)
    if age:
        return now - int(age[1]) * _UNITS[age[2]], None
    first, dots, last = text.partition("..")
    try:
        # Not fromisoformat(): what it takes has grown from release to release.
        start, end = _day(first), _day(last if dots else first)
        return datetime.combine(start, time(), now.tzinfo), datetime.combine(
            end + timedelta(days=1), time(), now.tzinfo
        )
    except ValueError:
        example = "30m, 1h, 2d, 1w, 2026-11-21, 2026-11-01..2026-11-21"
        problem = _("“%(text)s” is not a time such as %(example)s.")
        raise SearchError(problem % {"text": text, "example": example}) from None


def _day(text: str) -> date:
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        raise ValueError(text)
    year, month, day = map(int, text.split("-"))
    if year not in YEARS:
        raise ValueError(text)
    return date(year, month, day)
