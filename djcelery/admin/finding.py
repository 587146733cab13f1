"""What a search line finds: its terms become conditions, each in the form that an index serves.

Called by the lists of tasks and of results. Several terms of one key widen a search, different keys narrow it. What
no index serves is looked for within a time only; what a person may not see can't be searched.
Next: ``docs/explain/life-of-a-task-event.rst``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple

from django.db import connections
from django.db.models import F, Q, QuerySet, TextField
from django.db.models.functions import Cast
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from djcelery import utils
from djcelery.admin.search import SearchError, Term, parse, span
from djcelery.models import WorkerState

#: Where texts that no index serves are looked for, unless the person chose a time.
WINDOW = timedelta(days=1)
#: Workers that a search by a prefix stands for.
_MAX_WORKERS = 100
_LAST_CHARACTER = "\U0010ffff"
_NOTHING = Q(pk__in=())

Find = Callable[[QuerySet, Sequence[Term]], QuerySet]


@dataclass(frozen=True)
class Key:
    """What a key of the search line stands for.

    Attributes:
        find: Returns the rows that any of the terms fits.
        is_indexed: Whether it is quick in a table of any size; if not, it is looked for within a time.
        is_secret: Whether only who may see arguments may search by it.
        is_time: Whether it chooses a time.
        column: The column that has one value where one text is looked for; ``""`` if there is none.
    """

    find: Find
    column: str = ""
    is_indexed: bool = True
    is_secret: bool = False
    is_time: bool = False


class Outcome(NamedTuple):
    """What a search found: rows, a note or a problem for the person, and the columns that it fixes to one value."""

    rows: QuerySet
    note: str = ""
    problem: str = ""
    fixed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Search:
    """The search line of one list: its keys, by name, and what a word without a key stands for."""

    keys: Mapping[str, Key]
    word: Find
    time_field: str
    aliases: Mapping[str, str] = field(default_factory=dict)

    def apply(self, rows: QuerySet, line: str, *, may_see_secrets: bool, is_time_chosen: bool) -> Outcome:
        """Return those of *rows* that *line* finds.

        Raises:
            SearchError: The line can't be understood, or this person may not search so.

        Database: up to 3 queries by indexes per word, 1 for workers; the queryset's own follows.
        """
        terms: dict[str, list[Term]] = {}
        for term in parse(line, self.keys, self.aliases):
            terms.setdefault(term.key, []).append(term)
        keys = [self.keys[name] for name in terms if name]
        if any(key.is_secret for key in keys) and not may_see_secrets:
            raise SearchError(_("You may not see the arguments and results of tasks, so you can't search by them."))
        fixed = set()
        for name, wanted in terms.items():
            rows = self.keys[name].find(rows, wanted) if name else self.word(rows, wanted)
            if name and self.keys[name].column and len(wanted) == 1 and not wanted[0].is_prefix:
                fixed.add(self.keys[name].column)
        if is_time_chosen or all(key.is_indexed for key in keys) or any(key.is_time for key in keys):
            return Outcome(rows, fixed=frozenset(fixed))
        note = _("Arguments, results and queues are searched in the last day only. Choose a time to search another.")
        return Outcome(rows.filter(**{f"{self.time_field}__gte": utils.now() - WINDOW}), note, fixed=frozenset(fixed))


def begins_with(vendor: str, field: str, text: str) -> Q:
    """Return the condition that *field* begins with *text*, in the form that *vendor* finds in an index."""
    if vendor == "sqlite":
        # Its LIKE ignores case, and no index does.
        return Q(**{f"{field}__gte": text, f"{field}__lt": text + _LAST_CHARACTER})
    if vendor == "mysql":
        # What Django makes of startswith compares bytes, and the index is in the order of the collation.
        return Q(**{f"{field}__istartswith": text})
    return Q(**{f"{field}__startswith": text})


def _vendor(rows: QuerySet) -> str:
    return connections[rows.db].vendor


def _any(conditions: Iterable[Q]) -> Q:
    found = Q()
    for condition in conditions:
        found |= condition
    return found


def exact_or_prefix(column: str) -> Find:
    """Return a search for the text itself, or for what begins with it if it ends in a star."""

    def find(rows: QuerySet, terms: Sequence[Term]) -> QuerySet:
        vendor = _vendor(rows)
        exact = [term.text for term in terms if not term.is_prefix]
        prefixes = [begins_with(vendor, column, term.text) for term in terms if term.is_prefix]
        return rows.filter(_any([*([Q(**{f"{column}__in": exact})] if exact else []), *prefixes]))

    return find


def identifier(column: str) -> Find:
    """Return a search for the row of that id; if there is none, for ids that begin so. *column* is unique."""

    def find(rows: QuerySet, terms: Sequence[Term]) -> QuerySet:
        return rows.filter(_any(_by_id(rows, column, term) or _id_prefix(rows, column, term) for term in terms))

    return find


def _by_id(rows: QuerySet, column: str, term: Term) -> Q | None:
    """Return the condition that finds the row of the id; None if there is none."""
    exact = Q(**{column: term.text})
    return exact if not term.is_prefix and rows.model._base_manager.using(rows.db).filter(exact).exists() else None


def _id_prefix(rows: QuerySet, column: str, term: Term) -> Q:
    return begins_with(_vendor(rows), column, term.text)


def id_or_name(id_column: str, *name_columns: str) -> Find:
    """Return a search for the row of that id; if there is none, for ids and names that begin so."""

    def find(rows: QuerySet, terms: Sequence[Term]) -> QuerySet:
        table = rows.model._base_manager.using(rows.db)
        conditions = []
        for term in terms:
            exact = _by_id(rows, id_column, term)
            if exact:
                conditions.append(exact)
                continue
            # What no row fits is left out: an OR over two columns misleads the planners.
            either = [begins_with(_vendor(rows), column, term.text) for column in (id_column, *name_columns)]
            conditions += [condition for condition in either if table.filter(condition).exists()]
        return rows.filter(_any(conditions) if conditions else _NOTHING)

    return find


def state(column: str, known: Collection[str]) -> Find:
    """Return a search for states, in letters of any case; *known* ones by prefix, too."""

    def find(rows: QuerySet, terms: Sequence[Term]) -> QuerySet:
        wanted = set()
        for term in terms:
            upper = term.text.upper()
            if term.is_prefix:
                wanted |= {name for name in known if name.startswith(upper)}
            else:
                wanted.add(upper if upper in known else term.text)
        return rows.filter(**{f"{column}__in": sorted(wanted)})

    return find


def worker(rows: QuerySet, terms: Sequence[Term]) -> QuerySet:
    """Return the tasks of the workers with such host names."""
    workers = exact_or_prefix("hostname")(WorkerState.objects.using(rows.db), terms)
    keys = list(workers.order_by("-last_heartbeat").values_list("pk", flat=True)[:_MAX_WORKERS])
    return rows.filter(worker_id__in=keys)


def root(rows: QuerySet, terms: Sequence[Term]) -> QuerySet:
    """Return the tasks that began with a root task: it, and all that have a parent."""
    ids = [term.text for term in terms]
    # The index holds only tasks with a parent.
    return rows.filter(Q(task_id__in=ids) | Q(root_id__in=ids, parent_id__isnull=False))


def moments(column: str) -> Find:
    """Return a search for a time, as ``search.span`` reads it."""

    def find(rows: QuerySet, terms: Sequence[Term]) -> QuerySet:
        conditions = []
        for term in terms:
            start, end = span(term.text, utils.now())
            conditions.append(Q(**{f"{column}__gte": start}) & (Q(**{f"{column}__lt": end}) if end else Q()))
        return rows.filter(_any(conditions))

    return find


def contains(*columns: str) -> Find:
    """Return a search for a part of any of the *columns*, in letters of any case; JSON is searched as text."""

    def find(rows: QuerySet, terms: Sequence[Term]) -> QuerySet:
        names = {f"{column}_as_text": Cast(F(column), TextField()) for column in columns}
        texts = {text for term in terms for text in (term.raw, json.dumps(term.raw)[1:-1])}
        return rows.alias(**names).filter(_any(Q(**{f"{name}__icontains": text}) for name in names for text in texts))

    return find


#: For ``search_help_text``.
HELP = gettext_lazy(
    "An id or a name, or the beginning of one; or a key with a text, such as state:FAILURE or name:shop.*. "
    "The keys are %(keys)s. Quotation marks keep words together."
)


def help_text(keys: Mapping[str, Key], secrets: bool) -> str:
    """Return what can be written into the search line, with the secret keys or without them."""
    shown = [name for name, key in keys.items() if secrets or not key.is_secret]
    return str(HELP) % {"keys": ", ".join(shown)}
