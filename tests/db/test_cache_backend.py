"""The result backend on Django's caches: every rule on five of them."""

from __future__ import annotations

import itertools
import sqlite3
import threading
import uuid
from datetime import timedelta

import celery
import pytest
from celery import states
from celery.app.task import Context
from celery.exceptions import ChordError
from celery.result import AsyncResult, GroupResult
from celery.signals import before_task_publish
from django.core.cache import caches
from django.core.cache.backends.db import DatabaseCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.management import call_command
from django.db import OperationalError

from djcelery.backends.cache import CacheBackend
from djcelery.exceptions import ResultNotStored, ResultTooLarge, SettingError
from djcelery.managers import may_replace
from tests import services
from tests.checking import said

# pytest-django makes the test database only for tests that say so before they run.
pytestmark = pytest.mark.django_db

CORE = "django.core.cache.backends"
TABLE = "djcelery_test_cache"


@pytest.fixture(scope="session", autouse=True)
def cache_table(django_db_setup, django_db_blocker):
    """The table of the database cache, made before any test's transaction begins."""
    with django_db_blocker.unblock():
        call_command("createcachetable", TABLE, verbosity=0)


@pytest.fixture(params=["locmem", "file", "database", "redis", "memcached"])
def cache_settings(request, tmp_path):
    """The settings of a cache."""
    made = {"KEY_PREFIX": uuid.uuid4().hex[:8]}
    if request.param == "locmem":
        made |= {"BACKEND": f"{CORE}.locmem.LocMemCache", "LOCATION": "results"}
    elif request.param == "file":
        made |= {"BACKEND": f"{CORE}.filebased.FileBasedCache", "LOCATION": str(tmp_path / "cache")}
    elif request.param == "database":
        made |= {"BACKEND": f"{CORE}.db.DatabaseCache", "LOCATION": TABLE}
    elif request.param == "redis":
        services.redis().close()
        made |= {"BACKEND": f"{CORE}.redis.RedisCache", "LOCATION": services.REDIS_URL}
    else:
        made |= {"BACKEND": f"{CORE}.memcached.PyMemcacheCache", "LOCATION": services.memcached()}
    yield {"OPTIONS": {"MAX_ENTRIES": 10_000} if request.param in ("locmem", "file", "database") else {}, **made}
    if request.param == "redis":
        client = services.redis()
        for key in client.scan_iter(f"{made['KEY_PREFIX']}*"):
            client.delete(key)
        client.close()


@pytest.fixture
def backend(celery_app, settings, cache_settings):
    """The backend on a cache that is not the default one."""
    settings.CACHES = {"default": {"BACKEND": f"{CORE}.locmem.LocMemCache"}, "results": cache_settings}
    settings.CELERY_CACHE_BACKEND = "results"
    backend = CacheBackend(app=celery_app)
    yield backend
    close(backend)


@pytest.fixture
def local(celery_app, settings):
    """The backend on a cache in memory, for what no cache decides."""
    settings.CACHES = {
        name: {"BACKEND": f"{CORE}.locmem.LocMemCache", "LOCATION": name, "OPTIONS": {"MAX_ENTRIES": 10_000}}
        for name in ("default", "results")
    }
    yield CacheBackend(app=celery_app)
    for cache in caches.all():
        cache.clear()


def close(backend):
    if not isinstance(backend.cache, LocMemCache):
        backend.cache.close()
        clients = getattr(backend.cache.__dict__.get("_cache"), "_pools", {})
        for pool in clients.values():
            pool.disconnect()
    else:
        backend.cache.clear()


# results


def test_results_are_stored_and_fetched(backend):
    backend.store_result("id", {"a": 1}, "SUCCESS")
    backend.store_result("bad", KeyError("x"), "FAILURE", traceback="tb")
    assert backend.get_result("id") == {"a": 1}
    assert isinstance(backend.get_result("bad"), KeyError)
    assert backend.get_traceback("bad") == "tb"
    assert backend.get_status("missing") == "PENDING"
    backend.forget("id")
    assert backend.get_status("id") == "PENDING"


def test_results_waited_for_together_are_read_together(backend, monkeypatch):
    ids = [f"id{n}" for n in range(5)]
    for n, task_id in enumerate(ids):
        backend.store_result(task_id, n, "SUCCESS")
    monkeypatch.setattr(CacheBackend, "get", None)
    assert {task_id: meta["result"] for task_id, meta in backend.get_many(ids)} == dict(zip(ids, range(5), strict=True))


@pytest.mark.parametrize(("old", "new"), list(itertools.product([*sorted(states.ALL_STATES), "PROGRESS"], repeat=2)))
def test_a_write_replaces_by_the_rule(local, old, new):
    def store(state):
        value = ValueError(state) if state in states.EXCEPTION_STATES else state
        local.store_result("id", value, state)

    store(old)
    store(new)
    assert local.get_task_meta("id", cache=False)["status"] == (new if may_replace(old, new) else old)


def test_a_late_started_does_not_hide_a_failure(backend):
    backend.store_result("id", ValueError("x"), "FAILURE")
    backend.store_result("id", {"pid": 1}, "STARTED")
    assert backend.get_status("id") == "FAILURE"


def test_an_entry_that_cannot_be_read_is_replaced(backend):
    backend.set(backend.get_key_for_task("id"), "no JSON")
    backend.store_result("id", 1, "SUCCESS")
    assert backend.get_result("id") == 1


def test_the_name_of_the_task_is_always_stored(backend, celery_app):
    backend.store_result("id", 1, "SUCCESS", request=Context(id="id", task="shop.add", args=(1,), group="g"))
    backend.store_result("none", 1, "SUCCESS", request=None)
    found = AsyncResult("id", backend=backend, app=celery_app)
    assert found.name == "shop.add"
    assert found.args is None
    assert AsyncResult("none", backend=backend, app=celery_app).name is None


def test_extended_results_have_the_rest(backend, celery_app, settings):
    settings.CELERY_RESULT_EXTENDED = True
    request = Context(id="id", task="shop.add", args=[1], kwargs={"b": 2}, hostname="w1", retries=3)
    backend.store_result("id", 1, "SUCCESS", request=request)
    found = AsyncResult("id", backend=backend, app=celery_app)
    assert (found.args, found.kwargs, found.worker, found.retries) == ([1], {"b": 2}, "w1", 3)


def test_groups_are_saved_restored_and_deleted(celery_app, backend):
    nested = celery_app.GroupResult("inner", [AsyncResult("b"), AsyncResult("c")])
    celery_app.GroupResult("gid", [AsyncResult("a"), nested]).save(backend=backend)
    celery_app.GroupResult("empty", []).save(backend=backend)
    first, second = backend.restore_group("gid", cache=False)
    assert first.id == "a"
    assert [result.id for result in second] == ["b", "c"]
    assert list(backend.restore_group("empty", cache=False)) == []
    backend.delete_group("gid")
    assert backend.restore_group("gid") is None
    backend.delete_group("gid")


# which cache


def test_the_named_cache_is_used(local, settings):
    settings.CELERY_CACHE_BACKEND = "results"
    local.store_result("id", 1, "SUCCESS")
    assert caches["results"].get("celery-task-meta-id")
    assert caches["default"].get("celery-task-meta-id") is None


def test_an_unknown_cache_is_an_error_that_names_the_known_ones(local, settings):
    settings.CELERY_CACHE_BACKEND = "nowhere"
    with pytest.raises(SettingError, match=r"CELERY_CACHE_BACKEND = 'nowhere'.*default, results"):
        local.store_result("id", 1, "SUCCESS")


@pytest.mark.parametrize(
    ("url", "named", "alias"),
    [
        (None, None, "default"),
        (None, "results", "results"),
        (None, "django-cache", "default"),
        (None, "djcelery-cache", "default"),
        ("django-cache://results", "default", "results"),
        ("django://results", None, "results"),
        ("djcelery-cache://results/", None, "results"),
        ("djcelery-cache://", "results", "results"),
    ],
)
def test_the_url_names_the_cache_before_the_setting_does(local, celery_app, settings, url, named, alias):
    settings.CELERY_CACHE_BACKEND = named
    backend = CacheBackend(app=celery_app, url=url)
    assert backend.alias == alias
    assert backend.as_uri() == f"cache ({alias})"
    assert backend.cache is caches[alias]


# expiry


@pytest.mark.parametrize(
    ("expires", "timeout"), [(None, 86400), (60, 60), (timedelta(minutes=2), 120), (0, None), (0.5, 1), (-3, 1)]
)
def test_expiry_is_seconds_or_a_timedelta_and_zero_is_never(celery_app, expires, timeout):
    assert CacheBackend(app=celery_app, expires=expires)._timeout_s == timeout


def test_expiry_none_in_the_settings_is_never(celery_app, settings):
    settings.CELERY_RESULT_EXPIRES = None
    assert CacheBackend(app=celery_app)._timeout_s is None


@pytest.mark.parametrize("expires", [0, timedelta(days=60), 30 * 86400 + 1])
def test_results_outlive_a_month_or_stay_for_ever(backend, celery_app, expires):
    lasting = CacheBackend(app=celery_app, expires=expires)
    lasting.store_result("id", 1, "SUCCESS")
    assert lasting.get_result("id") == 1


def test_results_expire(backend, celery_app):
    short = CacheBackend(app=celery_app, expires=1)

    def status():
        return backend.get_task_meta("id", cache=False)["status"]

    def is_seen():
        # memcached counts whole seconds of its own clock, so that one may end as soon as it has begun.
        short.store_result("id", 1, "SUCCESS")
        return status() == "SUCCESS"

    services.wait_until(is_seen, 30, "the result")
    services.wait_until(lambda: status() == "PENDING", 30, "the expiry")


# what a cache can't carry


@pytest.mark.parametrize("task_id", ["x" * 300, "with blanks", "ümläut", "new\nline"])
def test_ids_that_memcached_cannot_carry_are_stored_under_a_hash(backend, task_id):
    backend.store_result(task_id, 1, "SUCCESS")
    assert backend.get_result(task_id) == 1
    assert [found for found, _ in backend.get_many([task_id])] == [task_id]
    backend.forget(task_id)
    assert backend.get_status(task_id) == "PENDING"


def test_what_memcached_refuses_is_an_error_with_size_and_cache_and_can_fail_the_task(backend, cache_settings):
    if "memcached" not in cache_settings["BACKEND"]:
        backend.store_result("id", "x" * 2_000_000, "SUCCESS")
        assert len(backend.get_result("id")) == 2_000_000
        return
    backend.store_result("id", {"pid": 1}, "STARTED")
    with pytest.raises(ResultTooLarge, match=r"2000\d\d\d bytes .* 'results' \(PyMemcacheCache\)") as caught:
        backend.store_result("id", "x" * 2_000_000, "SUCCESS")
    assert not backend.exception_safe_to_retry(caught.value)
    backend.store_result("id", caught.value, "FAILURE")
    assert backend.get_status("id") == "FAILURE"


@pytest.mark.skipif(celery.VERSION < (5, 7), reason="Celery compresses results since 5.7")
def test_large_results_can_be_compressed(backend, celery_app, settings):
    settings.CELERY_RESULT_COMPRESSION = "gzip"
    compressing = CacheBackend(app=celery_app)
    compressing.store_result("id", "x" * 2_000_000, "SUCCESS")
    assert len(compressing.get_result("id")) == 2_000_000


class Dropping(LocMemCache):
    """A cache that drops long values in silence, as some clients of memcached do."""

    longest = 1000

    def set(self, key, value, *args, **kwargs):
        if len(value) <= self.longest:
            super().set(key, value, *args, **kwargs)

    def add(self, key, value, *args, **kwargs):
        return True if len(value) > self.longest else super().add(key, value, *args, **kwargs)


@pytest.fixture
def dropping(celery_app, settings, monkeypatch):
    settings.CACHES = {"default": {"BACKEND": f"{__name__}.Dropping", "LOCATION": "dropping"}}
    monkeypatch.setattr("djcelery.backends.cache._SET_IS_SURE", ())
    monkeypatch.setattr("djcelery.backends.cache._ADD_IS_SURE", ())
    monkeypatch.setattr("djcelery.backends.cache._WAITS_S", (0,))
    yield CacheBackend(app=celery_app)
    caches["default"].clear()


def test_a_value_that_is_dropped_in_silence_is_an_error(dropping):
    dropping.store_result("id", "small", "STARTED")
    for task_id in ("id", "new"):
        with pytest.raises(ResultTooLarge, match=r"\d{4} bytes was not stored: the cache 'default' \(Dropping\)"):
            dropping.store_result(task_id, "x" * 5000, "SUCCESS")


def test_a_cache_that_keeps_nothing_is_an_error_that_passes(dropping, monkeypatch):
    monkeypatch.setattr(Dropping, "longest", -1)
    with pytest.raises(ResultNotStored, match=r"'default'.*did not keep 'celery-task-meta-id'") as caught:
        dropping.store_result("id", 1, "SUCCESS")
    assert dropping.exception_safe_to_retry(caught.value)


# failures


def caused(error, cause):
    error.__cause__ = cause
    return error


def test_errors_of_the_connection_are_safe_to_retry(local):
    redis = pytest.importorskip("redis")
    memcache = pytest.importorskip("pymemcache.exceptions")

    passing = [
        ConnectionRefusedError(),
        TimeoutError(),
        OSError(113, "no route"),
        redis.exceptions.ConnectionError(),
        redis.exceptions.TimeoutError(),
        redis.exceptions.BusyLoadingError(),
        memcache.MemcacheUnexpectedCloseError(),
        memcache.MemcacheError("All servers seem to be down right now"),
        caused(RuntimeError("of another client"), ConnectionResetError()),
    ]
    lasting = [ValueError(), memcache.MemcacheIllegalInputError(), redis.exceptions.ResponseError(), SettingError()]
    assert [local.exception_safe_to_retry(exc) for exc in passing] == [True] * len(passing)
    assert [local.exception_safe_to_retry(exc) for exc in lasting] == [False] * len(lasting)
    assert local.exception_safe_to_retry(caused(OperationalError(), None)) is False


@pytest.mark.parametrize("name", ["redis.RedisCache", "memcached.PyMemcacheCache"])
def test_a_server_that_is_away_raises_what_celery_may_retry(celery_app, settings, name):
    pytest.importorskip("redis" if "redis" in name else "pymemcache")
    address = "redis://127.0.0.1:1/0" if "redis" in name else "127.0.0.1:1"
    settings.CACHES = {"default": {"BACKEND": f"{CORE}.{name}", "LOCATION": address}}
    backend = CacheBackend(app=celery_app)
    for _ in range(4):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - the client's own type
            backend.store_result("id", 1, "SUCCESS")
        assert backend.exception_safe_to_retry(caught.value), caught.value


def test_celery_retries_when_it_is_told_to(local, settings, celery_app, monkeypatch):
    settings.CELERY_RESULT_BACKEND_ALWAYS_RETRY = True
    settings.CELERY_RESULT_BACKEND_BASE_SLEEP_BETWEEN_RETRIES_MS = 1
    backend = CacheBackend(app=celery_app)
    errors = iter([ConnectionRefusedError(), TimeoutError()])
    add = LocMemCache.add

    def failing(*args, **kwargs):
        for error in errors:
            raise error
        return add(*args, **kwargs)

    monkeypatch.setattr(LocMemCache, "add", failing)
    backend.store_result("id", 1, "SUCCESS")
    assert backend.get_result("id") == 1


# Inside a test's transaction nothing is tried again.
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("cache_settings", ["database"], indirect=True)
def test_a_deadlock_in_a_database_cache_is_tried_again(backend, monkeypatch):
    backend.store_result("id", 1, "SUCCESS")
    error = caused(OperationalError("locked"), sqlite3.OperationalError("database is locked"))
    failures = iter([error])
    get_many = DatabaseCache.get_many

    def failing(*args, **kwargs):
        for failure in failures:
            raise failure
        return get_many(*args, **kwargs)

    monkeypatch.setattr(DatabaseCache, "get_many", failing)
    assert backend.get_result("id") == 1


# chords


class Chord:
    """A chord whose header is published by nobody; the parts return when the test says so."""

    def __init__(self, backend, size, group_id=None):
        self.backend = backend
        self.id = group_id or uuid.uuid4().hex
        self.ids = [f"{self.id}-{n}" for n in range(size)]
        self.body = backend.app.signature("shop.total", task_id=f"{self.id}-body")

    def begin(self, results=None, size=None):
        self.backend.apply_chord((self.id, results or [AsyncResult(task_id) for task_id in self.ids]), self.body)
        self.backend.set_chord_size(self.id, len(self.ids) if size is None else size)
        return self

    def part(self, number, state="SUCCESS", value=None, task_id=None):
        request = Context(
            id=task_id or self.ids[number], group=self.id, group_index=number, chord=dict(self.body), task="shop.part"
        )
        self.backend.on_chord_part_return(request, state, number if value is None else value)

    def body_state(self):
        return self.backend.get_task_meta(f"{self.id}-body", cache=False)

    def left(self):
        """Return the names of the chord's entries that are still there."""
        names = [".size", ".done", ".added0", *(f".{n}" for n in range(40))]
        values = self.backend.mget([self.backend.get_key_for_chord(self.id, name) for name in names])
        return [name for name, value in zip(names, values, strict=True) if value is not None]


@pytest.fixture
def called():
    """The arguments of every callback that was sent."""
    sent = []

    def note(sender, body, **kwargs):
        sent.append(body[0][0])

    before_task_publish.connect(note, sender="shop.total")
    yield sent
    before_task_publish.disconnect(note, sender="shop.total")


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_the_callback_gets_the_values_in_the_order_of_the_header(backend, called, order):
    chord = Chord(backend, 4).begin()
    for number in order[:-1]:
        chord.part(number)
    assert called == []
    chord.part(order[-1])
    assert called == [[0, 1, 2, 3]]
    assert chord.left() == [".done"]


def test_a_part_that_is_delivered_again_counts_once(backend, called):
    chord = Chord(backend, 3).begin()
    for number in (0, 0, 1, 0, 1):
        chord.part(number)
    assert called == []
    chord.part(2)
    for number in (2, 0):
        chord.part(number)
    assert called == [[0, 1, 2]]
    assert chord.left() == [".done"]


def test_celery_retries_the_parts_of_chords_when_it_is_told_to(local, settings, celery_app, called, monkeypatch):
    settings.CELERY_RESULT_BACKEND_ALWAYS_RETRY = True
    settings.CELERY_RESULT_BACKEND_BASE_SLEEP_BETWEEN_RETRIES_MS = 1
    settings.CELERY_RESULT_BACKEND_MAX_RETRIES = 3
    backend = CacheBackend(app=celery_app)
    chord = Chord(backend, 1).begin()
    get_many = LocMemCache.get_many
    errors = [ConnectionRefusedError()] * 3

    def failing(*args, **kwargs):
        if errors:
            raise errors.pop()
        return get_many(*args, **kwargs)

    monkeypatch.setattr(LocMemCache, "get_many", failing)
    chord.part(0)
    assert called == [[0]]
    errors += [ConnectionRefusedError()] * 4
    with pytest.raises(ConnectionRefusedError):
        Chord(backend, 1).begin().part(0)


@pytest.mark.parametrize(("own", "timeout"), [(None, 60), (timedelta(hours=1), 3600), (0, None)])
def test_chords_have_an_expiry_of_their_own(local, settings, celery_app, own, timeout):
    settings.CELERY_RESULT_CHORD_EXPIRES = own
    assert CacheBackend(app=celery_app, expires=60)._chord_timeout_s == timeout


class Killed(BaseException):
    """What no handler of the backend sees, as SIGKILL."""


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", ["_first_free", "_all_parts", "_call_back", "_close_chord"])
def test_a_worker_that_dies_at_any_step_is_made_up_for_by_the_redelivered_part(
    backend, called, monkeypatch, step, after
):
    chord = Chord(backend, 3).begin()
    chord.part(0)
    whole = getattr(CacheBackend, step)

    def dying(self, *args):
        if after:
            whole(self, *args)
        raise Killed

    for number in (1, 2):
        with monkeypatch.context() as patch:
            patch.setattr(CacheBackend, step, dying)
            try:
                chord.part(number)
            except Killed:
                assert number == 2 or step in ("_first_free", "_all_parts")
        chord.part(number)
    # Published twice only by a worker that died between publishing and noting it.
    again = (step, after) in {("_call_back", True), ("_close_chord", False)}
    assert called == [[0, 1, 2]] * (2 if again else 1)
    chord.part(1)
    assert len(called) == (2 if again else 1)


def test_a_part_that_returns_before_the_size_is_known_counts(backend, called):
    chord = Chord(backend, 2)
    backend.apply_chord((chord.id, (AsyncResult(task_id) for task_id in chord.ids)), chord.body)
    chord.part(0)
    backend.set_chord_size(chord.id, 2)
    chord.part(1)
    assert called == [[0, 1]]


def test_a_generator_is_not_read_when_the_chord_begins(backend):
    def results():
        raise AssertionError("read")
        yield

    chord = Chord(backend, 2)
    backend.apply_chord((chord.id, results()), chord.body)


def test_nested_values_keep_their_shape(backend, called, celery_app):
    chord = Chord(backend, 4)
    first, *inner, last = [AsyncResult(task_id) for task_id in chord.ids]
    chord.begin([first, celery_app.GroupResult("inner", inner), last])
    # Both parts of the inner group have the place of their chain.
    for number, task_id in ((1, chord.ids[2]), (1, chord.ids[1]), (0, chord.ids[0]), (2, chord.ids[3])):
        chord.part(number, task_id=task_id, value=chord.ids.index(task_id))
    assert called == [[0, [1, 2], 3]]
    assert GroupResult.restore(chord.id, backend=backend, app=celery_app) is None


def test_a_failed_part_fails_the_callback_and_its_error_is_the_cause(backend, called):
    chord = Chord(backend, 3).begin()
    chord.part(0)
    chord.part(1, "FAILURE", KeyError("lost"))
    assert chord.body_state()["status"] == "PENDING"
    chord.part(2)
    meta = chord.body_state()
    assert called == []
    assert meta["status"] == "FAILURE"
    assert isinstance(meta["result"], ChordError)
    assert f"Dependency {chord.ids[1]} raised KeyError('lost')" in str(meta["result"])


def test_a_callback_that_cannot_be_sent_fails(backend, monkeypatch):
    chord = Chord(backend, 1).begin()

    def refuse(*args, **kwargs):
        raise OSError("no broker")

    monkeypatch.setattr("celery.canvas.Signature.delay", refuse)
    chord.part(0)
    assert "no broker" in str(chord.body_state()["result"])


def test_a_chord_that_the_cache_has_lost_fails_once(backend, called, caplog):
    chord = Chord(backend, 2).begin()
    chord.part(0)
    backend.delete(backend.get_key_for_chord(chord.id, ".size"))
    chord.part(1)
    chord.part(0)
    assert called == []
    assert "is not in the cache" in str(chord.body_state()["result"])
    assert len(said(caplog)) == 1


def test_the_same_frozen_chord_runs_again(backend, called):
    for complete in (True, False, True):
        chord = Chord(backend, 3, "frozen").begin()
        for number in range(3 if complete else 2):
            chord.part(number)
    assert called == [[0, 1, 2]] * 2


def test_a_part_can_add_to_its_chord(backend, called):
    chord = Chord(backend, 2).begin()
    for task_id in ("new", "newer", "new"):
        backend.add_to_chord(chord.id, AsyncResult(task_id))
    chord.part(0)
    chord.part(1)
    chord.part(0, task_id="new", value="n")
    assert called == []
    chord.part(0, task_id="newer", value="m")
    assert called == [[0, 1, "n", "m"]]
    assert chord.left() == [".done"]


def test_a_group_inside_a_header_leaves_nothing(backend):
    backend.set_chord_size("inner", 3)
    assert backend.get(backend.get_key_for_chord("inner", ".size")) is None


def test_tasks_outside_chords_write_nothing(backend, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("written")

    for name in ("set", "add"):
        monkeypatch.setattr(backend, name, refuse)
    # It is what a part is written by.
    with pytest.raises(AssertionError, match="written"):
        Chord(backend, 2).begin()
    backend.on_chord_part_return(Context(id="id", group=None, chord=None), "SUCCESS", 1)


def test_a_chord_of_a_thousand_parts_reads_little(local, called, monkeypatch):
    chord = Chord(local, 1000).begin()
    reads = []
    mget = CacheBackend.mget
    monkeypatch.setattr(CacheBackend, "mget", lambda self, keys: (reads.append(len(keys)), mget(self, keys))[1])
    for number in range(1000):
        chord.part(number)
    assert called == [list(range(1000))]
    assert sum(reads) < 5000


@pytest.mark.parametrize("cache_settings", ["locmem", "file", "redis", "memcached"], indirect=True)
def test_threads_that_finish_at_once_call_back_once(backend, called):
    chords = [Chord(backend, 8).begin() for _ in range(25)]
    start = threading.Barrier(8)
    errors = []

    def run(number):
        start.wait()
        try:
            for chord in chords:
                chord.part(number)
        except Exception as exc:  # noqa: BLE001 - shown below
            errors.append(exc)
        finally:
            if not isinstance(backend.cache, LocMemCache):
                close(backend)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(map(str, called)) == [str(list(range(8)))] * 25
