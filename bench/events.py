"""Measure celerycam behind a real broker: events per second from the broker to committed rows on PostgreSQL.

Usage, from the root of the repository::

    python bench/events.py                                       RabbitMQ and Redis; about three minutes
    python bench/events.py --broker redis --tasks 100000 --per-message 24

*RabbitMQ*: the camera makes its queue and is stopped, the broker is filled, and the camera is started again: from its
connection until the last task is in the history, that is, what it catches up with.

*Redis* keeps nothing for a camera that is away, so messages are sent while it runs, never more than 30,000 events ahead
of what the history has counted: Redis cuts off a subscriber that is far behind. The sender shares the machine, too.

Each task has three events. A worker with little to do sends them alone, or three in a message; a busy one up to 24.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
URLS = {"rabbitmq": "amqp://guest:guest@127.0.0.1:5672//", "redis": "redis://127.0.0.1:6379/13"}
STEP_EVENTS = 1000
#: Seconds without progress after which what is missing is lost.
PATIENCE_S = 10.0


def make_app(url: str) -> Any:
    from celery import Celery

    app = Celery("bench", broker=url)
    # Its own exchange: workers of somebody else are not measured.
    app.conf.update(event_exchange="djcelery_bench", event_queue_prefix="djcelery_bench")
    return app


def camera(url: str) -> None:
    """Run celerycam until SIGTERM."""
    import django

    django.setup()
    from djcelery.snapshot.program import Program

    Program(make_app(url), "bench", 1.0).run()


class Run:
    """One broker, and one size of messages."""

    def __init__(self, broker: str, tasks: int, per_message: int) -> None:
        self.broker, self.tasks, self.per_message = broker, tasks, per_message
        self.app = make_app(URLS[broker])
        self.process: subprocess.Popen | None = None

    def bodies(self) -> list[list[dict[str, Any]]]:
        from camera import Feed, new_ids

        feed = Feed()
        events = [event for n, i in enumerate(new_ids(self.tasks)) for event in feed.life(n, i)]
        return [events[start : start + self.per_message] for start in range(0, len(events), self.per_message)]

    def start(self) -> None:
        before = self.started_at()
        self.process = subprocess.Popen([sys.executable, __file__, "--camera", URLS[self.broker]])
        while self.started_at() == before:
            assert self.process.poll() is None, "the camera has ended"
            time.sleep(0.02)

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    @staticmethod
    def started_at() -> Any:
        from djcelery.models import CameraState

        return CameraState.objects.values_list("started_at", flat=True).first()

    @staticmethod
    def counted() -> int:
        """Return how many tasks the history has seen end."""
        from django.db.models import Sum

        from djcelery.models import TaskHistory

        rows = TaskHistory.objects.filter(period="total", state="SUCCESS")
        return rows.aggregate(sum=Sum("count"))["sum"] or 0

    def wait(self) -> None:
        last, since = self.counted(), time.monotonic()
        while last < self.tasks and time.monotonic() < since + PATIENCE_S:
            time.sleep(0.02)
            now = self.counted()
            if now != last:
                last, since = now, time.monotonic()

    def from_queue(self, bodies: list[list[dict[str, Any]]]) -> float:
        self.start()
        self.stop()
        self.send(bodies, ahead=10**9)
        self.start()
        began = time.perf_counter()
        self.wait()
        return time.perf_counter() - began

    def at_once(self, bodies: list[list[dict[str, Any]]]) -> float:
        self.start()
        # The row is written at the first shutter; the subscription is there a moment before or after.
        time.sleep(1.0)
        began = time.perf_counter()
        self.send(bodies, ahead=30_000)
        self.wait()
        return time.perf_counter() - began

    def send(self, bodies: list[list[dict[str, Any]]], ahead: int) -> None:
        """Publish all of *bodies*; never more than so many events beyond what is in the history."""
        from celery.events.event import get_exchange

        with self.app.connection_for_write() as connection:
            exchange = get_exchange(connection, name=self.app.conf.event_exchange)
            producer = connection.Producer(exchange=exchange, serializer="json", auto_declare=True)
            sent = counted = 0
            for body in bodies:
                producer.publish(body, routing_key="task.multi", delivery_mode=1)
                sent += len(body)
                if ahead < 10**9 and sent % STEP_EVENTS < len(body):
                    while sent - counted > ahead:
                        counted = 3 * self.counted()
                        if sent - counted > ahead:
                            time.sleep(0.01)

    def measure(self) -> None:
        from djcelery.models import CameraState

        bodies = self.bodies()
        try:
            took = (self.from_queue if self.broker == "rabbitmq" else self.at_once)(bodies)
        finally:
            self.stop()
            self.forget()
        state = CameraState.objects.get()
        print(
            f"{self.broker:<9} {self.per_message:>2} a message: {3 * self.tasks / took:>7,.0f} events/s; "
            f"{self.tasks:,} tasks sent, {self.counted():,} in the history; malformed {state.malformed}, "
            f"dropped {state.dropped}, missed {state.missed}",
            flush=True,
        )

    def forget(self) -> None:
        if self.broker == "rabbitmq":
            with self.app.connection_for_write() as connection:
                connection.default_channel.queue_delete("djcelery_bench.djcelery.bench")


def child(*line: str) -> None:
    """Run this script in a process of its own, in a database of PostgreSQL that is dropped afterwards."""
    from tests.migrations import databases

    with tempfile.TemporaryDirectory() as folder, databases.new_database("postgresql", Path(folder)) as database:
        env = {**os.environ, "DATABASE_URL": database.url, "PYTHONPATH": f"{ROOT}:{ROOT / 'bench'}"}
        subprocess.run([sys.executable, __file__, "--measure", *line], env=env, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--broker", nargs="+", choices=tuple(URLS), default=tuple(URLS))
    parser.add_argument("--per-message", nargs="+", type=int, default=[1, 3, 24])
    parser.add_argument("--tasks", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--camera", help=argparse.SUPPRESS)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    if options.camera:
        camera(options.camera)
        return
    if options.measure:
        from camera import prepare

        prepare()
        Run(options.broker[0], options.tasks, options.per_message[0]).measure()
        return
    import django

    django.setup()
    print(f"load of the machine before: {statistics.mean(os.getloadavg()[:2]):.1f}", flush=True)
    for broker in options.broker:
        for size in options.per_message:
            for _ in range(options.rounds):
                child("--broker", broker, "--per-message", str(size), "--tasks", str(options.tasks))


if __name__ == "__main__":
    main()
