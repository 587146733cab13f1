"""Sending claimed runs: one connection to the broker whose calls never outlast the lease, and what was sent.

Called by ``scheduler``. Marks runs as sent or dropped (``claims``), many at a time. A run that can't be sent
stays claimed; which of two things is wrong decides what follows: without a broker the round ends, a run that
is wrong in itself stops nothing but itself.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from celery.beat import ScheduleEntry, SchedulingError
from celery.exceptions import QueueNotFound
from django.db import Error
from kombu.exceptions import EncodeError
from kombu.exceptions import OperationalError as BrokerError

from djcelery.exceptions import LeaseLost
from djcelery.schedulers import loading
from djcelery.schedulers.claims import Claims, Run
from djcelery.schedulers.lease import Lease
from djcelery.schedulers.plans import Plan

logger = logging.getLogger(__name__)

#: Runs are marked as sent after so many, or so many seconds.
MARK_EVERY, MARK_EVERY_S = 500, 0.5
#: Seconds until the first new try, which then doubles, and the most for a task whose runs fail by themselves.
FIRST_WAIT_S, LAST_WAIT_S = 0.5, 60.0
#: Errors that the same message would meet again.
_HOPELESS = (EncodeError, QueueNotFound, TypeError, ValueError)


class BrokerAway(Exception):
    """The broker can't be reached; its cause says why."""


class _Wait(NamedTuple):
    """Until when the runs of a task that has failed are not tried again, and how long that is."""

    until_mono: float
    length_s: float


class DueEntry(ScheduleEntry):
    """One firing as ``apply_entry()`` and ``apply_async()`` of the scheduler see it.

    ``options`` holds the message's id and headers. ``model`` reads the row, for code that wants more.
    """

    def __init__(self, plan: Plan, run: Run, app: Any, extra: dict[str, Any] | None) -> None:
        self.app = app
        self.pk = plan.pk
        self.name, self.task = plan.name, plan.task
        self.args = loading.check_json("args", plan.args, list)
        self.kwargs = loading.check_json("kwargs", plan.kwargs, dict)
        self.schedule = plan.schedule
        self.last_run_at = self.scheduled_at = run.scheduled_at
        self.options = _options(plan, run, extra or {})

    @functools.cached_property
    def model(self) -> Any:
        """The row. Database: one SELECT."""
        from djcelery.models import PeriodicTask

        return PeriodicTask.objects.select_related(*_TIMES).get(pk=self.pk)

    def is_due(self) -> tuple[bool, float]:
        """Return that it is due: it is being sent."""
        return True, 0.0


_TIMES = ("interval", "crontab", "solar", "clocked")


def _options(plan: Plan, run: Run, extra: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a message: the settings' first, over them the row's, and what djcelery adds."""
    chosen = plan.options
    columns = {name: getattr(chosen, name) for name in ("queue", "exchange", "routing_key", "priority")}
    options = {**extra, **{name: value for name, value in columns.items() if value is not None}}
    if (expires := expiry(plan, run)) is not None:
        options["expires"] = expires
    headers = loading.check_headers(chosen.headers) if chosen.headers else {}
    options["headers"] = {
        **(extra.get("headers") or {}),
        **headers,
        "celery_beat_task": True,
        "periodic_task_name": plan.name,
        "periodic_scheduled_at": run.scheduled_at.isoformat(),
    }
    options["task_id"] = run.task_id
    return options


def expiry(plan: Plan, run: Run) -> datetime | None:
    """Return when the message of *run* expires; None is never."""
    seconds = plan.options.expire_seconds
    return plan.options.expires if seconds is None else run.scheduled_at + timedelta(seconds=seconds)


class Outbox:
    """Sends runs and remembers what is not marked yet.

    Args:
        scheduler: Its ``apply_entry()`` sends one entry, through its ``producer``.
        tell: Called with key, name and problem of a task whose run can't be sent, or None once one was.
        now: The present, aware.
    """

    def __init__(
        self,
        scheduler: Any,
        claims: Claims,
        lease: Lease,
        tell: Callable[[Plan, Exception | None], None],
        now: Callable[[], datetime],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.scheduler, self.claims, self.lease = scheduler, claims, lease
        self._tell, self._now, self._clock = tell, now, clock
        self._sent: list[str] = []
        self._dropped: dict[str, list[str]] = {}
        self._marked_mono = clock()
        #: Whether runs may be claimed and unsent.
        self.has_unsent = True
        self.is_away = False
        # Whether the log says that the broker is away: it does until a message has gone out.
        self._is_told = False
        # When to try the broker again, and when to look for unsent runs.
        self._away_mono = self._look_mono = 0.0
        self._wait_s = FIRST_WAIT_S
        # Of tasks whose runs fail by themselves: each waits for itself, and holds up no other.
        self._waits: dict[int, _Wait] = {}
        self._looked_mono = 0.0

    # waiting

    def retry_s(self) -> float:
        """Return the seconds until the broker that is away, or what could not be sent, is to be tried again."""
        return max(0.0, (self._away_mono if self.is_away else self._look_mono) - self._clock())

    def try_at_once(self) -> None:
        """Have the unsent runs looked at in the next tick."""
        self.has_unsent = True
        self._away_mono = self._look_mono = 0.0

    def waiting(self) -> set[int]:
        """Return the keys of tasks whose unsent runs are not to be tried yet. Called before those are looked for."""
        self._looked_mono = self._clock()
        return {pk for pk, wait in self._waits.items() if wait.until_mono > self._looked_mono}

    def looked(self, has_more: bool) -> None:
        """Note that unsent runs were looked for, and all of them tried unless *has_more* or the broker is away."""
        if has_more or self.is_away:
            self._look_mono = 0.0
            return
        # Those that have failed just now wait from then on.
        self._waits = {pk: wait for pk, wait in self._waits.items() if wait.until_mono > self._looked_mono}
        self.has_unsent = bool(self._waits)
        soonest = min((wait.until_mono for wait in self._waits.values()), default=0.0)
        self._look_mono = max(soonest, self._clock() + FIRST_WAIT_S)

    def _put_off(self, pk: int) -> None:
        """Have the unsent runs of task *pk* wait, longer each time, if they don't wait already."""
        now, before = self._clock(), self._waits.get(pk)
        if before is not None and before.until_mono > now:
            return
        length_s = FIRST_WAIT_S if before is None else min(2 * before.length_s, LAST_WAIT_S)
        self._waits[pk] = _Wait(now + length_s, length_s)
        self._look_mono = min(self._look_mono, now + length_s) if self.has_unsent else now + length_s
        self.has_unsent = True

    def _go_on(self, pk: int) -> None:
        """Have the unsent runs of task *pk* tried at once: another one has gone out."""
        if self._waits.pop(pk, None) is not None:
            self.has_unsent, self._look_mono = True, 0.0

    # sending

    def send(self, runs: Iterable[tuple[Run, Plan]]) -> bool:
        """Send *runs* and mark them; tell whether the broker took, or rightly refused, all of them.

        Raises:
            LeaseLost: Another beat leads, or may: nothing more was sent.
            django.db.Error: What was sent could not be marked; it is kept for the next time.
        """
        is_whole, failed = True, set()
        for run, plan in runs:
            if plan.pk in failed:
                # It waits with the one before, so that very many take no longer than one.
                continue
            try:
                self._make_sure()
                self._send_one(run, plan)
            except LeaseLost:
                # That these went out is a fact, whoever leads.
                self.flush()
                raise
            except Error:
                # The rest is claimed, and if the lease outlasts the trouble, no other beat looks for it.
                self.try_at_once()
                raise
            except BrokerAway as exc:
                self._note_away(exc.__cause__ or exc)
                is_whole = False
                break
            except Exception as exc:  # noqa: BLE001 - whatever one run raises, the others are sent
                if not self._failed(run, plan, exc):
                    failed.add(plan.pk)
                    self._put_off(plan.pk)
        self.flush()
        return is_whole and not failed

    def _make_sure(self) -> None:
        if self.lease.wait_s() <= 0:
            self.lease.renew()
        if not self.lease.is_held():
            raise LeaseLost(f"The lease {self.lease.name!r} ran out while runs were sent.")
        if len(self._sent) >= MARK_EVERY or (self._sent and self._clock() - self._marked_mono > MARK_EVERY_S):
            self.flush()

    def _send_one(self, run: Run, plan: Plan) -> None:
        expires = expiry(plan, run)
        if expires is not None and expires <= self._now():
            self.drop(run, f"Its message would have expired at {expires.isoformat()}, before it could be sent.")
            return
        self._publish(self.scheduler.due_entry(plan, run))
        self._sent.append(run.task_id)
        self._go_on(plan.pk)
        if self._is_told:
            self._is_told = False
            logger.info("beat: the broker is back.")
        if plan.is_troubled:
            plan.is_troubled = False
            self._tell(plan, None)

    def _publish(self, entry: DueEntry) -> None:
        # An idle connection may have been closed by the other side: that shows only now, and a new one helps.
        was_open = "producer" in self.scheduler.__dict__
        try:
            self._publish_once(entry)
        except BrokerAway:
            if not was_open:
                raise
            self._make_sure()
            self._publish_once(entry)

    def _publish_once(self, entry: DueEntry) -> None:
        try:
            producer = self.scheduler.producer
        except Exception as exc:
            self.disconnect()
            raise BrokerAway from exc
        try:
            self.scheduler.apply_entry(entry, producer=producer)
        except Exception as exc:
            problem = _cause_of(exc)
            if isinstance(problem, _HOPELESS):
                raise problem from None
            connection = self.scheduler.__dict__.get("connection")
            away, refused = (BrokerError, OSError), ()
            if connection is not None:
                away, refused = (*away, *connection.connection_errors), connection.channel_errors
            if isinstance(problem, away):
                self.disconnect()
                raise BrokerAway from problem
            if isinstance(problem, refused):
                # Such an error closes the channel, on which the producer is.
                self.disconnect()
            raise

    def disconnect(self) -> None:
        """Give up the connection to the broker; the next run opens one."""
        self.scheduler.__dict__.pop("producer", None)
        connection = self.scheduler.__dict__.pop("connection", None)
        if connection is not None:
            try:
                connection.collect()
            except Exception as exc:  # noqa: BLE001 - it is broken anyway
                logger.debug("beat: closing the connection to the broker: %r", exc)

    def reach_broker(self) -> bool:
        """Tell whether the broker answers, where it didn't before."""
        try:
            _ = self.scheduler.producer
        except Exception as exc:  # noqa: BLE001 - transports raise anything
            self.disconnect()
            self._note_away(exc)
            return False
        self.is_away = False
        return True

    def _note_away(self, exc: BaseException) -> None:
        self.is_away = self.has_unsent = True
        if not self._is_told:
            self._is_told = True
            self._wait_s = FIRST_WAIT_S
            logger.error("beat: the broker is away (%r). What is due waits; trying again.", exc)
        most_s = float(self.scheduler.max_interval)
        # Once it is back, what could not be sent goes first.
        self._away_mono, self._look_mono = self._clock() + min(self._wait_s, most_s), 0.0
        self._wait_s = min(2 * self._wait_s, most_s)

    def _failed(self, run: Run, plan: Plan, exc: Exception) -> bool:
        """Note that *run* can't be sent; tell whether that is the end of it."""
        problem = _cause_of(exc)
        plan.is_troubled = True
        self._tell(plan, problem)
        if not isinstance(problem, _HOPELESS):
            return False
        self.drop(run, f"{type(problem).__name__}: {problem}")
        return True

    # marking

    def drop(self, run: Run, why: str) -> None:
        """Have *run* marked as one that will not be sent."""
        logger.debug("beat: %s of %s is dropped: %s", run.name, run.scheduled_at, why)
        self._dropped.setdefault(why, []).append(run.task_id)

    def flush(self) -> None:
        """Mark what was sent and dropped.

        Database: an UPDATE for all that were sent, and one per reason for those that weren't; none for none.
        """
        self._marked_mono = self._clock()
        if self._sent:
            self.claims.mark_sent(self._sent, self._now())
            self._sent = []
        while self._dropped:
            why = next(iter(self._dropped))
            self.claims.mark_dropped(self._dropped[why], why)
            del self._dropped[why]


def _cause_of(exc: Exception) -> Any:
    """Return what Celery has wrapped: its scheduler raises ``SchedulingError`` for anything."""
    if isinstance(exc, SchedulingError):
        return exc.__cause__ or exc.__context__ or exc
    return exc
