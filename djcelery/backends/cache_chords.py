"""Count the parts of a chord in a cache, by ``add()`` alone.

Called by ``cache.CacheBackend``; writes short-lived entries under the key of the group. ``incr()`` would not
do: Django's database and file caches read and then write, and a part that is delivered twice would count
twice. Instead every part takes a place of its own:

* ``.0``, ``.1`` …: the places, each with the id, state and value of one part. A part tries the place of its
  index in the group, then those behind it, until it has added itself or finds itself.
* ``.size``: how many parts the header has; 0 until all are published. ``.added0`` …: ids by ``add_to_chord``.
* ``.done``: who calls the callback: the first to add its id, once all places are taken.

A worker that dies at any point does no harm if its task is delivered again: it finds its own place and goes on.
Next: ``docs/explain/life-of-a-result.rst``.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from celery.canvas import maybe_signature
from celery.exceptions import ChordError
from celery.result import GroupResult
from celery.utils.time import get_exponential_backoff_interval

from djcelery.backends import redaction

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: How long it is remembered that the callback was called when results are kept for ever, in seconds.
_DONE_S = 86400
#: At most this many places are read at once.
_BATCH_PLACES = 500
_SENT = "sent"

if TYPE_CHECKING:
    from celery.backends.base import KeyValueStoreBackend as _Base
else:
    _Base = object


class CacheChords(_Base):
    """The chord part of a key/value backend that has ``add``, ``put``, ``mget`` and ``delete_many``."""

    add: Callable[..., Any]
    put: Callable[..., None]
    delete_many: Callable[..., None]

    @property
    def _chord_timeout_s(self) -> int | None:
        own = self.app.conf.get("result_chord_expires")
        expires = self.expires if own is None else self.prepare_expires(own, math.ceil)
        return max(expires, 1) if expires else None

    def _place(self, group_id: str, number: int) -> Any:
        return self.get_key_for_chord(group_id, f".{number}")

    def _claim(self, group_id: str, name: str, value: Any) -> Any:
        """Write the entry *name* of the chord if there is none; return None, or what is there already."""
        return self.add(self.get_key_for_chord(group_id, name), value, self._chord_timeout_s)

    def _retried(self, work: Callable[..., T], *args: Any) -> T:
        """Return ``work(*args)``; Celery's own settings say whether and how often it is tried again."""
        for tries in count():
            try:
                return work(*args)
            except Exception as exc:
                if not self.always_retry or tries >= self.max_retries or not self.exception_safe_to_retry(exc):
                    raise
                logger.warning("The cache of results failed (%r); trying again.", exc)
                longest_ms = self.max_sleep_between_retries_ms
                wait_ms = get_exponential_backoff_interval(self.base_sleep_between_retries_ms, tries, longest_ms, True)
                time.sleep(wait_ms / 1000)
        raise AssertionError("unreachable")

    # the side of the sender

    def apply_chord(self, header_result_args: Any, body: Any, **kwargs: Any) -> None:
        """Begin a chord. Called before its header is published; a generator is left as it is.

        Args:
            header_result_args: The id of the group, and its results.
        """
        self.ensure_chords_allowed()
        self._retried(self._open_chord, *header_result_args)

    def _open_chord(self, group_id: str, results: Any) -> None:
        self.delete(self.get_key_for_chord(group_id, ".done"))
        if self._claim(group_id, ".size", 0) is not None:
            # The same frozen chord was begun before, and not ended.
            self._clear(group_id)
            self._claim(group_id, ".size", 0)
        if isinstance(results, (list, tuple)) and any(isinstance(result, GroupResult) for result in results):
            # The callback gets values nested as these are.
            self._save_group(group_id, self.app.GroupResult(group_id, results))

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """Note how many parts will return. Called before the last task of any group with a chord is published."""
        self._retried(self._set_size, group_id, chord_size)

    def _set_size(self, group_id: str, chord_size: int) -> None:
        key = self.get_key_for_chord(group_id, ".size")
        # Groups inside a header call this too; their parts return to the chord's own group.
        if self.get(key) is not None:
            self.put(key, chord_size, self._chord_timeout_s)

    def add_to_chord(self, chord_id: str, result: Any) -> None:
        """Add *result* to the parts of a running chord. Called by one of its parts."""
        self._retried(self._add_result, chord_id, result.id)

    def _add_result(self, group_id: str, task_id: str) -> None:
        for number in count():
            if self._claim(group_id, f".added{number}", task_id) in (None, task_id):
                return

    # the side of the parts

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        """Take the place of the part that *request* has finished, and call the callback if it was the last."""
        group_id = request.group
        if not group_id or not request.id:
            return
        part = self.encode([request.id, state, redaction.part_value(self, request, state, result)])
        try:
            parts = self._retried(self._take_place, group_id, request.id, getattr(request, "group_index", None), part)
        except ChordError as exc:
            logger.exception("Chord %r failed", group_id)
            self.chord_error_from_stack(maybe_signature(request.chord, app=self.app), exc)
            return
        if parts is None:
            return
        self._call_back(group_id, request.chord, parts)
        self._retried(self._close_chord, group_id, len(parts))

    def _take_place(self, group_id: str, task_id: str, index: int | None, part: Any) -> list[Any] | None:
        """Put *part* into its place; return all parts in order if this one is to call the callback, else None.

        Doing it again changes nothing.

        Raises:
            ChordError: The cache no longer has the chord, or never had it.
        """
        number = self._first_free(group_id, task_id, index or 0, part)
        # Read after the place is taken: of the sender and the last part, one sees what the other wrote.
        keys = [self.get_key_for_chord(group_id, name) for name in (".size", ".done")]
        size, done = self.mget(keys)
        if done == _SENT:
            # A copy of a part, after the callback.
            self.delete(self._place(group_id, number))
        if size == 0 or done not in (None, task_id):
            return None
        parts = None if size is None else self._all_parts(group_id, size + self._added(group_id))
        if size is not None and parts is None:
            return None
        if self._claim(group_id, ".done", task_id) not in (None, task_id):
            return None
        if parts is None:
            raise ChordError(
                f"Chord {group_id} is not in the cache: it has expired (CELERY_RESULT_CHORD_EXPIRES), "
                "or the cache is full or was emptied."
            )
        return parts

    def _first_free(self, group_id: str, task_id: str, index: int, part: Any) -> int:
        """Add *part* at the first free place from *index* on; return its number, or that of its earlier copy."""
        for number in count(index):
            found = self._claim(group_id, f".{number}", part)
            if found is None or self.decode(found)[0] == task_id:
                return number
        raise AssertionError("unreachable")

    def _added(self, group_id: str) -> int:
        return next(n for n in count() if self.get(self.get_key_for_chord(group_id, f".added{n}")) is None)

    def _all_parts(self, group_id: str, size: int) -> list[Any] | None:
        """Return what is in the first *size* places, or None if one is free.

        Database: nothing of its own. Reads from the end, where a place is free until nearly all are taken.
        """
        batches: list[list[Any]] = []
        end, width = size, 1
        while end > 0:
            start = max(0, end - width)
            found = self.mget([self._place(group_id, number) for number in range(start, end)])
            if None in found:
                return None
            batches.append(found)
            end, width = start, min(2 * width, _BATCH_PLACES)
        return [part for batch in reversed(batches) for part in batch]

    def _call_back(self, group_id: str, chord: Any, parts: list[Any]) -> None:
        callback = maybe_signature(chord, app=self.app)
        try:
            callback.delay(self._values(group_id, parts))
        except ChordError as exc:
            logger.exception("Chord %r failed", group_id)
            self.chord_error_from_stack(callback, exc)
        except Exception as exc:
            logger.exception("The callback of chord %r could not be sent", group_id)
            error = ChordError(f"Callback error: {exc!r}")
            error.__cause__ = exc
            self.chord_error_from_stack(callback, error)

    def _values(self, group_id: str, parts: list[Any]) -> list[Any]:
        """Return the argument of the callback.

        Raises:
            ChordError: A part has failed; its error is the cause.
        """
        values = {}
        for task_id, state, value in map(self.decode, parts):
            if state in self.EXCEPTION_STATES:
                error = self.exception_to_python(value)
                raise ChordError(f"Dependency {task_id} raised {error!r}") from error
            values[task_id] = value
        saved = self._restore_group(group_id)
        if saved is None:
            return list(values.values())
        nested = list(_nested(saved["result"], values))
        return nested + list(values.values())

    def _close_chord(self, group_id: str, places: int) -> None:
        """Remember that the callback was called, for copies of parts, and delete the rest."""
        self.put(self.get_key_for_chord(group_id, ".done"), _SENT, self._chord_timeout_s or _DONE_S)
        self._delete_places(group_id, range(places), self._added(group_id))

    def _clear(self, group_id: str) -> None:
        """Delete the parts of a chord that was not ended; nobody knows how many there are."""
        for start in count(0, _BATCH_PLACES):
            numbers = range(start, start + _BATCH_PLACES)
            found = self.mget([self._place(group_id, number) for number in numbers])
            self._delete_places(group_id, numbers, self._added(group_id))
            if not any(found):
                return

    def _delete_places(self, group_id: str, numbers: range, added: int) -> None:
        names = [".size", *(f".{number}" for number in numbers), *(f".added{number}" for number in range(added))]
        keys = [self.get_key_for_chord(group_id, name) for name in names]
        self.delete_many([self.get_key_for_group(group_id), *keys])


def _nested(results: Any, values: dict[str, Any]) -> Iterator[Any]:
    """Yield the *values* (task id: value) in the shape of *results*, and take them out of *values*."""
    for result in results:
        yield list(_nested(result, values)) if isinstance(result, GroupResult) else values.pop(result.id)
