"""Store results in one of Django's caches.

Called by Celery, as ``cache``, ``djcelery-cache`` and ``django-cache``, in the worker (store) and in any
process that asks for a result (fetch). Writes one cache entry per task id, which expires by itself after
``CELERY_RESULT_EXPIRES``; the entries of chords are written by ``cache_chords``.
Next: ``docs/explain/life-of-a-result.rst``.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from celery import current_app
from celery.backends.base import KeyValueStoreBackend
from django.core.cache import caches
from django.core.cache.backends.base import InvalidCacheBackendError
from django.core.cache.backends.db import DatabaseCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.memcached import BaseMemcachedCache
from django.core.cache.backends.redis import RedisCache
from django.core.files import locks
from django.db import connections, router
from kombu.exceptions import KombuError
from kombu.utils.encoding import bytes_to_str

from djcelery import db
from djcelery.backends import columns, redaction
from djcelery.backends.cache_chords import CacheChords
from djcelery.conf import CACHE_BACKEND_NAMES
from djcelery.deprecation import Old, old_names
from djcelery.exceptions import ResultNotStored, ResultTooLarge, SettingError
from djcelery.managers import may_replace

__all__ = ("CacheBackend",)

T = TypeVar("T")

#: Waits between tries of a write that the cache has dropped, in seconds; 1.3 s in all.
_WAITS_S = (0.01, 0.04, 0.25, 1.0)

# memcached takes 250 bytes without blanks, the project's KEY_PREFIX among them.
_PLAIN_NAME = re.compile(r"[!-~]{1,150}").fullmatch

# Caches whose set() stores or raises, and whose add() tells the truth; others may drop a value silently.
_SET_IS_SURE = (LocMemCache, FileBasedCache, RedisCache)
_ADD_IS_SURE = (*_SET_IS_SURE, DatabaseCache, BaseMemcachedCache)

# What clients raise when the server can't be reached, by package and name: no driver is imported here.
_CONNECTION_ERRORS = frozenset(
    {(package, name) for package in ("redis", "valkey") for name in ("ConnectionError", "TimeoutError")}
    | {("pymemcache", "MemcacheUnexpectedCloseError")}
)


class CacheBackend(CacheChords, redaction.RedactionMixin, KeyValueStoreBackend):
    """Celery's result backend on a Django cache.

    The alias in ``CACHES`` comes from the URL (``djcelery-cache://alias``), else from
    ``CELERY_CACHE_BACKEND``, else it is ``default``.
    """

    supports_autoexpire = True
    supports_native_join = True
    supports_result_compression = True
    # Chords count by add() alone, see cache_chords: two of Django's caches have no atomic incr().
    implements_incr = False

    def __init__(self, *args: Any, expires: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, expires=expires, expires_type=math.ceil, **kwargs)

    @property
    def alias(self) -> str:
        """The alias in ``CACHES``; Celery's old manual writes ``django-cache`` for the default one."""
        named = (self.url or "").partition("://")[2].strip("/") or self.app.conf.cache_backend or "default"
        return "default" if named in CACHE_BACKEND_NAMES and named not in caches.settings else named

    def as_uri(self, include_password: bool = False) -> str:
        """Return what the worker prints as the place of results."""
        return f"cache ({self.alias})"

    @property
    def cache(self) -> Any:
        """The cache, this thread's own connection to it.

        Raises:
            SettingError: ``CACHES`` has no such alias.
        """
        alias = self.alias
        try:
            return caches[alias]
        except InvalidCacheBackendError as exc:
            if alias in caches.settings:
                raise
            raise SettingError(
                f"CELERY_CACHE_BACKEND = {alias!r}: CACHES has no such alias. Name one of {', '.join(caches.settings)}."
            ) from exc

    @property
    def _timeout_s(self) -> int | None:
        # Celery's 0 is "never"; Django's would be "at once".
        return max(self.expires, 1) if self.expires else None

    def _name(self, key: bytes | str) -> str:
        """Return the name of the entry: *key*, or its hash if memcached could not carry it."""
        name = bytes_to_str(key)
        return name if _PLAIN_NAME(name) else f"celery-{hashlib.sha256(name.encode()).hexdigest()}"

    # entries

    def get(self, key: bytes | str) -> Any:
        """Return the entry, or None."""
        name = self._name(key)
        return self._patiently(lambda cache: cache.get(name))

    def mget(self, keys: Iterable[bytes | str]) -> list[Any]:
        """Return the entries of *keys*, None for those missing, in their order."""
        names = [self._name(key) for key in keys]
        found = self._patiently(lambda cache: cache.get_many(names))
        return [found.get(name) for name in names]

    def set(self, key: bytes | str, value: Any) -> None:
        """Write the entry; see ``put``."""
        self.put(key, value, self._timeout_s)

    def put(self, key: bytes | str, value: Any, timeout_s: int | None) -> None:
        """Write the entry and make sure that the cache has kept it.

        Raises:
            ResultTooLarge: The cache keeps other values, but not this one.
            ResultNotStored: The cache keeps nothing.
        """
        name = self._name(key)

        def write(cache: Any) -> bool:
            cache.set(name, value, timeout_s)
            # Read back: a database cache hides its errors, a memcached client may drop what is too large.
            return isinstance(cache, _SET_IS_SURE) or cache.get(name) == value

        self._until_kept(write, name, value)

    def add(self, key: bytes | str, value: Any, timeout_s: int | None) -> Any:
        """Write the entry if there is none, atomically; return None, or the value that is there already.

        Raises:
            ResultTooLarge, ResultNotStored: As ``put``.
        """
        name, existing = self._name(key), None

        def write(cache: Any) -> bool:
            nonlocal existing
            with self._exclusive(cache):
                added = cache.add(name, value, timeout_s)
                found = value if added and isinstance(cache, _ADD_IS_SURE) else cache.get(name)
            existing = None if added else found
            return found == value if added else found is not None

        self._until_kept(write, name, value)
        return existing

    def _until_kept(self, write: Callable[[Any], bool], name: str, value: Any) -> None:
        """Call *write* until it returns True; raise what ``put`` promises when it never does."""
        for wait_s in (*_WAITS_S, None):
            try:
                if self._patiently(write):
                    return
            except Exception as exc:
                # A client's refusal of a large value, or something else?
                if self.exception_safe_to_retry(exc) or not self._keeps_small_values(name):
                    raise
                raise self._too_large(value) from exc
            if wait_s is not None:
                time.sleep(wait_s)
        if self._keeps_small_values(name):
            raise self._too_large(value)
        raise ResultNotStored(
            f"The cache {self.alias!r} ({type(self.cache).__name__}) did not keep {name!r}, nor a short text. "
            "Look whether its server or table is there, and name a cache that stores."
        )

    def _patiently(self, work: Callable[[Any], T]) -> T:
        """Return ``work(cache)``; on a database cache it is done again after transient errors."""
        cache = self.cache
        if not isinstance(cache, DatabaseCache):
            return work(cache)
        alias = router.db_for_write(cache.cache_model_class)
        return db.retry_transient(lambda connection: work(cache), lambda: connections[alias], f"use {self.as_uri()}")

    def delete(self, key: bytes | str) -> None:
        """Delete the entry, if there is one."""
        self.delete_many([key])

    def delete_many(self, keys: Iterable[bytes | str]) -> None:
        """Delete the entries of *keys*, those that are there."""
        names = [self._name(key) for key in keys]
        self._patiently(lambda cache: cache.delete_many(names))

    @contextmanager
    def _exclusive(self, cache: Any) -> Iterator[None]:
        """Make ``add()`` atomic where Django's is not: a lock file in the folder of a file cache."""
        if not isinstance(cache, FileBasedCache):
            yield
            return
        folder = caches.settings[self.alias]["LOCATION"]
        os.makedirs(folder, mode=0o700, exist_ok=True)
        with open(os.path.join(folder, "djcelery.lock"), "ab") as file:
            locks.lock(file, locks.LOCK_EX)
            # Closing the file gives the lock back.
            yield

    def _keeps_small_values(self, name: str) -> bool:
        probe = f"{self._name(name)[:200]}-probe"
        try:
            self.cache.set(probe, "kept", 10)
            return self.cache.get(probe) == "kept"
        except Exception:  # noqa: BLE001 - any error of the client means that it doesn't
            return False

    def _too_large(self, value: Any) -> ResultTooLarge:
        size = len(value.encode() if isinstance(value, str) else value) if isinstance(value, (str, bytes)) else 0
        return ResultTooLarge(
            f"A value of {size} bytes was not stored: the cache {self.alias!r} ({type(self.cache).__name__}) drops it. "
            "memcached takes 1 MB unless started with -I. Return less, compress (CELERY_RESULT_COMPRESSION), "
            "or use another cache."
        )

    # results

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Write the entry of *task_id* by the rule of ``may_replace``; return *result*.

        A new entry is one atomic operation. To replace one takes a read and a write, between which
        another process may write: a cache can't do better, the database backend does.
        """
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        meta["task_id"] = bytes_to_str(task_id)
        key, value = self.get_key_for_task(task_id), self.encode(meta)
        current = self.add(key, value, self._timeout_s)
        if current is not None and may_replace(self._state_of(current), state):
            self.set(key, value)
        return result

    def _state_of(self, entry: Any) -> str | None:
        try:
            return self.decode(entry)["status"]
        except (KombuError, ValueError, TypeError, KeyError):
            # Of another release or serializer, and as good as nothing to who reads it.
            return None

    def _get_result_meta(self, result: Any, state: str, traceback: Any, request: Any, **kwargs: Any) -> dict[str, Any]:
        """Return what is stored: Celery's fields, the task's name always, and nothing that is redacted."""
        name = getattr(request, "task", None)
        hidden = redaction.redacted_names(self.app, name)
        changed = columns.Columns()
        result = columns.shown_value(changed, state, result, hidden)
        if traceback is not None and hidden & {"traceback", "result"}:
            traceback = None
        meta = super()._get_result_meta(result, state, traceback, request, **kwargs)
        if name:
            meta.setdefault("name", name)
        given = [column for column in ("args", "kwargs") if meta.get(column) is not None]
        by_sender = columns.hidden_arguments(self.app, request) if given else {}
        for column in given:
            shown = columns.shown_arguments(changed, column, meta[column], hidden)
            meta[column] = shown if shown is None else by_sender.get(column, shown)
        return meta

    # failures

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        """Tell Celery's own retrying (``result_backend_always_retry``) which errors pass.

        Those of the operating system (which pymemcache raises too), those of redis-py when it has no
        connection, and what ``db.is_transient`` says of a database cache. Other clients' errors can't be
        judged without importing them: they are not retried, unless an error of those kinds caused them.
        """
        cause: BaseException | None = exc
        while cause is not None:
            names = {(cls.__module__.partition(".")[0], cls.__name__) for cls in type(cause).__mro__}
            if isinstance(cause, OSError) or names & _CONNECTION_ERRORS or db.is_transient(cause):
                return True
            # What pymemcache says of servers that it has given up for a while.
            if (type(cause).__module__, type(cause).__name__) == ("pymemcache.exceptions", "MemcacheError"):
                return True
            cause = cause.__cause__
        return False


def _as_it_is(cache: Any) -> Any:
    return cache


__getattr__ = old_names(
    __name__,
    {
        "cache": Old("django.core.cache.caches", lambda: CacheBackend(app=current_app._get_current_object()).cache),
        "DjangoMemcacheWrapper": Old("the cache itself", lambda: _as_it_is),
    },
)
