"""The loop that beat calls: who leads, what is due, and what has changed.

Of any number of beats one leads: it alone claims, sends and writes. ``lease`` says who leads, ``book`` what there
is to send, ``dispatch`` sends it. Without the lease nothing is sent, and without the database nobody has it.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from django.db import Error, connections, router
from kombu.utils.objects import cached_property

from djcelery import db
from djcelery.brokers import bounded
from djcelery.conf import conf
from djcelery.exceptions import LeaseLost
from djcelery.schedulers import changes
from djcelery.schedulers.book import Book
from djcelery.schedulers.claims import Claims, Run
from djcelery.schedulers.dispatch import Dispatcher
from djcelery.schedulers.entry import ModelEntry
from djcelery.schedulers.lease import Lease, monotonic
from djcelery.schedulers.outbox import DueEntry, Outbox
from djcelery.schedulers.plans import Plan
from djcelery.schedulers.standbys import Standby
from djcelery.schedulers.surface import ADD_ENTRY_ERROR, EntriesScheduler

__all__ = ("ADD_ENTRY_ERROR", "DatabaseScheduler")

logger = logging.getLogger(__name__)

#: Look for changes no more often than this, in seconds, however many entries are due.
CHECK_EVERY_S = 1.0
#: Delete old runs this often, in seconds, when nothing is due.
PURGE_EVERY_S = 600.0
FIRST_PURGE_S = 60.0
#: How one tick deletes old runs: rows per batch, and batches, one per outcome at least.
PURGE_ROWS, PURGE_BATCHES = 1000, 3
#: Look again after this long, in seconds, while the database is away.
DATABASE_WAIT_S = 1.0
#: A clock that jumps by more than this, in seconds, is told of.
JUMP_S = 5.0
#: Seconds between two slices of the comparison.
SLICE_PAUSE_S = 0.05
#: The part of the lease that one call to the broker may last.
BROKER_PART = 0.25


def utc_now() -> datetime:
    """Return the present, aware."""
    return datetime.now(timezone.utc)


class DatabaseScheduler(EntriesScheduler):
    """Beat's scheduler on the database.

    Args:
        nowfun: Returns the present, aware; None is the clock.
        clock: Seconds that never go back; None is the machine's.
    """

    def __init__(
        self,
        app: Any,
        *args: Any,
        lazy: bool = False,
        nowfun: Callable[[], datetime] | None = None,
        clock: Callable[[], float] | None = None,
        **kwargs: Any,
    ) -> None:
        self.now = nowfun or utc_now
        self._clock = clock or monotonic
        self._is_ticking = False
        # What leading takes; made when this beat begins to lead.
        self._book: Book | None = None
        self._is_standing_by = False
        self._problem: str | None = None
        self._troubles: dict[int, str] = {}
        self._checked_mono = self._purged_mono = -1e9
        self._checked_at: datetime | None = None
        # Whether there are more notes than were read in the last look.
        self._has_notes = False
        self._clocks: tuple[datetime, float] | None = None
        # The settings' entries are written by the beat that leads, not by any that starts.
        super().__init__(app, *args, lazy=True, **kwargs)
        self.alias = router.db_for_write(self.Model)
        self.lease = Lease(self.alias, conf.DJCELERY_BEAT_LEASE_NAME, conf.DJCELERY_BEAT_LEASE_S, clock=self._clock)
        self._standby = Standby(self.alias, self.lease, self._clock)
        self._claims = Claims(self.alias, self.lease)
        self._outbox = Outbox(self, self._claims, self.lease, self._tell_plan, self.now, self._clock)
        self._comparison: changes.Comparison | None = None

    # the loop

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Do what is to be done now, and return the seconds until the next call."""
        self._is_ticking = True
        try:
            return self._tick()
        except LeaseLost as exc:
            self._demote(str(exc))
        except Error as exc:
            self._note_database(exc)
            return DATABASE_WAIT_S
        finally:
            self._is_ticking = False
        return min(self._standby_s(), float(self.max_interval))

    def _tick(self) -> float:
        if not self._leads():
            return min(self._standby_s(), float(self.max_interval))
        now = self.now()
        self._watch_clock(now)
        self._outbox.flush()
        has_more = self._send(now)
        # However much is due, what has changed is seen in time.
        if not has_more or self._has_notes or self._clock() - self._checked_mono >= 2 * CHECK_EVERY_S:
            has_more |= self._keep_up(now, is_busy=has_more)
        self._note_database(None)
        return 0.0 if has_more else self._idle_s()

    def _idle_s(self) -> float:
        """Return the seconds until there is something to do."""
        waits = [float(self.max_interval), max(self.lease.wait_s(), 0.05)]
        if self._outbox.has_unsent or self._outbox.is_away:
            waits.append(max(self._outbox.retry_s(), 0.01))
        wake = self._book.agenda.next_wake() if self._book else None
        if wake is not None and not self._outbox.is_away:
            waits.append(max(0.0, wake - self.now().timestamp()))
        if self._comparison is not None:
            waits.append(max(self._comparison.wait_s(), SLICE_PAUSE_S))
        return min(waits)

    def _standby_s(self) -> float:
        return max(self.lease.wait_s(), 0.05)

    # who leads

    def _leads(self) -> bool:
        """Tell whether this beat leads; renew the lease, or try to get it, if it is time to."""
        if self.lease.is_held():
            if self.lease.wait_s() <= 0:
                self.lease.renew()
            if self.lease.is_held():
                if self._book is None:
                    self._promote()
                return True
        if self._book is not None:
            self._demote(f"The lease {self.lease.name!r} ran out.")
        if self.lease.wait_s() > 0 or not self.lease.acquire():
            if not self._is_standing_by:
                self._is_standing_by = True
                leader = f"{self.lease.held_by} leads" if self.lease.held_by else "the lease can't be had now"
                logger.info("beat: standing by (lease %r): %s.", self.lease.name, leader)
            self._standby.tell()
            return False
        self._promote()
        return True

    def _promote(self) -> None:
        """Begin to lead: write the settings' entries, read all rows, and see to what another beat has left."""
        logger.info("beat: leading (lease %r, token %s).", self.lease.name, self.lease.token)
        if self._is_standing_by:
            self._is_standing_by = False
            self._standby.forget()
        self._outbox.try_at_once()
        self._outbox.flush()
        self.setup_schedule()
        now = self.now()
        seen = changes.read(self.alias)
        book = Book(self.alias, self._tasks, self.app.timezone, self._troubles)
        book.load(now, self._keep_lease)
        book.write_errors()
        changes.forget(self.alias, seen, self.lease)
        self._comparison = changes.Comparison(self.alias, conf.DJCELERY_BEAT_COMPARE_S, clock=self._clock)
        self._checked_mono, self._checked_at, self._has_notes = self._clock(), now, seen.has_more
        # The first purge comes a minute after the start, which has enough to do.
        self._purged_mono = self._checked_mono - PURGE_EVERY_S + FIRST_PURGE_S
        self._book = book
        self._dispatcher = Dispatcher(self.alias, book, self._claims, self._outbox)
        logger.debug("beat: %d entries, %d held out.", len(book.agenda.plans), len(book.troubles))

    def _keep_lease(self) -> None:
        if self.lease.wait_s() <= 0:
            self.lease.renew()
        if not self.lease.is_held():
            raise LeaseLost(f"The lease {self.lease.name!r} ran out while the schedule was read.")

    def _demote(self, why: str) -> None:
        """Stop leading; another beat may do so already."""
        if self._book is not None:
            logger.warning("beat: not leading any more, standing by. %s", why)
        self._book = None
        self._is_standing_by = True

    def _tasks(self) -> Any:
        return self.Model.objects.using(self.alias).filter(enabled=True)

    # what a leader does

    def _send(self, now: datetime) -> bool:
        """Send what is due; tell whether more is."""
        outbox, book = self._outbox, self._book
        assert book is not None
        waits = outbox.retry_s() > 0
        if outbox.is_away and (waits or not outbox.reach_broker()):
            return False
        if outbox.has_unsent and not waits:
            self._dispatcher.send_unsent(now)
        if outbox.is_away:
            return False
        self._dispatcher.send_due(now)
        wake = book.agenda.next_wake()
        return wake is not None and wake <= self.now().timestamp() and not outbox.is_away

    def _keep_up(self, now: datetime, is_busy: bool) -> bool:
        """Follow what has changed in the database; tell whether more is to be read."""
        book = self._book
        assert book is not None
        mono = self._clock()
        if not book.is_behind and (self._has_notes or mono - self._checked_mono >= CHECK_EVERY_S):
            mark = self._checked_at or now
            self._checked_mono = mono
            seen = changes.read(self.alias)
            book.follow(seen, mark)
            if self._is_told_of_changes():
                book.read_again(None, mark)
            self._catch_up(now)
            self._has_notes = changes.forget(self.alias, seen, self.lease) > 0 and seen.has_more
            # What the next page tells of may have happened since the look before.
            self._checked_at = mark if self._has_notes else now
        elif book.is_behind:
            self._catch_up(now)
        if self._comparison is not None and not book.is_behind and self._comparison.wait_s() <= 0:
            # Whoever wrote these rows by hand has not said since when they count.
            book.read_again(self._comparison.step(book.digests), now)
        elif not is_busy and mono - self._purged_mono >= PURGE_EVERY_S:
            # Many old runs go a part at a time, so that nothing due has to wait.
            deleted = self._claims.purge(conf.DJCELERY_RUN_HISTORY, PURGE_ROWS, PURGE_BATCHES)
            self._purged_mono = self._purged_mono if deleted >= PURGE_ROWS else mono
        return book.is_behind or self._has_notes

    def _catch_up(self, now: datetime) -> None:
        """Read again what is to be read again, until something is due."""
        book = self._book
        assert book is not None
        changed = 0
        while book.is_behind:
            changed += book.step(now)
            wake = book.agenda.next_wake()
            if self.lease.wait_s() <= 0 or (wake is not None and wake <= self.now().timestamp()):
                break
        if changed:
            logger.info("DatabaseScheduler: Schedule changed. %d entries were read again.", changed)

    def _is_told_of_changes(self) -> bool:
        """Ask ``schedule_changed()`` if a subclass has its own."""
        own = type(self).schedule_changed is not EntriesScheduler.schedule_changed
        return own and self.schedule_changed()

    def _watch_clock(self, now: datetime) -> None:
        """Tell of a clock that has jumped. What has fired doesn't fire again; what is missed goes by the policy."""
        mono = self._clock()
        if self._clocks is not None:
            before, before_mono = self._clocks
            jump = (now - before).total_seconds() - (mono - before_mono)
            if abs(jump) > JUMP_S:
                logger.warning("beat: the clock has jumped by %+.0f s.", jump)
        self._clocks = now, mono

    def _tell_plan(self, plan: Plan, problem: Exception | None) -> None:
        if self._book is not None and problem is not None:
            self._book.tell(plan.pk, plan.name, problem, what="can't be sent")
        elif self._book is not None:
            self._book.mended(plan.pk)

    def _note_database(self, exc: Error | None) -> None:
        """Log once that the database is away, and once that it is back."""
        if exc is not None:
            db.close_broken(connections[self.alias])
        text = None if exc is None else f"{type(exc).__name__}: {exc}"
        if text and not self._problem:
            logger.error("beat: the database gave an error; nothing is sent until it answers again. %s", text)
        elif self._problem and not text:
            logger.info("beat: the database answers again.")
        self._problem = text

    # sending

    @cached_property
    def connection(self) -> Any:
        """The connection to the broker; none of its calls lasts longer than a part of the lease."""
        limit_s = max(0.5, self.lease.length_s * BROKER_PART)
        connection = bounded(self.app, limit_s)
        if connection.transport.driver_type == "amqp":
            # Else a broker that dies takes with it what was sent last, and nobody knows.
            connection.transport_options.setdefault("confirm_publish", True)
        return connection

    def _ensure_connected(self) -> Any:
        # Celery's tries a hundred times; here the next tick tries again, and the lease is renewed in between.
        hosts = len(self.connection.alt or ())
        return self.connection.ensure_connection(max_retries=max(hosts - 1, 0), interval_start=0, interval_max=0)

    def due_entry(self, plan: Plan, run: Run) -> Any:
        """Return what ``apply_entry()`` is given for *run*.

        Database: none; one SELECT if a subclass has an ``Entry`` of its own, which is made from the row.
        """
        due = DueEntry(plan, run, self.app, self._settings_options.get(plan.name))
        if self.Entry is ModelEntry:
            return due
        entry: Any = self.Entry(due.model, app=self.app, options=self._settings_options.get(plan.name))
        headers = {**(entry.options.get("headers") or {}), **due.options["headers"]}
        entry.options = {**entry.options, "headers": headers, "task_id": run.task_id}
        entry.scheduled_at = run.scheduled_at
        return entry

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send the message of one due *entry*.

        Raises:
            Exception: It could not be sent; unlike in Celery this is not swallowed here.
        """
        logger.info("Scheduler: Sending due task %s (%s)", entry.name, entry.task)
        result = self.apply_async(entry, producer=producer, advance=False)
        logger.debug("%s sent. id->%s", entry.task, getattr(result, "id", None))

    def apply_async(self, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any) -> Any:
        """Send the message of *entry* and return its result; *advance* counts a run, as ``reserve()`` does."""
        if advance:
            entry = self.reserve(entry)
        args, arguments = list(entry.args or ()), dict(entry.kwargs or {})
        # The next tick tries again: a retry in here could outlast the lease.
        options = {"retry": False, **entry.options, **kwargs}
        options["headers"] = {**(options.get("headers") or {}), "celery_beat_task": True}
        task = self.app.tasks.get(entry.task)
        if task is not None:
            return task.apply_async(args, arguments, producer=producer, **options)
        return self.send_task(entry.task, args, arguments, producer=producer, **options)

    # the end

    def sync(self) -> None:
        """Write what is not written yet: which runs were sent. After a database error it is kept."""
        try:
            self._outbox.flush()
        except Error as exc:
            logger.error("Database error while sync: %r", exc, exc_info=True)
            db.close_broken(connections[self.alias])
        super().sync()

    def close(self) -> None:
        """Write what is not written yet, give up the lease, and close the connection to the broker.

        Celery calls it from its handler of SIGTERM, too, which may interrupt a tick that is writing to
        the broker or the database and holds their locks: to use them then would wait for ever. Beat
        leaves the tick and closes again at once, so the first call does nothing.
        """
        if self._is_ticking:
            return
        try:
            super().close()
        finally:
            self._book = None
            if self._is_standing_by:
                self._standby.forget()
            self.lease.release()
