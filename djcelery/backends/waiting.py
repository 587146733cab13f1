"""Waiting for results by polling, with pauses that grow with the time already waited.

A mixin of the result backends that have nothing to be told by. Pauses are short while a task is
expected to be quick, and one statement asks for all results that are waited for together.
Next: ``docs/explain/life-of-a-result.rst``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from celery import states
from celery.exceptions import TimeoutError

#: The first pause, and the part of the time already waited that a later one takes.
FIRST_PAUSE_S = 0.005
PAUSE_SHARE = 0.1


class Pauses:
    """The pauses between two looks: a tenth of the time already waited, 5 ms at least, *interval* at most.

    So a result is seen late by no more than a tenth of the time that its task took.
    """

    def __init__(self, timeout: float | None, interval: float | None) -> None:
        self.began = time.monotonic()
        self.until = None if timeout is None else self.began + timeout
        # An interval of 0 would be a storm of statements.
        self.longest = 0.5 if interval is None else max(interval, FIRST_PAUSE_S)

    def wait(self) -> None:
        """Sleep until the next look, or until the time is over.

        Raises:
            celery.exceptions.TimeoutError: *timeout* seconds had passed before.
        """
        now = time.monotonic()
        pause = min(max(FIRST_PAUSE_S, (now - self.began) * PAUSE_SHARE), self.longest)
        if self.until is not None:
            if now >= self.until:
                raise TimeoutError("The operation timed out.")
            pause = min(pause, self.until - now)
        time.sleep(pause)


class WaitingMixin:
    """``wait_for`` and ``get_many`` of Celery's backends."""

    supports_native_join = True

    def wait_for(
        self: Any,
        task_id: str,
        timeout: float | None = None,
        interval: float | None = 0.5,
        no_ack: bool = True,
        on_interval: Callable[[], Any] | None = None,
    ) -> dict[str, Any]:
        """Return the meta of *task_id* once it is ready.

        Args:
            timeout: Seconds; None waits for ever, 0 looks once.
            interval: The longest pause between two looks, in seconds.
            on_interval: Called between looks, and before a failure is returned: there a parent's
                own error comes first.

        Raises:
            celery.exceptions.TimeoutError: It was not ready in time.

        Database: one SELECT per look.
        """
        self._ensure_not_eager()
        pauses = Pauses(timeout, interval)
        looks = 0
        while True:
            meta = self.get_task_meta(task_id)
            ready = meta["status"] in states.READY_STATES
            if on_interval and (not ready or meta["status"] in states.PROPAGATE_STATES):
                on_interval()
            if ready:
                return meta
            looks += 1
            pauses.wait()
            if looks == 1:
                self.on_first_pause()

    def get_many(
        self: Any,
        task_ids: Iterable[str],
        timeout: float | None = None,
        interval: float | None = 0.5,
        no_ack: bool = True,
        on_message: Callable[[Any], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        max_iterations: int | None = None,
        READY_STATES: frozenset[str] = states.READY_STATES,
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield ``(task id, meta)`` of each task as it becomes ready.

        Args:
            timeout, interval, on_interval: See ``wait_for``.
            on_message: Called with each meta.
            max_iterations: End after so many looks, ready or not; None looks until all are ready.

        Raises:
            celery.exceptions.TimeoutError: One was not ready in time.

        Database: one SELECT per look, for all tasks together.
        """
        missing = dict.fromkeys(map(str, task_ids))
        pauses = Pauses(timeout, interval)
        looks = 0
        while missing:
            for meta in self._ready_metas(list(missing), READY_STATES):
                # MySQL finds ids that differ in case alone.
                if missing.pop(meta["task_id"], self) is self:
                    continue
                if on_message is not None:
                    on_message(meta)
                yield meta["task_id"], meta
            looks += 1
            if not missing or (max_iterations and looks >= max_iterations):
                return
            if on_interval:
                on_interval()
            pauses.wait()
            if looks == 1:
                self.on_first_pause()

    def _ready_metas(self: Any, task_ids: list[str], ready_states: Iterable[str]) -> list[dict[str, Any]]:
        """Return the metas of those of *task_ids* that are ready: known ones first, the others by one look."""
        known = [self._cache[task_id] for task_id in task_ids if self.is_cached(task_id)]
        known = [meta for meta in known if meta["status"] in ready_states]
        rest = set(task_ids) - {meta["task_id"] for meta in known}
        found = [meta for meta in self.get_metas(sorted(rest)) if meta["status"] in ready_states] if rest else []
        for meta in found:
            self._cache[meta["task_id"]] = meta
        return known + found

    def get_metas(self, task_ids: list[str]) -> list[dict[str, Any]]:
        """Return the metas of those of *task_ids* that are stored, by one look."""
        raise NotImplementedError

    def on_first_pause(self) -> None:
        """Say what might make the waiting vain. Called once per wait, after the first pause."""
