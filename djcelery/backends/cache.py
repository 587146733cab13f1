"""Store results in one of Django's caches.

Called by Celery, as ``cache`` and ``djcelery-cache``. Writes one cache entry per task id, which
expires by itself after ``CELERY_RESULT_EXPIRES``.
Next: ``docs/explain/life-of-a-result.rst``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from celery.backends.base import KeyValueStoreBackend
from django.core.cache import caches
from django.core.cache.backends.base import InvalidCacheBackendError
from kombu.utils.encoding import bytes_to_str

from djcelery.exceptions import SettingError

__all__ = ("CacheBackend",)


class CacheBackend(KeyValueStoreBackend):
    """Celery's result backend on the cache that ``CELERY_CACHE_BACKEND`` names; the default cache else."""

    supports_autoexpire = True
    supports_native_join = True
    implements_incr = False

    def __init__(self, *args: Any, expires: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, expires=expires, expires_type=int, **kwargs)

    def as_uri(self, include_password: bool = False) -> str:
        """Return what the worker prints as the place of results."""
        return f"cache ({self.app.conf.cache_backend or 'default'})"

    @property
    def cache(self) -> Any:
        """The cache, this thread's own connection to it.

        Raises:
            SettingError: ``CACHES`` has no such alias.
        """
        alias = self.app.conf.cache_backend or "default"
        try:
            return caches[alias]
        except InvalidCacheBackendError as exc:
            raise SettingError(
                f"CELERY_CACHE_BACKEND = {alias!r}: CACHES has no such alias. Name one of {', '.join(caches.settings)}."
            ) from exc

    @property
    def _timeout_s(self) -> int | None:
        # Celery's 0 is "never"; Django's would be "at once".
        return max(self.expires, 1) if self.expires else None

    def get(self, key: bytes | str) -> Any:
        """Return the entry, or None."""
        return self.cache.get(bytes_to_str(key))

    def mget(self, keys: Iterable[bytes | str]) -> list[Any]:
        """Return the entries of *keys*, None for those missing, in their order."""
        names = [bytes_to_str(key) for key in keys]
        found = self.cache.get_many(names)
        return [found.get(name) for name in names]

    def set(self, key: bytes | str, value: Any) -> None:
        """Write the entry."""
        self.cache.set(bytes_to_str(key), value, self._timeout_s)

    def delete(self, key: bytes | str) -> None:
        """Delete the entry, if there is one."""
        self.cache.delete(bytes_to_str(key))
