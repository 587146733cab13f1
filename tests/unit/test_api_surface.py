"""Every public name of django-celery: it is there as it was called, it warns, or it says what took its place.

The names are in ``api_table``; what they do is proved by the tests that the rows name.
"""

from __future__ import annotations

import importlib
import inspect
import warnings

import pytest

from tests import named
from tests.unit.api_table import ROWS


def rows(*kinds):
    return [pytest.param(row, id=row.name) for row in ROWS if row.kind in kinds]


def split(name):
    module, _, path = name.partition(":")
    return module, path.split(".") if path else []


def find(name):
    """Return what *name* (``module:attribute``) is, and the class that has it, if any."""
    module, path = split(name)
    owner, found = None, importlib.import_module(module)
    for part in path:
        owner, found = found, getattr(found, part)
    return found, owner if inspect.isclass(owner) else None


@pytest.mark.parametrize("row", rows("value"))
def test_a_value_is_there(row):
    found, _ = find(row.name)
    if isinstance(row.what, type) and row.what is not found:
        assert isinstance(found, row.what)
    else:
        assert found == row.what


@pytest.mark.parametrize("row", rows("class"))
def test_a_class_is_there_with_its_base_and_can_be_derived_from(row):
    found, _ = find(row.name)
    base, _ = find(row.what)
    assert issubclass(found, base)
    if not hasattr(found, "_meta"):
        assert issubclass(type("Derived", (found,), {}), base)


def call_of(parameters):
    """Return the arguments of a call with *parameters*, all by position, and one with the optional ones by name."""
    given, required, optional = [], [], {}
    for part in filter(None, (each.strip() for each in parameters.replace("('relative', 'options')", "()").split(","))):
        if part.startswith("**"):
            optional["anything"] = 1
        elif part.startswith("*"):
            given.append(1)
        elif "=" in part:
            given.append(1)
            optional[part.partition("=")[0]] = 1
        else:
            given.append(1)
            required.append(1)
    return given, required, optional


@pytest.mark.parametrize("row", rows("function"))
def test_a_function_takes_what_it_took(row):
    found, owner = find(row.name)
    assert callable(found)
    signature = inspect.signature(found)
    bound_to = [None] if owner is not None and inspect.isfunction(found) else []
    given, required, optional = call_of(row.what)
    if "*args," not in row.what and "change_view" not in row.name:
        signature.bind(*bound_to, *given)
    signature.bind(*bound_to, *required, **optional)


@pytest.mark.parametrize("row", rows("old"))
def test_an_old_name_works_and_warns_with_what_to_write_instead(row):
    module, (name,) = split(row.name)
    with pytest.warns(DeprecationWarning, match=f"{module}.{name} is deprecated") as caught:
        found, _ = find(row.name)
    assert row.instead in str(caught[0].message)
    assert caught[0].filename == __file__
    assert found == row.what if row.what is not None else found is not None
    with pytest.warns(DeprecationWarning, match=name):
        exec(f"from {module} import {name}")


@pytest.mark.parametrize("row", rows("gone"))
def test_a_name_that_is_gone_says_what_to_write_instead(row):
    module, path = split(row.name)
    line = f"from {module} import {path[0]}" if path else f"import {module}"
    with pytest.raises(ImportError, match=row.instead):
        exec(line)


@pytest.mark.parametrize("row", rows("absent"))
def test_what_is_absent_is_absent(row):
    module, (owner, name) = split(row.name)
    assert not hasattr(getattr(importlib.import_module(module), owner), name)


@pytest.mark.parametrize("row", rows("old", "gone", "absent"))
def test_a_name_that_is_old_or_gone_is_in_the_manual(row):
    module, path = split(row.name)
    text = named.page_text()
    assert ".".join([module, *path]) in text
    assert row.instead in text


def test_a_name_that_never_was_is_an_ordinary_error():
    for module in {split(row.name)[0] for row in ROWS if row.kind == "old"}:
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            _ = importlib.import_module(module).nothing
        with pytest.raises(ImportError, match="cannot import name"):
            exec(f"from {module} import nothing")


def test_what_is_of_today_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for row in ROWS:
            if row.kind in ("value", "class", "function"):
                find(row.name)


def test_every_test_that_proves_a_name_exists():
    assert named.missing(each for row in ROWS for each in row.proof) == []


def test_whatever_can_be_called_has_a_test_of_what_it_does():
    assert [row.name for row in ROWS if row.kind == "function" and not row.proof] == []


def test_no_name_is_listed_twice():
    seen = [(row.name, row.kind) for row in ROWS]
    assert len(seen) == len(set(seen))
