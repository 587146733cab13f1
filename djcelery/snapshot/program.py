"""``celerycam``: the receiver in the main thread, and a thread that writes what it has received.

Called by the command. The two meet in ``Dirty``: the receiver is never held up by the database, and what can't be
written stays where it is, at most in the broker.
Next: ``docs/explain/receiving-events.rst``.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import Any

from celery import states
from celery.utils.nodenames import gethostname, host_format, nodename
from celery.utils.time import rate
from django.db import Error, connections
from kombu.utils.limits import TokenBucket

from djcelery import db, utils
from djcelery.conf import conf
from djcelery.exceptions import CameraError
from djcelery.snapshot import intake
from djcelery.snapshot.dirty import MAX_WORKERS, Dirty
from djcelery.snapshot.missed import Account, Known, Missed
from djcelery.snapshot.news import Malformed, WorkerNews
from djcelery.snapshot.receiver import Receiver
from djcelery.snapshot.switch import Switch
from djcelery.snapshot.upkeep import Upkeep
from djcelery.snapshot.writer import Writer

__all__ = ("Program", "node_name")

logger = logging.getLogger(__name__)

#: Tasks that are taken at a time; the writer makes transactions of 1,000 of them.
TAKE_ROWS = 5000
#: So many waiting tasks are written before the time has come, but never sooner than after the pause.
MANY_ROWS, SHORTEST_PAUSE_S = 1000, 0.1
#: Most seconds between two tries to write while the database is away: 1, 2, 4, …
LONGEST_PAUSE_S = 10.0
#: Seconds for which the last shutter is tried.
LAST_TRIES_S = 10.0
#: Workers that were not heard of for so long are counted from their first heartbeat when they return.
_FORGET_WORKER_S = 86400.0
_MOST_RUNNING = 10_000
_MOST_NAME_CHARACTERS = 200
#: Errors of the database that are logged until it is back.
_MOST_TROUBLES = 5
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def node_name(name: str | None) -> str:
    """Return the node name of a camera that was called *name*; ``%h``, ``%n`` and ``%d`` are of the host.

    Raises:
        CameraError: It is empty, or too long for the name of a queue.
    """
    found = nodename("celerycam", gethostname()) if name is None else host_format(name)
    if not 0 < len(found.encode()) <= _MOST_NAME_CHARACTERS:
        raise CameraError(f"--name={name}: use 1 to {_MOST_NAME_CHARACTERS} characters.")
    return found


class Program:
    """One run of ``celerycam``.

    Args:
        app: The Celery app.
        name: The camera's node name. It stays the same over restarts, and is no other camera's.
        frequency_s: Seconds between two shutters.
        maxrate: Most shutters per time, such as ``"10/m"``; None: no limit.
        enable_events: Whether workers are told to send events.

    Raises:
        SettingError: A setting of the camera can't be used.
    """

    def __init__(
        self, app: Any, name: str, frequency_s: float = 1.0, maxrate: str | None = None, enable_events: bool = False
    ):
        self.name, self.frequency_s = name, frequency_s
        self.bucket = TokenBucket(rate(maxrate)) if maxrate else None
        self.dirty = Dirty(conf.DJCELERY_CAMERA_MAX_ROWS)
        self.missed = Missed()
        self.writer = Writer(name, frequency_s, app)
        self.upkeep = Upkeep()
        self.receiver = Receiver(
            app,
            name,
            ttl_s=conf.DJCELERY_CAMERA_QUEUE_TTL_S,
            max_rows=conf.DJCELERY_CAMERA_MAX_ROWS,
            take=self._take,
            refuse=self._refuse,
            returned=self._returned,
            should_stop=lambda: self._should_stop,
        )
        self.switch = Switch(app) if enable_events else None
        self._thread = threading.Thread(target=self._write_until_the_end, name="celerycam writer")
        # Flags, not events: a signal may come while the main thread holds an event's lock.
        self._should_stop = self._had_gap = False
        self._event_at_s: float | None = None
        self._hurry, self._is_last = threading.Event(), threading.Event()
        self._failure: BaseException | None = None
        # What was wrong with the database since it was written last, and when that began.
        self._troubles: set[str] = set()
        self._trouble_mono = 0.0
        self._lost = 0

    def run(self) -> None:
        """Receive and write until a signal comes, and then write the rest.

        SIGTERM or SIGINT end it; the second one at once.

        Raises:
            CameraError: It can't begin, can't go on, or could not write the rest, which is lost.

        Database: see ``Writer``; two SELECTs of workers and running tasks before.
        """
        self._load_workers()
        logger.info("Camera %s: its queue is %s.", self.name, self.receiver.queue_name)
        with self._signals():
            self._thread.start()
            try:
                self.receiver.run()
            finally:
                self._is_last.set()
                self._hurry.set()
                while self._thread.is_alive():
                    self._thread.join(0.1)
                    self.receiver.keep_alive()
                self.receiver.close()
        if self._failure is not None:
            raise self._failure
        if self._lost:
            raise CameraError(f"The database could not be written; what was known of {self._lost} tasks is lost.")
        logger.info("Camera %s has stopped.", self.name)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def stop(number: int, frame: FrameType | None) -> None:
            self._should_stop = True
            # The second one ends the process as if there were nobody to handle it.
            signal.signal(number, signal.SIG_DFL)

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, stop) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _load_workers(self) -> None:
        """Let the count of missed tasks go on where the camera stopped."""
        try:
            self.missed = Missed(known_workers(self.writer.alias))
        except Error as exc:
            if not db.is_transient(exc):
                raise CameraError(f"The monitor's tables can't be read: {exc}. Run manage.py migrate.") from exc
            logger.error("The database can't be read: %s. Missed tasks are counted from now on.", exc)
        finally:
            connections.close_all()

    # in the receiver's thread

    def _take(self, body: Any, received_at_s: float) -> None:
        self._event_at_s = received_at_s
        for event in body if isinstance(body, list) else (body,):
            try:
                news = intake.read(event, received_at_s)
                self.missed.event(event, received_at_s)
            except Exception:
                # One event must not stop the others, whatever it has found in the code.
                logger.exception("An event can't be taken apart; it is left out.")
                news = Malformed("error in the camera", repr(event)[:2000], received_at_s)
            if self.switch is not None and isinstance(news, WorkerNews):
                self.switch.saw(news)
            self.dirty.add(news)
        if self.dirty.waiting >= MANY_ROWS or self.receiver.is_half_full:
            self._hurry.set()

    def _refuse(self, reason: str, body: str, received_at_s: float) -> None:
        self._event_at_s = received_at_s
        self.dirty.add(Malformed(reason, body[:2000], received_at_s))

    def _returned(self) -> None:
        self._had_gap = True

    # in the thread that writes

    def _write_until_the_end(self) -> None:
        try:
            pause_s = 0.0
            while not self._is_last.is_set():
                self._wait(pause_s)
                if self._is_last.is_set() or (self.bucket is not None and not self.bucket.can_consume()):
                    continue
                if self._shutter():
                    pause_s = 0.0
                    self._between_shutters()
                else:
                    pause_s = min(LONGEST_PAUSE_S, 2 * pause_s or 1.0)
            self._last_shutter()
        except BaseException as exc:  # noqa: BLE001 - the main thread raises it
            self._failure = exc
            self._should_stop = True
        finally:
            connections.close_all()

    def _wait(self, pause_s: float) -> None:
        """Wait for the time of the next shutter: *pause_s* if it can't be written now."""
        if pause_s:
            self._is_last.wait(pause_s)
            return
        self._is_last.wait(min(SHORTEST_PAUSE_S, self.frequency_s))
        self._hurry.wait(max(0.0, self.frequency_s - SHORTEST_PAUSE_S))
        if not self._is_last.is_set():
            self._hurry.clear()

    def _shutter(self) -> bool:
        """Write what has come until now; return whether that worked."""
        if self._had_gap:
            self._had_gap = False
            self.upkeep.note_gap()
        # In this order: what came up to the mark is then among those that wait.
        mark, waiting = self.receiver.mark(), self.dirty.waiting
        try:
            self._write(waiting)
        except Error as exc:
            self._is_away(exc)
            return False
        self.receiver.committed(mark)
        self._is_back()
        return True

    def _between_shutters(self) -> None:
        self.upkeep.step()
        if self.switch is not None:
            self.switch.step()
        self.missed.forget(time.time() - _FORGET_WORKER_S)

    def _write(self, waiting: int) -> None:
        """Write the first *waiting* tasks, and all else that waits.

        Raises:
            django.db.Error: Nothing of it may be acknowledged; it waits again.
        """
        is_more = True
        while is_more:
            batch = self.dirty.take(TAKE_ROWS)
            waiting -= len(batch.tasks)
            is_more = waiting > 0 and bool(batch.tasks)
            accounts = self.missed.take()
            self._add_accounts(batch.workers, accounts)
            self._note()
            try:
                self.writer.write(batch)
            except Error:
                self.dirty.give_back(batch)
                self.missed.give_back(accounts)
                raise

    @staticmethod
    def _add_accounts(workers: list[WorkerNews], accounts: dict[str, Account]) -> None:
        for news in workers:
            account = accounts.get(news.hostname)
            if account is not None:
                news.seen, news.missed = account.seen, account.missed

    def _note(self) -> None:
        counts = self.dirty.counts
        self.writer.note(
            events=counts.events,
            malformed=counts.malformed,
            dropped=counts.dropped,
            missed=self.missed.total,
            waiting=self.dirty.waiting,
            event_at_s=self._event_at_s,
            error=self.receiver.trouble,
        )

    def _is_away(self, exc: Error) -> None:
        """Say what is wrong with the database, each thing once."""
        for connection in connections.all(initialized_only=True):
            db.close_broken(connection)
        if not self._troubles:
            self._trouble_mono = time.monotonic()
        if str(exc) not in self._troubles and len(self._troubles) < _MOST_TROUBLES:
            self._troubles.add(str(exc))
            kept = "what comes is kept, and the broker's messages are not acknowledged"
            if not self.receiver.acknowledges:
                kept = f"of up to {conf.DJCELERY_CAMERA_MAX_ROWS} tasks it is kept what comes"
            logger.error("The database can't be written: %s. Trying again, for ever; %s.", exc, kept)

    def _is_back(self) -> None:
        if self._troubles:
            logger.warning("The database is written again after %.0f s.", time.monotonic() - self._trouble_mono)
            self._troubles.clear()
            self.upkeep.note_gap()

    def _last_shutter(self) -> None:
        until_mono = time.monotonic() + LAST_TRIES_S
        while not self._shutter():
            if time.monotonic() > until_mono:
                if self.receiver.acknowledges:
                    logger.error("What waits can't be written. The broker delivers its events to the next camera.")
                else:
                    self._lost = self.dirty.waiting
                return
            time.sleep(0.5)
        self.writer.stop()


def known_workers(alias: str) -> dict[str, Known]:
    """Return what the tables in database *alias* say of the workers that were heard of lately.

    Database: two SELECTs.
    """
    # Models are there only after Django's setup, and this module may be imported before.
    from djcelery.models import TaskState, WorkerState

    since = utils.now() - timedelta(seconds=_FORGET_WORKER_S)
    workers = WorkerState.objects.using(alias).filter(last_heartbeat__gte=since, seen__isnull=False)
    tasks = TaskState.objects.using(alias).filter(state=states.STARTED, worker__in=workers)
    running: dict[str, list[str]] = {}
    latest = workers.order_by("-last_heartbeat")[:MAX_WORKERS]
    for hostname, task_id in tasks.values_list("worker__hostname", "task_id").order_by()[:_MOST_RUNNING]:
        running.setdefault(hostname, []).append(task_id)
    return {
        hostname: Known(Account(pid, seen, missed or 0), processed or 0, tuple(running.get(hostname, ())))
        for hostname, pid, processed, seen, missed in latest.values_list(
            "hostname", "pid", "processed", "seen", "missed"
        )
    }
