"""The pages that djcelery has in the admin, found by asking the admin; and rows in all tables to show there."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import NamedTuple

from django.apps import apps
from django.contrib import admin
from django.db import connection, models
from django.urls import URLResolver, get_resolver

from djcelery import utils
from djcelery.picklefield import PickledObject

ROOT = "/admin/"
#: What must never be in a page as it is.
TAG, ATTRIBUTE = "<script>x", '"onmouseover="x'
# A day from the ends of the calendar, since Django can't say there what time it is elsewhere.
FIRST, LAST = datetime(1, 1, 2, tzinfo=timezone.utc), datetime(9999, 12, 30, 23, 59, 59, 999999, tzinfo=timezone.utc)
#: Kinds of rows: texts that are markup, texts that are templates, nothing at all, and the most that fits.
KINDS = ("markup", "braces", "empty", "huge", "plain")


class Page(NamedTuple):
    """A page of the admin: ``path`` has ``{key}`` where the key of a row goes; ``model`` may be None."""

    path: str
    model: type | None

    def url(self, key):
        return self.path.replace("{key}", str(key))


def pages():
    """Return all pages of djcelery, and those of the admin that answer for its models."""
    known = {model._meta.model_name: model for model in registered()}
    found = []
    for pattern in _patterns(get_resolver().url_patterns, "/"):
        path = re.sub(r"<(?:\w+:)?\w+>", "{key}", pattern)
        if path.startswith(f"{ROOT}djcelery/"):
            found.append(Page(path, known.get(path.split("/")[3])))
    assert len(found) > 50, "the admin's patterns were not found"
    return [*dict.fromkeys(found), Page(f"{ROOT}autocomplete/", None), Page(f"{ROOT}djcelery/", None)]


def _patterns(patterns, prefix):
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from _patterns(pattern.url_patterns, prefix + str(pattern.pattern))
        else:
            yield prefix + str(pattern.pattern)


def registered():
    """Return the models that have pages."""
    return [model for model in admin.site._registry if model._meta.app_label == "djcelery"]


def actions(model):
    """Return the names of all actions of *model*."""
    names = [each if isinstance(each, str) else each.__name__ for each in admin.site._registry[model].actions or ()]
    return [*names, "delete_selected"]


def columns(model):
    """Return the names of the columns of *model*."""
    return [field.attname for field in model._meta.concrete_fields]


def autocompletes():
    """Return the queries of all fields that the page of autocompletion answers for."""
    return [
        {"app_label": "djcelery", "model_name": model._meta.model_name, "field_name": field.name}
        for model in apps.get_app_config("djcelery").get_models()
        for field in model._meta.concrete_fields
        if field.remote_field
    ]


def fill(kinds=KINDS):
    """Make a row of each kind in each table, past all rules; return the keys by model and kind."""
    keys = {model: {} for model in apps.get_app_config("djcelery").get_models()}
    # Rows that others refer to come first.
    for model in sorted(keys, key=lambda model: any(field.remote_field for field in model._meta.concrete_fields)):
        for number, kind in enumerate(kinds):
            if "ident" in columns(model) or model.__name__ == "MonitorGate":
                continue
            keys[model][kind] = put(model, **_values(model, kind, number, keys)).pk
    return keys


def put(model, **values):
    """Return a row as the database takes it."""
    model._base_manager.bulk_create([model(**values)])
    row = model._base_manager.order_by("-pk").first()
    moments = {field.attname for field in model._meta.concrete_fields if isinstance(field, models.DateTimeField)}
    # What is stamped whenever a row is saved.
    if stamps := {name: value for name, value in values.items() if name in moments}:
        model._base_manager.filter(pk=row.pk).update(**stamps)
    return row


def _values(model, kind, number, keys):
    found = {}
    for field in model._meta.concrete_fields:
        if field.primary_key:
            continue
        if field.remote_field:
            found[field.attname] = keys[field.remote_field.model].get(kind)
        elif kind == "empty" and field.null:
            found[field.attname] = None
        else:
            found[field.attname] = value(field, kind, number)
    return found


def value(field, kind, number=0):
    """Return a value of *kind* for *field*; *number* keeps those of unique fields apart."""
    name = field.get_internal_type()
    if isinstance(field, models.BooleanField):
        return kind != "empty"
    if isinstance(field, (models.CharField, models.TextField)):
        made = text(kind, field.max_length or 70_000)
        return f"{number}{made}"[: field.max_length] if field.unique or field.name in ("name", "task_id") else made
    if isinstance(field, models.DateTimeField):
        first = FIRST.replace(year=1000) if connection.vendor == "mysql" else FIRST
        return {"markup": first, "huge": LAST}.get(kind, utils.now())
    if isinstance(field, models.DecimalField):
        return 99 if kind == "huge" else 1
    if isinstance(field, models.IntegerField):
        return connection.ops.integer_field_range(name)[1] if kind == "huge" else number
    if isinstance(field, models.FloatField):
        return 1e308 if kind == "huge" else 0.0
    if isinstance(field, models.JSONField):
        return {"huge": list(range(30_000)), "plain": [1]}.get(kind, {TAG: [TAG, ATTRIBUTE, None, {"a": "\x01\ue000"}]})
    if isinstance(field, models.BinaryField):
        return b"\x80\x02\xff" * 20
    broken = {"markup": f'"{TAG}"', "braces": "gAJ9cQAo", "empty": "", "huge": "gA" + "x" * 70_000, "plain": '["a"]'}
    return PickledObject(broken[kind])


def text(kind, length):
    """Return a text of *kind* of at most so many characters."""
    if kind == "plain":
        return "plain"
    if kind == "empty":
        return ""
    texts = {
        "markup": f"{TAG}{ATTRIBUTE}'>&amp;\r\n\t\x1b[31m\u202e\u2028\U0001f600\ufffe",
        "braces": "{every.__class__}{0}{%(a)s %s %d {{ 1 }}{% x %}\\",
        "huge": "a\U0001f600,(" * (length // 4),
    }
    # SQLite and MySQL keep it, PostgreSQL doesn't.
    nul = "" if connection.vendor == "postgresql" else "\x00"
    return (nul + texts[kind])[:length]
