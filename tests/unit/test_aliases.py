"""The names of the result backends: ours, and those that settings written for django-celery-results use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from celery import Celery
from django.test import override_settings

from djcelery import LOADER, checks
from djcelery.backends import ALIASES
from djcelery.backends.cache import CacheBackend

ROOT = Path(__file__).parents[2]

# What a new process finds for each name, with or without the names that other packages have registered.
SCRIPT = """
import importlib.metadata, json, os, sys
hidden, loader, names = json.loads(sys.argv[1])
whole = importlib.metadata.entry_points
def without(**params):
    return [each for each in whole(**params) if each.dist.name.replace("_", "-") not in hidden]
importlib.metadata.entry_points = without
import celery.utils.imports
celery.utils.imports.entry_points = without
if loader:
    import djcelery
    djcelery.setup_loader()
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["djcelery"], CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
)
django.setup()
from celery.app.backends import by_url
from celery import current_app
found = {}
for name in names:
    cls, _ = by_url(name, current_app.loader)
    found[name] = f"{cls.__module__}.{cls.__name__}"
print(json.dumps(found))
"""

DATABASE = "djcelery.backends.database.DatabaseBackend"
CACHE = "djcelery.backends.cache.CacheBackend"


def backends(*names, hidden=(), loader=False):
    env = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([hidden, loader, names])],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_all_names_are_known_without_any_registered_package():
    names = ["djcelery-db", "djcelery-cache", "django-db", "django-cache", "django-cache://default"]
    found = backends(*names, hidden=["djcelery", "django-celery-results"])
    assert found == dict(zip(names, [DATABASE, CACHE, DATABASE, CACHE, CACHE], strict=True))


def test_under_the_loader_the_short_names_are_ours():
    names = ["database", "cache", "cache+django://default", "django-cache"]
    found = backends(*names, hidden=["django-celery-results"], loader=True)
    assert found == dict(zip(names, [DATABASE, CACHE, CACHE, CACHE], strict=True))


def test_elsewhere_the_short_names_stay_celerys():
    assert backends("cache+memory://") == {"cache+memory://": "celery.backends.cache.CacheBackend"}


def test_an_installed_django_celery_results_keeps_its_names():
    if "django-db" not in {each.name for each in entry_points(group="celery.result_backends")}:
        pytest.skip("django-celery-results is not installed")
    found = backends("djcelery-db", "djcelery-cache", loader=True)
    assert found == {"djcelery-db": DATABASE, "djcelery-cache": CACHE}
    from celery.app.backends import BACKEND_ALIASES
    from celery.utils.imports import load_extension_class_names

    # by_name() lets these win over the table that we add to.
    registered = dict(load_extension_class_names("celery.result_backends"))
    assert registered["django-db"].startswith("django_celery_results")
    assert BACKEND_ALIASES["django-db"] == ALIASES["django-db"]


# CELERY_CACHE_BACKEND, as the manuals of Celery 5.2 and 5.5 have it


def app(loader=None):
    made = Celery("aliases", loader=loader, set_as_current=False)
    made.config_from_object("django.conf:settings", namespace="CELERY")
    return made


CACHES = {
    name: {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": name}
    for name in ("default", "results")
}


@pytest.mark.parametrize("loader", [None, LOADER])
@pytest.mark.parametrize("named", ["default", "results"])
def test_both_settings_of_the_manual_choose_backend_and_cache(loader, named):
    with override_settings(CACHES=CACHES, CELERY_RESULT_BACKEND="djcelery-cache", CELERY_CACHE_BACKEND=named):
        backend = app(loader).backend
        assert isinstance(backend, CacheBackend)
        assert backend.alias == named


@pytest.mark.parametrize("loader", [None, LOADER])
def test_a_url_chooses_both(loader):
    with override_settings(CACHES=CACHES, CELERY_RESULT_BACKEND="djcelery-cache://results"):
        backend = app(loader).backend
        assert isinstance(backend, CacheBackend)
        assert backend.alias == "results"


def test_the_cache_setting_alone_is_enough_under_the_loader(monkeypatch):
    monkeypatch.setenv("CELERY_LOADER", LOADER)
    with override_settings(CACHES=CACHES, CELERY_CACHE_BACKEND="django-cache"):
        backend = app(LOADER).backend
        assert isinstance(backend, CacheBackend)
        assert backend.alias == "default"
        assert checks.cache_backend_alone() == []


def test_the_name_of_an_alias_alone_leaves_results_in_the_database():
    with override_settings(CACHES=CACHES, CELERY_CACHE_BACKEND="results"):
        assert app(LOADER).conf.result_backend == "database"


def test_a_named_result_backend_is_not_overruled(monkeypatch):
    monkeypatch.delenv("CELERY_LOADER", raising=False)
    with override_settings(CACHES=CACHES, CELERY_CACHE_BACKEND="django-cache", CELERY_RESULT_BACKEND="django-db"):
        assert app(LOADER).conf.result_backend == "django-db"
        assert checks.cache_backend_alone() == []


@pytest.mark.parametrize("named", ["django-cache", "djcelery-cache"])
def test_elsewhere_a_check_says_what_to_add(monkeypatch, named):
    monkeypatch.delenv("CELERY_LOADER", raising=False)
    with override_settings(CACHES=CACHES, CELERY_CACHE_BACKEND=named):
        (found,) = checks.cache_backend_alone()
        assert found.id == "djcelery.W201"
        assert named in found.msg
        assert "CELERY_RESULT_BACKEND = 'djcelery-cache'" in found.hint
    with override_settings(CACHES=CACHES, CELERY_CACHE_BACKEND="default"):
        assert checks.cache_backend_alone() == []


CORE = "django.core.cache.backends"
FORGETFUL = [
    ({"BACKEND": f"{CORE}.locmem.LocMemCache"}, "LocMemCache, which no other process can read"),
    ({"BACKEND": f"{CORE}.dummy.DummyCache"}, "DummyCache, which no other process can read"),
    ({"BACKEND": f"{CORE}.db.DatabaseCache", "LOCATION": "t"}, "DatabaseCache, which keeps 300 entries"),
    ({"BACKEND": f"{CORE}.filebased.FileBasedCache", "LOCATION": "/t"}, "FileBasedCache, which keeps 300 entries"),
    ({"BACKEND": f"{CORE}.db.DatabaseCache", "LOCATION": "t", "OPTIONS": {"MAX_ENTRIES": 9}}, None),
    ({"BACKEND": f"{CORE}.redis.RedisCache", "LOCATION": "redis://"}, None),
]


@pytest.mark.parametrize(("cache", "said"), FORGETFUL)
@pytest.mark.parametrize(
    ("loader", "names"),
    [
        (None, {"CELERY_RESULT_BACKEND": "django-cache", "CELERY_CACHE_BACKEND": "results"}),
        (None, {"CELERY_RESULT_BACKEND": "djcelery-cache://results"}),
        (LOADER, {"CELERY_RESULT_BACKEND": "cache", "CELERY_CACHE_BACKEND": "results"}),
    ],
)
def test_a_cache_that_loses_results_is_named_by_a_check(monkeypatch, cache, said, loader, names):
    monkeypatch.setenv("CELERY_LOADER", loader or "")
    with override_settings(CACHES={"default": {}, "results": cache}, **names):
        found = checks.cache_that_forgets()
    assert [message.id for message in found] == (["djcelery.W202"] if said else [])
    assert all(f"the cache 'results', a {said}" in message.msg for message in found)


@pytest.mark.parametrize(
    "names", [{}, {"CELERY_RESULT_BACKEND": "cache+memory://"}, {"CELERY_RESULT_BACKEND": "djcelery-db"}]
)
def test_other_backends_are_not_checked_for_their_cache(monkeypatch, names):
    monkeypatch.delenv("CELERY_LOADER", raising=False)
    with override_settings(CACHES=CACHES, **names):
        assert checks.cache_that_forgets() == []


def test_the_default_cache_is_checked_where_the_old_manual_chooses_it(monkeypatch):
    monkeypatch.setenv("CELERY_LOADER", LOADER)
    with override_settings(CACHES=CACHES, CELERY_CACHE_BACKEND="django-cache"):
        (found,) = checks.cache_that_forgets()
    assert "'default', a LocMemCache" in found.msg
