"""The result backend on Django's caches."""

from __future__ import annotations

from datetime import timedelta

import pytest
from celery.result import AsyncResult
from django.core.cache import caches

from djcelery.backends.cache import CacheBackend
from djcelery.exceptions import SettingError


@pytest.fixture
def backend(celery_app, settings):
    settings.CACHES = {
        name: {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": name}
        for name in ("default", "results")
    }
    yield CacheBackend(app=celery_app)
    for cache in caches.all():
        cache.clear()


def test_results_are_stored_and_fetched(backend):
    backend.store_result("id", {"a": 1}, "SUCCESS")
    backend.store_result("bad", KeyError("x"), "FAILURE", traceback="tb")
    assert backend.get_result("id") == {"a": 1}
    assert isinstance(backend.get_result("bad"), KeyError)
    assert backend.get_status("missing") == "PENDING"
    assert [meta["result"] for _, meta in backend.get_many(["id"])] == [{"a": 1}]
    backend.forget("id")
    assert backend.get_status("id") == "PENDING"


def test_the_named_cache_is_used(backend, settings):
    settings.CELERY_CACHE_BACKEND = "results"
    backend.store_result("id", 1, "SUCCESS")
    assert caches["results"].get("celery-task-meta-id")
    assert caches["default"].get("celery-task-meta-id") is None


def test_an_unknown_cache_is_an_error_that_names_the_known_ones(backend, settings):
    settings.CELERY_CACHE_BACKEND = "nowhere"
    with pytest.raises(SettingError, match=r"CELERY_CACHE_BACKEND = 'nowhere'.*default, results"):
        backend.store_result("id", 1, "SUCCESS")


@pytest.mark.parametrize(
    ("expires", "timeout"), [(None, 86400), (60, 60), (timedelta(minutes=2), 120), (0, None), (0.5, None)]
)
def test_expiry_is_seconds_or_a_timedelta_and_zero_is_never(celery_app, expires, timeout):
    assert CacheBackend(app=celery_app, expires=expires)._timeout_s == timeout


def test_groups_are_saved_and_restored(celery_app, backend):
    group = celery_app.GroupResult("gid", [AsyncResult("a")])
    group.save(backend=backend)
    assert [r.id for r in backend.restore_group("gid")] == ["a"]
